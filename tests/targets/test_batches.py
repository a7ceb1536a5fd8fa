"""Whole batches: orders, ranks, workers, state in the middle of an epoch, DataLoaders."""

import copy
import json
import pickle
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Subset

import softlabels
from softlabels.errors import UsageError
from softlabels.store.gathering import Region, RowGroups
from softlabels.targets import as_it_is
from softlabels.targets.batch import Batch
from softlabels.targets.mapped_rows import MappedRows
from softlabels.targets.orders import Order
from softlabels.targets.soft_dataset import checked_rows
from tests.dumps import make_dump

ORDERS = ["none", "full", "blocks", "blocks(4, 3)", "blocks(1, 1)"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """103 rows of 3 classes in row groups of 16, shards of 40; no inputs."""
    logits = np.random.default_rng(1).normal(size=(103, 3)).astype(np.float16)
    folder = make_dump(tmp_path_factory.mktemp("d") / "d", logits, shard_rows=40)
    return softlabels.load(folder, T=3, inputs=False)


def ids(batches) -> list[list[int]]:
    return [batch["id"].tolist() for batch in batches]


def flat(lists: list[list[int]]) -> list[int]:
    return [number for numbers in lists for number in numbers]


@given(
    rows=st.integers(1, 400), group=st.integers(1, 60), text=st.sampled_from(ORDERS),
    seed=st.integers(0, 2**40), epoch=st.integers(0, 999), size=st.integers(1, 90),
)  # fmt: skip
def test_an_order_has_every_row_once_and_its_parts_fit_together(
    rows, group, text, seed, epoch, size
):
    bounds = np.append(np.arange(0, rows, group), rows)
    order = Order(text, bounds, seed, epoch)
    parts = [order.part(at, min(at + size, rows)).tolist() for at in range(0, rows, size)]
    assert sorted(flat(parts)) == list(range(rows))
    again = Order(text, bounds, seed, epoch)
    assert again.part(rows // 2, rows).tolist() == flat(parts)[rows // 2 :]
    windows = range(len(order.window_starts) - 1) if "blocks" in text else []
    seen = [sorted(order.window(window).tolist()) for window in windows]
    starts = order.window_starts.tolist()
    for window, expected in zip(windows, seen, strict=True):
        assert sorted(flat(parts)[starts[window] : starts[window + 1]]) == expected


def test_nothing_is_read_ahead_before_the_logits_are_open(dataset, monkeypatch):
    gather = MappedRows.gather

    def slow(self: MappedRows, rows: np.ndarray) -> torch.Tensor:
        time.sleep(0.02)
        return gather(self, rows)

    monkeypatch.setattr(MappedRows, "gather", slow)
    unopened = pickle.loads(pickle.dumps(dataset))
    batches = unopened.batches(8, shuffle="blocks(4, 3)")
    assert sorted(flat(ids(batches))) == list(range(103))


class AtOnce(ThreadPoolExecutor):
    """Does what it is given before it says that it got it."""

    def submit(self, work, *args):
        future = super().submit(work, *args)
        future.result()
        return future


def test_each_window_is_read_before_its_first_batch_and_once(dataset, monkeypatch):
    told = []
    monkeypatch.setattr("softlabels.targets.batches.ThreadPoolExecutor", AtOnce)
    monkeypatch.setattr(MappedRows, "read_ahead", lambda self, rows: told.extend(rows.tolist()))
    batches = dataset.batches(8, shuffle="blocks(4, 3)")
    for number, batch in enumerate(batches):
        assert set(batch["id"].tolist()) <= set(told)
        if number == 4:
            break
    assert len(set(told)) == len(told) < 103
    told.clear()
    again = dataset.batches(8, shuffle="blocks(4, 3)")
    again.load_state_dict(batches.state_dict())
    for batch in again:
        assert set(batch["id"].tolist()) <= set(told)
    assert len(set(told)) == len(told)


@pytest.mark.parametrize("text", ORDERS[1:-1])
def test_orders_of_other_epochs_and_seeds_differ(text):
    bounds = np.append(np.arange(0, 5000, 100), 5000)
    found = {
        tuple(Order(text, bounds, seed, epoch).part(0, 5000)) for seed in (0, 1) for epoch in (0, 1)
    }
    assert len(found) == 4


def test_blocks_mix_about_as_many_classes_as_the_docs_say():
    """1,000 classes, sorted, 200 rows each: distinct classes in a batch of 256."""
    rows, group = 200_000, 1024
    bounds = np.append(np.arange(0, rows, group), rows)

    def distinct(text: str) -> float:
        order = Order(text, bounds)
        starts = range(0, 60_000, 2_560)
        return float(np.mean([len(np.unique(order.part(s, s + 256) // 200)) for s in starts]))

    found = {text: distinct(text) for text in ("full", "blocks(64, 512)", "blocks", "none")}
    assert found["full"] == pytest.approx(226, abs=4)
    assert found["blocks(64, 512)"] > 180
    assert 50 < found["blocks"] < 100
    assert found["none"] < 3


@pytest.mark.parametrize(
    "text", ["half", "blocks(0, 4)", "blocks(4)", "blocks(2.5, 1)", "full|none"]
)
def test_orders_that_can_not_be(dataset, text):
    with pytest.raises(UsageError, match=r"shuffle is .*; use none, full, blocks or blocks\(64"):
        dataset.batches(4, shuffle=text)


@settings(max_examples=60)
@given(
    world=st.integers(1, 7), size=st.integers(1, 40), text=st.sampled_from(ORDERS),
    drop_last=st.booleans(), epoch=st.integers(0, 5),
)  # fmt: skip
def test_ranks_share_an_epoch_without_gaps_in_equally_many_steps(
    dataset, world, size, text, drop_last, epoch
):
    words = {"shuffle": text, "seed": 5, "epoch": epoch, "world": world, "drop_last": drop_last}
    ranks = [dataset.batches(size, rank=rank, **words) for rank in range(world)]
    taken = [ids(batches) for batches in ranks]
    assert {len(part) for part in taken} == {len(ranks[0])}
    assert all(batch for part in taken for batch in part), "no rank gets an empty batch"
    everything = sorted(flat(flat(taken)))
    if drop_last:
        assert len(everything) == len(set(everything)) == 103 // (size * world) * size * world
        assert {len(batch) for part in taken for batch in part} <= {size}
    else:
        assert everything == list(range(103))
    alone = ids(dataset.batches(size * world, **words | {"world": 1}))
    steps = [sorted(flat([part[k] for part in taken])) for k in range(len(taken[0]))]
    assert steps[:-1] == [sorted(batch) for batch in alone][: len(steps) - 1]


@settings(max_examples=40)
@given(
    stop=st.integers(0, 21), text=st.sampled_from(ORDERS), world=st.sampled_from([1, 2]),
    again=st.integers(0, 3),
)  # fmt: skip
def test_state_goes_on_exactly_where_it_was(dataset, stop, text, world, again):
    words = {"shuffle": text, "seed": 2, "epoch": 7, "rank": world - 1, "world": world}
    whole = ids(dataset.batches(5, **words))
    batches = dataset.batches(5, **words)
    begun = [b["id"].tolist() for _, b in zip(range(stop), batches, strict=False)]
    state = json.loads(json.dumps(batches.state_dict()))
    other = dataset.batches(5, shuffle=text, rank=world - 1, world=world)
    for _ in range(again):
        other.load_state_dict(state)
    other.load_state_dict(state)
    other.set_epoch(7)
    assert begun + ids(other) == whole
    assert ids(other) == whole, "the next time it begins at the start"
    other.load_state_dict(state)
    other.set_epoch(8)
    assert ids(other) == ids(dataset.batches(5, **words | {"epoch": 8}))


def test_a_pass_that_has_begun_keeps_its_epoch(dataset):
    batches = dataset.batches(5, shuffle=True, epoch=1)
    passing = iter(batches)
    begun = [next(passing)["id"].tolist()]
    batches.set_epoch(2)
    assert begun + ids(passing) == ids(dataset.batches(5, shuffle=True, epoch=1))
    state = batches.state_dict()
    assert (state["epoch"], state["position"]) == (2, 0)
    assert ids(batches) == ids(dataset.batches(5, shuffle=True, epoch=2))


@pytest.mark.parametrize(("before", "after"), [(0, 2), (2, 0), (2, 3), (3, 1)])
def test_state_is_exact_with_another_number_of_workers(dataset, before, after):
    whole = ids(dataset.batches(5, shuffle=True, epoch=1))
    batches = dataset.batches(5, shuffle=True, epoch=1, workers=before)
    begun = [b["id"].tolist() for _, b in zip(range(8), batches, strict=False)]
    other = dataset.batches(5, shuffle=True, workers=after)
    other.load_state_dict(batches.state_dict())
    rest = ids(other)
    assert begun + rest == whole
    assert other.state_dict()["position"] == 103


def test_state_of_other_rows_is_refused(dataset, dump_folder):
    state = dataset.batches(5).state_dict()
    with pytest.raises(UsageError, match="whose data is"):
        softlabels.load(dump_folder, T=1).batches(5).load_state_dict(state)
    with pytest.raises(UsageError, match="whose shuffle is 'none'; here it is 'full'"):
        dataset.batches(5, shuffle=True).load_state_dict(state)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_a_dataloader_over_batches_keeps_their_order(dataset, workers):
    batches = dataset.batches(10, shuffle=True, seed=4)
    loader = DataLoader(batches, None, num_workers=workers, collate_fn=as_it_is)
    assert ids(loader) == ids(batches)
    assert {type(batch) for batch in loader} == {Batch}
    found = dataset.batches(10, shuffle=True, seed=4, workers=workers)
    assert {type(batch) for batch in found} == {Batch}
    assert ids(dataset.batches(10, shuffle=True, seed=4, workers=workers)) == ids(batches)


def test_words_that_can_not_be(dataset):
    with pytest.raises(UsageError, match="batch_size is 0"):
        dataset.batches(0)
    with pytest.raises(UsageError, match="rank is 2 of a world of 2"):
        dataset.batches(5, rank=2, world=2)
    with pytest.raises(UsageError, match="103 rows can't be shared by 200 ranks"):
        dataset.batches(5, rank=2, world=200)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_dataloader_gets_whole_batches_and_no_row_passes_through_python(
    dump_folder, workers, monkeypatch
):
    dataset = softlabels.load(dump_folder, T=4)
    monkeypatch.setattr("softlabels.targets.batch.Row.__getitem__", None)
    loader = DataLoader(dataset, batch_size=500, shuffle=True, num_workers=workers)
    batches = list(loader)
    assert [type(batch) for batch in batches] == [Batch] * 3
    assert sorted(flat(ids(batches))) == list(range(1200))
    part = DataLoader(Subset(dataset, range(3, 900, 7)), batch_size=50, num_workers=workers)
    assert flat(ids(part)) == list(range(3, 900, 7))


def test_a_collate_function_of_the_users_own_sees_rows(dump_folder):
    dataset = softlabels.load(dump_folder, T=4)

    def collate(rows):
        assert [row["id"] for row in rows[1:3]] == [rows[1]["id"], rows[2]["id"]]
        return torch.stack([row["soft_target"] for row in rows]), [dict(row) for row in rows]

    targets, rows = next(iter(DataLoader(dataset, batch_size=4, collate_fn=collate)))
    assert torch.equal(targets, dataset.take(np.arange(4))["soft_target"])
    assert rows[3]["label"] == dataset[3]["label"]
    assert isinstance(rows[3]["id"], int)


def test_rows_one_by_one_collate_as_torch_would(dump_folder):
    dataset = softlabels.load(dump_folder, T=4)
    stacked = torch.utils.data.default_collate([dataset[3], dataset[900]])
    expected = dataset.take(np.array([3, 900]))
    assert list(stacked) == list(expected)
    for name in expected:
        torch.testing.assert_close(
            torch.as_tensor(stacked[name]), expected[name], check_dtype=False
        )


def test_a_batch_is_raw_until_it_is_looked_at(dump_folder):
    dataset = softlabels.load(dump_folder, T=4)
    batch = dataset.take(np.arange(5))
    assert batch.columns["input"].dtype == torch.uint8
    assert batch["input"].dtype == torch.float32
    assert batch["logits"].dtype == torch.float16
    moved = batch.to("meta")
    assert {moved[name].device.type for name in moved} == {"meta"}
    for other in (pickle.loads(pickle.dumps(batch)), copy.copy(batch), batch.to("cpu")):
        assert list(other) == list(batch)
        for name in batch:
            assert torch.equal(other[name], batch[name])
    hot = dataset.with_temperature(40).take(np.arange(5))
    assert torch.equal(hot["logits"], batch["logits"])
    assert hot["soft_target"].max() < batch["soft_target"].max()


def test_without_inputs_there_is_no_input(dump_folder):
    dataset = softlabels.load(dump_folder, T=4, inputs=False)
    assert list(dataset[7]) == ["id", "view", "label", "logits", "soft_target"]
    assert list(dataset.take(np.arange(2))) == list(dataset[7])


def test_text_ids_stay_text(tmp_path):
    from tests.targets.test_loading import vectors_dump

    dataset = softlabels.load(vectors_dump(tmp_path)[1], T=1)
    assert dataset[3]["id"] == "r3"
    batch = next(iter(DataLoader(dataset, batch_size=3, num_workers=1)))
    assert batch["id"] == ["r0", "r1", "r2"]


@pytest.mark.parametrize("kind", ["int32", "uint64", "int64", "list", "tensor"])
def test_rows_may_be_asked_for_by_any_whole_numbers(dataset, kind):
    rows = [5, 0, 102, 77]
    asked = {"list": rows, "tensor": torch.tensor(rows)}.get(kind)
    asked = np.array(rows, kind) if asked is None else asked
    batch, expected = dataset.take(asked), dataset.take(np.array(rows))
    if kind == "int32":
        asked[:] = 1  # the batch does not change with it
    assert batch["id"].tolist() == rows
    assert torch.equal(batch["logits"], expected["logits"])
    back = dataset.take([-1, -103, -3])
    assert back["id"].tolist() == [102, 0, 100]
    assert torch.equal(back["logits"], dataset.take([102, 0, 100])["logits"])
    assert dataset.take([])["logits"].shape == (0, 3)


def test_a_row_beyond_four_gigabytes_of_a_file_asked_for_by_an_int32(tmp_path):
    file = np.memmap(tmp_path / "sparse", np.uint8, "w+", shape=3_000_000 * 2000)
    file[4_400_000_000] = 7
    groups, region = RowGroups([3_000_000], 1024, 2000), Region.of(file)
    groups.place(0, region.address + np.arange(0, 3_000_000, 1024) * 2000, region)
    asked = checked_rows(np.array([2_199_999, 2_200_000], np.int32), 3_000_000)
    assert groups.gather(asked)[:, 0].tolist() == [0, 7]


def test_rows_of_a_dump_too_long_for_a_table_of_starts(dataset, tmp_path, monkeypatch):
    even = np.random.default_rng(2).normal(size=(64, 3)).astype(np.float16)
    datasets = [dataset, softlabels.load(make_dump(tmp_path / "d", even), T=3, inputs=False)]
    rows = [np.random.default_rng(3).permutation(len(each)) for each in datasets]
    looked_up = [
        each.take(some)["logits"].clone() for each, some in zip(datasets, rows, strict=True)
    ]
    monkeypatch.setattr("softlabels.store.gathering.TABLE_ROWS", 0)
    for each, some, expected in zip(datasets, rows, looked_up, strict=True):
        assert torch.equal(pickle.loads(pickle.dumps(each)).take(some)["logits"], expected)


def test_rows_that_are_none(dataset):
    for rows in ([103], [0, -104]):
        with pytest.raises(IndexError, match=f"row {rows[-1]} of a dump with 103 rows"):
            dataset.take(rows)
    for rows in (np.ones(103, bool), [0.5], [[1]]):
        with pytest.raises(UsageError, match="give a list of whole numbers"):
            dataset.take(rows)


@pytest.mark.parametrize("text", ORDERS)
def test_batches_travel_to_other_processes_after_they_were_used(dataset, text):
    batches = dataset.batches(10, shuffle=text)
    found = ids(batches)
    assert ids(pickle.loads(pickle.dumps(batches))) == found


def test_states_that_can_not_be(dataset):
    batches = dataset.batches(10)
    for change in ({"position": -3}, {"position": 104}, {"position": None}):
        with pytest.raises(UsageError, match="this state's position is"):
            batches.load_state_dict(batches.state_dict() | change)
    with pytest.raises(UsageError, match="whose data is None"):
        batches.load_state_dict({})
