"""Dumps made without a teacher: their logits are known."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch

from softlabels.inputs.hashing import Fingerprint
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
    rows: int, classes: int = 3, dtype: str = "float16", group: int = 16, **words
) -> Plan:
    source = {"data": "toy", "origin": "local", "split": "train", "revision": None,
              "class_names": None, "rows": rows,
              "columns": {"inputs": ["x"], "label": "label", "id": None}}  # fmt: skip
    teacher = {"name": "t", "kind": "checkpoint", "fingerprint": f"sha256:{1:064}", "model": None}
    fields = {"teacher": teacher, "source": source, "preprocess": "", "precision": "float32",
              "views": [0], "augment": None, "codec": "dense", "dtype": dtype, "classes": classes,
              "inputs": rows, "group_rows": group, "ids": "int64", "store_inputs": "none",
              "batch_size": None, "shard_inputs": rows, "format": FORMAT} | words  # fmt: skip
    starts = range(0, max(1, rows), fields["shard_inputs"])
    ids = [np.arange(start, min(start + fields["shard_inputs"], rows)) for start in starts]
    source["shards"] = [fingerprints(some, some, some % classes)[0] for some in ids]
    whole = Fingerprint()
    whole.update(np.arange(rows), np.arange(rows) % classes)
    source["fingerprint"] = str(whole)
    return Plan.parse(fields, "the plan of a test")


def write_shard(
    folder: Folder, plan: Plan, shard: int, logits: np.ndarray, batch: int = 4096
) -> None:
    """`logits` are those of all rows; ids count up, a label is the id modulo the classes."""
    start, stop = plan.bounds(shard)
    with ShardWriter(folder, plan, shard, shard_schema(plan, None)) as writer:
        for first in range(start, stop, batch):
            ids = np.arange(first, min(first + batch, stop))
            writer.add(ids, ids % plan.classes, ids.astype(np.uint64),
                       torch.from_numpy(logits[ids[0] : ids[-1] + 1]))  # fmt: skip


def make_dump(
    where: Path, logits: np.ndarray, group: int = 16, shard_rows: int | None = None,
    rewritten: dict | None = None,
) -> Path:  # fmt: skip
    """A whole dump of these logits: ours, or `rewritten` by another writer of Parquet with these
    words."""
    rows, classes = logits.shape
    plan = make_plan(rows, classes, str(logits.dtype), group, shard_inputs=shard_rows or rows)
    folder = Folder(where)
    folder.write_json("plan.json", plan.as_json)
    for shard in range(plan.shards):
        write_shard(folder, plan, shard, logits)
    commits = list(Ledger(folder, plan).commits.values())
    if rewritten is not None:
        commits = [rewrite(Path(where), commit, group, rewritten) for commit in commits]
    folder.write_json("softlabels.json", Manifest.derive(plan, commits, {}).as_json)
    return Path(where)


def rewrite(where: Path, commit: Commit, group: int, words: dict) -> Commit:
    path = where / commit.file
    table = pq.read_table(path)
    words = {"write_page_checksum": True} | words
    pq.write_table(table, path, row_group_size=group, **words)
    content = path.read_bytes()
    return commit.replace(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def change(path: Path, edit: Callable[[bytearray], None]) -> None:
    content = bytearray(path.read_bytes())
    edit(content)
    path.write_bytes(content)
