"""A complete dump, or some shards of it, read back in the plan's order. R rows, C classes."""

from collections.abc import Iterable
from functools import cached_property
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from softlabels.errors import DamagedDump, UsageError
from softlabels.store.folder import Folder
from softlabels.store.manifest import read_manifest
from softlabels.store.records import Plan
from softlabels.store.shard_numbers import parse_numbers, write_numbers


class DumpReader:
    """Only the files that the manifest names are read, and of these the shards with `numbers`, in
    ascending order; below, `shard` is a place among them. Page checksums are verified.

    Raises IncompleteDump, StoreError or DamagedDump (see `read_manifest`).
    """

    def __init__(self, folder: Folder, shards: str | Iterable[int] | None = None) -> None:
        self.folder = folder
        self.manifest, self.plan = read_manifest(folder)
        self.codec = self.plan.make_codec()
        self.numbers = parse_numbers(shards, self.plan.shards)
        self.records = [self.manifest.shards[number] for number in self.numbers]
        self._rows: int = sum(record["rows"] for record in self.records)
        if self.plan.views != ["clean"]:
            raise UsageError(f"{folder} has the views {self.plan.views}; update softlabels")

    def __len__(self) -> int:
        return self._rows

    @property
    def identity(self) -> str:
        """What these rows are: the same for the same shards of the same plan."""
        if len(self.numbers) == self.plan.shards:
            return self.plan.hash
        return f"{self.plan.hash} shards {write_numbers(self.numbers)}"

    @cached_property
    def ids(self) -> np.ndarray:
        """int64 or str [R]."""
        column = self.table(["id"])["id"]
        if self.plan.ids == "int64":
            return column.to_numpy().copy()
        return np.array(column.to_pylist(), dtype=np.str_)

    @cached_property
    def hashes(self) -> np.ndarray:
        """uint64 [R]."""
        return self.table(["input_hash"])["input_hash"].to_numpy().copy()

    @property
    def labelled(self) -> bool:
        return self.plan.source["columns"]["label"] is not None

    @cached_property
    def labels(self) -> np.ndarray | None:
        """int64 [R], −1 for none; None where the source had no labels."""
        if not self.labelled:
            return None
        return self.table(["label"])["label"].to_numpy().copy()

    def logits_of(self, rows: np.ndarray) -> np.ndarray:
        """The logits of these rows (ascending), one shard in memory at a time."""
        starts = np.cumsum([0, *(record["rows"] for record in self.records)])
        shards = np.searchsorted(starts, rows, side="right") - 1
        parts = [
            self.codec.decode(self.read_shard(int(shard), ["logits"])["logits"])[
                rows[shards == shard] - starts[shard]
            ]
            for shard in np.unique(shards)
        ]
        return np.concatenate(parts)

    def table(self, columns: list[str]) -> pa.Table:
        """These columns of all shards that are read."""
        return pa.concat_tables(
            self.read_shard(shard, columns) for shard in range(len(self.records))
        )

    def checked_path(self, shard: int) -> str:
        """The path of a shard's file in a local folder, which is there and as large as recorded,
        and so large enough for the rows that are promised. Raises DamagedDump."""
        record = self.records[shard]
        where = f"{self.folder}/{record['file']}"
        try:
            found = self.folder.size(record["file"])
        except FileNotFoundError:
            raise DamagedDump(f"{where} is missing; {self.folder.remedy}") from None
        except OSError as error:
            raise DamagedDump(
                f"{where} can't be read: {error.strerror}; {self.folder.remedy}"
            ) from error
        if found != record["bytes"]:
            raise DamagedDump(
                f"{where} is damaged: it has {found:,} bytes, recorded are {record['bytes']:,}; "
                f"{self.folder.remedy}"
            )
        return self.folder.path(record["file"])

    def read_shard(self, shard: int, columns: list[str]) -> pa.Table:
        """These columns of one shard. Raises DamagedDump."""
        record, number = self.records[shard], self.numbers[shard]
        where = f"{self.folder}/{record['file']}"
        try:
            self.folder.size(record["file"])  # no pipe, no folder
            if self.folder.is_local:
                path = self.folder.path(record["file"])
                return read_columns(path, self.plan, number, record["rows"], columns)
            with self.folder.open(record["file"]) as file:
                return read_columns(file, self.plan, number, record["rows"], columns)
        except FileNotFoundError as error:
            raise DamagedDump(f"{where} is missing; {self.folder.remedy}") from error
        except (DamagedDump, *PARQUET_ERRORS) as error:
            raise DamagedDump(f"{where} is damaged: {error}; {self.folder.remedy}") from error


def read_columns(
    file: IO[bytes] | str, plan: Plan, shard: int, rows: int, columns: list[str]
) -> pa.Table:
    """Columns of one shard's file, page checksums verified, after its footer was checked.

    Raises DamagedDump for a file that is not this shard, and one of PARQUET_ERRORS.
    """
    with pq.ParquetFile(file, page_checksum_verification=True) as parquet:
        check_footer(parquet, plan, shard, rows)
        # Arrow's threads let go of a Python file's buffers when they like; if the interpreter is
        # ending by then, the process aborts
        table = parquet.read(columns=columns, use_threads=isinstance(file, str))
    if len(table) != rows:
        raise DamagedDump(f"it gave {len(table)} rows; expected are {rows}")
    refuse_empty_cells(table)
    return table


def refuse_empty_cells(table: pa.Table) -> None:
    """Raises DamagedDump where a column other than `input` has some: no label is −1, not null."""
    for name in table.column_names:
        if name != "input" and table[name].null_count:
            remark = "; a row without a label has the label -1" if name == "label" else ""
            raise DamagedDump(f"its column {name} has empty cells{remark}")


def check_footer(parquet: pq.ParquetFile, plan: Plan, shard: int, rows: int) -> None:
    """Raises DamagedDump where a footer is not what this shard's must be, or promises more than
    the file can hold."""
    footer = parquet.schema_arrow.metadata or {}
    if footer.get(b"softlabels.plan", b"") != plan.hash.encode():
        raise DamagedDump("it belongs to another dump")
    if footer.get(b"softlabels.shard") != str(shard).encode():
        found = footer.get(b"softlabels.shard", b"none")[:20].decode(errors="replace")
        raise DamagedDump(f"it is another shard of this dump, number {found}")
    metadata = parquet.metadata
    groups = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    full, rest = divmod(rows, plan.group_rows)
    if metadata.num_rows != rows or groups != [plan.group_rows] * full + [rest] * bool(rest):
        raise DamagedDump(f"its footer tells of {metadata.num_rows} rows, expected are {rows}")
    schema, logits = parquet.schema_arrow, plan.make_codec().arrow_type
    wanted = {
        "id": KINDS[plan.ids],
        "view": pa.int32(),
        "input_hash": pa.uint64(),
        "logits": logits,
    }
    if plan.source["columns"]["label"] is not None:
        wanted["label"] = pa.int64()
    for name, kind in wanted.items():
        if schema.names.count(name) != 1 or schema.field(name).type != kind:
            raise DamagedDump(f"its columns are {', '.join(schema.names)}, or of other types")


KINDS = {"int64": pa.int64(), "string": pa.string()}
PARQUET_ERRORS = (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError)
