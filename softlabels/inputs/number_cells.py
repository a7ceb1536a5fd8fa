"""Several columns of numbers that stay apart, as rows of a structured array. N rows of a block."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from softlabels.errors import SourceError
from softlabels.inputs.cells import array_of
from softlabels.system.humanize import short

WHOLE, FLOATING = np.dtype("<i8"), np.dtype("<f4")


def number_columns(
    named: Mapping[str, pa.ChunkedArray], ids: np.ndarray, first: np.dtype | None = None
) -> np.ndarray:
    """The rows, [N], of a dtype with a field a column, in the order of their names: whole numbers
    and true and false as int64, others as float32.

    first: the dtype of the source's first row, which the others share

    Raises SourceError, with the row and the column, for empty cells, for rows of another shape, for
    NaN and infinity, and for numbers beyond these types.
    """
    columns = {name: _canonical(name, named[name], ids) for name in sorted(named)}
    layout = np.dtype([(name, one.dtype, one.shape[1:]) for name, one in columns.items()])
    for name in columns if first is not None and first != layout else ():
        if len(ids) and first is not None and first[name] != layout[name]:
            raise SourceError(
                f"the row with id {ids[0]!s} has numbers of the shape {list(layout[name].shape)} "
                f"in {short(name)!r}, and the first row {list(first[name].shape)}; all rows of a "
                f"column have one shape: bring them to it, or leave out the row"
            )
    rows = np.empty(len(ids), layout if first is None else first)
    for name, values in columns.items():
        if len(ids):
            rows[name] = values
    return rows


def _canonical(name: str, column: pa.ChunkedArray, ids: np.ndarray) -> np.ndarray:
    """[N, …], int64 or float32."""
    values = array_of(column, name, ids)
    if not values[:1].size and len(values):
        raise SourceError(
            f"the row with id {ids[0]!s} has no number in {short(name)!r}: leave the column out"
        )
    if values.dtype.kind in "iub":
        largest = np.iinfo(np.int64).max
        if values.dtype.kind == "u" and (beyond := values > largest).any():
            raise SourceError(f"{_where(beyond, values, name, ids)}, beyond 64 bits with a sign")
        return values.astype(WHOLE)
    with np.errstate(over="ignore"):
        made = values.astype(FLOATING)
    if not (finite := np.isfinite(made)).all():
        known = np.isfinite(values.astype(np.float64, copy=False))
        if (~known).any():
            raise SourceError(
                f"{_where(~known, values, name, ids)}, which is no number that a model could learn "
                f"from: fill it with one, or leave out the row"
            )
        raise SourceError(f"{_where(~finite, values, name, ids)}, beyond float32: scale the column")
    return made


def _where(wrong: np.ndarray, values: np.ndarray, name: str, ids: np.ndarray) -> str:
    """Says what the first wrong number is, and in which row."""
    place = int(np.flatnonzero(wrong)[0])
    row = place // max(1, values[0].size)
    return f"the row with id {ids[row]!s} has {values.reshape(-1)[place]} in {short(name)!r}"


def as_columns(rows: np.ndarray) -> dict[str, pa.Array]:
    """The columns of rows as Arrow arrays, with lists of fixed lengths."""
    made = {}
    for name in rows.dtype.names or ():
        column = pa.array(np.ascontiguousarray(rows[name]).ravel())
        for length in reversed(rows.dtype[name].shape):
            column = pa.FixedSizeListArray.from_arrays(column, length)
        made[name] = column
    return made
