"""A teacher is a function of its row, or is refused before anything is written."""

from pathlib import Path

import pytest
import torch
from torch import nn

import softlabels
from softlabels.errors import PlanMismatch, TeacherError
from tests.conftest import Lines, make_vectors
from tests.teachers import modules
from tests.teachers.modules import Layered, trace


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    return make_vectors(tmp_path_factory.mktemp("data") / "vectors.parquet", 90)


def dump(teacher: str, data: str, out: Path, **words) -> Lines:
    lines = Lines()
    softlabels.dump(progress=lines, teacher=teacher, data=data, out=str(out), **words)
    return lines


def unset(layer: nn.BatchNorm1d) -> nn.Module:
    return Layered(layer).eval()


RANDOM = {
    "dropout traced in train mode": lambda: Layered(nn.Dropout(0.5)).train(),
    "functional dropout": modules.FunctionalDropout,
    "bernoulli": modules.Bernoulli,
    "noise": modules.Noisy,
}
NEIGHBOURS = {
    "batch norm traced in train mode": lambda: Layered(nn.BatchNorm1d(16)).train(),
    "no running statistics": lambda: unset(nn.BatchNorm1d(16, track_running_stats=False)),
    "softmax over the batch": modules.OverBatch,
    "mean over the batch": modules.Centred,
    "maximum of the batch": modules.Scaled,
}
PLACE = {"sum": modules.Summing, "sort": modules.Sorting, "number": modules.Numbered}
STEADY = {
    "group norm": lambda: Layered(nn.GroupNorm(4, 16)),
    "layer norm": lambda: Layered(nn.LayerNorm(16)),
    "running statistics": lambda: unset(nn.BatchNorm1d(16)),
    "dropout in eval mode": lambda: Layered(nn.Dropout(0.5)).eval(),
}
CAUSES = {
    **dict.fromkeys(RANDOM, r"does not agree with itself: run twice.*trace it again after"),
    **dict.fromkeys(NEIGHBOURS, r"depend on the rows beside it.*batch statistics"),
    **dict.fromkeys(PLACE, r"depend on its place in the batch: in reverse order"),
}
REFUSED = {**RANDOM, **NEIGHBOURS, **PLACE}


@pytest.mark.parametrize("name", REFUSED)
def test_a_traced_teacher_that_is_no_function_of_its_row_is_refused(tmp_path, data, name):
    teacher, out = trace(REFUSED[name](), tmp_path / "t.pt", 90), tmp_path / "d"
    with pytest.raises(TeacherError, match=CAUSES[name]):
        dump(teacher, data, out)
    assert not out.exists()
    with pytest.raises(TeacherError, match=CAUSES[name]):
        softlabels.plan(teacher=teacher, data=data, out=str(out))


@pytest.mark.parametrize("make", STEADY.values(), ids=STEADY)
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_teacher_that_is_one_stands(tmp_path, data, make, precision):
    teacher = trace(make(), tmp_path / "t.pt")
    lines = dump(teacher, data, tmp_path / "d", precision=precision, batch_size=40)
    assert "depend" not in str(lines)


@pytest.mark.parametrize("make", [modules.InPlace, modules.OwnBuffer])
def test_a_teacher_may_work_in_place_and_give_the_same_memory_again(tmp_path, data, make):
    torch.save(make(), tmp_path / "t.pt")
    words = {"batch_size": 20, "store_inputs": "original", "trust_pickle": True, "dtype": "float32"}
    dump(str(tmp_path / "t.pt"), data, tmp_path / "d", **words)
    rows = softlabels.load(tmp_path / "d", T=1, source=data).take(list(range(90)))
    right = make()(rows["input"].clone()).detach().clone()
    torch.testing.assert_close(rows["logits"], right)
    stored = softlabels.load(tmp_path / "d", T=1).take(list(range(90)))["input"]
    torch.testing.assert_close(stored, rows["input"], rtol=0, atol=0)


def test_a_coin_for_the_whole_batch_is_no_batch_dependence(tmp_path, data):
    torch.manual_seed(1)
    torch.save(modules.Coin(), tmp_path / "t.pt")
    with pytest.raises(TeacherError, match="does not agree with itself"):
        dump(str(tmp_path / "t.pt"), data, tmp_path / "d", trust_pickle=True)


@pytest.mark.parametrize("make", [modules.Stubborn, modules.Counting])
def test_a_pickled_module_is_refused_with_its_layers(tmp_path, data, make):
    torch.save(make().train(), tmp_path / "t.pt")
    named = ".*still in train mode: " if make is modules.Stubborn else ".*keeps between calls"
    with pytest.raises(TeacherError, match=f"does not agree with itself{named}"):
        dump(str(tmp_path / "t.pt"), data, tmp_path / "d", trust_pickle=True)


def test_a_module_pickled_in_train_mode_is_put_into_eval_mode(tmp_path, data):
    torch.save(Layered(nn.Sequential(nn.BatchNorm1d(16), nn.Dropout(0.5))).train(), tmp_path / "t")
    dump(str(tmp_path / "t"), data, tmp_path / "d", trust_pickle=True)


def test_batch_dependence_may_be_allowed_and_is_recorded(tmp_path, data):
    teacher = trace(NEIGHBOURS["no running statistics"](), tmp_path / "t.pt")
    words = {"allow_batch_dependence": True, "batch_size": 30, "shard_rows": 45}
    lines = dump(teacher, data, tmp_path / "d", **words)
    assert "warning: the answers of the teacher t to a row depend on the rows beside it" in str(
        lines
    )
    assert softlabels.info(tmp_path / "d")["facts"]["batches"].startswith("of 30 rows; a row's")
    assert "of 30 rows; a row's logits may depend" in (tmp_path / "d" / "README.md").read_text()
    (tmp_path / "d" / "commits" / "00001.json").unlink()
    with pytest.raises(PlanMismatch, match="batch_size is 45 and was 30"):
        dump(teacher, data, tmp_path / "d", resume=True, **words | {"batch_size": 45})
    dump(teacher, data, tmp_path / "d", resume=True, **words)
    found = softlabels.verify(dump=str(tmp_path / "d"), replay=40, teacher=teacher)
    assert not any("agree with itself" in text for text in found.warnings)
    with pytest.raises(TeacherError, match="does not agree with itself"):
        dump(trace(modules.Noisy(), tmp_path / "r.pt"), data, tmp_path / "r", **words)


def test_permission_that_is_not_needed_is_said(tmp_path, data):
    teacher = trace(modules.Plain(), tmp_path / "t.pt")
    lines = dump(teacher, data, tmp_path / "d", allow_batch_dependence=True)
    assert "--allow-batch-dependence is not needed" in str(lines)


def test_rows_that_are_all_alike_show_nothing_and_that_is_said(tmp_path):
    (tmp_path / "d.jsonl").write_text('{"x": [1, 2, 3, 4, 5, 6]}\n' * 9)
    teacher = trace(modules.Plain(), tmp_path / "t.pt")
    assert "the first 9 rows are all the same" in str(
        dump(teacher, str(tmp_path / "d.jsonl"), tmp_path / "d")
    )
    (tmp_path / "d.jsonl").write_text('{"x": [1, 2, 3, 4, 5, 6]}\n')
    assert "warning" not in str(dump(teacher, str(tmp_path / "d.jsonl"), tmp_path / "one"))


def test_replay_measures_as_the_probe_does(tmp_path, data):
    teacher = trace(modules.Plain(), tmp_path / "t.pt")
    dump(teacher, data, tmp_path / "d")
    assert softlabels.verify(dump=str(tmp_path / "d"), replay=50, teacher=teacher).replay.steady
