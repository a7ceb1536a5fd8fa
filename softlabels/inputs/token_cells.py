"""Columns of token ids, and the mask beside them, as rows of several lengths.

A mask says how long a row is: what it leaves out at either end is padding, and no part of the row.
Shapes: N rows of a block, K numbers of all rows.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from softlabels.errors import SourceError
from softlabels.models.tokens import IDS, MASK, Tokens
from softlabels.system.humanize import short

LARGEST = 2**31 - 1  # that a dump stores, as int32


def tokens(
    named: Mapping[str, pa.ChunkedArray], mask: pa.ChunkedArray | None, ids: np.ndarray
) -> Tokens:
    """The rows of columns of lists of whole numbers, `input_ids` among them, as long as the mask
    says.

    Raises SourceError, with the row, for a missing cell or number, columns of other lengths, a mask
    that is no run of ones, a row without a token, and for numbers below 0 or beyond 32 bits.
    """
    first, *others = [_Lists.of(column, name, ids) for name, column in named.items()]
    lists = [first, *others]
    masks = None if mask is None else _Lists.of(mask, MASK, ids)
    for other in (*others, *([] if masks is None else [masks])):
        _refuse_other_lengths(first, other, ids)
    lengths_N = first.lengths_N
    if masks is not None:
        kept_K, lengths_N = _kept(masks, ids)
        lists = [one.select(kept_K, lengths_N) for one in lists]
    if not lengths_N.all():
        row = int(np.flatnonzero(lengths_N == 0)[0])
        raise SourceError(
            f"the row with id {ids[row]!s} has no token in {short(first.name)!r}, so there is "
            f"nothing that a model could read: leave out the row"
        )
    for one in lists:
        _refuse_out_of_range(one, ids)
    return Tokens({one.name: one.numbers_K for one in lists}, lengths_N)


class _Lists:
    """A column of lists: its numbers one after the other, int64 [K], and how many each row has."""

    def __init__(self, name: str, numbers_K: np.ndarray, lengths_N: np.ndarray) -> None:
        self.name, self.numbers_K, self.lengths_N = name, numbers_K, lengths_N

    @classmethod
    def of(cls, column: pa.ChunkedArray, name: str, ids: np.ndarray) -> "_Lists":
        if column.null_count:
            row = pc.index(column.is_null(), True).as_py()
            raise SourceError(
                f"the row with id {ids[row]!s} has an empty cell in the column {short(name)!r}: "
                f"fill it, or leave out the row"
            )
        array = column.combine_chunks()
        lengths_N = pc.list_value_length(array).to_numpy().astype(np.int64)
        flat = array.flatten()
        if flat.null_count:
            place = pc.index(flat.is_null(), True).as_py()
            raise SourceError(
                f"the row with id {_row_of(lengths_N, place, ids)!s} has an empty number in "
                f"{short(name)!r}; write it, or leave out the row"
            )
        try:
            numbers_K = flat.cast(pa.int64()).to_numpy()
        except pa.ArrowInvalid:  # 64 bits without a sign
            place = int(np.argmax(flat.to_numpy()))
            row = _row_of(lengths_N, place, ids)
            raise SourceError(_beyond(row, flat[place].as_py(), name)) from None
        return cls(name, numbers_K, lengths_N)

    def select(self, kept_K: np.ndarray, lengths_N: np.ndarray) -> "_Lists":
        return _Lists(self.name, self.numbers_K[kept_K], lengths_N)


def _row_of(lengths_N: np.ndarray, place: int, ids: np.ndarray) -> object:
    """The id of the row in which a number stands."""
    return ids[int(np.searchsorted(np.cumsum(lengths_N), place, side="right"))]


def _refuse_other_lengths(first: _Lists, other: _Lists, ids: np.ndarray) -> None:
    if not (wrong := np.flatnonzero(first.lengths_N != other.lengths_N)).size:
        return
    row = int(wrong[0])
    raise SourceError(
        f"the row with id {ids[row]!s} has {first.lengths_N[row]:,} numbers in "
        f"{short(first.name)!r} and {other.lengths_N[row]:,} in {short(other.name)!r}; columns of "
        f"tokens have one a token"
    )


def _kept(mask: _Lists, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which numbers of all rows are no padding, bool [K], and how many of each row, int64 [N]."""
    bits_K, rows = mask.numbers_K, len(mask.lengths_N)
    if (other := np.flatnonzero((bits_K != 0) & (bits_K != 1))).size:
        row = _row_of(mask.lengths_N, int(other[0]), ids)
        raise SourceError(
            f"the row with id {row!s} has {bits_K[other[0]]} in {short(mask.name)!r}; a mask is 1 "
            f"for a token and 0 for padding"
        )
    places = np.flatnonzero(bits_K)
    counts_N = np.bincount(np.repeat(np.arange(rows), mask.lengths_N)[places], minlength=rows)
    if (none := np.flatnonzero((counts_N == 0) & (mask.lengths_N > 0))).size:
        raise SourceError(
            f"the row with id {ids[none[0]]!s} is all padding: its {short(mask.name)!r} has no 1; "
            f"leave out the row"
        )
    full = counts_N > 0
    ends = np.cumsum(counts_N)[full]
    spans = places[ends - 1] - places[ends - counts_N[full]] + 1
    if (holes := np.flatnonzero(spans != counts_N[full])).size:
        row = np.flatnonzero(full)[holes[0]]
        raise SourceError(
            f"the row with id {ids[row]!s} has a hole in {short(mask.name)!r}: zeros between its "
            f"ones. Here a mask says which ends of a row are padding; if yours says something "
            f"else, rename the column, and give the teacher as a callable that makes its own"
        )
    return bits_K.astype(bool), counts_N


def _refuse_out_of_range(lists: _Lists, ids: np.ndarray) -> None:
    wrong = np.flatnonzero((lists.numbers_K < 0) | (lists.numbers_K > LARGEST))
    if not wrong.size:
        return
    value = int(lists.numbers_K[wrong[0]])
    row = _row_of(lists.lengths_N, int(wrong[0]), ids)
    if value > LARGEST:
        raise SourceError(_beyond(row, value, lists.name))
    remedy = ""
    if lists.name == IDS and value == -100:
        remedy = " (−100 is what labels have where a loss is to ignore a token)"
    raise SourceError(
        f"the row with id {row!s} has {value} in {short(lists.name)!r}; the numbers of tokens "
        f"begin at 0{remedy}. If it stands for padding, name it in a column {MASK!r}, 1 for a "
        f"token and 0 for padding"
    )


def _beyond(row: object, value: int, name: str) -> str:
    return (
        f"the row with id {row!s} has {value} in {short(name)!r}, beyond 32 bits with a sign, "
        f"which no vocabulary is"
    )
