"""The pictures of a card, as PNG: the same bytes for the same numbers. C classes."""

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from softlabels.measures import BINS, PARTS
from softlabels.reports.confusions import AT_ONE, SOFT, Confusions
from softlabels.reports.families import Families
from softlabels.reports.survey import PAIRS, Survey
from softlabels.system.extras import need
from softlabels.system.humanize import short

PICTURE, CLASSES_PICTURE = "softlabels.png", "softlabels-classes.png"
BLUE, GREY, INK = "#2f6f9f", "#9aa5ad", "#1f2a33"
NAMED = 30  # classes whose names fit beside a matrix
BESIDE, IN_PAIR = 10, 22  # letters of a name, beside a matrix and in a pair
BEYOND = "class {}"  # a class whose name has letters that matplotlib's font lacks


def pictures_of(survey: Survey, names: Sequence[str]) -> dict[str, tuple[str, bytes]]:
    """The pictures by the names of their files, each with words that stand for it.

    names: of all classes. Raises MissingExtra without matplotlib or scipy.
    """
    pictures = {
        PICTURE: ("Calibration of the teacher, and softness of its targets", draw(survey)),
    }
    if survey.confusions is not None and survey.confusions.pairs(1):
        alt_text = (
            "Which classes the soft targets confuse: all as a matrix, similar classes side by "
            "side, and the most confused pairs, which are also in a table below"
        )
        pictures[CLASSES_PICTURE] = alt_text, draw_classes(survey.confusions, names)
    return pictures


def draw(survey: Survey) -> bytes:
    """Calibration of the teacher, softness of its targets. Raises MissingExtra without
    matplotlib."""
    return _png(lambda figure: _draw_survey(figure, survey), (9, 3.4), layout="constrained")


def _draw_survey(figure: Any, survey: Survey) -> None:
    left, right = figure.subplots(1, 2)
    centers = (np.arange(BINS) + 0.5) / BINS
    counts, hits = (sums.numpy() for sums in (survey.calibration.counts, survey.calibration.hits))
    full = counts > 0
    accuracy = hits[full] / counts[full]
    right_share = "accuracy" if survey.labels is None else "share of labels that are there"
    left.bar(centers[full], accuracy, 0.9 / BINS, color=BLUE, label=right_share)
    left.plot([0, 1], [0, 1], color=GREY, linestyle="--", label="confidence")
    left.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence at T = 1", ylabel=right_share,
             title="Calibration of the teacher")  # fmt: skip
    if full.any():
        left.legend(frameon=False)
    else:
        left.text(0.5, 0.5, "no labels", ha="center", va="center", color=GREY)
    nats = (np.arange(PARTS) + 0.5) / PARTS * survey.most
    for shade, (T, softness) in zip((1.0, 0.6, 0.3), survey.softness.items(), strict=True):
        counts = softness.counts.numpy()
        share = counts / max(counts.sum(), 1)
        right.step(nats, share, where="mid", color=BLUE, alpha=shade, label=f"T = {T:g}")
        right.fill_between(nats, share, step="mid", color=BLUE, alpha=0.15 * shade)
    right.set(xlim=(0, survey.most or 1), ylim=(0, None),
              xlabel="entropy of a soft target, nats", ylabel="share of the rows",
              title="Softness of the targets")  # fmt: skip
    right.legend(frameon=False)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)


def draw_classes(confusions: Confusions, names: Sequence[str]) -> bytes:
    """The mean soft target of each class, similar classes side by side, and the pairs that are most
    confused. Places are fixed, so it is as readable for 1,000 classes as for ten.

    names: of all classes. Raises MissingExtra without matplotlib and scipy.
    """
    order = Families.of(confusions).order
    return _png(lambda figure: _draw_classes(figure, confusions, names, order), (9, 4.6))


def _draw_classes(
    figure: Any, confusions: Confusions, names: Sequence[str], order: Sequence[int]
) -> None:
    def drawn(number: int, most: int) -> str:
        return _drawable(names[number], number, most)

    has_names = len(order) <= NAMED
    left = figure.add_axes((0.12, 0.21, 0.36, 0.68) if has_names else (0.04, 0.06, 0.44, 0.83))
    mean_CC = confusions.mean(SOFT)[np.ix_(order, order)]
    np.fill_diagonal(mean_CC, 0)
    most = float(mean_CC.max()) or 1.0
    # the root of a probability: pairs that are a tenth as probable as the first are seen, too
    left.imshow(np.sqrt(mean_CC), cmap="Blues", vmin=0, vmax=most**0.5, aspect="auto")
    numbers = range(len(order)) if has_names else ()
    ticks = [drawn(number, BESIDE) for number in order] if has_names else []
    left.set_xticks(numbers, ticks, rotation=90, fontsize=8)
    left.set_yticks(numbers, ticks, fontsize=8)
    left.tick_params(length=0)
    left.spines[:].set_color(GREY)
    title = f"Mean soft target of each {confusions.by}, T = {SOFT:g}"
    across = f"{len(order):,} classes, similar ones side by side; darkest {most:.1%}"
    left.set_title(f"{title}\n{across}", fontsize=9, loc="left")
    right = figure.add_axes((0.54, 0.04, 0.44, 0.85))
    pairs = confusions.pairs(PAIRS)
    longest = max((pair.probability for pair in pairs), default=1.0)
    for place, pair in enumerate(pairs):
        right.barh(place, pair.probability / longest, 0.34, color=BLUE)
        both = [drawn(number, IN_PAIR) for number in (pair.first, pair.second)]
        text = f"{pair.probability:.2%}  {' and '.join(both)}"
        right.text(0, place - 0.26, text, fontsize=8.5, va="bottom", color=INK, clip_on=True)
    right.set(xlim=(0, 1), ylim=(PAIRS - 0.7, -0.8), xticks=[], yticks=[])
    right.spines[:].set_visible(False)
    right.set_title(f"Most confused pairs, T = {AT_ONE:g}", fontsize=9, loc="left")


def _drawable(name: str, number: int, most: int) -> str:
    """A name as far as the font of a picture can write it."""
    fonts = need("matplotlib.font_manager", "plot", "the card's picture")
    font = fonts.get_font(fonts.findfont("DejaVu Sans"))  # matplotlib brings it
    text = short(name, most)
    if not text.strip() or not all(font.get_char_index(ord(letter)) for letter in text):
        return BEYOND.format(number)
    return text


def _png(
    fill: Callable[[Any], None], size: tuple[float, float], layout: str | None = None
) -> bytes:
    """On white, whatever a user has set of matplotlib. size: in inches"""
    matplotlib = need("matplotlib", "plot", "the card's picture")
    figures = need("matplotlib.figure", "plot", "the card's picture")
    file = io.BytesIO()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams["text.parse_math"] = False  # a name may have two dollars
        figure = figures.Figure(figsize=size, layout=layout)
        fill(figure)
        figure.savefig(file, format="png", dpi=110)
    return file.getvalue()
