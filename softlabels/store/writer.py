"""One shard, written atomically: rows go in, a commit record comes out. N rows of a block."""

import hashlib
from contextlib import ExitStack
from typing import IO, Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from softlabels.store.folder import Folder
from softlabels.store.manifest import commit_name
from softlabels.store.records import Commit, Plan
from softlabels.store.statistics import LogitStatistics


def shard_features(plan: Plan, input_feature: Any) -> datasets.Features:
    """The columns of a shard as `datasets` knows them."""
    names = plan.source["class_names"]
    features = {
        "id": datasets.Value(plan.ids),
        "view": datasets.Value("int32"),
        "input_hash": datasets.Value("uint64"),
    }
    if plan.source["columns"]["label"] is not None:
        features["label"] = datasets.ClassLabel(names=names) if names else datasets.Value("int64")
    if plan.with_inputs:
        features["input"] = input_feature
    features["logits"] = datasets.List(datasets.Value(plan.dtype), length=plan.classes)
    return datasets.Features(features)


def shard_schema(plan: Plan, input_feature: Any) -> pa.Schema:
    """The Arrow schema of a shard, with the `datasets` features in its metadata."""
    codec = plan.make_codec()
    schema = shard_features(plan, input_feature).arrow_schema
    for index, name in enumerate(schema.names):
        type_ = codec.arrow_type if name == "logits" else schema.field(name).type
        schema = schema.set(index, pa.field(name, type_, nullable=name == "input"))
    return schema


class ShardWriter:
    """Use as a context: an exception inside leaves neither a file nor a commit.

    Row groups have the plan's length and one page a column, uncompressed and without dictionary,
    so that a reader can map the logits in place.
    """

    def __init__(self, folder: Folder, plan: Plan, shard: int, schema: pa.Schema) -> None:
        self.folder, self.plan, self.shard = folder, plan, shard
        footer = {
            b"softlabels.plan": plan.hash.encode(),
            b"softlabels.shard": str(shard).encode(),
        }
        self.schema = schema.with_metadata((schema.metadata or {}) | footer)
        self.codec = plan.make_codec()
        self.waiting: list[pa.RecordBatch] = []
        self.waiting_rows = 0
        self.statistics = LogitStatistics(plan.classes)
        self.skipped: list[dict[str, Any]] = []
        self.commit: Commit | None = None

    def __enter__(self) -> "ShardWriter":
        with ExitStack() as stack:
            raw = stack.enter_context(self.folder.create(self.plan.file(self.shard)))
            self.file = _HashingFile(raw)
            self.parquet = pq.ParquetWriter(
                pa.PythonFile(self.file, mode="w"),
                self.schema,
                compression="none",
                use_dictionary=False,
                write_statistics=["id"],
                write_page_index=True,
                write_page_checksum=True,
                write_batch_size=self.plan.group_rows,
                max_rows_per_page=self.plan.group_rows,
                data_page_size=1 << 30,
            )
            self._stack = stack.pop_all()
        return self

    def add(
        self,
        ids: np.ndarray,
        labels: np.ndarray,
        hashes: np.ndarray,
        logits_NC: Tensor,
        inputs: pa.Array | None = None,
    ) -> None:
        """Rows of view 0. Raises LogitsError where a row's logits must not be stored."""
        column, stored_NC = self.codec.encode(logits_NC, ids.tolist())
        columns: dict[str, Any] = {
            "id": pa.array(ids.tolist() if ids.dtype.kind == "U" else ids),
            "view": pa.array(np.zeros(len(ids), np.int32)),
            "input_hash": pa.array(hashes),
            "label": pa.array(labels),
            "input": inputs,
            "logits": column,
        }
        arrays = [columns[name] for name in self.schema.names]
        self.waiting.append(pa.record_batch(arrays, schema=self.schema))
        self.waiting_rows += len(ids)
        self.statistics.add(stored_NC, labels)
        while self.waiting_rows >= self.plan.group_rows:
            self._write(self.plan.group_rows)

    def skip(self, entry: dict[str, Any]) -> None:
        """Record a row that was left out: id, row, input_hash, label, reason."""
        self.skipped.append(entry)

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is not None:
            self.file.abandoned = True
            self.parquet.close()
            self._stack.__exit__(kind, error, trace)
            return
        merged = self.statistics.merged
        start, stop = self.plan.bounds(self.shard)
        try:
            with self._stack:
                assert merged["rows"] + len(self.skipped) == stop - start, "a shard is whole"
                if self.waiting_rows:
                    self._write(self.waiting_rows)
                self.parquet.close()
        except BaseException:
            self.file.abandoned = True
            raise
        self.commit = Commit(
            shard=self.shard,
            plan=self.plan.hash,
            file=self.plan.file(self.shard),
            rows=merged["rows"],
            bytes=self.file.size,
            sha256=self.file.sha256.hexdigest(),
            statistics=merged,
            skipped=self.skipped,
        )
        self.folder.write_json(commit_name(self.shard), vars(self.commit))

    def _write(self, rows: int) -> None:
        table = pa.Table.from_batches(self.waiting).combine_chunks()
        self.parquet.write_table(table.slice(0, rows), row_group_size=rows)
        self.waiting = table.slice(rows).to_batches()
        self.waiting_rows -= rows


class _HashingFile:
    """A binary file that is written once, front to back, and hashed on the way."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.sha256 = hashlib.sha256()
        self.size = 0
        self.closed = False
        self.abandoned = False

    def write(self, content: Any) -> int:
        view = memoryview(content)
        if self.abandoned:
            return view.nbytes
        self.file.write(view)
        self.sha256.update(view)
        self.size += view.nbytes
        return view.nbytes

    def tell(self) -> int:
        return self.size

    def flush(self) -> None:
        self.file.flush()

    def close(self) -> None:
        self.closed = True

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False
