"""Rows with the soft targets of two models side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from softlabels.reports.page.blocks import Block


@dataclass(frozen=True)
class PairedClass:
    """A class of a row: its name, whether it is a label of the row, and at each temperature its
    probability by the first model and by the second."""

    name: str
    is_label: bool
    probabilities: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class PairedRow:
    """A row. title: such as its id; facts: its label, its KL; lines: its input, where that is text
    or numbers; picture: as a data URI, where it is one; is_small: a picture of few pixels, which
    are shown as squares."""

    title: str
    facts: Sequence[str]
    classes: Sequence[PairedClass]
    lines: Sequence[str] = ()
    picture: str | None = None
    is_small: bool = False


@dataclass(frozen=True)
class PairedRows(Block):
    """names: of both models; temperatures: at which each row is shown, `T = 1`."""

    names: tuple[str, str]
    temperatures: Sequence[str]
    rows: Sequence[PairedRow]
    template: ClassVar[str] = "paired_rows.html"
