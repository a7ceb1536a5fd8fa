"""Dumps that are read row group by row group, here or elsewhere, and nothing is written."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

import softlabels
from softlabels.errors import AlignmentError, DamagedDump, UsageError
from softlabels.store.shard_reader import ShardReader
from tests.capture import harm
from tests.dumps import OTHER_WRITERS, make_dump
from tests.targets.test_loading import rewritten, vectors_dump

LOGITS = np.random.default_rng(3).normal(size=(1000, 10)).astype(np.float16)


def load(folder, **words):
    return softlabels.load(folder, T=2, streaming=True, **{"inputs": False} | words)


def ids(batches) -> list[list[int]]:
    return [batch["id"].tolist() for batch in batches]


@settings(max_examples=20)
@given(
    writer=st.sampled_from([None, *OTHER_WRITERS]), group=st.sampled_from([7, 16, 300]),
    shard_rows=st.integers(100, 300), seed=st.integers(0, 99), shuffle=st.booleans(),
)  # fmt: skip
def test_streamed_rows_are_the_stored_ones(
    tmp_path_factory, writer, group, shard_rows, seed, shuffle
):
    folder = tmp_path_factory.mktemp("d")
    make_dump(folder, LOGITS[:300], group, shard_rows, OTHER_WRITERS.get(writer))
    seen = []
    for batch in load(folder).batches(32, shuffle=shuffle, seed=seed):
        rows = batch["id"].numpy()
        assert np.array_equal(batch["logits"].numpy(), LOGITS[rows])
        assert batch["label"].tolist() == (rows % 10).tolist()
        seen += rows.tolist()
    assert sorted(seen) == list(range(300))
    assert (seen == list(range(300))) is not shuffle


def test_nothing_is_written(tmp_path):
    folder = make_dump(tmp_path / "d", LOGITS, 16, 300, OTHER_WRITERS["zstd"])
    before = sorted(tmp_path.rglob("*"))
    list(load(folder, cache=tmp_path / "cache").batches(64, shuffle=True))
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
def test_the_same_batches_for_any_number_of_workers_and_from_the_middle(tmp_path):
    dataset = load(make_dump(tmp_path / "d", LOGITS, 16, 300))
    whole = ids(dataset.batches(30, shuffle=True, seed=3))
    assert ids(dataset.batches(30, shuffle=True, seed=3, workers=2)) == whole
    loader = DataLoader(
        dataset.batches(30, shuffle=True, seed=3), batch_size=None, num_workers=1,
        multiprocessing_context="spawn",
    )  # fmt: skip
    assert ids(loader) == whole
    batches = dataset.batches(30, shuffle=True, seed=3)
    begun = [b["id"].tolist() for _, b in zip(range(11), batches, strict=False)]
    other = dataset.batches(30, shuffle=True, workers=1)
    other.load_state_dict(batches.state_dict())
    assert begun + ids(other) == whole
    ranks = [ids(dataset.batches(30, shuffle=True, rank=r, world=3)) for r in range(3)]
    assert sorted(n for rank in ranks for batch in rank for n in batch) == list(range(1000))


def test_only_the_last_row_groups_are_kept(tmp_path):
    dataset = load(make_dump(tmp_path / "d", LOGITS, 4, 300))
    for _ in dataset.batches(30, shuffle=True):
        assert len(dataset.rows._held) <= 64 < 250
    with pytest.raises(UsageError, match=r"'blocks\(64, 512\)'; a streamed dump has none and bloc"):
        dataset.batches(30, shuffle="blocks(64, 512)")
    with pytest.raises(UsageError, match="a streamed dump is not kept"):
        load(tmp_path / "d", keep="gpu")


@pytest.mark.parametrize("batch_size", [64, 100])
def test_an_epoch_decodes_each_row_group_once(tmp_path, monkeypatch, batch_size):
    """Though batches may lie in two windows of 16 row groups."""
    seen, real = [], ShardReader.table

    def noted(reader, group, columns):
        seen.append((reader.shard, group))
        return real(reader, group, columns)

    monkeypatch.setattr(ShardReader, "table", noted)
    dataset = load(make_dump(tmp_path / "d", np.zeros((1600, 3), np.float16), 8, 400))
    for _ in dataset.batches(batch_size, shuffle=True):
        pass
    assert len(seen) == len(set(seen)) == 200


def test_rows_of_more_row_groups_than_are_kept_are_gathered(tmp_path):
    dataset = load(make_dump(tmp_path / "d", LOGITS, 4, 300))
    rows = np.random.default_rng(0).permutation(1000)
    batch = dataset.take(rows)
    assert np.array_equal(batch["logits"].numpy(), LOGITS[rows])
    assert batch["id"].tolist() == rows.tolist()
    assert np.array_equal(dataset.rows.gather(rows).dense().numpy(), LOGITS[rows])
    assert len(dataset.rows._held) <= 64


def test_a_damaged_page_is_told_when_it_is_read(tmp_path):
    folder = make_dump(tmp_path / "d", LOGITS, 16, 300)
    harm.flip_a_logit(folder)
    with pytest.raises(DamagedDump, match=r"train-00001-of-00004\.parquet is damaged"):
        list(load(folder).batches(64))


@pytest.mark.parametrize("store_inputs", ["none", "original"])
def test_inputs_are_joined_and_checked(tmp_path, store_inputs):
    data, out = vectors_dump(tmp_path, store_inputs=store_inputs)
    expected = softlabels.load(out, T=2).take(np.arange(60))
    dataset = load(out, inputs=True)
    for batch in dataset.batches(7, shuffle=True):
        rows = [int(id[1:]) for id in batch["id"]]
        assert torch.equal(batch["input"], expected["input"][rows])
        assert torch.equal(batch["soft_target"], expected["soft_target"][rows])
    other = rewritten(data, lambda d: d.map(lambda r: {"x": [v + 1 for v in r["x"]]}))
    with pytest.raises(AlignmentError, match="not what the teacher saw"):
        load(out, inputs=True, source=other)


def test_a_student_learns_from_a_stream(dump_folder, tmp_path, monkeypatch):
    words = {"dump": dump_folder, "T": 4, "epochs": 6, "batch_size": 32, "lr": 2e-2}
    words["student"] = "linear"
    streamed = softlabels.train(**words, streaming=True, out=str(tmp_path / "a.pt"))
    kept = softlabels.train(**words, out=str(tmp_path / "b.pt"))
    assert streamed.metrics["trained_rows"] == kept.metrics["trained_rows"] == 1080
    accuracy = [r.metrics["held_out"]["accuracy"] for r in (streamed, kept)]
    assert min(accuracy) > 0.7
