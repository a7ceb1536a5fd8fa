"""Stage two through `softlabels.load`."""

import json
import pickle
import shutil
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

import softlabels
from softlabels.errors import (
    AlignmentError,
    DamagedDump,
    IncompleteDump,
    SourceError,
    StoreError,
    UsageError,
)
from softlabels.inputs.opening import open_source
from softlabels.places.newest import newest_dump
from softlabels.store.inputs import Join
from softlabels.targets.orders import permutation
from tests.conftest import Linear, make_vectors, save_script
from tests.dumps import make_dump


@pytest.fixture
def dataset(dump_folder):
    return softlabels.load(dump_folder, T=8)


def test_a_row_has_what_the_readme_says(dataset):
    row = dataset[5]
    assert list(row) == ["id", "view", "input", "label", "logits", "soft_target"]
    assert (row["id"], row["view"]) == (5, 0)
    assert row["input"].dtype == torch.float32
    assert row["input"].shape == (1, 8, 8)
    assert row["logits"].dtype == torch.float16
    assert row["soft_target"].dtype == torch.float32
    assert float(row["soft_target"].sum()) == pytest.approx(1, abs=1e-6)
    assert dataset[-1]["id"] == 1199
    with pytest.raises(IndexError):
        dataset[1200]


def test_inputs_and_labels_are_those_of_the_source(dataset):
    source = datasets.Dataset.from_list(
        [{"image": row["image"], "label": row["label"]} for row in open_source("digits").dataset]
    )
    for row in (0, 77, 1199):
        expected = np.asarray(source[row]["image"]) / np.float32(255)
        np.testing.assert_allclose(dataset[row]["input"][0].numpy(), expected, atol=1e-7)
        assert dataset[row]["label"] == source[row]["label"]


def test_temperature_costs_nothing_and_shares_everything(dataset):
    other = dataset.with_temperature(2)
    assert other.reader is dataset.reader
    assert other.examples is dataset.examples
    assert (dataset.T, other.T) == (8, 2)
    expected = torch.softmax(dataset[3]["logits"].float() / 2, -1)
    torch.testing.assert_close(other[3]["soft_target"], expected)


def test_a_temperature_can_come_later(dump_folder, dataset):
    """A dump has logits whatever T is; what is made at a T says how to give one."""
    plain = softlabels.load(dump_folder)
    assert list(plain[5]) == ["id", "view", "input", "label", "logits"]
    batch = plain.take([5, 3])
    assert torch.equal(batch["logits"], dataset.take([5, 3])["logits"])
    assert "soft_target" not in batch
    with pytest.raises(UsageError, match="with_temperature"):
        _ = batch["soft_target"]
    assert torch.equal(plain.with_temperature(8)[3]["soft_target"], dataset[3]["soft_target"])


def test_targets_are_logits_without_a_temperature(dataset):
    batch = dataset.take([7, 9, 2])
    targets = batch["targets"]
    assert (len(targets), targets.classes) == (3, 10)
    assert torch.equal(targets.dense(), batch["logits"])
    assert torch.equal(targets.temper(8).probs(), batch["soft_target"])
    assert torch.equal(dataset[9]["targets"].dense()[0], batch["logits"][1])
    moved = pickle.loads(pickle.dumps(batch.to("cpu")))["targets"]
    assert torch.equal(moved.dense(), batch["logits"])
    loss = softlabels.kd_loss(torch.zeros(3, 10), targets, T=8, alpha=1)
    assert loss == softlabels.kd_loss(torch.zeros(3, 10), batch["logits"], T=8, alpha=1)


@pytest.mark.parametrize("T", [0, -3, float("nan"), "hot"])
def test_bad_temperatures(dump_folder, dataset, T):
    with pytest.raises(UsageError, match="temperature"):
        softlabels.load(dump_folder, T=T)
    with pytest.raises(UsageError, match="temperature"):
        dataset.with_temperature(T)


def test_batches_hold_every_row_once_in_an_order_of_seed_and_epoch(dataset):
    def ids(**words) -> list[int]:
        return torch.cat([b["id"] for b in dataset.batches(256, **words)]).tolist()

    assert ids() == list(range(1200))
    shuffled = ids(shuffle=True, seed=1, epoch=3)
    assert sorted(shuffled) == list(range(1200))
    assert shuffled == ids(shuffle=True, seed=1, epoch=3) != ids(shuffle=True, seed=1, epoch=4)
    batch = next(iter(dataset.batches(256, shuffle=True)))
    assert {k: v.shape[0] for k, v in batch.items()} == dict.fromkeys(dataset[0], 256)
    one = dataset[int(batch["id"][9])]
    torch.testing.assert_close(batch["soft_target"][9], one["soft_target"])
    torch.testing.assert_close(batch["input"][9], one["input"])


@given(st.integers(1, 500), st.integers(0, 2**40), st.integers(0, 10_000))
def test_a_permutation_is_one(rows, seed, epoch):
    assert sorted(permutation(rows, seed, epoch).tolist()) == list(range(rows))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_dataloader_that_users_already_have(dataset, workers):
    loader = DataLoader(dataset, batch_size=300, num_workers=workers)
    batches = list(loader)
    assert torch.cat([b["id"] for b in batches]).tolist() == list(range(1200))
    assert batches[0]["soft_target"].shape == (300, 10)
    assert batches[0]["logits"].dtype == torch.float16


def vectors_dump(tmp_path: Path, **words) -> tuple[str, str]:
    data = make_vectors(tmp_path / "v.parquet", rows=60, name=[f"r{i}" for i in range(60)])
    script = save_script(Linear(), tmp_path / "s.pt")
    out = str(tmp_path / "d")
    softlabels.dump(teacher=script, data=data, out=out, id_column="name", **words)
    return data, out


