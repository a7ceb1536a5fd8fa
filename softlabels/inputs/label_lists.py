"""Labels of several a row. N rows, C classes.

The labels of rows that have one each are an int64 array [N], −1 for none; of rows that may have
several, a `LabelLists`. The functions here take either, so that what carries labels from one place
to another need not know which they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from softlabels.errors import LabelSpaceMismatch
from softlabels.system.humanize import short

LISTS = pa.large_list(pa.int64())  # 32-bit offsets might overflow
STORED = pa.list_(pa.int64())  # of a shard's column


@dataclass(frozen=True, eq=False)
class LabelLists:
    """The labels of N rows. lists: the numbers of each row's labels, ascending, each once; empty
    for a row that has none of them, null for one whose labels are unknown."""

    lists: pa.LargeListArray

    @classmethod
    def of(cls, column: pa.ChunkedArray | pa.Array) -> "LabelLists":
        """From a column of such lists, as a shard has it."""
        whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        return cls(whole.cast(LISTS))

    @classmethod
    def of_numbers(cls, counts_N: np.ndarray, numbers: np.ndarray) -> "LabelLists":
        """counts: how many labels each row has, −1 for unknown; numbers: those of all rows."""
        starts = np.concatenate([[0], np.cumsum(np.maximum(counts_N, 0))])
        unknown = pa.array(counts_N < 0)
        return cls(pa.LargeListArray.from_arrays(starts, numbers.astype(np.int64), mask=unknown))

    def __len__(self) -> int:
        return len(self.lists)

    def __getitem__(self, rows: slice | np.ndarray) -> "LabelLists":
        if isinstance(rows, slice):
            return LabelLists(self.lists[rows])
        is_mask = rows.dtype == bool
        return LabelLists((self.lists.filter if is_mask else self.lists.take)(pa.array(rows)))

    def tolist(self) -> list[list[int] | None]:
        lists: list[list[int] | None] = self.lists.to_pylist()
        return lists

    @cached_property
    def counts(self) -> np.ndarray:
        """How many labels each row has, int64 [N], −1 for unknown."""
        counts: np.ndarray = pc.list_value_length(self.lists).fill_null(-1).to_numpy()
        return counts

    @cached_property
    def numbers(self) -> np.ndarray:
        """The labels of all rows, one after the other, int64."""
        numbers: np.ndarray = self.lists.flatten().to_numpy()
        return numbers

    @cached_property
    def rows(self) -> np.ndarray:
        """The row of each of `numbers`, int64."""
        return np.repeat(np.arange(len(self)), np.maximum(self.counts, 0))

    def has(self, number: int) -> np.ndarray:
        """Which rows have this label, bool [N]."""
        have = np.zeros(len(self), bool)
        have[self.rows[self.numbers == number]] = True
        return have

    def renumbered(self, numbers: np.ndarray) -> "LabelLists":
        """Each label i as `numbers[i]`, left out where that is −1. Those that become one count
        once."""
        changed, there = numbers[self.numbers], numbers[self.numbers] >= 0
        pairs = np.unique(np.stack([self.rows[there], changed[there]], 1), axis=0)
        counts = np.bincount(pairs[:, 0], minlength=len(self))
        return LabelLists.of_numbers(np.where(self.counts < 0, -1, counts), pairs[:, 1])

    def multi_hot(self, classes: int) -> np.ndarray:
        """int8 [N, C]: 1 where a row has the label and 0 where not, −1 throughout where its labels
        are unknown. Raises LabelSpaceMismatch for a number that is no class."""
        if len(wrong := np.flatnonzero((self.numbers < 0) | (self.numbers >= classes))):
            raise LabelSpaceMismatch(
                f"a row has the label {self.numbers[wrong[0]]}; there are {classes:,} classes, "
                f"0 to {classes - 1}"
            )
        hot_NC = np.zeros((len(self), classes), np.int8)
        hot_NC[self.counts < 0] = -1
        hot_NC[self.rows, self.numbers] = 1
        return hot_NC


Labels = np.ndarray | LabelLists


def known(labels: Labels) -> np.ndarray:
    """Which rows' labels are known, bool [N]."""
    return labels.counts >= 0 if isinstance(labels, LabelLists) else labels >= 0


