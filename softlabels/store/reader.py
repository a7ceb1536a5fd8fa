"""A complete dump, read back: columns of all shards in the plan's order. R rows, C classes."""

from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from softlabels.errors import DamagedDump
from softlabels.store.folder import Folder
from softlabels.store.manifest import read_manifest


class DumpReader:
    """Only the files that the manifest names are read. Page checksums are verified.

    Raises IncompleteDump, StoreError or DamagedDump (see `read_manifest`).
    """

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.manifest, self.plan = read_manifest(folder)
        self.codec = self.plan.make_codec()

    def __len__(self) -> int:
        return self.manifest.rows

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

    @cached_property
    def labels(self) -> np.ndarray | None:
        """int64 [R], −1 for none; None where the source had no labels."""
        if self.plan.source["columns"]["label"] is None:
            return None
        return self.table(["label"])["label"].to_numpy().copy()

    @cached_property
    def logits(self) -> np.ndarray:
        """[R, C] in the stored dtype, decoded once."""
        values = np.empty((len(self), self.plan.classes), dtype=self.plan.dtype)
        start = 0
        for shard in range(len(self.manifest.shards)):
            part = self.codec.decode(self._read(shard, ["logits"])["logits"])
            values[start : start + len(part)] = part
            start += len(part)
        return values

    def table(self, columns: list[str]) -> pa.Table:
        """These columns of all shards."""
        return pa.concat_tables(
            self._read(shard, columns) for shard in range(len(self.manifest.shards))
        )

    def _read(self, shard: int, columns: list[str]) -> pa.Table:
        record = self.manifest.shards[shard]
        name = record.get("file")
        if name != self.plan.file(shard):
            raise DamagedDump(f"{self.folder}: shard {shard} is named {name!r} in the manifest")
        where = f"{self.folder}/{name}"
        try:
            with self.folder.open(name) as file:
                parquet = pq.ParquetFile(file, page_checksum_verification=True)
                self._check_footer(parquet, shard, where)
                table = parquet.read(columns=columns)
        except FileNotFoundError as error:
            raise DamagedDump(f"{where} is missing; {REDO}") from error
        except (pa.ArrowInvalid, OSError) as error:
            raise DamagedDump(f"{where} is damaged: {error}; {REDO}") from error
        if len(table) != record.get("rows"):
            raise DamagedDump(f"{where} has {len(table)} rows, not {record.get('rows')}; {REDO}")
        return table

    def _check_footer(self, parquet: pq.ParquetFile, shard: int, where: str) -> None:
        footer = parquet.schema_arrow.metadata or {}
        if footer.get(b"softlabels.plan", b"").decode() != self.plan.hash:
            raise DamagedDump(f"{where} belongs to another dump; {REDO}")
        if footer.get(b"softlabels.shard") != str(shard).encode():
            raise DamagedDump(f"{where} is another shard of this dump; {REDO}")


REDO = "remove it, and run the same softlabels dump with --resume: that redoes this shard alone"