def rewritten(data: str, change) -> str:
    path = data.replace("v.parquet", "changed.parquet")
    change(datasets.Dataset.from_parquet(data, cache_dir=path + "-cache")).to_parquet(path)
    return path


def test_data_in_another_order_is_fine(tmp_path):
    data, out = vectors_dump(tmp_path)
    shuffled = rewritten(data, lambda d: d.shuffle(seed=0))
    expected, found = softlabels.load(out, T=1), softlabels.load(out, T=1, source=shuffled)
    rows = np.arange(60)
    assert torch.equal(expected.examples.gather(rows), found.examples.gather(rows))


def test_data_with_more_rows_is_fine_and_fewer_is_not(tmp_path):
    data, out = vectors_dump(tmp_path)
    fewer = rewritten(data, lambda d: d.select(range(57)))
    with pytest.raises(AlignmentError, match=r"3 of 60 rows .* first the ids r57, r58, r59"):
        softlabels.load(out, T=1, source=fewer)
    more = rewritten(data, lambda d: datasets.concatenate_datasets([
        d.select(range(2)).map(lambda r: {"name": "new-" + r["name"]}), d]))  # fmt: skip
    assert len(softlabels.load(out, T=1, source=more)) == 60


def test_rows_that_changed_are_refused_and_named(tmp_path):
    data, out = vectors_dump(tmp_path)

    def change(d):
        return d.map(lambda r, i: {"x": [v + (i == 41) for v in r["x"]]}, with_indices=True)

    dataset = softlabels.load(out, T=1, source=rewritten(data, change))
    with pytest.raises(AlignmentError, match=r"1 of 60 inputs are not what the teacher saw.*r41"):
        dataset.take(np.arange(60))
    other = rewritten(data, lambda d: d.map(lambda r: {"x": [v + 1 for v in r["x"]]}))
    with pytest.raises(AlignmentError, match="not what the teacher saw"):
        softlabels.load(out, T=1, source=other)


def test_join_by_numbers_and_across_kinds():
    class Here:
        ids, data, split = np.array([5, 2**60, 7]), "here", "train"

    assert Join(Here, "d").positions(np.array([7, 5])).tolist() == [2, 0]
    assert Join(Here, "d").positions(np.array([2**60])).tolist() == [1]
    with pytest.raises(AlignmentError, match="1 of 2"):
        Join(Here, "d").positions(np.array([5, 2**60 + 1]))
    with pytest.raises(AlignmentError, match="2 of 2"):
        Join(Here, "d").positions(np.array(["5", "7"]))


def test_a_missing_source_says_so(tmp_path):
    data, out = vectors_dump(tmp_path)
    Path(data).unlink()
    with pytest.raises(SourceError, match=r"v\.parquet"):
        softlabels.load(out, T=1)


def test_preprocess_can_be_another(dump_folder):
    dataset = softlabels.load(dump_folder, T=1, preprocess="resize(4)|scale(255)")
    assert dataset[0]["input"].shape == (1, 4, 4)


def test_unfinished_dumps_are_not_loaded(dump_folder, tmp_path):
    copy = shutil.copytree(dump_folder, tmp_path / "copy")
    (copy / "softlabels.json").unlink()
    with pytest.raises(IncompleteDump, match=r"its record, softlabels\.json, is missing\. Finish"):
        softlabels.load(copy, T=1)
    (copy / "commits" / "00001.json").unlink()
    with pytest.raises(IncompleteDump, match="2 of 3 shards are committed"):
        softlabels.load(copy, T=1)
    with pytest.raises(IncompleteDump):
        softlabels.info(copy)


def test_the_newest_complete_dump(dump_folder, tmp_path):
    with pytest.raises(StoreError, match="no complete dump under"):
        newest_dump(tmp_path)
    for name, created in (("old", "2020-01-01"), ("new", "2024-01-01"), ("broken", "2025-01-01")):
        copy = shutil.copytree(dump_folder, tmp_path / name)
        manifest = json.loads((copy / "softlabels.json").read_text()) | {"created": created}
        (copy / "softlabels.json").write_text(json.dumps(manifest))
    (tmp_path / "broken" / "softlabels.json").write_text("{")
    assert newest_dump(tmp_path).name == "new"
    shutil.move(tmp_path / "new", tmp_path / "demo" / "new")
    (tmp_path / "demo" / "demo.json").write_text("{}")
    assert newest_dump(tmp_path).name == "old", "the demo's is its own"


def test_info_tells_what_it_is(dump_folder):
    found = softlabels.info(dump_folder)
    assert (found["facts"]["rows"], found["facts"]["shards"]) == (1200, 3)
    assert found["facts"]["teacher"] == "t (checkpoint, mlp:64)"
    assert found["manifest"]["rows"] == 1200
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize("label", [4, -2])
def test_a_label_of_no_class_is_refused_where_it_is_read(tmp_path, label):
    def change(shard: int, table: pa.Table) -> pa.Table:
        labels = table["label"].to_numpy().copy()
        labels[7] = label
        place = table.schema.get_field_index("label")
        return table.set_column(place, "label", pa.array(labels))

    zeros = np.zeros((40, 4), "float16")
    folder = make_dump(tmp_path / "d", zeros, change=change, rewritten={})
    for streaming in (False, True):
        dataset = softlabels.load(folder, inputs=False, streaming=streaming)
        with pytest.raises(DamagedDump, match=rf"the label of row 7 is {label}; .* the 4 classes"):
            _ = dataset[:9]["label"]
    with pytest.raises(DamagedDump, match="the label of row 7"):
        softlabels.info(folder, per_class=True)
