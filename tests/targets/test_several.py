"""Several dumps as one dataset: one after the other, or side by side."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import softlabels
from softlabels.errors import AlignmentError, UsageError
from tests.conftest import Linear, make_vectors, save_script
from tests.dumps import make_dump
from tests.targets.test_loading import rewritten

RANDOM = np.random.default_rng(3)


def logits(rows: int, classes: int = 5, dtype: str = "float16") -> np.ndarray:
    return RANDOM.normal(size=(rows, classes)).astype(dtype)


def test_one_after_the_other(tmp_path):
    parts = [logits(rows) for rows in (50, 1, 77)]
    folders = [make_dump(tmp_path / str(i), part, 16, 30) for i, part in enumerate(parts)]
    dataset = softlabels.load(folders, T=2, inputs=False)
    every = np.concatenate(parts)
    assert len(dataset) == 128
    rows = RANDOM.permutation(128)
    batch = dataset.take(rows)
    assert np.array_equal(batch["logits"].numpy(), every[rows])
    within = np.concatenate([np.arange(len(part)) for part in parts])
    assert batch["id"].tolist() == within[rows].tolist()
    for shuffle in (False, True, "blocks", "blocks(4, 8)"):
        seen = torch.cat([b["logits"] for b in dataset.batches(9, shuffle=shuffle)])
        assert sorted(seen.tolist()) == sorted(torch.from_numpy(every).tolist())
    loader = DataLoader(dataset, batch_size=20, num_workers=2)
    assert np.array_equal(torch.cat([b["logits"] for b in loader]).numpy(), every)
    streamed = softlabels.load(folders, T=2, inputs=False, streaming=True)
    assert np.array_equal(torch.cat([b["logits"] for b in streamed.batches(9)]).numpy(), every)
    one = softlabels.load(folders[0], T=2, inputs=False).batches(9).state_dict()
    with pytest.raises(UsageError, match="this state is of batches whose data"):
        dataset.batches(9).load_state_dict(one)


def test_no_rows_are_an_empty_batch(tmp_path):
    a, b = (make_dump(tmp_path / name, logits(20)) for name in "ab")
    for where, words in ((a, {}), (a, {"streaming": True}), ([a, b], {}), ({"a": a, "b": b}, {})):
        batch = softlabels.load(where, T=2, inputs=False, **words).take([])
        found = batch["logits"]["b"] if isinstance(where, dict) else batch["logits"]
        assert (found.shape, found.dtype) == ((0, 5), torch.float16)
        assert len(batch["id"]) == len(batch["label"]) == 0


def test_splits_with_their_inputs(teacher, dump_folder, tmp_path):
    softlabels.dump(teacher=teacher, split="test", out=str(tmp_path / "test"))
    dataset = softlabels.load([dump_folder, tmp_path / "test"], T=4)
    assert len(dataset) == 1200 + 597
    batch = dataset.take(np.array([1199, 1200, 3]))
    test = softlabels.load(tmp_path / "test", T=4)
    assert torch.equal(batch["input"][1], test[0]["input"])
    assert torch.equal(dataset.with_temperature(9)[1200]["soft_target"],
                       test.with_temperature(9)[0]["soft_target"])  # fmt: skip


def test_what_does_not_fit_is_refused(tmp_path, dump_folder):
    a = make_dump(tmp_path / "a", logits(20))
    cases = {"classes 5 and 6": logits(20, 6),
             "dtype 'float16' and 'float32'": logits(20, dtype="float32")}  # fmt: skip
    for words, other in cases.items():
        b = make_dump(tmp_path / words[:4], other)
        with pytest.raises(UsageError, match=f"can't be one dataset: {words}"):
            softlabels.load([a, b], T=1, inputs=False)
    with pytest.raises(UsageError, match="no dump is named"):
        softlabels.load([], T=1)


def two_teachers(tmp_path: Path, **words: str) -> tuple[str, str]:
    """Dumps by two teachers of the same 60 rows, in another order the second."""
    data = make_vectors(tmp_path / "v.parquet", rows=60, name=[f"r{i}" for i in range(60)])
    shuffled = rewritten(data, lambda d: d.shuffle(seed=0))
    outs = []
    for name, source, scale in (("a", data, 1.0), ("b", shuffled, 3.0)):
        script = save_script(Linear(scale), tmp_path / f"{name}.pt")
        outs.append(str(tmp_path / name))
        words |= {"teacher": script, "data": source, "out": outs[-1], "id_column": "name"}
        softlabels.dump(**words, shard_rows=20)
    return outs[0], outs[1]


def test_two_teachers_side_by_side(tmp_path):
    a, b = two_teachers(tmp_path)
    dataset = softlabels.load({"small": a, "large": b}, T=2)
    for batch in [*dataset.batches(7, shuffle=True), next(iter(DataLoader(dataset, batch_size=9)))]:
        assert list(batch["logits"]) == ["small", "large"]
        small, large = batch["logits"].values()
        torch.testing.assert_close(small.float() * 3, large.float(), atol=0.05, rtol=0.01)
        targets = batch["soft_target"]["large"]
        assert torch.equal(targets, torch.softmax(large.float() / 2, -1))
        assert batch.to("meta")["logits"]["small"].device.type == "meta"
    other = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(other[5]["logits"]["large"], dataset[5]["logits"]["large"])
    row = dataset[3]
    assert row["id"] == "r3"
    assert row["soft_target"]["small"].shape == (3,)
    stacked = torch.utils.data.default_collate([dataset[3], dataset[4]])
    assert stacked["logits"]["large"].shape == (2, 3)


def test_dumps_of_other_rows_do_not_stand_side_by_side(tmp_path):
    a, _ = two_teachers(tmp_path)
    fewer = rewritten(str(tmp_path / "v.parquet"), lambda d: d.select(range(55)))
    script = str(tmp_path / "a.pt")
    softlabels.dump(teacher=script, data=fewer, out=str(tmp_path / "f"), id_column="name")
    with pytest.raises(AlignmentError, match=r"5 of 60 rows of .* are not in .* the ids r55, r56"):
        softlabels.load({"a": a, "f": tmp_path / "f"}, T=1)
    assert len(softlabels.load({"f": tmp_path / "f", "a": a}, T=1)) == 55
    (tmp_path / "o").mkdir()
    other = make_vectors(tmp_path / "o" / "v.parquet", 60, 1, name=[f"r{i}" for i in range(60)])
    softlabels.dump(teacher=script, data=other, out=str(tmp_path / "g"), id_column="name")
    with pytest.raises(AlignmentError, match=r"60 rows of .* have the same id and other inputs"):
        softlabels.load({"a": a, "g": tmp_path / "g"}, T=1)
