"""A dump with several views of each input, whose rows are pairs of an id and a view. V views."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import softlabels
from softlabels.errors import AlignmentError, SourceError, UsageError
from softlabels.inputs.views.augment import parse_augment
from softlabels.inputs.views.augmentations import draw_shifts
from softlabels.reports.card import render_card
from softlabels.store.folder import Folder
from softlabels.store.ledger import read_manifest
from softlabels.store.names import CARD
from softlabels.store.writer import shard_features
from tests.dumps import OTHER_WRITERS, make_dump

LOGITS = np.random.default_rng(3).normal(size=(3, 100, 5)).astype(np.float16)


@settings(max_examples=40)
@given(
    views=st.integers(2, 4), inputs=st.integers(1, 90), group=st.sampled_from([1, 4, 16, 64]),
    shard_rows=st.integers(1, 100), writer=st.sampled_from([None, *OTHER_WRITERS]),
    streaming=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_id_view_and_logits_of_a_row_agree_however_it_is_read(
    tmp_path_factory, views, inputs, group, shard_rows, writer, streaming, seed
):
    folder = tmp_path_factory.mktemp("d")
    random = np.random.default_rng(seed)
    logits = random.normal(size=(views, inputs, 3)).astype(np.float16)
    make_dump(folder, logits, group, max(shard_rows, inputs // 8), OTHER_WRITERS.get(writer))
    dataset = softlabels.load(folder, T=2, inputs=False, streaming=streaming)
    assert len(dataset) == views * inputs
    for shuffle in (False, True):
        batches = list(dataset.batches(7, shuffle=shuffle, seed=seed))
        ids, numbers = (np.concatenate([b[name] for b in batches]) for name in ("id", "view"))
        assert sorted(zip(ids, numbers, strict=True)) == [
            (i, v) for i in range(inputs) for v in range(views)
        ]
        found = np.concatenate([batch["logits"] for batch in batches])
        assert np.array_equal(found, logits[numbers, ids])
    number = int(random.integers(0, views))
    one = dataset.view(number)
    assert one.ids.tolist() == list(range(inputs))
    batches = list(one.batches(7, shuffle=True, seed=seed))
    ids = np.concatenate([batch["id"] for batch in batches])
    assert sorted(ids) == list(range(inputs))
    assert np.array_equal(np.concatenate([b["logits"] for b in batches]), logits[number, ids])
    shutil.rmtree(folder)


def test_a_band_has_a_row_group_a_view(tmp_path):
    folder = make_dump(tmp_path / "d", LOGITS, group=16, shard_rows=40)
    path = folder / "data" / "train-00000-of-00003.parquet"
    file = pq.ParquetFile(path)
    groups = [file.read_row_group(i).to_pydict() for i in range(file.num_row_groups)]
    assert [len(group["id"]) for group in groups] == [16] * 6 + [8] * 3
    assert [set(group["view"]) for group in groups] == [{0}, {1}, {2}] * 3
    for view, band in [(v, b) for v in range(3) for b in range(3)]:
        group, ids = groups[3 * band + view], np.arange(16 * band, min(16 * band + 16, 40))
        assert group["id"] == ids.tolist()
        assert np.array_equal(np.array(group["logits"], np.float16), LOGITS[view, ids])
        shifts = np.stack([group["shift_down"], group["shift_right"]], 1)
        drawn = draw_shifts(2, 7, ids, view) if view else np.zeros((len(ids), 2))
        assert np.array_equal(shifts, drawn)
    assert [f.file for f in softlabels.verify(dump=str(folder)).findings] == ["README.md"]
    facts = softlabels.info(folder)["facts"]
    assert (facts["rows"], facts["inputs"]) == (300, 100)
    assert facts["views"] == "clean and 2 of jitter(2), data seed 7"


def put(name: str, row: int, value: int):
    """A change of one cell of shard 1."""

    def change(shard: int, table: pa.Table) -> pa.Table:
        values = table[name].to_pylist()
        values[row if shard == 1 else 0] = value if shard == 1 else values[0]
        place = table.column_names.index(name)
        field = table.schema.field(name)
        return table.set_column(place, field, pa.array(values, field.type))

    return change


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (put("view", 20, 2), "the row 20 with id 44 is of view 2; the plan has view 1 there"),
        (put("id", 20, 45), "not of the same inputs: id of view 1 is 45 and that of view 0 is 44"),
        (put("input_hash", 40, 9), "not of the same inputs: input_hash of view 2 is 9 and that of"),
        (put("label", 40, 4), "not of the same inputs: label of view 2 is 4 and that of view 0 is"),
        (put("shift_right", 20, 3), "shift_right of view 1 of the row with id 44 is 3; jitter(2)"),
        (put("shift_down", 3, 1), "shift_down of view 0 of the row with id 43 is 1; jitter(2)"),
    ],
)
def test_verify_finds_views_that_do_not_belong_together(tmp_path, change, problem):
    folder = make_dump(tmp_path / "d", LOGITS, group=16, shard_rows=40, change=change)
    findings = softlabels.verify(dump=str(folder)).findings
    assert any(problem in finding.problem for finding in findings), findings


def test_a_pair_that_stands_twice_is_found(tmp_path):
    ids = np.arange(100)
    ids[81] = 3
    folder = make_dump(tmp_path / "d", LOGITS, group=16, shard_rows=40, ids=ids)
    manifest, plan = read_manifest(Folder(folder))
    Folder(folder).write_text(CARD, render_card(manifest, plan, shard_features(plan, None)))
    [finding] = softlabels.verify(dump=str(folder)).findings
    assert finding.problem == "an id comes twice in a view"


def test_shifts_beyond_the_picture_take_no_memory_and_vectors_have_no_views():
    pictures, views = torch.ones(2, 1, 4, 3), np.ones(2, np.int32)
    far = {"shift_down": np.array([-32768, 32767], np.int16), "shift_right": np.zeros(2, np.int16)}
    assert not parse_augment("jitter(2)").show(pictures, views, far).any()
    far = {"window_top": np.array([0, 32767], np.int16), "window_left": np.zeros(2, np.int16)}
    crop = parse_augment("random_crop((4, 3), 1)")
    with pytest.raises(SourceError, match="window_top of a view is 32767, and a window of 4 pixel"):
        crop.show(pictures, views, far)


def test_rows_of_an_id_are_asked_for_in_one_view(tmp_path):
    dataset = softlabels.load(make_dump(tmp_path / "d", LOGITS), inputs=False)
    with pytest.raises(UsageError, match=r"7 is the id of 3 rows .* ask one view, .*view\(0\)"):
        dataset.rows_of([7])
    one = dataset.view(2)
    assert one[one.rows_of([7, 3])]["view"].tolist() == [2, 2]
    assert one.rows_of([7, 3]).tolist() == [7, 3]
    assert "view 2, 100 rows × 5 classes" in str(one)
    with pytest.raises(UsageError, match=r"has no view 3; there are 0, 1, 2"):
        dataset.view(3)
    plain = softlabels.load(make_dump(tmp_path / "plain", LOGITS[0]), inputs=False)
    assert plain.view(0)[4]["logits"].tolist() == LOGITS[0, 4].tolist()
    with pytest.raises(UsageError, match="has no view 1; there are 0"):
        plain.view(1)


def test_side_by_side_joins_by_id_and_view(tmp_path):
    many = make_dump(tmp_path / "many", LOGITS, group=16, shard_rows=40)
    also = make_dump(tmp_path / "also", LOGITS + 1, group=4, shard_rows=100)
    one = make_dump(tmp_path / "one", LOGITS[0] + 2)
    both = softlabels.load({"a": many, "b": also}, inputs=False)
    batch = both.take(np.random.default_rng(0).permutation(300))
    assert set(batch["view"].tolist()) == {0, 1, 2}
    assert np.array_equal(batch["logits"]["b"], LOGITS[batch["view"], batch["id"]] + 1)
    assert len(both.view(1)) == 100
    clean = softlabels.load({"a": one, "b": many}, inputs=False)
    assert np.array_equal(clean[:]["logits"]["b"], LOGITS[0])
    with pytest.raises(AlignmentError, match=r"200 of 300 .* first the ids 0, 1, 2, 3, 4, of view"):
        softlabels.load({"a": many, "b": one}, inputs=False)
    moved = make_dump(tmp_path / "moved", LOGITS, change=put("shift_right", 110, 5))
    moved = make_dump(tmp_path / "moved", LOGITS, shard_rows=50, change=put("shift_right", 20, 5))
    with pytest.raises(AlignmentError, match=r"1 rows .* other shift_right of their view"):
        softlabels.load({"a": many, "b": moved}, inputs=False)


def test_side_by_side_teachers_saw_the_same_of_each_input(tmp_path):
    """Columns alone don't say it: a dump may have others, and they don't tell a fill or a size."""

    def both(ours: str, theirs: str, side: int = 8) -> object:
        one = make_dump(tmp_path / "one", LOGITS, augment=ours)
        return softlabels.load(
            {"a": one, "b": make_dump(tmp_path / "two", LOGITS, augment=theirs, side=side)},
            inputs=False,
        )

    for words in (
        ("flip", "jitter(2)"), ("flip", "flip|grey(0.5)"), ("flip|jitter(2)", "jitter(2)|flip"),
        ("erase(0.5)", "erase(0.5, 9)"), ("jitter(2)", "jitter(2)", 16),
        ("random_crop(8, 2)", "random_crop(16, 2)", 16),
    ):  # fmt: skip
        with pytest.raises(AlignmentError, match=r"drawn by .* of 8×8 pixels, .* drawn by .* of "):
            both(*words)
    assert len(both("flip|color_jitter(0.4)", "flip|color_jitter(0.4)", 16)) == 300


def test_one_after_the_other_stand_dumps_with_the_same_views(tmp_path):
    many, also = (make_dump(tmp_path / name, LOGITS) for name in "ab")
    both = softlabels.load([many, also], inputs=False)
    assert np.array_equal(both.view(1)[:]["logits"], np.concatenate([LOGITS[1], LOGITS[1]]))
    one = make_dump(tmp_path / "one", LOGITS[0])
    with pytest.raises(UsageError, match=r"can't be one dataset: views \[0, 1, 2\] and \[0\]"):
        softlabels.load([many, one], inputs=False)


def test_soft_targets_of_a_dataset_are_of_one_view(tmp_path):
    datasets = pytest.importorskip("datasets")
    folder = make_dump(tmp_path / "d", LOGITS)
    rows = datasets.load_dataset("parquet", data_files=str(Path(folder, "data", "*")))["train"]
    with pytest.raises(UsageError, match=r"has 3 views of each input, .* such as view=0"):
        softlabels.with_soft_targets(rows, folder, 4)
    joined = softlabels.with_soft_targets(rows, folder, 4, view=1)
    with pytest.raises(AlignmentError, match="has rows of view 0, and the soft targets are of vi"):
        joined[0:5]
    mine = softlabels.with_soft_targets(rows.filter(lambda r: r["view"] == 1), folder, 4, view=1)
    assert np.array_equal(mine[[5, 2]]["logits"], LOGITS[1, [5, 2]])
    drawn = make_dump(tmp_path / "drawn", LOGITS[1:2], first=1)
    with pytest.raises(UsageError, match=r"has view 1 alone, drawn by jitter.* name view=1"):
        softlabels.with_soft_targets(rows, drawn, 4)
