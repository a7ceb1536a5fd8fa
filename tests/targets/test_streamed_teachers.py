"""Several teachers' dumps side by side, some of them streamed: wherever they lie and however their
rows are grouped and ordered, each row has its own logits of each."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

import softlabels
from softlabels.errors import DamagedDump, LabelSpaceMismatch, UsageError
from softlabels.store.shard_reader import ShardReader
from tests.capture import harm
from tests.conftest import Linear, Lines, make_vectors, save_script
from tests.dumps import copy_to_memory, make_dump
from tests.targets.test_loading import rewritten
from tests.targets.test_several import two_teachers

ROWS = 300
LOGITS = np.random.default_rng(3).normal(size=(ROWS, 10)).astype(np.float16)
NEGATED = -LOGITS


def is_right(batch, ids=lambda ids: ids) -> bool:
    rows = batch["id"].numpy()
    return all(
        np.array_equal(batch["logits"][name].numpy(), logits[rows])
        for name, logits in (("a", LOGITS), ("b", NEGATED))
    )


def ids(batches) -> list[list[int]]:
    return [batch["id"].tolist() for batch in batches]


@settings(max_examples=12)
@given(
    groups=st.tuples(st.sampled_from([7, 32]), st.sampled_from([16, 100])),
    shards=st.tuples(st.integers(100, 300), st.integers(100, 300)),
    where=st.tuples(st.sampled_from(["mapped", "streamed"]), st.sampled_from(["mapped", "remote"])),
    order=st.sampled_from(["same", "reversed", "random"]), more=st.integers(0, 30),
    shuffle=st.sampled_from([False, True, "blocks"]), seed=st.integers(0, 99),
)  # fmt: skip
def test_rows_of_streamed_teachers_are_their_own(
    tmp_path_factory, groups, shards, where, order, more, shuffle, seed
):
    place, draw = tmp_path_factory.mktemp("d"), np.random.default_rng(seed)
    every = {"same": np.arange, "reversed": lambda n: np.arange(n)[::-1].copy(),
             "random": draw.permutation}[order](ROWS + more)  # fmt: skip
    theirs = np.concatenate([NEGATED, np.zeros((more, 10), np.float16)])[every]
    a = make_dump(place / "a", LOGITS, groups[0], shards[0])
    b = make_dump(place / "b", theirs, groups[1], shards[1], ids=every)
    if where[1] == "remote":
        b = copy_to_memory(b, f"{place.name}/b")
    words = {"cache": False, "streaming": where[0] == "streamed", "inputs": False}
    dataset = softlabels.load({"a": a, "b": b}, T=2, **words)
    seen = []
    for batch in dataset.batches(50, shuffle=shuffle, seed=seed):
        assert is_right(batch)
        seen += batch["id"].tolist()
    assert sorted(seen) == list(range(ROWS))
    assert (seen == list(range(ROWS))) is not bool(shuffle)
    chosen = draw.permutation(ROWS)[:40]
    assert is_right(pickle.loads(pickle.dumps(dataset)).take(chosen))


@pytest.fixture
def decoded(monkeypatch) -> list[tuple[str, int, int]]:
    """Of each row group that is decoded its dump, shard and number."""
    seen = []
    real = ShardReader.table

    def noted(reader, group, columns):
        seen.append((str(reader.folder), reader.shard, group))
        return real(reader, group, columns)

    monkeypatch.setattr(ShardReader, "table", noted)
    return seen


@pytest.mark.parametrize(
    ("ours", "theirs", "views"), [(16, 64, 1), (64, 16, 1), (50, 50, 3), (16, 32, 2)]
)
def test_a_shuffled_epoch_decodes_each_row_group_once(tmp_path, decoded, ours, theirs, views):
    """Though those of one dump hold the rows of several of the other's."""
    rows = 3200
    logits = np.random.default_rng(0).normal(size=(views, rows, 2)).astype(np.float16)
    logits = logits[0] if views == 1 else logits
    a = make_dump(tmp_path / "a", logits, ours, rows // 2)
    b = make_dump(tmp_path / "b", -logits, theirs, rows)
    said = Lines()
    dataset = softlabels.load({"a": a, "b": b}, streaming=True, inputs=False, progress=said)
    seen = [n for batch in dataset.batches(200, shuffle=True) for n in batch["id"].tolist()]
    assert sorted(seen) == sorted([*range(rows)] * views)
    assert len(set(decoded)) == len(decoded) == views * (rows // ours + rows // theirs)
    assert len(set(np.diff(seen))) > 3
    assert not said.lines


def test_rows_in_another_order_are_told_and_how_often_they_are_fetched(tmp_path, decoded):
    rows = 16 * 300
    logits = np.zeros((rows, 3), np.float16)
    order = np.random.default_rng(0).permutation(rows)
    a = make_dump(tmp_path / "a", logits, 16)
    b = make_dump(tmp_path / "b", logits, 16, ids=order)
    said = Lines()
    dataset = softlabels.load({"a": a, "b": b}, streaming=True, inputs=False, progress=said)
    (warning,) = said.lines
    assert (
        f"the rows of b ({b}) stand in another order, or in other row groups, than those of "
        f"a ({a}): of 16 blocks" in warning
    )
    assert "of 16 blocks that are mixed at a time, rows lie in" in warning
    assert " of its 300 row groups, and 64 are kept. A shuffled epoch in" in warning
    assert "load without streaming, from a local copy" in warning
    mapped = Lines()
    softlabels.load({"a": a, "b": b}, inputs=False, progress=mapped)
    assert not mapped.lines
    for _ in dataset.batches(256, shuffle=True):
        pass
    times = sum(place == str(b) for place, *_ in decoded) / 300
    told = int(warning.split("fetches each about ")[1].split(" times")[0])
    assert told == pytest.approx(times, rel=0.3, abs=1)
    assert told > 3


def test_workers_and_the_middle_of_an_epoch(tmp_path):
    a = make_dump(tmp_path / "a", LOGITS, 16, 150)
    b = copy_to_memory(make_dump(tmp_path / "b", NEGATED, 8, 100), "workers/b")
    dataset = softlabels.load({"a": a, "b": b}, T=1, cache=False, inputs=False)
    whole = list(dataset.batches(50, shuffle=True, seed=3))
    loader = DataLoader(dataset.batches(50, shuffle=True, seed=3), batch_size=None, num_workers=2,
                        collate_fn=softlabels.targets.as_it_is)  # fmt: skip
    for found in (list(dataset.batches(50, shuffle=True, seed=3, workers=2)), list(loader)):
        assert ids(found) == ids(whole)
        assert all(map(is_right, found))
    assert all(map(is_right, DataLoader(dataset, batch_size=64, num_workers=2)))
    batches = dataset.batches(50, shuffle=True, seed=3)
    begun = [b["id"].tolist() for _, b in zip(range(5), batches, strict=False)]
    other = dataset.batches(50, shuffle=True)
    other.load_state_dict(batches.state_dict())
    assert begun + ids(other) == ids(whole)


def test_nothing_is_written_and_other_orders_are_refused(tmp_path):
    a = copy_to_memory(make_dump(tmp_path / "a", LOGITS), "orders/a")
    b = make_dump(tmp_path / "b", NEGATED)
    before = sorted(tmp_path.rglob("*"))
    dataset = softlabels.load({"b": b, "a": a}, T=1, cache=False, inputs=False)
    assert dataset.order(True).text == "blocks"
    for _ in dataset.batches(100, shuffle=True):
        pass
    assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(UsageError, match=r"'blocks\(64, 512\)'; a streamed dump has none and bloc"):
        dataset.batches(30, shuffle="blocks(64, 512)")


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize("harmed", ["a", "b"])
def test_damage_is_told_with_the_name_of_the_teacher(tmp_path, streaming, harmed):
    places = {
        name: make_dump(tmp_path / name, logits, 16, 100)
        for name, logits in (("a", LOGITS), ("b", NEGATED))
    }
    harm.flip_a_logit(places[harmed])
    dataset = softlabels.load(places, T=1, inputs=False, streaming=streaming, cache=False)
    with pytest.raises(DamagedDump, match=rf"^{harmed}: .*/{harmed}/data/train-00001"):
        list(dataset.batches(64))


@pytest.mark.parametrize("store_inputs", ["none", "original"])
def test_inputs_are_those_of_the_first(tmp_path, store_inputs):
    a, b = two_teachers(tmp_path, store_inputs=store_inputs)
    expected = softlabels.load(a, T=1).take(np.arange(60))
    dataset = softlabels.load({"a": a, "b": b}, T=1, streaming=True)
    for batch in dataset.mix("prob").batches(7, shuffle=True):
        rows = [int(id[1:]) for id in batch["id"]]
        assert torch.equal(batch["input"], expected["input"][rows])
        own = torch.softmax(expected["logits"][rows].float(), -1)
        other = torch.softmax(3 * expected["logits"][rows].float(), -1)
        torch.testing.assert_close(batch["soft_target"], (own + other) / 2, atol=5e-3, rtol=0)


def test_views_of_streamed_teachers_take_turns(views_folder, tmp_path):
    mapped = softlabels.load({"a": views_folder, "b": views_folder}, T=1)
    streamed = softlabels.load({"a": views_folder, "b": views_folder}, T=1, streaming=True)
    for epoch in (0, 1):
        words = {"epoch": epoch, "views": "turn"}
        for batch in streamed.batches(300, shuffle=True, **words):
            of_view = mapped.view(batch["view"][0].item())
            expected = of_view.take(of_view.rows_of(batch["id"].numpy()))
            assert torch.equal(batch["input"], expected["input"])
            for name in "ab":
                assert torch.equal(batch["logits"][name], expected["logits"][name])


def test_rows_that_are_left_out_are_told(tmp_path):
    a = make_dump(tmp_path / "a", LOGITS[:200])
    b = make_dump(tmp_path / "b", NEGATED)
    for streaming in (False, True):
        said = Lines()
        dataset = softlabels.load(
            {"a": a, "b": b}, inputs=False, streaming=streaming, progress=said
        )
        assert len(dataset) == 200
        assert said.lines == [
            f"100 of 300 rows of b ({b}) are left out: a ({a}), whose rows these are, has no such"
        ]


def test_every_difference_is_named(tmp_path):
    """With counts, ids and folders; the first decides the kind of the error."""
    a = make_dump(tmp_path / "a", LOGITS[:200])
    b = make_dump(tmp_path / "b", np.zeros((210, 5), np.float16))
    c = make_dump(tmp_path / "c", np.zeros((2, 200, 10), np.float16))
    teachers = softlabels.load({"a": a, "b": b, "c": c}, inputs=False)
    found = [difference.text for difference in teachers.differences()]
    assert found[1:] == [
        f"10 of 210 rows of {b} are not in {a}: first the ids 200, 201, 202, 203, 204",
        f"200 of 400 rows of {c} are not in {a}: first the ids 0, 1, 2, 3, 4, of view 1",
    ]
    assert f"{a} has 10 classes without names, {b} has 5 classes without names" in found[0]
    with pytest.raises(LabelSpaceMismatch) as caught:
        teachers.mix("prob")
    assert str(caught.value).startswith("; ".join(found))
    assert not teachers.only("a").differences()


def test_where_one_teacher_names_its_classes_the_others_are_taken_to_be_in_that_order(tmp_path):
    data = make_vectors(tmp_path / "v.parquet", rows=30)
    script = save_script(Linear(), tmp_path / "t.pt")
    bare = rewritten(data, lambda d: d.remove_columns("label"))
    for name, source in (("a", data), ("b", bare)):
        softlabels.dump(teacher=script, data=source, out=str(tmp_path / name))
    for places in ("ab", "ba"):
        said = Lines()
        words = {"inputs": False, "progress": said}
        teachers = softlabels.load({name: tmp_path / name for name in places}, **words)
        assert said.lines == [
            f"the classes of b ({tmp_path / 'b'}) have no names: they are taken to be those of a "
            f"({tmp_path / 'a'}), in the same order"
        ]
        assert not teachers.differences()
