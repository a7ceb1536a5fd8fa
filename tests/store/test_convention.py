"""What docs/format.md promises to others: who writes and who reads without softlabels."""

import json
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import softlabels
from softlabels.capture.planning import (
    GROUP_BYTES,
    GROUP_WITH_INPUTS_BYTES,
    group_rows,
    shard_rows,
)
from softlabels.store.codecs.dense import DenseCodec
from softlabels.store.pages.places import plain_values
from tests.conftest import png, whole

WRITER = Path(__file__).parents[2] / "docs" / "writer.py"
NAMES = ["cat", "dog", "owl"]
ROWS, CLASSES = 100, 3
VIEWER_GROUP_BYTES = 100 << 20  # from which on the Hub's viewer does not take a row group


def third_party(dtype: str) -> str:
    """A program that has only the documents, pyarrow and numpy."""
    return f"""
{WRITER.read_text(encoding="utf-8")}
import sys
rows = {ROWS}
logits = (np.random.default_rng(3).normal(size=(rows, {CLASSES})) * 5).astype("{dtype}")
labels = logits.argmax(-1)
inputs = np.arange(rows * 2, dtype="<f4").reshape(rows, 2)
contents = [b"float32[2]" + x.tobytes() for x in inputs]
digests = [hashlib.sha256(content).digest() for content in contents]
hashes = np.array([int.from_bytes(digest[:8], "little") for digest in digests], "uint64")
plan = {{
    "format": "softlabels/1",
    "teacher": {{"name": "their-net", "kind": "other", "model": None,
                "fingerprint": "sha256:" + hashlib.sha256(b"weights").hexdigest()}},
    "source": {{"data": "theirs", "origin": "local", "split": "train", "revision": None,
               "rows": rows,
               "columns": {{"inputs": ["x"], "label": "y", "id": None}}, "class_names": {NAMES}}},
    "preprocess": "", "precision": "float32", "views": [0], "augment": None,
    "task": "classification", "codec": "dense",
    "dtype": "{dtype}", "classes": {CLASSES}, "positions": 1, "inputs": rows, "shard_inputs": 48,
    "group_rows": 16, "ids": "int64", "store_inputs": "none", "batch_size": None,
}}
write_dataset("theirs", plan, np.arange(rows), hashes, labels, logits)
np.save("logits.npy", logits)
print([name for name in ("softlabels", "datasets", "torch") if name in sys.modules])
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> dict[str, Path]:
    """A third party's datasets, by dtype."""
    found = {}
    for dtype in ("float16", "float32"):
        place = tmp_path_factory.mktemp("third")
        words = [sys.executable, "-c", third_party(dtype)]
        done = subprocess.run(words, cwd=place, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"
        found[dtype] = place / "theirs"
    return found


@pytest.fixture(params=["float16", "float32"])
def theirs(request, written) -> Path:
    return written[request.param]


@pytest.fixture(params=["float16", "float32", "ours"])
def any_dump(request, written, dump_folder) -> Path:
    return (written | {"ours": Path(dump_folder)})[request.param]


def test_what_a_third_party_writes_is_good_and_mapped_in_place(theirs):
    verdict = softlabels.verify(dump=str(theirs))
    assert verdict.findings == []
    assert (verdict.rows, verdict.shards, verdict.accuracy) == (ROWS, 3, 1.0)
    logits = np.load(theirs.parent / "logits.npy")
    dataset = softlabels.load(theirs, T=2, inputs=None)
    assert np.array_equal(whole(dataset).numpy(), logits)
    file = sorted((theirs / "data").iterdir())[0]
    with pq.ParquetFile(file) as parquet, file.open("rb") as raw:
        group = parquet.metadata.row_group(0)
        column = DenseCodec(CLASSES, str(logits.dtype)).columns[0]
        offset = plain_values(raw, group, column)
        assert offset is not None, "one run of bytes"


def test_datasets_reads_names_and_logits(theirs, tmp_path):
    found = datasets.load_dataset(str(theirs), cache_dir=str(tmp_path))["train"]
    assert found.features["label"].names == NAMES
    logits = np.load(theirs.parent / "logits.npy")
    assert found.features["logits"] == datasets.List(datasets.Value(str(logits.dtype)), CLASSES)
    assert np.array_equal(np.array(found["logits"], logits.dtype), logits)
    assert found["id"][:] == list(range(ROWS))


def test_polars_reads_them(any_dump):
    polars = pytest.importorskip("polars")
    found = polars.read_parquet(any_dump / "data" / "*.parquet")
    expected = pq.read_table(any_dump / "data")
    assert found["id"].to_list() == expected["id"].to_pylist()
    assert found["logits"].to_list() == expected["logits"].to_pylist()


def test_duckdb_reads_them(any_dump):
    duckdb = pytest.importorskip("duckdb")
    files = str(any_dump / "data" / "*.parquet")
    found = duckdb.execute("select id, logits from read_parquet(?) order by id", [files]).fetchall()
    expected = pq.read_table(any_dump / "data")
    assert [row[0] for row in found] == expected["id"].to_pylist()
    assert [list(row[1]) for row in found] == expected["logits"].to_pylist()


def images(path: Path) -> str:
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=list("0123456789"))}
    )
    cells = [{"bytes": png(np.full((8, 8), i)), "path": None} for i in range(30)]
    content = {"image": cells, "label": [i % 10 for i in range(30)]}
    datasets.Dataset.from_dict(content, features=features).to_parquet(str(path))
    return str(path)


