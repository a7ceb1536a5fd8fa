"""Dumps made without a teacher: their logits are known."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from softlabels.inputs.hashing import Fingerprint
from softlabels.store.codecs.kinds import Dense
from softlabels.store.fields import FORMAT
from softlabels.store.folder import Folder
from softlabels.store.ledger import Ledger
from softlabels.store.left_out import fingerprints
from softlabels.store.records import Commit, Manifest, Plan
from softlabels.store.writer import ShardWriter, shard_schema

OTHER_WRITERS = {
    "zstd": {"compression": "zstd"},
    "snappy, with a dictionary": {"compression": "snappy", "use_dictionary": True},
    "version 2 pages": {"compression": "none", "data_page_version": "2.0"},
    "small pages": {"compression": "none", "use_dictionary": False, "data_page_size": 64,
                    "write_batch_size": 8},
    "split bytes": {"compression": "zstd", "use_dictionary": False,
                    "column_encoding": {"logits.list.element": "BYTE_STREAM_SPLIT"}},
}  # fmt: skip


def make_plan(
    rows: int, classes: int = 3, dtype: str = "float16", group: int = 16,
    ids: np.ndarray | None = None, **words,
) -> Plan:  # fmt: skip
    source = {"data": "toy", "origin": "local", "split": "train", "revision": None,
              "class_names": None, "rows": rows,
              "columns": {"inputs": ["x"], "label": "label", "id": None}}  # fmt: skip
    teacher = {"name": "t", "kind": "checkpoint", "fingerprint": f"sha256:{1:064}", "model": None}
    fields = {"teacher": teacher, "source": source, "preprocess": "", "precision": "float32",
              "views": [0], "augment": None, "task": "classification", "codec": "dense",
              "dtype": dtype, "classes": classes,
              "positions": 1, "inputs": rows, "group_rows": group, "ids": "int64",
              "store_inputs": "none", "batch_size": None, "shard_inputs": rows,
              "format": FORMAT} | words  # fmt: skip
    starts = range(0, max(1, rows), fields["shard_inputs"])
    every = np.arange(rows) if ids is None else ids
    parts = [every[start : start + fields["shard_inputs"]] for start in starts]
    source["shards"] = [fingerprints(some, some, some % classes)[0] for some in parts]
    whole = Fingerprint()
    whole.update(every, every % classes)
    source["fingerprint"] = str(whole)
    return Plan.parse(fields, "the plan of a test")


def write_shard(
    folder: Folder, plan: Plan, shard: int, logits: np.ndarray, batch: int = 4096,
    every: np.ndarray | None = None,
) -> None:  # fmt: skip
    """`logits` are those of all rows, [N, C] or of several views [V, N, C]; ids count up, or are
    `every`; a label is the id modulo the classes."""
    start, stop = plan.bounds(shard)
    logits_VNC = logits.reshape(len(plan.views), plan.inputs, plan.classes)
    with ShardWriter(folder, plan, shard, shard_schema(plan, None)) as writer:
        for first in range(start, stop, batch):
            numbers = np.arange(first, min(first + batch, stop))
            ids = numbers if every is None else every[numbers]
            part = np.concatenate(logits_VNC[:, numbers[0] : numbers[-1] + 1])
            drawn = {
                name: np.concatenate([plan.draw(ids, view)[name] for view in plan.views])
                for name in plan.parameters
            }
            drawn["view_hash"] = np.concatenate(
                [plan.is_hashed(ids, view).astype(np.uint64) for view in plan.views]
            )
            writer.add(ids, ids % plan.classes, ids.astype(np.uint64),
                       Dense(torch.from_numpy(part)), drawn=drawn)  # fmt: skip


def make_dump(
    where: Path, logits: np.ndarray, group: int = 16, shard_rows: int | None = None,
    rewritten: dict | None = None, change: Callable[[int, pa.Table], pa.Table] | None = None,
    ids: np.ndarray | None = None, augment: str = "jitter(2)", side: int = 8, first: int = 0,
) -> Path:  # fmt: skip
    """A whole dump of these logits, [N, C] or with views [V, N, C], from `first` on, of pictures of
    this side: ours, or `rewritten` by another writer of Parquet with these words; `change` makes
    another table of a shard's."""
    rows, classes = logits.shape[-2:]
    words: dict = {"shard_inputs": shard_rows or rows}
    if logits.ndim == 3:
        words |= {"views": [*range(first, first + len(logits))], "augment": augment, "data_seed": 7}
        words["view_shape"] = [3, side, side]
    plan = make_plan(rows, classes, str(logits.dtype), group, ids, **words)
    folder = Folder(where)
    folder.write_json("plan.json", plan.as_json)
    for shard in range(plan.shards):
        write_shard(folder, plan, shard, logits, every=ids)
    commits = list(Ledger(folder, plan).commits.values())
    if rewritten is not None or change is not None:
        commits = [rewrite(Path(where), plan, c, rewritten or {}, change) for c in commits]
    folder.write_json("softlabels.json", Manifest.derive(plan, commits, {}).as_json)
    return Path(where)


def rewrite(
    where: Path, plan: Plan, commit: Commit, words: dict,
    change: Callable[[int, pa.Table], pa.Table] | None = None,
) -> Commit:  # fmt: skip
    path = where / commit.file
    table = pq.read_table(path)
    table = change(commit.shard, table) if change else table
    words = {"write_page_checksum": True} | words
    with pq.ParquetWriter(path, table.schema, **words) as writer:
        done = 0
        for size in plan.group_sizes(len(table)).tolist():
            writer.write_table(table.slice(done, size), row_group_size=size)
            done += size
    content = path.read_bytes()
    return commit.replace(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def change(path: Path, edit: Callable[[bytearray], None]) -> None:
    content = bytearray(path.read_bytes())
    edit(content)
    path.write_bytes(content)


def copy_to_memory(folder: Path, name: str) -> str:
    """The address of a copy in an object store in memory."""
    fs = fsspec.filesystem("memory")
    fs.put(f"{folder}/", f"/{name}/", recursive=True)
    return f"memory://{name}"
