"""Soft targets for those who stay with `datasets`."""

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from torch.utils.data import DataLoader

import softlabels
from softlabels.errors import AlignmentError, UsageError
from tests.targets.test_loading import vectors_dump


@pytest.mark.parametrize("ids", ["numbers", "text"])
def test_a_dataset_gets_tempered_columns_by_id(ids, dump_folder, tmp_path):
    folder = dump_folder if ids == "numbers" else vectors_dump(tmp_path)[1]
    plain = datasets.load_dataset(folder, split="train", cache_dir=str(tmp_path / "hf"))
    plain = plain.shuffle(seed=0)
    dataset = softlabels.with_soft_targets(plain, folder, T=5)
    expected = softlabels.load(folder, T=5, inputs=False)
    batch = dataset[7:30]
    stored = torch.tensor(plain[7:30]["logits"])
    assert batch["logits"].dtype == torch.float16
    assert torch.equal(batch["logits"].float(), stored.float())
    assert torch.equal(batch["soft_target"], torch.softmax(stored.float() / 5, -1))
    assert batch["id"] == plain[7:30]["id"]
    assert torch.equal(dataset[7]["soft_target"], batch["soft_target"][0])
    assert set(dataset[7]) == {*plain.column_names, "soft_target"} - {"input_hash"}
    hotter = softlabels.with_soft_targets(plain, folder, T=50)
    assert hotter[7]["soft_target"].max() < dataset[7]["soft_target"].max()
    loader = DataLoader(dataset, batch_size=20, num_workers=2)
    targets = torch.cat([b["soft_target"] for b in loader])
    rows = {row["id"]: row["soft_target"] for row in map(expected.__getitem__, range(len(plain)))}
    assert torch.equal(targets, torch.stack([rows[id] for id in plain["id"]]))


def test_what_can_not_be_joined(dump_folder, tmp_path):
    plain = datasets.Dataset.from_dict({"id": [5, 1200, -1], "x": [1, 2, 3]})
    dataset = softlabels.with_soft_targets(plain, dump_folder, T=5)
    assert dataset[0]["x"] == 1
    with pytest.raises(AlignmentError, match=r"2 of 3 rows are not in .*first the ids 1200, -1"):
        dataset[:]
    with pytest.raises(UsageError, match="no column id; it has x"):
        softlabels.with_soft_targets(plain.remove_columns("id"), dump_folder, T=5)
    with pytest.raises(UsageError, match=r"a DatasetDict; give one split, such as dataset\['tr"):
        softlabels.with_soft_targets(datasets.DatasetDict(train=plain), dump_folder, T=5)
    with pytest.raises(
        UsageError, match=r"IterableDataset; of a stream, softlabels\.load\(dump, T"
    ):
        softlabels.with_soft_targets(plain.to_iterable_dataset(), dump_folder, T=5)
    with pytest.raises(UsageError, match="dump is a list; name one"):
        softlabels.with_soft_targets(plain, [dump_folder], T=5)
    with pytest.raises(UsageError, match="has soft targets already; give the one without"):
        softlabels.with_soft_targets(dataset, dump_folder, T=2)
    with pytest.raises(UsageError, match="no column id among x: soft targets are found by it"):
        dataset.remove_columns("id")[0]


@pytest.fixture
def plain() -> datasets.Dataset:
    """Rows of the dump of digits with columns of another source."""
    ids = [7, 3, 1000, 3, 15, 2]
    return datasets.Dataset.from_dict(
        {"id": ids, "x": [[i, 2.5] for i in ids], "note": list("abcdef")}
    )


def targets(folder: str, ids: list[int]) -> torch.Tensor:
    return softlabels.load(folder, T=2, inputs=False).take(ids)["soft_target"]


def doubled(batch: dict) -> dict:
    return {"twice": [[2 * v for v in row] for row in batch["x"]]}


@pytest.mark.parametrize(
    "words", [{}, {"columns": ["x"]}, {"columns": ["x"], "output_all_columns": True}]
)
@pytest.mark.parametrize("how", ["with_transform", "set_transform"])
def test_a_transform_that_is_there_goes_on(dump_folder, plain, words, how):
    before = plain
    if how == "with_transform":
        before = plain.with_transform(doubled, **words)
    else:
        plain.set_transform(doubled, **words)
    after = softlabels.with_soft_targets(before, dump_folder, T=2)
    for rows in (1, [2, 0], slice(1, 4)):
        found, expected = after[rows], before[rows]
        ids = np.atleast_1d(np.array([7, 3, 1000, 3, 15, 2])[rows])
        value = found.pop("soft_target")
        assert torch.equal(value if value.ndim == 2 else value[None], targets(dump_folder, ids))
        assert found.pop("logits").shape[-1] == 10
        assert found == expected
    assert ("note" in after[0]) == ("output_all_columns" in words)
    assert before[0].keys() == after[0].keys() - {"logits", "soft_target"}, "left as it was"


