"""Parquet files, read in place: a row group is decoded when its rows are asked for.

Nothing is copied or converted. Reading in order costs one pass over the file; in any other order,
each row whose group is not kept in memory decodes that group again.
"""

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from softlabels.errors import SourceError
from softlabels.inputs.plain import features_of, plain, plain_type, same_type
from softlabels.inputs.pointers import POINTER, refuse_pointer
from softlabels.inputs.tables.identity import Files, Lines
from softlabels.inputs.tables.table import texts_of_codes

WHOLE_BYTES = 128 << 20  # a row group's columns up to this size are decoded at once
KEPT_BYTES = 256 << 20  # of decoded row groups that a process keeps
BATCH_BYTES = 4 << 20  # at a time of a larger row group, which is streamed
LEAST_ROWS, MOST_ROWS = 256, 65_536  # in that
BUFFER_BYTES = 1 << 20


@dataclass(frozen=True)
class Footer:
    """A file as it was when opened; `mark` holds its size, time of change and footer hash."""

    path: Path
    mark: tuple[int, int, str]
    schema: pa.Schema
    metadata: pq.FileMetaData


def read_footer(path: Path) -> Footer:
    """Raises SourceError for a file that is not Parquet or was cut off."""
    try:
        with path.open("rb") as start:
            refuse_pointer(path, start.read(len(POINTER)))
        with pq.ParquetFile(path) as file:
            return Footer(path, mark_of(path), file.schema_arrow, file.metadata)
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise SourceError(f"{path} can't be read as Parquet: {reason}") from error


def mark_of(path: Path) -> tuple[int, int, str]:
    """Size, time of change and a hash of the footer, which holds the place of every row group."""
    with path.open("rb") as file:
        state = os.fstat(file.fileno())
        file.seek(-8, os.SEEK_END)
        length = int.from_bytes(file.read(4), "little") + 8
        file.seek(-min(length, state.st_size), os.SEEK_END)
        return state.st_size, state.st_mtime_ns, hashlib.sha256(file.read()).hexdigest()


