"""Charts as SVG: drawn by matplotlib, coloured by the page.

A style sheet can't reach into matplotlib, so a chart is drawn in colours that stand for names; in
the SVG each becomes a variable of the page's style sheet, which has one value for light and one for
dark. The same numbers give the same bytes.
"""

import io
import re
import warnings
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

from markupsafe import Markup

from softlabels.system.extras import need

UNITS = 72  # of an SVG of matplotlib's, to an inch; one is a pixel where nothing is scaled
WIDE, NARROW = 760 / UNITS, 336 / UNITS  # inches

# placeholders: no one draws in these by chance. matplotlib writes colours with lower-case digits
INK, MUTED, LINE, SURFACE = "#01f0a1", "#01f0a2", "#01f0a3", "#01f0a4"
SERIES = tuple(f"#01f0b{place}" for place in range(6))
VARIABLES = {
    INK: "--ink", MUTED: "--muted", LINE: "--line", SURFACE: "--surface",
    **{colour: f"--series-{place}" for place, colour in enumerate(SERIES)},
}  # fmt: skip
SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"


def svg(
    draw: Callable[[Any], None],
    width: float,
    height: float,
    title: str,
    description: str,
    name: str,
) -> Markup:
    """What `draw` makes of a figure of so many inches, as an element for a page.

    name: an id of this picture within its page. Raises MissingExtra without matplotlib.
    """
    matplotlib = need("matplotlib", "plot", "a page with charts")
    figures = need("matplotlib.figure", "plot", "a page with charts")
    file = io.BytesIO()
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()  # whatever a user has set, a page looks the same
        matplotlib.rcParams.update(_style(name))
        # the page's fonts draw the text, so a letter that matplotlib's own lacks is none the worse
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = figures.Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return _as_element(file.getvalue(), title, description, name)


def is_narrow(figure: Any) -> bool:
    """Whether a figure that `draw` gets is for a narrow screen."""
    return bool(figure.get_figwidth() < WIDE)


def legend_above(axes: Any, columns: int = 2) -> None:
    """The legend of these axes above them, where it hides nothing that is drawn."""
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, borderaxespad=0.2,
        columnspacing=1.2,
    )  # fmt: skip


def _style(name: str) -> dict[str, Any]:
    """Settings of matplotlib's."""
    cycler = need("cycler", "plot", "a page with charts").cycler
    return {
        "svg.fonttype": "none",
        "svg.hashsalt": name,  # ids of clips and markers are unique in the page
        "text.parse_math": False,  # the name of a class may have two dollars
        "font.family": "sans-serif",
        "font.size": 12,
        "axes.titlesize": 12,
        "axes.titlecolor": INK,
        "axes.labelcolor": MUTED,
        "axes.edgecolor": LINE,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.prop_cycle": cycler(color=SERIES),
        "axes.unicode_minus": True,
        "grid.color": LINE,
        "grid.linewidth": 0.8,
        "lines.linewidth": 2,
        "text.color": INK,
        "xtick.color": LINE,
        "ytick.color": LINE,
        "xtick.labelcolor": MUTED,
        "ytick.labelcolor": MUTED,
        "legend.frameon": False,
        "legend.labelcolor": INK,
        "hatch.color": MUTED,
    }


def _as_element(drawn: bytes, title: str, description: str, name: str) -> Markup:
    """matplotlib's file as an element of an HTML page: with a title and a description, without
    sizes, ids that nothing refers to, and rules that would hold for the whole page."""
    for prefix, space in (("", SVG), ("xlink", XLINK)):
        ElementTree.register_namespace(prefix, space)
    root = ElementTree.fromstring(drawn)
    used = set(re.findall(rb"#([\w-]+)", drawn))
    for parent in list(root.iter()):
        if parent.get("id", "").encode() not in used:
            parent.attrib.pop("id", None)
        for child in list(parent):
            is_empty = child.tag == f"{{{SVG}}}defs" and len(child) == 0
            if child.tag in (f"{{{SVG}}}metadata", f"{{{SVG}}}style") or is_empty:
                parent.remove(child)
    for attribute in ("width", "height", "version"):
        root.attrib.pop(attribute, None)
    alternatives = {"title": title, "desc": description}
    root.set("role", "img")
    root.set("aria-labelledby", f"{name}-title")
    root.set("aria-describedby", f"{name}-desc")
    for place, (tag, text) in enumerate(alternatives.items()):
        element = ElementTree.Element(f"{{{SVG}}}{tag}", {"id": f"{name}-{tag}"})
        element.text = text
        root.insert(place, element)
    text = ElementTree.tostring(root, encoding="unicode")
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    return Markup(text)
