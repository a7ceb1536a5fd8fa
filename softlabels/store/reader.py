"""A complete dump, or some shards of it, read back in the plan's order. R rows, C classes."""

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from softlabels.errors import DamagedDump, UsageError
from softlabels.inputs.cells import read_ids
from softlabels.inputs.label_lists import Labels, hidden, none_of
from softlabels.inputs.views.mixing import MIX, PARTNER, PARTNER_LABEL, UNMIXED
from softlabels.logits import Logits
from softlabels.store.folder import Folder
from softlabels.store.footers import PARQUET_ERRORS, read_columns
from softlabels.store.label_columns import read_labels
from softlabels.store.ledger import read_manifest
from softlabels.store.plan import VIEW_HASH
from softlabels.store.shard_numbers import parse_numbers, write_numbers
from softlabels.store.shard_reader import ShardReader
from softlabels.system.background import in_order

CONNECTIONS = 4  # shards of a remote dump that are read at a time, each by a few requests


class DumpReader:
    """Only the files that the manifest names are read, and of these the shards with `numbers`, in
    ascending order; below, `shard` is a place among them. Page checksums are verified.

    Raises IncompleteDump, StoreError or DamagedDump (see `read_manifest`).
    """

    def __init__(self, folder: Folder, shards: str | Iterable[int] | None = None) -> None:
        self.folder = folder
        self.manifest, self.plan = read_manifest(folder)
        self.codec = self.plan.make_codec(folder)
        self.numbers = parse_numbers(shards, self.plan.shards)
        self.records = [self.manifest.shards[number] for number in self.numbers]
        self._rows: int = sum(record.rows for record in self.records)
        self._fetched: dict[str, pa.ChunkedArray] = {}
        try:
            _ = self.plan.parameters
        except UsageError as error:
            raise UsageError(
                f"{folder} has views that this softlabels can't show: {error}"
            ) from None

    def __len__(self) -> int:
        return self._rows

    @property
    def is_whole(self) -> bool:
        """Whether all shards are read."""
        return len(self.numbers) == self.plan.shards

    @property
    def identity(self) -> str:
        """What these rows are: the same for the same shards of the same plan."""
        if self.is_whole:
            return self.plan.hash
        return f"{self.plan.hash} shards {write_numbers(self.numbers)}"

    def fetch(self, columns: Sequence[str]) -> None:
        """Read these columns in one pass. Each waits for the first that asks for it below."""
        table = self.table([name for name in columns if name not in self._fetched])
        self._fetched |= {name: table[name] for name in table.column_names}

    def _column(self, name: str) -> pa.ChunkedArray:
        waiting = self._fetched.pop(name, None)
        return self.table([name])[name] if waiting is None else waiting

    @cached_property
    def ids(self) -> np.ndarray:
        """int64 or str [R]."""
        column = self._column("id")
        if self.plan.ids == "int64":
            return column.to_numpy().copy()
        return np.array(column.to_pylist(), dtype=np.str_)

    @cached_property
    def hashes(self) -> np.ndarray:
        """uint64 [R]."""
        return self._column("input_hash").to_numpy().copy()

    def hashes_of(self, source: Any) -> np.ndarray:
        """Those that inputs have where they are taken from `source`; None for what the dump holds,
        or else its source: uint64 [R]."""
        if source is not None or self.plan.stored is None:
            return self.hashes
        return self._column(self.plan.hash_column).to_numpy().copy()

    @cached_property
    def views(self) -> np.ndarray:
        """int32 [R]: the number of each row's view."""
        if not self.plan.has_views:
            return np.zeros(len(self), np.int32)
        return self._column("view").to_numpy().copy()

    @cached_property
    def drawn(self) -> dict[str, np.ndarray]:
        """The columns that say how each row's view was drawn, [R] each."""
        if missing := self.plan.parameters.keys() - self._fetched.keys():
            self.fetch(sorted(missing))
        return {name: self._column(name).to_numpy().copy() for name in self.plan.parameters}

    @cached_property
    def partners(self) -> np.ndarray:
        """The id of the input that each row is mixed with, or was to be; in view 0 its own. int64
        or str [R]."""
        return read_ids(self._column(PARTNER), PARTNER)

    @cached_property
    def partner_labels(self) -> Labels | None:
        """The labels of these, int64 [R], −1 for none, or lists of them; None where there are none,
        or no partners."""
        if PARTNER_LABEL not in self.plan.partner_columns:
            return None
        return self._labels(PARTNER_LABEL)

    @cached_property
    def mixed(self) -> np.ndarray:
        """Which rows are mixed with another input, bool [R]."""
        if self.plan.mixing is None:
            return np.zeros(len(self), bool)
        is_mixed: np.ndarray = self.drawn[MIX] != UNMIXED
        return is_mixed

    @cached_property
    def view_hashes(self) -> np.ndarray:
        """uint64 [R]: of the rows that have one, the hash of the pixels that the steps on pictures
        made of them; 0 for none."""
        if not self.plan.has_views:
            return np.zeros(len(self), np.uint64)
        return self._column(VIEW_HASH).fill_null(0).to_numpy().copy()

    @cached_property
    def view_rows(self) -> np.ndarray:
        """The row of each view of each input, int64 [V, inputs]: views as in the plan."""
        counts = [record.rows for record in self.records]
        starts = np.cumsum([0, *counts])
        return np.hstack(
            [self.plan.view_rows(rows) + start for rows, start in zip(counts, starts, strict=False)]
        )

    @property
    def labelled(self) -> bool:
        return self.plan.labelled

    @cached_property
    def labels(self) -> Labels | None:
        """int64 [R], −1 for none, or lists of them; None where the source had none of the teacher's
        classes."""
        return self.source_labels if self.labelled else None

    @cached_property
    def source_labels(self) -> Labels | None:
        """The source's labels, of whatever classes: `label` or `label_source`, int64 [R], −1 for
        none, or lists of them; None where there are none."""
        if (name := self.plan.label_column) is None:
            return None
        return self._labels(name)

    def _labels(self, name: str) -> Labels:
        """Raises DamagedDump for the number of no class."""
        try:
            return read_labels(self.plan, name, self._column(name))
        except DamagedDump as error:
            raise DamagedDump(f"{self.folder} is damaged: {error}; {self.folder.remedy}") from error

    def shard(self, shard: int) -> ShardReader:
        """What reads the row groups of one shard."""
        rows = self.records[shard].rows
        return ShardReader(self.folder, self.plan, self.numbers[shard], rows)

    def groups(self, labels: bool = False) -> Iterator[tuple[Logits, Labels]]:
        """The logits of each row group, and the labels of their positions: int64 [M], −1 for none
        and where they were not asked for; or lists of them. Of an input that is mixed with another
        one no label is the right answer."""
        columns = ["label"] * (labels and self.labelled)
        mixes = [MIX] * (bool(columns) and self.plan.mixing is not None)
        for shard in range(len(self.records)):
            reader = self.shard(shard)
            for group in range(reader.groups):
                table = reader.table(group, [*self.codec.names, *columns, *mixes])
                stored = reader.decode(table)
                of_rows = none_of(len(table), False)
                if columns:
                    of_rows = read_labels(self.plan, "label", table["label"])
                if mixes:
                    of_rows = hidden(of_rows, table[MIX].to_numpy() != UNMIXED)
                yield self.codec.of_arrays(stored), self.codec.by_position(of_rows, stored)

    def logits_of(self, rows: np.ndarray) -> tuple[Logits, np.ndarray]:
        """The logits of these rows (ascending), one row group in memory at a time; and for each of
        their positions, which of these rows it is of."""
        parts: list[Logits] = []
        which: list[np.ndarray] = []
        done = 0
        for reader, table in self._tables_of(rows, self.codec.names):
            stored = reader.decode(table)
            parts.append(self.codec.of_arrays(stored))
            which.append(self.codec.by_position(np.arange(done, done + len(table)), stored))
            done += len(table)
        return parts[0].joined(parts[1:]), np.concatenate(which)

    def table_of(self, rows: np.ndarray, columns: list[str]) -> pa.Table:
        """These columns of these rows (ascending), one row group in memory at a time."""
        return pa.concat_tables(table for _, table in self._tables_of(rows, columns))

    def _tables_of(
        self, rows: np.ndarray, columns: list[str]
    ) -> Iterator[tuple[ShardReader, pa.Table]]:
        """Of each row group that has some of these rows, those rows."""
        starts = np.cumsum([0, *(record.rows for record in self.records)])
        shards = np.searchsorted(starts, rows, side="right") - 1
        for shard in np.unique(shards):
            reader, local = self.shard(int(shard)), rows[shards == shard] - starts[shard]
            bounds = np.cumsum([0, *self.plan.group_sizes(reader.rows)])
            groups = np.searchsorted(bounds, local, side="right") - 1
            for group in np.unique(groups):
                chosen = local[groups == group] - bounds[group]
                yield reader, reader.table(int(group), columns).take(pa.array(chosen))

    def table(self, columns: list[str]) -> pa.Table:
        """These columns of all shards that are read."""

        def read(shard: int) -> pa.Table:
            return self.read_shard(shard, columns)

        shards = range(len(self.records))
        local = self.folder.is_local
        return pa.concat_tables(map(read, shards) if local else in_order(read, shards, CONNECTIONS))

    def checked_path(self, shard: int) -> str:
        """The path of a shard's file in a local folder, which is there and as large as recorded,
        and so large enough for the rows that are promised. Raises DamagedDump."""
        record = self.records[shard]
        where = f"{self.folder}/{record.file}"
        try:
            size = self.folder.size(record.file)
        except FileNotFoundError:
            raise DamagedDump(f"{where} is missing; {self.folder.remedy}") from None
        except OSError as error:
            raise DamagedDump(
                f"{where} can't be read: {error.strerror}; {self.folder.remedy}"
            ) from error
        if size != record.bytes:
            raise DamagedDump(
                f"{where} is damaged: it has {size:,} bytes, recorded are {record.bytes:,}; "
                f"{self.folder.remedy}"
            )
        return self.folder.path(record.file)

    def read_shard(self, shard: int, columns: list[str]) -> pa.Table:
        """These columns of one shard. Raises DamagedDump."""
        if not self.folder.is_local:
            return self.shard(shard).columns(columns)
        record, number = self.records[shard], self.numbers[shard]
        where = f"{self.folder}/{record.file}"
        try:
            self.folder.size(record.file)  # no pipe, no folder
            path = self.folder.path(record.file)
            return read_columns(path, self.plan, number, record.rows, columns)
        except FileNotFoundError as error:
            raise DamagedDump(f"{where} is missing; {self.folder.remedy}") from error
        except (DamagedDump, *PARQUET_ERRORS) as error:
            raise DamagedDump(f"{where} is damaged: {error}; {self.folder.remedy}") from error
