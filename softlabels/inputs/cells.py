"""Cells of Arrow columns: ids, encoded images, numbers. N rows of a block."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from softlabels.errors import SourceError


def read_ids(column: pa.ChunkedArray, name: str) -> np.ndarray:
    if column.null_count:
        raise SourceError(f"the id column {name!r} has empty cells")
    if pa.types.is_integer(column.type):
        return column.cast(pa.int64()).to_numpy()
    if is_text(column.type):
        return np.array(column.to_pylist(), dtype=np.str_)
    raise SourceError(f"the id column {name!r} is {column.type}; ids are whole numbers or text")


def is_text(type: pa.DataType) -> bool:
    return pa.types.is_string(type) or pa.types.is_large_string(type)


def encoded_images(column: pa.ChunkedArray, ids: np.ndarray) -> list[bytes]:
    cells = []
    for row, cell in enumerate(column.to_pylist()):
        if cell is None or (cell["bytes"] is None and not cell["path"]):
            raise SourceError(f"the row with id {ids[row]!s} has no image")
        content = cell["bytes"]
        if content is None:
            try:
                content = Path(cell["path"]).read_bytes()
            except OSError as error:
                raise SourceError(f"the image of the row with id {ids[row]!s}: {error}") from error
        cells.append(content)
    return cells


def numbers(columns: Sequence[pa.ChunkedArray], ids: np.ndarray) -> np.ndarray:
    for column in columns:
        if column.null_count:
            row = pc.index(column.is_null(), True).as_py()
            raise SourceError(f"the row with id {ids[row]!s} has an empty input cell")
    if len(columns) > 1 or not _is_list(columns[0].type):
        return np.stack([c.to_numpy().astype(np.float32) for c in columns], axis=1)
    return _nested(columns[0].combine_chunks(), ids)


def _is_list(type: pa.DataType) -> bool:
    return isinstance(type, pa.BaseExtensionType) or pa.types.is_nested(type)


def _nested(array: pa.Array, ids: np.ndarray) -> np.ndarray:
    """A column of equally long (nested) lists → [N, …] without passing through Python objects."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    shape = [len(array)]
    while pa.types.is_nested(array.type):
        lengths = pc.list_value_length(array)
        if lengths.null_count or len(pc.unique(lengths)) > 1:
            row = 0 if lengths[0].as_py() is None else _first_other(lengths)
            row = row * len(ids) // max(1, len(array))
            raise SourceError(
                f"the row with id {ids[row]!s} has another number of values than the rows before "
                f"it; inputs must be equally long"
            )
        shape.append(lengths[0].as_py() if len(lengths) else 0)
        array = array.flatten()
    if array.null_count:
        row = pc.index(array.is_null(), True).as_py() * len(ids) // len(array)
        raise SourceError(f"the row with id {ids[row]!s} has an empty number in its input")
    return array.to_numpy(zero_copy_only=False).reshape(shape)


def _first_other(lengths: pa.Array) -> int:
    return pc.index(pc.fill_null(pc.not_equal(lengths, lengths[0]), True), True).as_py()
