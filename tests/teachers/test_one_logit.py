"""Teachers of two classes that give one logit z a row: stored as the pair (0, z)."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import softlabels
from softlabels.errors import SoftlabelsError, TeacherError, UsageError
from softlabels.models.outputs import pair_of
from softlabels.reports.recipe import recipe
from softlabels.store.plan import Plan
from tests.conftest import Lines


class One(nn.Module):
    """z is the first number, as [N, 1] or [N]."""

    def __init__(self, flat: bool = False) -> None:
        super().__init__()
        self.flat = flat

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, 0] if self.flat else x[:, :1]


def save(path: Path, flat: bool) -> str:
    torch.jit.script(One(flat)).save(str(path))
    return str(path)


def data(path: Path, labels: list | None, names: bool = False) -> str:
    rows = [{"x": [i / 7 - 3, 1.0]} for i in range(40)]
    if labels is not None:
        rows = [row | {"label": labels[i % len(labels)]} for i, row in enumerate(rows)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def test_the_pair_has_the_sigmoid_at_any_temperature():
    z_N1 = torch.linspace(-9, 9, 50, dtype=torch.double)[:, None]
    for T in (0.5, 1, 8):
        probs = torch.softmax(pair_of(z_N1) / T, 1)
        torch.testing.assert_close(probs[:, 1:], torch.sigmoid(z_N1 / T))


@pytest.mark.parametrize("flat", [False, True], ids=["[N, 1]", "[N]"])
@pytest.mark.parametrize("labels", [["cat", "dog"], [0, 1]], ids=str)
def test_of_data_with_two_classes_it_is_taken_as_a_pair(tmp_path, flat, labels):
    teacher, out, lines = save(tmp_path / "one.pt", flat), tmp_path / "d", Lines()
    softlabels.dump(progress=lines, teacher=teacher, data=data(tmp_path / "d.jsonl", labels),
                    out=str(out), dtype="float32", shard_rows=16)  # fmt: skip
    second = "class 1, 'dog'," if labels[0] == "cat" else "class 1"
    assert f"taken as the pair (0, z), so that {second} has the probability" in str(lines)
    rows = softlabels.load(str(out), T=2).take(list(range(40)))
    z_N = rows["input"][:, 0]
    assert torch.equal(rows["logits"], torch.stack([torch.zeros(40), z_N], 1))
    torch.testing.assert_close(rows["soft_target"][:, 1], torch.sigmoid(z_N / 2))
    plan = Plan.parse(json.loads((out / "plan.json").read_text()), "plan.json")
    assert plan.teacher.outputs == "binary"
    assert "--outputs binary" in recipe(plan)
    assert softlabels.verify(dump=str(out), replay=20, teacher=teacher).good
    measured = softlabels.evaluate(checkpoint=teacher, data=str(tmp_path / "d.jsonl"),
                                   split="train", against=str(out))  # fmt: skip
    assert measured["against"]["agreement"] == 1
    right = torch.tensor([label == labels[1] for label in labels * 20]) == (z_N > 0)
    assert measured["accuracy"] == pytest.approx(float(right.double().mean()))
    softlabels.dump(teacher=teacher, data=str(tmp_path / "d.jsonl"), out=str(out), dtype="float32",
                    shard_rows=16, resume=True)  # fmt: skip


@pytest.mark.parametrize("flat", [False, True], ids=["[N, 1]", "[N]"])
@pytest.mark.parametrize("labels", [None, [0, 1, 2]], ids=str)
def test_else_it_is_refused_with_the_remedy(tmp_path, flat, labels):
    teacher, path = save(tmp_path / "one.pt", flat), data(tmp_path / "d.jsonl", labels)
    with pytest.raises(TeacherError, match=r"one logit z for two classes, say --outputs binary"):
        softlabels.dump(teacher=teacher, data=path, out=str(tmp_path / "d"))
    if labels is None:
        softlabels.dump(teacher=teacher, data=path, out=str(tmp_path / "d"), outputs="binary")
        assert softlabels.load(str(tmp_path / "d"), T=1).take([0])["logits"].shape == (1, 2)
        return
    with pytest.raises(SoftlabelsError, match="label 2 for the row"):
        softlabels.dump(teacher=teacher, data=path, out=str(tmp_path / "d"), outputs="binary")


def test_two_names_say_that_there_are_two_classes(tmp_path):
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    teacher, lines = save(tmp_path / "one.pt", False), Lines()
    softlabels.dump(progress=lines, teacher=teacher, data=data(tmp_path / "d.jsonl", None),
                    out=str(tmp_path / "d"), class_names=str(tmp_path / "names.txt"))  # fmt: skip
    assert "class 1, 'dog', has the probability sigmoid(z / T)" in str(lines)


def test_labels_of_other_classes_say_nothing_of_the_teachers(tmp_path):
    teacher = save(tmp_path / "one.pt", False)
    with pytest.raises(TeacherError, match="say --outputs binary"):
        softlabels.dump(teacher=teacher, data=data(tmp_path / "d.jsonl", [0, 1]),
                        out=str(tmp_path / "d"), own_labels=True)  # fmt: skip


def test_a_module_in_memory(tmp_path):
    softlabels.dump(teacher=One(), data=data(tmp_path / "d.jsonl", [0, 1]),
                    out=str(tmp_path / "d"), dtype="float32")  # fmt: skip
    rows = softlabels.load(str(tmp_path / "d"), T=1).take(list(range(40)))
    assert torch.equal(rows["logits"][:, 1], rows["input"][:, 0])


def test_binary_is_for_one_logit(tmp_path):
    torch.jit.script(nn.Linear(2, 2)).save(str(tmp_path / "two.pt"))
    with pytest.raises(UsageError, match="is for one logit a row, and the teacher two gives 2 num"):
        softlabels.dump(teacher=str(tmp_path / "two.pt"), data=data(tmp_path / "d.jsonl", [0, 1]),
                        out=str(tmp_path / "d"), outputs="binary")  # fmt: skip


def test_one_logit_of_two_classes_is_not_that_of_a_label(tmp_path):
    with pytest.raises(UsageError, match="leave one of them out"):
        softlabels.dump(teacher=save(tmp_path / "one.pt", False), task="multilabel",
                        data=data(tmp_path / "d.jsonl", None), outputs="binary")  # fmt: skip


def test_a_sigmoid_is_no_logit(tmp_path):
    class Sigmoid(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, :1].sigmoid()

    torch.jit.trace(Sigmoid(), torch.zeros(3, 2)).save(str(tmp_path / "s.pt"))
    with pytest.raises(SoftlabelsError, match="as a sigmoid does"):
        softlabels.dump(teacher=str(tmp_path / "s.pt"), data=data(tmp_path / "d.jsonl", [0, 1]),
                        out=str(tmp_path / "d"))  # fmt: skip


def test_eval_measures_logits_alone(tmp_path):
    """The likelihood and the calibration of probabilities taken for logits would be wrong."""
    torch.jit.script(nn.Sequential(nn.Linear(2, 2), nn.Softmax(1))).save(str(tmp_path / "p.pt"))
    with pytest.raises(TeacherError, match=r"gives probabilities .* eval measures raw logits"):
        softlabels.evaluate(checkpoint=str(tmp_path / "p.pt"), split="train",
                            data=data(tmp_path / "d.jsonl", [0, 1]))  # fmt: skip
