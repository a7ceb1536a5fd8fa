"""A column of a shard that a codec fills. N rows."""

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from softlabels.errors import DamagedDump


@dataclass(frozen=True)
class Column:
    """A named column, mapped or decoded.

    A mapped column has rows of equal size (a fixed-size list of numbers, fixed-size binary, or one
    number) in uncompressed PLAIN pages, which are gathered in place. A decoded column has one
    binary value a row, or null, packed with zstd; Arrow unpacks a row group at a time.

    is_list, length: whether a row is a list, and how many Parquet values it has
    shape: of a row in memory: [C] for a list, [bytes] for fixed-size binary, [] for a number
    dtype: of its numbers; uint8 for binary
    row_bytes: bytes of a row of a mapped column; 0 for a decoded one, whose rows differ
    """

    name: str
    arrow_type: pa.DataType
    mapped: bool = True
    is_list: bool = field(init=False)
    length: int = field(init=False)
    shape: tuple[int, ...] = field(init=False)
    dtype: np.dtype = field(init=False)
    row_bytes: int = field(init=False)
    _kind: torch.dtype = field(init=False, repr=False)

    def __post_init__(self) -> None:
        type_ = self.arrow_type
        assert self.mapped or type_ == pa.binary(), "what is decoded is binary"
        is_list, packed = pa.types.is_fixed_size_list(type_), not self.mapped
        shape: tuple[int, ...] = (type_.list_size,) if is_list else ()
        element = type_.value_type if is_list else type_
        if packed or pa.types.is_fixed_size_binary(type_):
            element, shape = pa.uint8(), () if packed else (type_.byte_width,)
        dtype = np.dtype(element.to_pandas_dtype())
        width = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        # computed once, since every batch needs them
        for name, value in (
            ("is_list", is_list),
            ("length", type_.list_size if is_list else 1),
            ("shape", shape),
            ("dtype", dtype),
            ("row_bytes", width if self.mapped else 0),
            ("_kind", torch.from_numpy(np.empty(0, dtype)).dtype),
        ):
            object.__setattr__(self, name, value)

    @property
    def arrow_field(self) -> pa.Field:
        return pa.field(self.name, self.arrow_type, nullable=not self.mapped)

    def of_bytes(self, rows: Tensor) -> Tensor:
        """Rows as they lie in the file, uint8 [N, row_bytes], → numbers [N, …]."""
        if self._kind is torch.uint8:
            return rows
        numbers = rows.view(self._kind)
        return numbers if self.is_list else numbers[:, 0]

    def empty(self, rows: int) -> np.ndarray:
        return np.empty((rows, *self.shape), self.dtype)

    def decode(
        self, column: pa.ChunkedArray, out: np.ndarray | None = None
    ) -> np.ndarray | list[bytes | None]:
        """A mapped column → numbers [N, …], written to `out` if given; a decoded one → a list of
        values. Raises DamagedDump for another type, or another number of rows than `out` has."""
        if not self._is_type(column.type) or (self.mapped and column.null_count):
            raise DamagedDump(f"{self.name} are {column.type}, expected {self.arrow_type}")
        if not self.mapped:
            values: list[bytes | None] = column.to_pylist()
            return values
        if out is not None and len(out) != len(column):
            raise DamagedDump(f"a row group has {len(column)} rows, expected are {len(out)}")
        numbers = self.empty(len(column)) if out is None else out
        start = 0
        for chunk in column.chunks:
            numbers[start : start + len(chunk)] = self._numbers(chunk)
            start += len(chunk)
        return numbers

    def _is_type(self, type_: pa.DataType) -> bool:
        if not self.is_list or not pa.types.is_fixed_size_list(type_):
            return bool(type_ == self.arrow_type)
        same: bool = type_.value_type == self.arrow_type.value_type  # names of elements may differ
        return same and type_.list_size == self.length

    def _numbers(self, chunk: pa.Array) -> np.ndarray:
        if self.is_list:
            return chunk.flatten().to_numpy().reshape(-1, self.length)
        if self.shape:
            part = slice(chunk.offset, chunk.offset + len(chunk))
            return np.frombuffer(chunk.buffers()[1], np.uint8).reshape(-1, *self.shape)[part]
        return chunk.to_numpy()


def numbers_type(dtype: str, length: int) -> pa.DataType:
    """A fixed-size list of float16 or float32, none of them null."""
    return pa.list_(pa.field("element", pa.type_for_alias(dtype), nullable=False), length)
