"""How to write a dataset of the format softlabels/1 without softlabels: format.md in code.

`write_dataset` is for labelled rows with whole numbers as ids, one view and no inputs, written by
one process into an empty folder, without claims and without flushing. Shapes: N rows, C classes.
"""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def write_dataset(folder, plan, ids, hashes, labels, logits):
    """`plan` is plan.json without the fingerprints of its source's keys; `ids`, `hashes` (input
    hashes), `labels` [N] and `logits` [N, C] of the plan's dtype: numpy arrays in the source's
    order."""
    folder, source = Path(folder), plan["source"]
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty; a dataset is written into a new folder")
    starts = range(0, plan["inputs"], plan["shard_inputs"])
    parts = [slice(start, start + plan["shard_inputs"]) for start in starts]
    shorts = [fingerprint(ids[part], labels[part])[:16] for part in parts]
    whole = "sha256:" + fingerprint(ids, labels)
    plan = plan | {"source": source | {"fingerprint": whole, "shards": shorts}}
    canonical = json.dumps(plan, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    plan_hash = "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()
    save(folder / "plan.json", plan)
    shards = []
    for shard, part in enumerate(parts):
        name = f"data/{source['split']}-{shard:05d}-of-{len(parts):05d}.parquet"
        footer = {"softlabels.plan": plan_hash, "softlabels.shard": str(shard)}
        write_shard(
            folder / name, plan, footer, ids[part], hashes[part], labels[part], logits[part]
        )
        content = (folder / name).read_bytes()
        shards.append({
            "file": name,
            "rows": len(ids[part]),
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "fingerprint": fingerprint(ids[part], hashes[part], labels[part])[:16],
        })  # fmt: skip
        told = {"statistics": describe(logits[part], labels[part]), "skipped": []}
        commit = {"shard": shard, "plan": plan_hash, **shards[-1], **told}
        save(folder / f"commits/{shard:05d}.json", commit)
    size = sum(shard["bytes"] for shard in shards)
    card = json.dumps(make_card(plan, size))  # JSON is YAML
    (folder / "README.md").write_text(f"---\n{card}\n---\n", encoding="utf-8")
    save(folder / "softlabels.json", {
        "format": "softlabels/1",
        "plan_hash": plan_hash,
        "plan": plan,
        "rows": plan["inputs"],
        "bytes": size,
        "shards": shards,
        "statistics": describe(logits, labels),
        "skipped": [],
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"pyarrow": pa.__version__},
    })  # fmt: skip


def fingerprint(*columns):
    parts = [column.astype(column.dtype.newbyteorder("<")) for column in columns]
    digests = [hashlib.sha256(part.tobytes()).digest() for part in parts]
    return hashlib.sha256(b"".join(digests)).hexdigest()


def write_shard(path, plan, footer, ids, hashes, labels, logits):
    element = pa.field("element", pa.from_numpy_dtype(logits.dtype), nullable=False)
    row = pa.list_(element, plan["classes"])
    columns = {
        "id": pa.array(ids, pa.int64()),
        "view": pa.array(np.zeros(len(ids)), pa.int32()),
        "input_hash": pa.array(hashes, pa.uint64()),
        "label": pa.array(labels, pa.int64()),
        "logits": pa.FixedSizeListArray.from_arrays(pa.array(logits.reshape(-1)), type=row),
    }
    features = {n: {"dtype": str(c.type), "_type": "Value"} for n, c in columns.items()}
    features["label"] = {"names": plan["source"]["class_names"], "_type": "ClassLabel"}
    value = {"dtype": plan["dtype"], "_type": "Value"}
    features["logits"] = {"feature": value, "length": plan["classes"], "_type": "List"}
    footer = footer | {"huggingface": json.dumps({"info": {"features": features}})}
    fields = [
        pa.field(name, column.type, nullable=name == "label") for name, column in columns.items()
    ]
    table = pa.table([*columns.values()], schema=pa.schema(fields, footer))
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    pq.write_table(
        table,
        unfinished,
        row_group_size=plan["group_rows"],
        max_rows_per_page=plan["group_rows"],  # one page a column in a row group
        write_batch_size=plan["group_rows"],
        data_page_size=1 << 30,
        compression="none",
        use_dictionary=False,
        write_statistics=["id"],
        write_page_index=True,
        write_page_checksum=True,
    )
    unfinished.rename(path)


def describe(logits, labels):
    z = logits.astype(np.float64)
    log_p = z - z.max(-1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(-1, keepdims=True))
    correct = int((z.argmax(-1) == labels).sum())
    return {
        "rows": len(z),
        "labelled": len(z),
        "correct": correct,
        "accuracy": correct / len(z),
        "min": z.min(),
        "max": z.max(),
        "mean": z.mean(),
        "entropy": -(np.exp(log_p) * log_p).sum(-1).mean(),
    }


def make_card(plan, size):
    split, names = plan["source"]["split"], plan["source"]["class_names"]
    classes = {str(index): name for index, name in enumerate(names)}
    return {
        "tags": ["soft-labels", "knowledge-distillation"],
        "configs": [{
            "config_name": "default",
            "data_files": [{"split": split, "path": f"data/{split}-*.parquet"}],
        }],
        "dataset_info": {
            "features": [
                {"name": "id", "dtype": "int64"},
                {"name": "view", "dtype": "int32"},
                {"name": "input_hash", "dtype": "uint64"},
                {"name": "label", "dtype": {"class_label": {"names": classes}}},
                {"name": "logits", "list": plan["dtype"], "length": plan["classes"]},
            ],
            "splits": [{"name": split, "num_bytes": size, "num_examples": plan["inputs"]}],
        },
    }  # fmt: skip


def save(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
