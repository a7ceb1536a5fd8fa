"""Rows with their soft targets under a slider over T: the page holds raw logits, and its script
makes of them what `temper` would. K values of a row."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from softlabels.reports.page.blocks import Block
from softlabels.soft_targets import Link

START = 4.0  # where the slider is at first: at 1 most rows show their top class alone
TEMPERATURES = (
    0.5, 0.7, 1, 1.5, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 25, 30, 40, 60, 100,
)  # fmt: skip


@dataclass(frozen=True)
class SoftRow:
    """A row of a dump.

    title: such as its id; facts: its label, what the teacher takes it for.
    lines: its input, where that is text or numbers; picture: as a data URI, where it is one;
        is_small: a picture of few pixels, which are shown as squares.
    classes: names of the classes that are shown, whether each is a label of the row, and its
        probability at the temperature at first.
    rest: the probability of all others, their sum: 1 less that of the classes has no digits left
        where it is small.
    values: float32 [K], raw logits: of the classes that are shown, in their order, then of others.
    counts: for how many classes each value stands, int64 [K]; None where each is one.
    """

    title: str
    facts: Sequence[str]
    classes: Sequence[tuple[str, bool, float]]
    rest: float
    values: np.ndarray
    counts: np.ndarray | None = None
    lines: Sequence[str] = ()
    picture: str | None = None
    is_small: bool = False

    @property
    def others(self) -> int:
        """How many classes there are that are not shown."""
        every = len(self.values) if self.counts is None else int(self.counts.sum())
        return every - len(self.classes)

    @property
    def embedded(self) -> dict[str, Any]:
        value = {"logits": base64.b64encode(self.values.astype("<f4").tobytes()).decode()}
        return value if self.counts is None else value | {"counts": self.counts.tolist()}


@dataclass(frozen=True)
class Group:
    """Some of the rows of a block under a heading, by their places in it."""

    title: str
    text: str
    rows: Sequence[int]


@dataclass(frozen=True)
class SoftRows(Block):
    """Rows in groups, under one slider. One in a page.

    is_exact: whether raw logits are there, so that there is a slider; with it the probabilities are
        at first those at T = 4, without it those at T = 1.
    """

    rows: Sequence[SoftRow]
    groups: Sequence[Group]
    link: Link = "softmax"
    is_exact: bool = True
    template = "soft_rows.html"
    scripts = ("soft_rows.js",)
    temperatures = TEMPERATURES
    start = START

    @property
    def embedded(self) -> dict[str, Any]:
        return {
            "temperatures": self.temperatures,
            "link": self.link,
            "rows": [row.embedded for row in self.rows] if self.is_exact else [],
        }


def packed(logits_C: np.ndarray, shown: Sequence[int], most: int) -> tuple[Any, Any]:
    """The values and counts of a row with these logits, of `most` values about at most.

    The classes that are shown come first and are exact. Where there are more classes than `most`,
    so are the largest of the others; the rest, sorted, is held in equal groups by their means. A
    group of neighbours spans a small part of the range, of which the mean is off by the square.
    """
    rest = np.delete(logits_C.astype(np.float64), list(shown))
    first = logits_C[list(shown)].astype(np.float64)
    if len(logits_C) <= most:
        return np.concatenate([first, rest]).astype(np.float32), None
    rest = -np.sort(-rest)
    exact = max(most // 2, 1)
    groups = np.array_split(rest[exact:], max(most - exact, 1))
    means = [group.mean() for group in groups if len(group)]
    sizes = [len(group) for group in groups if len(group)]
    counts = np.concatenate([np.ones(len(first) + exact, np.int64), sizes])
    return np.concatenate([first, rest[:exact], means]).astype(np.float32), counts
