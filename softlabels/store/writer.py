"""One shard, written atomically: rows go in, a commit record comes out. N rows of a block."""

from contextlib import ExitStack
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from softlabels.logits import DenseLogits
from softlabels.store.codec import DTYPES
from softlabels.store.codecs.rounding import check_rounding, rounding_kl
from softlabels.store.folder import Folder
from softlabels.store.manifest import commit_name
from softlabels.store.records import Commit, Plan
from softlabels.store.shard_file import ShardFile
from softlabels.store.statistics import LogitStatistics

NULLABLE = ("label", "input")


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
    """The Arrow schema of a shard, with the `datasets` features in its metadata.

    A label is never null, but its column is nullable: `datasets` takes a feature from the metadata
    where its Arrow field is the very same, and so would read a ClassLabel as plain numbers.
    """
    codec = plan.make_codec()
    schema = shard_features(plan, input_feature).arrow_schema
    for index, name in enumerate(schema.names):
        type_ = codec.arrow_type if name == "logits" else schema.field(name).type
        schema = schema.set(index, pa.field(name, type_, nullable=name in NULLABLE))
    return schema


class ShardWriter:
    """Use as a context: an exception inside leaves neither a file nor a commit.

    Row groups have the plan's length and one page a column. Those of logits are uncompressed and
    PLAIN, so that a reader can map them in place.
    """

    def __init__(self, folder: Folder, plan: Plan, shard: int, schema: pa.Schema) -> None:
        self.folder, self.plan, self.shard = folder, plan, shard
        footer = {
            b"softlabels.plan": plan.hash.encode(),
            b"softlabels.shard": str(shard).encode(),
        }
        self.schema = schema.with_metadata((schema.metadata or {}) | footer)
        self.codec = plan.make_codec()
        self.statistics = LogitStatistics()
        self.skipped: list[dict[str, Any]] = []
        self.unturned = 0  # pictures fed as stored, though their EXIF orientation says to turn them
        self.commit: Commit | None = None
        self._others: list[tuple[Any, ...]] = []
        self._logits_NC = np.empty((plan.group_rows, plan.classes), plan.dtype)
        self._rounding_kl = 0.0
        self._waiting = 0  # rows of the group that is being filled

    def __enter__(self) -> "ShardWriter":
        with ExitStack() as stack:
            raw = stack.enter_context(self.folder.create(self.plan.file(self.shard)))
            self.file = ShardFile(raw, self.schema, self.plan.group_rows)
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
        encoded_NC = self.codec.encode(logits_NC, ids.tolist())
        self._rounding_kl += rounding_kl(logits_NC, encoded_NC, ids.tolist())
        stored_NC = encoded_NC.numpy()
        done = 0
        while done < len(ids):
            rows = min(len(ids) - done, self.plan.group_rows - self._waiting)
            place, part = slice(self._waiting, self._waiting + rows), slice(done, done + rows)
            self._logits_NC[place] = stored_NC[part]
            some = None if inputs is None else inputs.slice(done, rows)
            self._others.append((ids[part], hashes[part], labels[part], some))
            self._waiting += rows
            done += rows
            if self._waiting == self.plan.group_rows:
                self._write()

    def skip(self, entry: dict[str, Any]) -> None:
        """Record a row that was left out: id, row, input_hash, label, reason."""
        self.skipped.append(entry)

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is not None:
            self.file.abandon()
            self._stack.__exit__(kind, error, trace)
            return
        start, stop = self.plan.bounds(self.shard)
        with self._stack:
            try:
                if self._waiting:
                    self._write()
                statistics = self.statistics.merged
                whole = statistics["rows"] + len(self.skipped) == stop - start
                assert whole, "a shard is whole"
                if self.unturned:
                    statistics["unturned"] = self.unturned
                where = f"shard {self.shard}"
                dtype = DTYPES[self.plan.dtype][0]
                check_rounding(self._rounding_kl, statistics["rows"], dtype, where)
                self.file.close()
            except BaseException:
                self.file.abandon()
                raise
        written = self.file.file
        self.commit = Commit(
            shard=self.shard,
            plan=self.plan.hash,
            file=self.plan.file(self.shard),
            rows=statistics["rows"],
            bytes=written.size,
            sha256=written.sha256.hexdigest(),
            statistics=statistics,
            skipped=self.skipped,
        )
        self.folder.write_json(commit_name(self.shard), vars(self.commit))

    def _write(self) -> None:
        rows, self._waiting = self._waiting, 0
        *numbers, inputs = zip(*self._others, strict=True)
        self._others = []
        ids, hashes, labels = map(np.concatenate, numbers)
        columns: dict[str, Any] = {
            "id": pa.array(ids.tolist() if ids.dtype.kind == "U" else ids),
            "view": pa.array(np.zeros(rows, np.int32)),
            "input_hash": pa.array(hashes),
            "label": pa.array(labels),
            "input": None if inputs[0] is None else pa.chunked_array(inputs).combine_chunks(),
        }
        schema = self.file.others
        others = pa.table([columns[name] for name in schema.names], schema=schema)
        self.statistics.add(DenseLogits(torch.from_numpy(self._logits_NC[:rows])), labels)
        self.file.write(others, self._logits_NC[:rows])
