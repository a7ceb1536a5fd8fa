"""Inputs that are texts: one a row, or a pair. N rows of a block."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

HALF_PAIR = re.compile("[\ud800-\udfff]")
# What a batch has of texts: those of one column, or of each of several by its name.
TextBatch = list[str] | dict[str, list[str]]


@dataclass(frozen=True)
class Texts:
    """The texts of a block of rows. columns: [N] of each, by its name."""

    columns: dict[str, list[str]]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __iter__(self) -> Iterator[str | dict[str, str]]:
        """Of each row its text; of a pair both, by the names of their columns."""
        if len(self.columns) == 1:
            return iter(next(iter(self.columns.values())))
        rows = zip(*self.columns.values(), strict=True)
        return (dict(zip(self.columns, row, strict=True)) for row in rows)

    @property
    def batch(self) -> TextBatch:
        if len(self.columns) == 1:
            return next(iter(self.columns.values()))
        return dict(self.columns)

    @property
    def nbytes(self) -> int:
        """As UTF-8."""
        return sum(len(text.encode()) for text in chain(*self.columns.values()))

    def select(self, positions: np.ndarray) -> "Texts":
        return Texts({n: [texts[i] for i in positions] for n, texts in self.columns.items()})


def joined_texts(parts: Sequence[TextBatch], order: np.ndarray) -> TextBatch:
    """The rows of several batches, one after the other, then in this order."""
    first = parts[0]
    if isinstance(first, dict):
        return {n: _ordered([part[n] for part in parts], order) for n in first}  # type: ignore[call-overload]
    return _ordered(parts, order)  # type: ignore[arg-type]


def _ordered(parts: Sequence[list[str]], order: np.ndarray) -> list[str]:
    texts = list(chain(*parts))
    return [texts[row] for row in order.tolist()]


def half_pair(name: str, value: object) -> str | None:
    """Why a cell that is a text is none; None for others."""
    half = HALF_PAIR.search(value) if isinstance(value, str) else None
    if half is None:
        return None
    return (
        f"the column {name!r} holds {half[0]!a}, half a surrogate pair, which is no character: cut "
        f"texts between characters, not between the two halves of one in UTF-16"
    )