def differing(one: Labels, other: Labels) -> np.ndarray:
    """Which of N rows have other labels there than here, bool [N]."""
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return np.not_equal(one, other)
    assert isinstance(one, LabelLists), "both are of one kind"
    assert isinstance(other, LabelLists), "both are of one kind"
    differs = one.counts != other.counts
    same = ~differs
    ours, theirs = one[same], other[same]
    places = np.flatnonzero(same)[ours.rows[ours.numbers != theirs.numbers]]
    differs[places] = True
    return differs


def joined(parts: Sequence[Labels]) -> Labels:
    """The labels of the rows of all parts, one after the other."""
    if isinstance(parts[0], LabelLists):
        lists = [part.lists for part in parts if isinstance(part, LabelLists)]
        return LabelLists(pa.concat_arrays(lists))
    return np.concatenate([part for part in parts if isinstance(part, np.ndarray)])


def none_of(rows: int, several: bool) -> Labels:
    """Labels of rows that have none: unknown ones."""
    if several:
        return LabelLists(pa.nulls(rows, LISTS))
    return np.full(rows, -1, dtype=np.int64)


def of_column(column: pa.ChunkedArray) -> Labels:
    """From the label column of a shard."""
    if pa.types.is_nested(column.type):
        return LabelLists.of(column)
    return column.to_numpy().copy()


def as_column(labels: Labels) -> pa.Array:
    """As the label column of a shard."""
    return labels.lists.cast(STORED) if isinstance(labels, LabelLists) else pa.array(labels)


def as_cells(labels: Labels) -> np.ndarray:
    """One object a row where rows have lists, None where they are unknown; else the numbers."""
    if not isinstance(labels, LabelLists):
        return labels
    cells = np.empty(len(labels), object)
    for row, listed in enumerate(labels.tolist()):
        cells[row] = listed
    return cells


def hidden(labels: Labels, rows: np.ndarray) -> Labels:
    """The same labels, but none of these rows, bool [N]."""
    if not isinstance(labels, LabelLists):
        return np.where(rows, -1, labels)
    numbers = labels.numbers[~rows[labels.rows]]
    return LabelLists.of_numbers(np.where(rows, -1, labels.counts), numbers)


def as_record(labels: Labels, row: int) -> int | list[int] | None:
    """One row's labels as a record has them."""
    return labels.lists[row].as_py() if isinstance(labels, LabelLists) else int(labels[row])


def of_records(values: list[int | list[int] | None], several: bool) -> Labels:
    """The inverse of `as_record`, of several rows."""
    return LabelLists(pa.array(values, LISTS)) if several else np.array(values, dtype=np.int64)


def encoded(labels: Labels) -> bytes:
    """Labels as bytes for a fingerprint: little-endian int64. Of lists, for each row how many it
    has, −1 for unknown, and then their numbers."""
    if not isinstance(labels, LabelLists):
        return labels.astype(labels.dtype.newbyteorder("<")).tobytes()
    values = np.empty(len(labels) + len(labels.numbers), "<i8")
    is_count = np.zeros(len(values), bool)
    before = np.cumsum(np.maximum(labels.counts, 0)) - np.maximum(labels.counts, 0)
    is_count[np.arange(len(labels)) + before] = True
    values[is_count], values[~is_count] = labels.counts, labels.numbers
    return values.tobytes()


def as_tensor(labels: Labels, classes: int) -> Tensor:
    """As a batch has them: int64 [N], −1 for none; or int8 [N, C], 0 and 1, −1 for unknown."""
    if isinstance(labels, LabelLists):
        return torch.from_numpy(labels.multi_hot(classes))
    return torch.from_numpy(labels)


def shown(labels: Labels, row: int) -> str:
    """One row's labels in a message."""
    return short(str(labels.lists[row].as_py() if isinstance(labels, LabelLists) else labels[row]))