class ParquetTable:
    """The rows of one or more Parquet files, one after the other.

    Can be pickled and forked: each process opens the files itself, and refuses a file that was
    changed since it was first opened.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        footers = [read_footer(path.absolute()) for path in paths]
        self.paths = [footer.path for footer in footers]
        self.marks = [footer.mark for footer in footers]
        self._schema = common_schema(footers)
        self.features: dict[str, Any] = features_of(self._schema)
        self._groups = [
            (number, group)
            for number, footer in enumerate(footers)
            for group in range(footer.metadata.num_row_groups)
        ]
        rows = [footers[n].metadata.row_group(g).num_rows for n, g in self._groups]
        self._starts = np.concatenate([[0], np.cumsum(rows, dtype=np.int64)])
        self._opened: dict[int, _Opened] = {}

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": {}}

    def read(self, names: Sequence[str], start: int, stop: int) -> pa.Table:
        first = int(np.searchsorted(self._starts, start, "right")) - 1
        parts = []
        while start < stop:
            begin, end = int(self._starts[first]), int(self._starts[first + 1])
            if start < end:
                parts.append(self._rows(first, names, start - begin, min(stop, end) - begin))
                start = min(stop, end)
                if start == end and len(self._groups) > 1:  # who reads on comes back later, if ever
                    self._state.drop(*self._groups[first])
            first += 1
        return self._table(names, parts)

    def take(self, names: Sequence[str], positions: np.ndarray) -> pa.Table:
        order = np.argsort(positions, kind="stable")
        ordered = np.asarray(positions, dtype=np.int64)[order]
        groups = np.searchsorted(self._starts, ordered, "right") - 1
        parts = []
        for group in np.unique(groups).tolist():
            rows = ordered[groups == group] - self._starts[group]
            if self._state.is_large((*self._groups[group], tuple(names))):
                parts += [self._rows(group, names, row, row + 1) for row in rows.tolist()]
                continue
            first = int(rows[0])
            part = self._rows(group, names, first, int(rows[-1]) + 1)
            parts.append(_taken(part, rows - first))
        back = np.empty(len(order), dtype=np.int64)
        back[order] = np.arange(len(order))
        return _reordered(self._table(names, parts), back)

    @property
    def identity(self) -> Lines:
        """By size and footer, which holds the place, sizes and extremes of every row group."""
        return Lines([f"{size} {footer}" for size, _, footer in self.marks])

    @property
    def files(self) -> Files:
        return tuple((p, mark[:2]) for p, mark in zip(self.paths, self.marks, strict=True))

    def unkept_bytes(self, names: Sequence[str]) -> int:
        """How much of these columns, decoded, does not fit into what is kept of row groups: where
        rows are taken at random, that is decoded again and again."""
        size = sum(self._state.size((*group, tuple(names))) for group in self._groups)
        return max(0, size - KEPT_BYTES)

    def categories(self, name: str) -> list[str] | None:
        first = next((n for n, rows in enumerate(np.diff(self._starts)) if rows), None)
        if first is None or not pa.types.is_dictionary(self._schema.field(name).type):
            return None
        return texts_of_codes(self._state.rows(*self._groups[first], (name,), 0, 1)[name])

    @property
    def _state(self) -> "_Opened":
        """The files as this process opened them; a forked child opens them anew."""
        pid = os.getpid()
        return self._opened.get(pid) or self._opened.setdefault(pid, _Opened(self))

    def _table(self, names: Sequence[str], parts: list[pa.Table]) -> pa.Table:
        if parts:
            return pa.concat_tables(parts)
        types = [(name, plain_type(self._schema.field(name).type)) for name in names]
        return pa.schema(types).empty_table()

    def _rows(self, group: int, names: Sequence[str], start: int, stop: int) -> pa.Table:
        table = self._state.rows(*self._groups[group], tuple(names), start, stop)
        columns = {name: plain(table[name]) for name in names}
        types = {name: plain_type(self._schema.field(name).type) for name in names}
        return pa.table({n: _as_first(column, types[n]) for n, column in columns.items()})


class _Opened:
    """The files that a process has open, and the decoded row groups that it keeps."""

    def __init__(self, table: ParquetTable) -> None:
        self.paths, self.marks = table.paths, table.marks
        self.lock = threading.RLock()
        self.sizes: dict[tuple, int] = {}
        self.files: OrderedDict[int, pq.ParquetFile] = OrderedDict()
        self.kept: OrderedDict[tuple, pa.Table] = OrderedDict()
        self.kept_bytes = 0
        self.streams: OrderedDict[tuple, _Stream] = OrderedDict()

    def is_large(self, key: tuple) -> bool:
        """Whether these columns of a row group are too large to be decoded at once. key: number of
        the file, number of the group, columns."""
        return self.size(key) > WHOLE_BYTES

    def size(self, key: tuple) -> int:
        """The bytes of these columns of a row group, decoded."""
        number, group, names = key
        with self.lock:
            if key not in self.sizes:
                self.sizes[key] = _decoded_bytes(self._file(number), group, names)
            return self.sizes[key]

    def rows(self, number: int, group: int, names: tuple, start: int, stop: int) -> pa.Table:
        with self.lock:
            key = self._kept_key(number, group, names)
            if key in self.kept:
                self.kept.move_to_end(key)
                return self.kept[key].select(list(names)).slice(start, stop - start)
            file = self._file(number)
            try:
                if self.is_large(key):
                    return self._stream(key, file, start).rows(start, stop)
                table = file.read_row_group(group, columns=list(names))
            except (pa.ArrowException, OSError) as error:
                self._check(number)
                reason = " ".join(str(error).split())[:200]
                raise SourceError(
                    f"{self.paths[number]}, row group {group}, can't be read: {reason}"
                ) from error
            self._keep(key, table)
            return table.slice(start, stop - start)

    def drop(self, number: int, group: int) -> None:
        """Keep this row group no longer."""
        with self.lock:
            for key in [key for key in self.kept if key[:2] == (number, group)]:
                self.kept_bytes -= self.kept.pop(key).nbytes

    def _kept_key(self, number: int, group: int, names: tuple) -> tuple:
        """That of a kept table which has these columns, beside others; else that of their own."""
        for key in self.kept:
            if key[:2] == (number, group) and set(names) <= set(key[2]):
                return key
        return number, group, names

    def _keep(self, key: tuple, table: pa.Table) -> None:
        self.kept[key] = table
        self.kept_bytes += table.nbytes
        while len(self.kept) > 1 and self.kept_bytes > KEPT_BYTES:
            self.kept_bytes -= self.kept.popitem(last=False)[1].nbytes

    def _file(self, number: int) -> pq.ParquetFile:
        self._check(number)
        if number not in self.files:
            self.files[number] = pq.ParquetFile(self.paths[number], buffer_size=BUFFER_BYTES)
            if len(self.files) > 64:
                self.files.popitem(last=False)
        self.files.move_to_end(number)
        return self.files[number]

    def _check(self, number: int) -> None:
        """Raises SourceError for a file that was changed since it was opened."""
        path, (size, time, footer) = self.paths[number], self.marks[number]
        try:
            state = path.stat()
            same = (state.st_size, state.st_mtime_ns) == (size, time)
            if same and number not in self.files:
                same = mark_of(path)[2] == footer
        except OSError as error:
            raise SourceError(f"{path} can't be read any more: {error.strerror}") from error
        if not same:
            raise SourceError(f"{path} was written again while it is read; start anew")

    def _stream(self, key: tuple, file: pq.ParquetFile, start: int) -> "_Stream":
        stream = self.streams.get(key)
        if stream is None or start < stream.first:
            rows = BATCH_BYTES * file.metadata.row_group(key[1]).num_rows // self.sizes[key]
            rows = min(MOST_ROWS, max(LEAST_ROWS, rows))
            self.streams[key] = stream = _Stream(file, key[1], key[2], rows)
            if len(self.streams) > 2:
                self.streams.popitem(last=False)
        self.streams.move_to_end(key)
        return stream


class _Stream:
    """A row group that is too large to be decoded whole. It is read forwards; to go back, it starts
    again."""

    def __init__(self, file: pq.ParquetFile, group: int, names: tuple, rows: int) -> None:
        self.batches = file.iter_batches(rows, row_groups=[group], columns=list(names))
        self.first = 0  # the first row of `held`, counted within the group
        self.held: list[pa.RecordBatch] = []

    def rows(self, start: int, stop: int) -> pa.Table:
        while self.first + sum(map(len, self.held)) < stop:
            self.held.append(next(self.batches))
            self._drop(start)
        self._drop(start)
        return pa.Table.from_batches(self.held).slice(start - self.first, stop - start)

    def _drop(self, start: int) -> None:
        while len(self.held) > 1 and self.first + len(self.held[0]) <= start:
            self.first += len(self.held.pop(0))


def common_schema(footers: list[Footer]) -> pa.Schema:
    """The columns of all files, in the order of the first file. A column's type is that of the
    first file in which it has values. Raises SourceError if files disagree."""
    first = footers[0]
    twice = [name for name in first.schema.names if first.schema.names.count(name) > 1]
    if twice:
        raise SourceError(f"{first.path} has several columns called {twice[0]!r}")
    schema = first.schema
    for footer in footers[1:]:
        for number, field in enumerate(schema):
            if pa.types.is_null(field.type) and field.name in footer.schema.names:
                type = footer.schema.field(field.name).type
                schema = schema.set(number, field.with_type(type))
        check_same(replace(first, schema=schema), footer)
    return schema


def check_same(first: Footer, other: Footer) -> None:
    """Raises SourceError if two files of one split have different columns."""
    one, two = set(first.schema.names), set(other.schema.names)
    if one != two:
        only = ", ".join(sorted(one ^ two)[:5])
        raise SourceError(
            f"{first.path.name} and {other.path.name} are files of one split with other columns: "
            f"only one of them has {only}. Name the file that is meant"
        )
    for field in first.schema:
        type = other.schema.field(field.name).type
        if not same_type(field.type, type) and not pa.types.is_null(type):
            raise SourceError(
                f"the column {field.name!r} is {field.type} in {first.path.name} and {type} in "
                f"{other.path.name}; files of one split have the same columns"
            )


def _as_first(column: pa.ChunkedArray, type: pa.DataType) -> pa.ChunkedArray:
    """The column in the layout of the first file; in others it may be null, large, or name its
    list items otherwise."""
    same = column.type.equals(type) or pa.types.is_large_list(column.type)
    return column if same else column.cast(type)


def _decoded_bytes(file: pq.ParquetFile, group: int, names: tuple) -> int:
    described = file.metadata.row_group(group)
    columns = (described.column(n) for n in range(described.num_columns))
    inside = tuple(f"{name}." for name in names)
    return sum(
        c.total_uncompressed_size
        for c in columns
        if c.path_in_schema in names or c.path_in_schema.startswith(inside)
    )


def _taken(table: pa.Table, rows: np.ndarray) -> pa.Table:
    """These rows, which ascend. Of a slice, `take` of pyarrow (26.0.1 at least) gives other numbers
    where fixed-size lists hold such lists, as those of [C, H, W] do, and says nothing."""
    if any(_holds_lists(field.type) for field in table.schema):
        return pa.concat_tables([table.slice(row, 1) for row in rows.tolist()])
    return table.take(pa.array(rows))


def _holds_lists(type: pa.DataType) -> bool:
    return pa.types.is_nested(type) and any(
        pa.types.is_nested(type.field(i).type) for i in range(type.num_fields)
    )


def _reordered(table: pa.Table, order: np.ndarray) -> pa.Table:
    """The rows in this order. Taken row by row, since `take` would join chunks of images that may
    exceed 2 GiB together."""
    if (order[1:] > order[:-1]).all():
        return table
    return pa.concat_tables([table.slice(row, 1) for row in order.tolist()])
