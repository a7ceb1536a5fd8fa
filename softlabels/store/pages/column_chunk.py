"""The column chunk of a mapped column, assembled by hand: one page, and what the footer says.

Arrow encodes a list value by value, though every list has the same length and nothing is null, so
that the levels are known beforehand and the values lie in the array as they do in the page:

    page header (Thrift), of lists: repetition levels, definition levels, values

The values begin at an offset in the file that is a multiple of 64. See parquet-format,
Encodings.md. N rows.
"""

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from softlabels.store.pages.columns import Column
from softlabels.store.pages.levels import page_levels
from softlabels.store.pages.places import DATA_PAGE, PLAIN
from softlabels.store.pages.thrift import (
    BINARY,
    I32,
    I64,
    STRUCT,
    Struct,
    i32,
    i64,
    listed,
    struct,
    write_struct,
)

ALIGNMENT = 64
RLE, UNCOMPRESSED = 3, 0


@dataclass(frozen=True)
class ColumnChunk:
    """A column chunk in the file: where it begins, bytes of its page's header and of its page."""

    name: str
    is_list: bool
    rows: int
    values: int
    offset: int
    header: int
    body: int

    @property
    def size(self) -> int:
        return self.header + self.body

    def column(self, physical_type: tuple[int, Any]) -> Struct:
        """Parquet's ColumnChunk, but for the place of the page index."""
        path = [self.name.encode()] + [b"list", b"element"] * self.is_list
        metadata = {
            1: physical_type,
            2: listed(I32, [RLE, PLAIN] if self.is_list else [PLAIN]),
            3: listed(BINARY, path),
            4: i32(UNCOMPRESSED),
            5: i64(self.values),
            6: i64(self.size),
            7: i64(self.size),
            9: i64(self.offset),
            13: listed(STRUCT, [{1: i32(DATA_PAGE), 2: i32(PLAIN), 3: i32(1)}]),
        }
        if self.is_list:  # how many values have each level
            histograms = {
                2: listed(I64, [self.rows, self.values - self.rows]),
                3: listed(I64, [0, self.values]),
            }
            metadata |= {16: struct(histograms)}
        return {2: i64(0), 3: struct(metadata)}

    def offset_index(self) -> Struct:
        place = {1: i64(self.offset), 2: i32(self.size), 3: i64(0)}
        return {1: listed(STRUCT, [place])}


def write_chunk(file: Any, column: Column, numbers: np.ndarray) -> ColumnChunk:
    """Write a mapped column's numbers of one row group, [N, …], to a file that has `size`."""
    assert numbers.dtype == column.dtype
    assert numbers.shape[1:] == column.shape
    rows, count = len(numbers), len(numbers) * column.length
    levels = page_levels(rows, column.length) if column.is_list else b""
    little = np.ascontiguousarray(numbers, numbers.dtype.newbyteorder("<"))
    values: Any = little.reshape(-1).view(np.uint8)
    body = len(levels) + values.nbytes
    header = _header(count, body, zlib.crc32(values, zlib.crc32(levels)))
    file.write(bytes(-(file.size + len(header) + len(levels)) % ALIGNMENT))
    chunk = ColumnChunk(column.name, column.is_list, rows, count, file.size, len(header), body)
    for part in (header, levels, values):
        file.write(part)
    return chunk


def _header(values: int, body: int, crc: int) -> bytes:
    """Parquet's PageHeader with its DataPageHeader; all numbers are signed 32 bits."""
    assert max(values, body) < 1 << 31, "a row group is small"
    page = {1: i32(values), 2: i32(PLAIN), 3: i32(RLE), 4: i32(RLE)}
    signed = crc - (crc >> 31 << 32)
    return write_struct(
        {1: i32(DATA_PAGE), 2: i32(body), 3: i32(body), 4: i32(signed), 5: struct(page)}
    )
