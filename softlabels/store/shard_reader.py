"""One shard, local or remote, read row group by row group, however its pages are packed."""

import io
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from operator import itemgetter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from softlabels.errors import DamagedDump
from softlabels.store.bands import group_count
from softlabels.store.codecs.codec import Stored
from softlabels.store.folder import Folder
from softlabels.store.footers import PARQUET_ERRORS, check_footer, refuse_empty_cells
from softlabels.store.pages.places import plain_values
from softlabels.store.records import Plan
from softlabels.system.background import in_order

FOOTER_BYTES = 64 << 10
GAP_BYTES = 256 << 10  # cheaper to fetch with its neighbours than by another request
CONNECTIONS = 4  # requests at a time, where a file needs several
MAGIC = b"PAR1"


class ShardReader:
    """Decodes row groups of one shard and verifies page checksums. Safe to use from several
    threads.

    The footer of a remote file is fetched once, and each row group by one request, or by two where
    inputs that were not asked for lie between its columns. Some columns of all row groups take a
    request each, or fewer where these are small.
    """

    def __init__(
        self, folder: Folder, plan: Plan, shard: int, rows: int, path: str | None = None
    ) -> None:
        """path: of a local copy of the file, if it is not read from the folder itself."""
        self.folder, self.plan, self.shard, self.rows = folder, plan, shard, rows
        self.path = path
        self.name = plan.file(shard)
        self.codec = plan.make_codec(folder)
        # no cached_property: in Python 3.11 it holds a lock for all objects, which a process forked
        # meanwhile would wait for without end
        self._known: dict[str, Any] = {}

    @property
    def groups(self) -> int:
        """How many row groups it has."""
        return group_count(self.rows, self.plan.group_rows, len(self.plan.views))

    def unpacked_bytes(self, names: Collection[str]) -> int:
        """The memory that these columns take unpacked, by the footer. Raises DamagedDump."""
        with self._in_words():
            metadata = self._metadata
        groups = [metadata.row_group(index) for index in range(self.groups)]
        return sum(
            chunk.total_uncompressed_size
            for group in groups
            for chunk in map(group.column, range(group.num_columns))
            if chunk.path_in_schema.partition(".")[0] in names
        )

    def stored(self, group: int, out: Stored | None = None) -> Stored:
        """The codec's columns of a row group. out: arrays that the numbers of mapped columns are
        decoded into. Raises DamagedDump."""
        return self.decode(self.table(group, self.codec.names), out)

    def decode(self, table: pa.Table, out: Stored | None = None) -> Stored:
        """The codec's columns of a table."""
        places = out or {}
        return {c.name: c.decode(table[c.name], places.get(c.name)) for c in self.codec.columns}

    def in_place(self, group: int) -> Stored:
        """`stored` for a local file whose hash was checked: where possible, values are read as they
        lie in the file, without Arrow and page checksums."""
        metadata = self._metadata.row_group(group)
        stored: Stored = {}
        with open(self._local, "rb") as file:
            for column in self.codec.mapped:
                offset = plain_values(file, metadata, column)
                if offset is None:
                    continue
                file.seek(offset)
                count = metadata.num_rows * int(np.prod(column.shape, dtype=np.int64))
                numbers = np.fromfile(file, column.dtype, count)
                stored[column.name] = numbers.reshape(metadata.num_rows, *column.shape)
        others = [name for name in self.codec.names if name not in stored]
        if others:
            table = self.table(group, others)
            for column in self.codec.columns:
                if column.name in others:
                    stored[column.name] = column.decode(table[column.name])
        return stored

    def table(self, group: int, columns: Sequence[str]) -> pa.Table:
        """These columns of a row group. Raises DamagedDump, also for empty cells in a column that
        must not have any."""
        return self._table([group], columns)

    def columns(self, columns: Sequence[str]) -> pa.Table:
        """These columns of all row groups. Of a remote file little more than these is fetched.
        Raises DamagedDump."""
        return self._table(range(self.groups), columns)

    def _table(self, groups: Sequence[int], columns: Sequence[str]) -> pa.Table:
        with self._in_words():
            source = self._part(groups, columns) if self._footer else self._local
            with pq.ParquetFile(
                source, metadata=self._metadata, page_checksum_verification=True
            ) as parquet:
                table = parquet.read_row_groups(
                    list(groups), columns=list(columns), use_threads=False
                )
            refuse_empty_cells(table, self.plan)
        return table

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        """Raise what the file system and Arrow raise as DamagedDump, with the remedy."""
        where = f"{self.folder}/{self.name}"
        try:
            yield
        except FileNotFoundError as error:
            raise DamagedDump(f"{where} is missing; {self.folder.remedy}") from error
        except (DamagedDump, *PARQUET_ERRORS) as error:
            raise DamagedDump(f"{where} is damaged: {error}; {self.folder.remedy}") from error

    def _once(self, name: str, find: Callable[[], Any]) -> Any:
        if name not in self._known:
            self._known[name] = find()
        return self._known[name]

    @property
    def _local(self) -> str:
        return self.path or self.folder.path(self.name)

    @property
    def _size(self) -> int:
        size: int = self._once("size", lambda: self.folder.size(self.name))
        return size

    @property
    def _metadata(self) -> pq.FileMetaData:
        return self._once("metadata", self._read_metadata)

    @property
    def _footer(self) -> bytes:
        """The end of a remote file, from its footer on; empty for a local one."""
        footer: bytes = self._once("footer", self._read_footer)
        return footer

    def _read_metadata(self) -> pq.FileMetaData:
        source = io.BytesIO(self._footer) if self._footer else self._local
        with pq.ParquetFile(source) as parquet:
            check_footer(parquet, self.plan, self.shard, self.rows)
            return parquet.metadata

    def _read_footer(self) -> bytes:
        if self.path or self.folder.is_local:
            return b""
        size = self._size
        end = self.folder.read_range(self.name, max(0, size - FOOTER_BYTES), size)
        length = int.from_bytes(end[-8:-4], "little") + 8
        if len(end) < length <= size:
            end = self.folder.read_range(self.name, size - length, size)
        return MAGIC + end[-length:]

    def _part(self, groups: Sequence[int], columns: Sequence[str]) -> "_Part":
        """The bytes of these columns of row groups, and of the little that lies between them."""
        of_groups = [self._metadata.row_group(group) for group in groups]
        chunks = [each.column(i) for each in of_groups for i in range(each.num_columns)]
        chosen = [c for c in chunks if c.path_in_schema.partition(".")[0] in columns]
        runs: list[tuple[int, int]] = []
        for start, size in sorted(
            (c.dictionary_page_offset or c.data_page_offset, c.total_compressed_size)
            for c in chosen
        ):
            if start <= 0 or size < 0 or start + size > self._size:
                raise DamagedDump("a row group is said to lie outside of it")
            if runs and start - runs[-1][1] <= GAP_BYTES:
                runs[-1] = runs[-1][0], max(runs[-1][1], start + size)
            else:
                runs.append((start, start + size))

        def fetch(run: tuple[int, int]) -> tuple[int, bytes]:
            return run[0], self.folder.read_range(self.name, *run)

        parts = list(map(fetch, runs) if len(runs) < 3 else in_order(fetch, runs, CONNECTIONS))
        return _Part(parts, self._size)


class _Part(io.RawIOBase):
    """A file of `size` bytes of which only some parts are in memory. parts: (start, content)."""

    def __init__(self, parts: list[tuple[int, bytes]], size: int) -> None:
        self.parts, self.size, self.at = parts, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self.at = offset + (0, self.at, self.size)[whence]
        return self.at

    def tell(self) -> int:
        return self.at

    def read(self, size: int = -1) -> bytes:
        number = bisect_right(self.parts, self.at, key=itemgetter(0)) - 1
        start, content = self.parts[max(number, 0)] if self.parts else (0, b"")
        first = self.at - start
        if 0 <= first <= first + size <= len(content):
            self.at += size
            return content[first : first + size]
        raise OSError(f"bytes {self.at} to {self.at + size} were not fetched")
