"""Cells of Arrow columns: ids, encoded images, texts, numbers. N rows of a block."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from softlabels.errors import SourceError
from softlabels.inputs.plain import is_text
from softlabels.inputs.texts import Texts
from softlabels.system.humanize import short

LISTS_OF_TEXTS = (
    "A row's input is one text, or a pair in two columns: join the texts of a list to one"
)


def read_ids(column: pa.ChunkedArray, name: str) -> np.ndarray:
    """int64 or str [N]. Raises SourceError for empty cells and for ids of another type."""
    if column.null_count:
        raise SourceError(f"the id column {name!r} has empty cells")
    if pa.types.is_integer(column.type):
        return _whole(column, name)
    if is_text(column.type):
        if pc.any(pc.match_substring(column, "\0")).as_py():
            raise SourceError(f"the id column {name!r} holds a NUL character; ids are without")
        return np.array(column.to_pylist(), dtype=np.str_)
    wide = pa.types.is_floating(column.type) and pc.any(pc.greater(column, 2.0**53)).as_py()
    more = "; some are too large for 64 bits, so that they were read as inexact" if wide else ""
    raise SourceError(
        f"the id column {name!r} is {column.type}; ids are whole numbers or text{more}"
    )


def _whole(column: pa.ChunkedArray, name: str) -> np.ndarray:
    try:
        return column.cast(pa.int64()).to_numpy()
    except pa.ArrowInvalid as error:
        raise SourceError(
            f"the id column {name!r} holds {pc.max(column).as_py()}, beyond 64 bits with a sign; "
            f"make the ids text"
        ) from error


def encoded_images(column: pa.ChunkedArray, ids: np.ndarray) -> list[bytes]:
    """The encoded bytes of each image, from a column of bytes or of structs of bytes and path.

    Raises SourceError for a row without an image, or whose file can't be read.
    """
    cells = []
    for row, cell in enumerate(column.to_pylist()):
        content, path = image_content(cell)
        if content is None and not path:
            raise SourceError(f"the row with id {ids[row]!s} has no image")
        if content is None:
            try:
                content = Path(path).read_bytes()
            except (OSError, ValueError) as error:
                raise SourceError(f"the image of the row with id {ids[row]!s}: {error}") from error
        cells.append(content)
    return cells


def image_content(cell: Any) -> tuple[bytes | None, str]:
    """The bytes of a cell and its path; None and the path where only a file has the bytes."""
    if isinstance(cell, dict):
        return cell.get("bytes"), cell.get("path") or ""
    return cell, ""


def texts(named: Mapping[str, pa.ChunkedArray], ids: np.ndarray) -> Texts:
    """Inputs that are texts: one column of them, several, or one of structs, as a dump stores
    pairs. Raises SourceError for a missing text."""
    columns = text_columns(named)
    for name, column in columns.items():
        if column.null_count:
            row = pc.index(column.is_null(), True).as_py()
            raise SourceError(f"the row with id {ids[row]!s} has {missing_text(name)}")
    return Texts({name: column.to_pylist() for name, column in columns.items()})


def text_columns(named: Mapping[str, pa.ChunkedArray]) -> dict[str, pa.ChunkedArray]:
    """The columns of texts; those of structs are their fields."""
    columns: dict[str, pa.ChunkedArray] = {}
    for name, column in named.items():
        if pa.types.is_struct(column.type):
            fields = [field.name for field in column.type]
            columns |= zip(fields, column.flatten(), strict=True)
        else:
            columns[name] = column
    return columns


def missing_text(name: str) -> str:
    return (
        f"no text in the column {short(name)!r} (in CSV, an empty cell is none): write it, or "
        f"leave out the row. JSONL and Parquet can hold the empty text"
    )


def numbers(named: Mapping[str, pa.ChunkedArray], ids: np.ndarray) -> np.ndarray:
    """Inputs that are numbers, [N, …]: one list column, or scalar columns side by side as float32.

    Raises SourceError for empty cells, lists of unequal lengths, and values that are not numbers.
    """
    for name, column in named.items():
        _check_cells(column, name, ids)
    columns = list(named.values())
    if len(columns) > 1 or not _is_list(columns[0].type):
        if any(_is_list(column.type) for column in columns):
            several = " ".join(f"--input-column {name}" for name in named)
            raise SourceError(
                f"several input columns are joined into one vector only if each holds single "
                f"numbers. A model that takes them by name gets them apart: {several}"
            )
        return np.stack([c.to_numpy().astype(np.float32) for c in columns], axis=1)
    return _nested(columns[0].combine_chunks(), ids)


def array_of(column: pa.ChunkedArray, name: str, ids: np.ndarray) -> np.ndarray:
    """A column of numbers, or of equally long (nested) lists of them, [N, …], in its own dtype.
    Raises SourceError as `numbers` does."""
    _check_cells(column, name, ids)
    return _nested(column.combine_chunks(), ids, f"the column {short(name)!r}")


def _check_cells(column: pa.ChunkedArray, name: str, ids: np.ndarray) -> None:
    """Raises SourceError for empty cells, and for values that are not numbers."""
    refuse_other_types(column.type)
    if column.null_count:
        row = pc.index(column.is_null(), True).as_py()
        raise SourceError(
            f"the row with id {ids[row]!s} has an empty cell in the input column "
            f"{short(name)!r}; fill it, leave out the row, or choose the inputs with "
            f"--input-column"
        )


def refuse_other_types(type: pa.DataType) -> None:
    """Raises SourceError unless the values, or those in (nested) lists, are numbers."""
    inner = type.storage_type if isinstance(type, pa.BaseExtensionType) else type
    while _is_list(inner):
        inner = inner.value_type
    if is_text(inner):
        raise SourceError(f"the input is {type}. {LISTS_OF_TEXTS}")
    number = pa.types.is_integer(inner) or pa.types.is_floating(inner)
    if not (number or pa.types.is_boolean(inner) or pa.types.is_decimal(inner)):
        raise SourceError(
            f"the input is {type}; inputs are images, numbers, (nested) lists of numbers, or "
            f"texts. "
            f"Choose another with --input-column"
        )


def _is_list(type: pa.DataType) -> bool:
    if isinstance(type, pa.BaseExtensionType):
        return True
    kinds = pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list
    return any(is_kind(type) for is_kind in kinds)


def _nested(array: pa.Array, ids: np.ndarray, what: str = "its input") -> np.ndarray:
    """A column of equally long (nested) lists → [N, …], without making Python objects. what: the
    column, in messages."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    shape = [len(array)]
    while pa.types.is_nested(array.type):
        lengths = pc.list_value_length(array)
        if lengths.null_count or len(pc.unique(lengths)) > 1:
            row = 0 if lengths[0].as_py() is None else _first_other(lengths)
            row = row * len(ids) // max(1, len(array))
            raise SourceError(
                f"the row with id {ids[row]!s} has another number of values in {what} than the "
                f"rows before it; inputs must be equally long"
            )
        shape.append(lengths[0].as_py() if len(lengths) else 0)
        array = array.flatten()
    if array.null_count:
        row = pc.index(array.is_null(), True).as_py() * len(ids) // len(array)
        raise SourceError(
            f"the row with id {ids[row]!s} has an empty number in {what}; write it, or leave out "
            f"the row"
        )
    if pa.types.is_decimal(array.type):
        array = array.cast(pa.float64())
    return array.to_numpy(zero_copy_only=False).reshape(shape)


def _first_other(lengths: pa.Array) -> int:
    return pc.index(pc.fill_null(pc.not_equal(lengths, lengths[0]), True), True).as_py()