@pytest.mark.parametrize("words", [{}, {"store_inputs": "original"}], ids=str)
def test_shards_have_what_the_viewer_reads(words, tmp_path):
    torch.save({"w": torch.randn(10, 64), "b": torch.zeros(10)}, tmp_path / "w.pt")
    out = tmp_path / "d"
    softlabels.dump(teacher=str(tmp_path / "w.pt"), model="linear", out=str(out), shard_rows=16,
                    data=images(tmp_path / "i.parquet"), **words)  # fmt: skip
    assert softlabels.verify(dump=str(out)).good
    for file in (out / "data").iterdir():
        with pq.ParquetFile(file) as parquet:
            metadata, footer = parquet.metadata, parquet.schema_arrow.metadata
        told = json.loads(footer[b"huggingface"])["info"]["features"]
        assert told["label"] == {"names": list("0123456789"), "_type": "ClassLabel"}
        assert told["logits"]["_type"] == "List"
        assert not words.get("store_inputs") or told["input"]["_type"] == "Image"
        for index in range(metadata.num_row_groups):
            group = metadata.row_group(index)
            chunks = [group.column(i) for i in range(group.num_columns)]
            assert all(chunk.has_offset_index for chunk in chunks)
            assert chunks[0].path_in_schema == "id"
            assert chunks[0].has_column_index
            assert chunks[0].statistics.has_min_max
            assert group.total_byte_size < VIEWER_GROUP_BYTES


@pytest.mark.parametrize("input_bytes", [0, 1, 3_000, 150_000, 1 << 20, 5 << 20])
@pytest.mark.parametrize("classes", [1, 10, 1000, 21_841, 200_000])
@pytest.mark.parametrize("width", [2, 4])
def test_row_groups_are_planned_as_small_as_the_viewer_takes_them(width, classes, input_bytes):
    rows = group_rows(width * classes, input_bytes)
    assert shard_rows(width * classes + input_bytes, rows) % rows == 0
    least = 16 * (width * classes + input_bytes)  # 16 rows at least, however large they are
    logits, inputs = rows * width * classes, rows * input_bytes
    assert logits <= max(GROUP_BYTES, least)
    assert inputs <= max(GROUP_WITH_INPUTS_BYTES, least)
    assert logits + inputs + 28 * rows <= VIEWER_GROUP_BYTES


def test_the_writer_of_the_docs_leaves_what_is_there_alone(written):
    place = written["float32"].parent
    before = (place / "theirs" / "plan.json").read_bytes()
    words = [sys.executable, "-c", third_party("float16")]
    done = subprocess.run(words, cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "theirs is not empty" in done.stderr
    assert (place / "theirs" / "plan.json").read_bytes() == before