@pytest.mark.parametrize("kind", ["torch", "numpy", "pandas", "arrow"])
@pytest.mark.parametrize("columns", [None, ["x", "id"]])
def test_a_format_that_is_there_goes_on(dump_folder, plain, kind, columns):
    before = plain.with_format(kind, columns=columns)
    after = softlabels.with_soft_targets(before, dump_folder, T=2)
    expected = targets(dump_folder, [1000, 7]).numpy()
    batch, row = after[[2, 0]], after[2]
    found = batch["soft_target"]
    if kind == "arrow":
        assert isinstance(batch, pa.Table)
        assert batch.drop_columns(["logits", "soft_target"]).equals(before[[2, 0]])
        assert np.array_equal(np.stack(found.to_numpy()), expected)
        assert np.array_equal(row["soft_target"].to_pylist()[0], expected[0].tolist())
    elif kind == "pandas":
        assert isinstance(batch, pd.DataFrame)
        assert list(batch.columns) == [*before[[2, 0]].columns, "logits", "soft_target"]
        assert np.array_equal(np.stack(found), expected)
    else:
        array = torch.Tensor if kind == "torch" else np.ndarray
        assert isinstance(found, array)
        assert isinstance(batch["x"], array)
        assert batch["logits"].dtype == (torch.float16 if kind == "torch" else np.float16)
        assert np.array_equal(np.asarray(found), expected)
        assert np.array_equal(np.asarray(row["soft_target"]), expected[0])
        assert np.array_equal(np.asarray(batch["x"]), np.asarray(before[[2, 0]]["x"]))
        assert batch.keys() - {"logits", "soft_target"} == before[0].keys()


def test_columns_of_a_dump_itself_in_torch(dump_folder, tmp_path):
    plain = datasets.load_dataset(dump_folder, split="train", cache_dir=str(tmp_path / "hf"))
    after = softlabels.with_soft_targets(plain.with_format("torch"), dump_folder, T=2)
    assert set(after[3]) == {"id", "view", "label", "logits", "soft_target"}
    assert torch.equal(after[:5]["soft_target"], targets(dump_folder, list(range(5))))
    assert after[:5]["label"].dtype == torch.int64


def test_what_comes_afterwards_keeps_rows_and_soft_targets_together(dump_folder, plain, tmp_path):
    soft = softlabels.with_soft_targets(plain.with_transform(doubled), dump_folder, T=2)
    ids = [7, 3, 1000, 3, 15, 2]

    def check(dataset: datasets.Dataset, expected: list[int]) -> None:
        batch = dataset[:]
        assert [row[0] / 2 for row in batch["twice"]] == expected
        assert torch.equal(batch["soft_target"], targets(dump_folder, expected))

    check(soft.select([4, 1]), [15, 3])
    order = plain.with_format(None).shuffle(seed=3)["id"]
    check(soft.shuffle(seed=3), list(order))
    check(
        soft.filter(lambda row: row["soft_target"].argmax() >= 0 and row["twice"][0] > 6),
        [7, 1000, 15],
    )
    parts = soft.train_test_split(test_size=2, shuffle=False)
    check(parts["train"], ids[:4])
    check(parts["test"], ids[4:])
    check(datasets.concatenate_datasets([parts["test"], parts["train"]]), ids[4:] + ids[:4])
    again = softlabels.with_soft_targets(plain.with_transform(doubled), dump_folder, T=2)
    check(datasets.concatenate_datasets([soft, again]), ids + ids)
    check(soft.sort("id"), sorted(ids))
    mapped = soft.map(lambda row: {"top": int(row["soft_target"].argmax())})
    assert mapped.with_format(None)["top"][:] == targets(dump_folder, ids).argmax(-1).tolist()
    with pytest.raises(TypeError, match="format kwargs must be JSON serializable"):
        soft.save_to_disk(str(tmp_path / "saved"))


@pytest.mark.slow
def test_a_spawned_worker_gives_soft_targets_too(dump_folder, plain):
    ids = [7, 3, 1000, 3, 15, 2]
    torchy = softlabels.with_soft_targets(
        plain.with_format("torch", columns=["x"]), dump_folder, T=2
    )
    loader = DataLoader(torchy, batch_size=4, num_workers=1, multiprocessing_context="spawn")
    assert torch.equal(torch.cat([b["soft_target"] for b in loader]), targets(dump_folder, ids))


def test_columns_that_a_map_adds_come_along(dump_folder, plain):
    soft = softlabels.with_soft_targets(plain.with_format("numpy", columns=["x"]), dump_folder, T=2)
    mapped = soft.map(lambda row: {"y": row["x"][0] + 1})
    assert mapped[0]["y"] == 8
    assert set(mapped[0]) == {"x", "y", "logits", "soft_target"}


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (lambda batch: {"logits": batch["x"]}, "gives 'logits', which is the name of a column"),
        (lambda batch: {"views": batch["x"] * 2}, "gives 4 values of 'views' for 2 rows"),
        (lambda batch: batch["x"], "transform gives list; soft targets stand in a dict"),
    ],
)
def test_transforms_that_soft_targets_can_not_stand_beside(dump_folder, plain, transform, message):
    soft = softlabels.with_soft_targets(plain.with_transform(transform), dump_folder, T=2)
    with pytest.raises(UsageError, match=message):
        soft[:2]
