"""A shard's Parquet file, written front to back. Arrow writes all columns but the mapped ones,
whose pages we write in between; the footer is Arrow's with the mapped columns added.

Arrow counts only its own bytes. So we move a row group's offsets by the bytes that we wrote before
it, and write those of the page index, which comes after all row groups, anew. Field numbers are
those of parquet-format's parquet.thrift.
"""

import hashlib
import io
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from softlabels.store.pages.column_chunk import ColumnChunk, write_chunk
from softlabels.store.pages.columns import Column
from softlabels.store.pages.thrift import Struct, i32, i64, read_struct, write_struct

MAGIC = b"PAR1"
BLOCK_BYTES = 4 << 20
SCHEMA, ROWS, ROW_GROUPS = 2, 3, 4  # of FileMetaData
COLUMNS, UNPACKED, OFFSET, STORED = 1, 2, 5, 6  # of RowGroup
METADATA, OFFSET_INDEX, COLUMN_INDEX = 3, 4, 6  # of ColumnChunk; an index's length is the next
PAGE_OFFSETS = (9, 10, 11)  # of ColumnMetaData: data, index and dictionary page
# not packed; other columns pack to a third, at no cost
LARGE = ("input_hash", "stored_hash", "input")
PAGES, PAGE_OFFSET = 1, 1  # of OffsetIndex, of PageLocation


class ShardFile:
    """Takes row groups one by one; `close` writes the footer. `schema` ends with the mapped columns
    of the codec, in their order.

    Each column has one page a row group, without a dictionary, with a checksum. All but input
    hashes, inputs and the mapped columns are packed with zstd.
    """

    def __init__(
        self, file: IO[bytes], schema: pa.Schema, group_rows: int, columns: Sequence[Column]
    ) -> None:
        self.mapped = [column for column in columns if column.mapped]
        first = len(schema) - len(self.mapped)
        assert schema.names[first:] == [column.name for column in self.mapped]
        self.file = HashingFile(file)
        self.schema = schema
        self.others = pa.schema(list(schema)[:first], schema.metadata)
        self._sink = _Sink(self.file)
        self._parquet = pq.ParquetWriter(
            pa.PythonFile(self._sink, mode="w"),
            self.others,
            compression=self._compression(),
            use_dictionary=False,
            write_statistics=["id"],
            write_page_index=True,
            write_page_checksum=True,
            write_batch_size=group_rows,
            max_rows_per_page=group_rows,
            data_page_size=1 << 30,
        )
        self._moved: list[int] = []
        self._chunks: list[list[ColumnChunk]] = []

    def _compression(self) -> dict[str, str]:
        schema = pq.ParquetFile(io.BytesIO(_empty_file(self.others))).schema
        paths = [schema.column(i).path for i in range(len(schema))]
        # input hashes stay unpacked, so that a file has at least 8 bytes for each promised row
        plain = [path for path in paths if path.partition(".")[0] in LARGE]
        return {path: "none" if path in plain else "zstd" for path in paths}

    def write(self, others: pa.Table, mapped: Mapping[str, np.ndarray]) -> None:
        """Write one row group: Arrow's columns, and the numbers of each mapped column, [N, …]."""
        assert all(len(others) == len(numbers) for numbers in mapped.values())
        self._moved.append(self.file.size - self._sink.size)
        self._parquet.write_table(others, row_group_size=len(others))
        self._chunks.append([write_chunk(self.file, c, mapped[c.name]) for c in self.mapped])

    def abandon(self) -> None:
        """Close Arrow's writer and drop what it still writes."""
        self._sink.file = io.BytesIO()
        with suppress(OSError, pa.ArrowException):  # the writer may have failed already
            self._parquet.close()

    def close(self) -> None:
        """Write the page index and the footer."""
        start = self._sink.size
        self._sink.file = rest = io.BytesIO()
        self._parquet.close()
        tail = rest.getvalue()
        whole, ours = _footer(_empty_file(self.schema)), _footer(tail)
        kinds = [leaf[1] for leaf in whole[SCHEMA][1][1] if 1 in leaf]  # the physical types
        groups = ours[ROW_GROUPS][1][1]
        for group, moved, chunks in zip(groups, self._moved, self._chunks, strict=True):
            _move_pages(group, moved)
            for chunk, kind in zip(chunks, kinds[len(kinds) - len(chunks) :], strict=True):
                _add_chunk(group, chunk, kind)
        for group in groups:
            for column in _columns(group):
                if COLUMN_INDEX in column:
                    self._write_index(
                        column, COLUMN_INDEX, _index(column, COLUMN_INDEX, tail, start)
                    )
        for group, moved, chunks in zip(groups, self._moved, self._chunks, strict=True):
            arrows = len(_columns(group)) - len(chunks)
            for column in _columns(group)[:arrows]:
                index, _ = read_struct(_index(column, OFFSET_INDEX, tail, start))
                for page in index[PAGES][1][1]:
                    _add(page, PAGE_OFFSET, moved)
                self._write_index(column, OFFSET_INDEX, write_struct(index))
            for column, chunk in zip(_columns(group)[arrows:], chunks, strict=True):
                self._write_index(column, OFFSET_INDEX, write_struct(chunk.offset_index()))
        footer = write_struct(whole | {ROWS: ours[ROWS], ROW_GROUPS: ours[ROW_GROUPS]})
        self.file.write(footer + len(footer).to_bytes(4, "little") + MAGIC)
        self.file.flush()

    def _write_index(self, column: Struct, field: int, content: bytes) -> None:
        column |= {field: i64(self.file.size), field + 1: i32(len(content))}
        self.file.write(content)


