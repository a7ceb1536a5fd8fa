"""Class names, whoever reads a dump: every reader of `datasets` gives back the ClassLabel."""

from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import softlabels
from softlabels.errors import DamagedDump
from softlabels.store.folder import Folder
from softlabels.store.ledger import Ledger, read_manifest
from softlabels.store.names import commit_name
from tests.conftest import Linear, save_script
from tests.dumps import make_dump, rewrite

NAMES = ["a", "b|c", "no"]


@pytest.fixture(scope="module")
def named(tmp_path_factory) -> Path:
    """A dump of 40 rows with text ids and inputs, of which the first two have no label."""
    place = tmp_path_factory.mktemp("named")
    labels = [-1, None, *(i % 3 for i in range(2, 40))]
    features = {"x": datasets.List(datasets.Value("float32"), length=6),
                "name": datasets.Value("string"),
                "label": datasets.ClassLabel(names=NAMES)}  # fmt: skip
    rows = {"x": np.random.default_rng(0).normal(size=(40, 6)).astype("f4"), "label": labels,
            "name": [f"row {i}" for i in range(40)]}  # fmt: skip
    data = str(place / "data.parquet")
    datasets.Dataset.from_dict(rows, datasets.Features(features)).to_parquet(data)
    softlabels.dump(teacher=save_script(Linear(), place / "t.pt"), data=data, id_column="name",
                    store_inputs="original", out=str(place / "d"))  # fmt: skip
    return place / "d"


def of_the_folder(dump: Path, cache: str) -> datasets.Dataset:
    found = datasets.load_dataset(str(dump), cache_dir=cache)
    assert isinstance(found, datasets.DatasetDict)
    return found["train"]


def without_its_card(dump: Path, cache: str) -> datasets.Dataset:
    return datasets.load_dataset(str(dump / "data"), split="train", cache_dir=cache)


def of_a_shard(dump: Path, cache: str) -> datasets.Dataset:
    shard = str(next((dump / "data").iterdir()))
    return datasets.load_dataset("parquet", data_files=shard, split="train", cache_dir=cache)


def from_parquet(dump: Path, cache: str) -> datasets.Dataset:
    return datasets.Dataset.from_parquet(str(next((dump / "data").iterdir())), cache_dir=cache)


def streamed(dump: Path, cache: str) -> datasets.IterableDataset:
    return datasets.load_dataset(str(dump), split="train", streaming=True)


def streamed_shard(dump: Path, cache: str) -> datasets.IterableDataset:
    shard = str(next((dump / "data").iterdir()))
    return datasets.load_dataset("parquet", data_files=shard, split="train", streaming=True)


READERS = [of_the_folder, without_its_card, of_a_shard, from_parquet, streamed, streamed_shard]


@pytest.mark.parametrize("read", READERS)
def test_every_reader_gives_back_the_class_names(named, tmp_path, read):
    dataset = read(named, str(tmp_path))
    assert dataset.features == datasets.Features(
        id=datasets.Value("string"), view=datasets.Value("int32"),
        input_hash=datasets.Value("uint64"), label=datasets.ClassLabel(names=NAMES),
        input=datasets.List(datasets.Value("float32"), length=6),
        logits=datasets.List(datasets.Value("float16"), length=3),
    )  # fmt: skip
    assert [row["label"] for row in dataset] == [-1, -1, *(i % 3 for i in range(2, 40))]


def with_labels(where: Path, labels: list[int | None]) -> str:
    """A dump of 32 rows whose writer gave them these labels; its records agree."""
    dump = make_dump(where, np.random.default_rng(0).normal(size=(32, 3)).astype("f2"))
    folder = Folder(dump)
    manifest, plan = read_manifest(folder)
    path = dump / plan.file(0)
    table = pq.read_table(path)
    column = pa.array(labels, pa.int64())
    pq.write_table(table.set_column(3, pa.field("label", column.type), column), path)
    made = rewrite(dump, plan, Ledger(folder, plan).refresh()[0], {})
    folder.write_json(commit_name(0), made.as_json)
    manifest = manifest.replace(shards=[made.record], bytes=made.bytes)
    folder.write_json("softlabels.json", manifest.as_json)
    return str(dump)


def test_a_label_that_is_null_or_no_class_is_named(tmp_path):
    null = with_labels(tmp_path / "null", [None] + [0] * 31)
    for words in ({}, {"streaming": True}):
        dataset = softlabels.load(null, T=1, inputs=False, **words)
        with pytest.raises(DamagedDump, match="label has empty cells; a row without a label has"):
            _ = [batch["label"] for batch in dataset.batches(8)]
    for label in (3, -2):
        dump = with_labels(tmp_path / f"label {label}", [0] * 31 + [label])
        problems = [str(finding) for finding in softlabels.verify(dump=dump).findings]
        said = f"the row with id 31 is {label}; expected is one of the 3 classes"
        assert any(said in problem for problem in problems), problems
