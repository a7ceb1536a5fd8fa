"""What a page is made of. All texts are plain: the templates escape them."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal

from markupsafe import Markup

from softlabels.reports.page import charts

Cell = str | int | float | None


class Block:
    """A part of a section.

    template: in `templates/blocks/`; it gets the block as `block`.
    scripts: in `templates/`, which the block needs; each is in the page once.
    """

    template: ClassVar[str]
    scripts: ClassVar[tuple[str, ...]] = ()


@dataclass(frozen=True)
class Text(Block):
    """A paragraph."""

    text: str
    template = "text.html"


@dataclass(frozen=True)
class Remark(Block):
    """What a reader must not miss; a warning where numbers may mislead."""

    text: str
    kind: Literal["note", "warning"] = "note"
    template = "remark.html"


@dataclass(frozen=True)
class Command(Block):
    """Lines to copy: a command, or code."""

    text: str
    template = "command.html"


@dataclass(frozen=True)
class Facts(Block):
    """Names and their values, such as those of `info`."""

    facts: Mapping[str, str]
    template = "facts.html"


@dataclass(frozen=True)
class Table(Block):
    """caption: what the table holds, in words.

    rows: cells are text as it is shown, or numbers, of which floats get four significant digits;
        None is a dash.
    numbers: the columns that are aligned to the right, by place.
    folded: closed until the reader opens it by the caption.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    numbers: Sequence[int] = ()
    folded: bool = False
    template = "table.html"

    @property
    def cells(self) -> list[list[str]]:
        return [[cell_text(cell) for cell in row] for row in self.rows]


@dataclass(frozen=True)
class Heat(Block):
    """A matrix as a table whose cells are the darker the larger they are.

    values: [rows][columns], 0 or more; the largest that is `scored` has the darkest cell.
    diagonal: whether the cells on the diagonal count; where not, they are empty, and so the others
        can be told from each other though those are far larger.
    corner: what rows and columns are, such as `label ↓ top class →`; on narrow screens it is part
        of the caption.
    whole_names: those of the rows where `row_names` are shortened, to read under the pointer.
    """

    caption: str
    corner: str
    row_names: Sequence[str]
    column_names: Sequence[str]
    values: Sequence[Sequence[float]]
    texts: Sequence[Sequence[str]]
    diagonal: bool = True
    folded: bool = False
    whole_names: Sequence[str] = ()
    template = "heat.html"

    def whole(self, place: int) -> str:
        """What a pointer over the name of a row shows; empty where that is the name itself."""
        names = self.whole_names
        return names[place] if names and names[place] != self.row_names[place] else ""

    def is_scored(self, row: int, column: int) -> bool:
        return self.diagonal or row != column

    @property
    def lines(self) -> list[tuple[str, list[tuple[float, str]]]]:
        """Of each row its name, and of each of its cells the share of the darkest and the text."""
        cells = [
            [value if self.is_scored(i, j) else 0.0 for j, value in enumerate(row)]
            for i, row in enumerate(self.values)
        ]
        most = max((value for row in cells for value in row), default=0.0) or 1.0
        return [
            (
                name,
                [
                    (round(value / most, 3), text if self.is_scored(i, j) else "")
                    for j, (value, text) in enumerate(zip(row, texts, strict=True))
                ],
            )
            for i, (name, row, texts) in enumerate(
                zip(self.row_names, cells, self.texts, strict=True)
            )
        ]


@dataclass(frozen=True)
class Chart(Block):
    """A figure that matplotlib draws, once for wide screens and once for narrow ones.

    title: shown above it; description: what it shows, for those who can't see it.
    draw: gets an empty figure of matplotlib's, whose width in inches is `charts.NARROW` or
        `charts.WIDE`, and colours by their names in `charts`.
    numbers: the same as a table, which is there for all.
    caption: a sentence below it.
    height: in pixels.
    """

    title: str
    description: str
    draw: Callable[[Any], None]
    numbers: Table | None = None
    caption: str = ""
    height: int = 300
    template = "chart.html"

    @cached_property
    def name(self) -> str:
        """For ids within the page."""
        return slug(self.title)

    @property
    def pictures(self) -> list[tuple[str, Markup]]:
        """The same chart by the screens it is for. Raises MissingExtra without matplotlib."""
        sizes = {"wide": charts.WIDE, "narrow": charts.NARROW}
        return [
            (size, charts.svg(self.draw, width, self.height / charts.UNITS, self.title,
                              self.description, f"{self.name}-{size}"))
            for size, width in sizes.items()
        ]  # fmt: skip


@dataclass(frozen=True)
class Section:
    """A part of the page, with a place in the table of contents by its title."""

    title: str
    blocks: Sequence[Block]

    @property
    def name(self) -> str:
        return slug(self.title)


@dataclass(frozen=True)
class Tile:
    """A number that the page is opened for, with what it is; note: what it is measured on."""

    value: str
    label: str
    note: str = ""


@dataclass(frozen=True)
class Page:
    """kind: what it is about, such as `Dump`; lead: one or two sentences below the title; foot: the
    last line of the page."""

    kind: str
    title: str
    lead: str
    sections: Sequence[Section]
    tiles: Sequence[Tile] = ()
    remarks: Sequence[Remark] = field(default=())
    foot: str = ""

    @property
    def scripts(self) -> list[str]:
        """Those of all blocks, each once."""
        blocks = [block for section in self.sections for block in section.blocks]
        return list(dict.fromkeys(name for block in blocks for name in block.scripts))


def cell_text(cell: Cell) -> str:
    if cell is None:
        return "–"
    if isinstance(cell, float):
        return f"{cell:.4g}"
    return f"{cell:,}" if isinstance(cell, int) else cell


def slug(text: str) -> str:
    """An id of a title: titles are ours, and differ in their letters within a page."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