def _index(column: Struct, field: int, tail: bytes, start: int) -> bytes:
    """The bytes of a column's index as Arrow wrote them. start: the offset of `tail` by Arrow's
    count."""
    offset, length = column[field][1] - start, column[field + 1][1]
    assert 0 <= offset <= offset + length <= len(tail)
    return tail[offset : offset + length]


def _columns(group: Struct) -> list[Struct]:
    columns: list[Struct] = group[COLUMNS][1][1]
    return columns


def _add(fields: Struct, number: int, more: int) -> None:
    kind, value = fields[number]
    fields[number] = kind, value + more


def _move_pages(group: Struct, moved: int) -> None:
    _add(group, OFFSET, moved)
    for column in _columns(group):
        for number in PAGE_OFFSETS:
            if number in column[METADATA][1]:
                _add(column[METADATA][1], number, moved)


def _add_chunk(group: Struct, chunk: ColumnChunk, kind: tuple[int, Any]) -> None:
    _columns(group).append(chunk.column(kind))
    _add(group, UNPACKED, chunk.size)
    _add(group, STORED, chunk.size)


def _footer(file: bytes) -> Struct:
    """Parquet's FileMetaData, from the end of a file."""
    length = int.from_bytes(file[-8:-4], "little")
    footer, end = read_struct(file, len(file) - 8 - length)
    assert end == len(file) - 8
    return footer


def _empty_file(schema: pa.Schema) -> bytes:
    file = io.BytesIO()
    pq.write_table(schema.empty_table(), file, compression="none", use_dictionary=False)
    return file.getvalue()


class HashingFile:
    """A binary file that is written once, front to back, and hashed on the way.

    We write whole blocks, so that the page cache holds them in huge pages (Linux 6.16 on ext4,
    earlier on XFS). Written row group by row group, the file would lie there in pieces of 4 KiB to
    1 MiB, and gather up to a third more slowly until it is read from the disk again.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.sha256 = hashlib.sha256()
        self.size = 0
        self._block = memoryview(bytearray(BLOCK_BYTES))

    def write(self, content: Any) -> None:
        view = memoryview(content).cast("B")
        self.sha256.update(view)
        done = 0
        while done < view.nbytes:
            start = self.size % BLOCK_BYTES
            part = view[done : done + BLOCK_BYTES - start]
            self._block[start : start + len(part)] = part
            done += len(part)
            self.size += len(part)
            if self.size % BLOCK_BYTES == 0:
                self.file.write(self._block)

    def flush(self) -> None:
        """Write the last, short block."""
        self.file.write(self._block[: self.size % BLOCK_BYTES])


class _Sink:
    """The file object that Arrow writes to. size: the bytes that Arrow has written."""

    def __init__(self, file: Any) -> None:
        self.file = file
        self.size = 0
        self.closed = False

    def write(self, content: Any) -> int:
        length = memoryview(content).nbytes
        self.file.write(content)
        self.size += length
        return length

    def tell(self) -> int:
        return self.size

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False
