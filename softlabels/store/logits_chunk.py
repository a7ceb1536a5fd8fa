"""The column chunk of a row group's logits, assembled by hand: one page, and what the footer says.

Arrow encodes a list value by value, though every list has the same length and nothing is null, so
that the levels are known beforehand and the values lie in the array as they do in the page:

    page header (Thrift), repetition levels, definition levels, values

Plain pages hold the values as they are, at an offset in the file that is a multiple of 64. Compact
ones hold the first bytes of all values, then the second bytes … (BYTE_STREAM_SPLIT), and levels and
values together are packed with zstd. See parquet-format, Encodings.md. Shapes: N rows, C classes.
"""

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from softlabels.store.compact_pages import BYTE_STREAM_SPLIT, RLE, pack_page
from softlabels.store.levels import page_levels
from softlabels.store.pages import DATA_PAGE, PLAIN
from softlabels.store.thrift import (
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
UNCOMPRESSED, ZSTD = 0, 6
PATH = [b"logits", b"list", b"element"]


@dataclass(frozen=True)
class LogitsChunk:
    """A column chunk in the file: where it begins, bytes of its page's header, of its page as it
    lies there and unpacked."""

    rows: int
    values: int
    offset: int
    header: int
    body: int
    unpacked: int
    compact: bool

    @property
    def stored(self) -> int:
        return self.header + self.body

    @property
    def size(self) -> int:
        """Bytes of it without compression."""
        return self.header + self.unpacked

    def column(self, physical_type: tuple[int, Any]) -> Struct:
        """Parquet's ColumnChunk, but for the place of the page index."""
        encoding = BYTE_STREAM_SPLIT if self.compact else PLAIN
        histograms = {
            2: listed(I64, [self.rows, self.values - self.rows]),
            3: listed(I64, [0, self.values]),
        }
        metadata = {
            1: physical_type,
            2: listed(I32, [RLE, encoding]),
            3: listed(BINARY, PATH),
            4: i32(ZSTD if self.compact else UNCOMPRESSED),
            5: i64(self.values),
            6: i64(self.size),
            7: i64(self.stored),
            9: i64(self.offset),
            13: listed(STRUCT, [{1: i32(DATA_PAGE), 2: i32(encoding), 3: i32(1)}]),
            16: struct(histograms),
        }
        return {2: i64(0), 3: struct(metadata)}

    def offset_index(self) -> Struct:
        place = {1: i64(self.offset), 2: i32(self.stored), 3: i64(0)}
        return {1: listed(STRUCT, [place])}


def write_chunk(file: Any, values_NC: np.ndarray, compact: bool) -> LogitsChunk:
    """Write the logits of one row group, float16 or float32 [N, C], to a file that has `size`."""
    rows, classes = values_NC.shape
    levels = page_levels(rows, classes)
    unpacked = len(levels) + values_NC.nbytes
    little = np.ascontiguousarray(values_NC, values_NC.dtype.newbyteorder("<"))
    plain: Any = little.reshape(-1).view(np.uint8)
    parts = [pack_page(levels, values_NC)] if compact else [memoryview(levels), memoryview(plain)]
    body, crc = sum(part.nbytes for part in parts), 0
    for part in parts:
        crc = zlib.crc32(part, crc)
    header = _header(values_NC.size, unpacked, body, crc, BYTE_STREAM_SPLIT if compact else PLAIN)
    if not compact:
        file.write(bytes(-(file.size + len(header) + len(levels)) % ALIGNMENT))
    chunk = LogitsChunk(rows, values_NC.size, file.size, len(header), body, unpacked, compact)
    for part in (memoryview(header), *parts):
        file.write(part)
    return chunk


def _header(values: int, unpacked: int, body: int, crc: int, encoding: int) -> bytes:
    """Parquet's PageHeader with its DataPageHeader; all numbers are signed 32 bits."""
    assert max(values, unpacked, body) < 1 << 31, "a row group is small"
    page = {1: i32(values), 2: i32(encoding), 3: i32(RLE), 4: i32(RLE)}
    signed = crc - (crc >> 31 << 32)
    return write_struct(
        {1: i32(DATA_PAGE), 2: i32(unpacked), 3: i32(body), 4: i32(signed), 5: struct(page)}
    )
