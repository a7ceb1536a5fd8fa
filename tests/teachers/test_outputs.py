"""A model may give more than a tensor: its logits are found, or the words say how to choose."""

from collections import OrderedDict, namedtuple
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import softlabels
from softlabels.errors import TeacherError, UsageError
from softlabels.models.outputs import logits_of
from tests.conftest import make_vectors

LOGITS = torch.arange(6.0).reshape(2, 3)
FEATURES = torch.zeros(2, 7)
MAP = torch.zeros(2, 7, 4, 4)
Heads = namedtuple("Heads", "logits aux")

FOUND = [
    LOGITS,
    (LOGITS,),
    [[LOGITS]],
    SimpleNamespace(logits=LOGITS, hidden_states=None),
    OrderedDict(loss=None, logits=LOGITS, features=FEATURES),
    Heads(LOGITS, LOGITS + 1),
    {"out": LOGITS},
    {"out": LOGITS, "map": MAP, "loss": torch.tensor(1.0)},
    ({"logits": LOGITS},),
]
FOUND_AMONG_THREE_CLASSES = [(FEATURES, LOGITS), [None, LOGITS, MAP], {"a": LOGITS, "b": FEATURES}]


@pytest.mark.parametrize("output", FOUND, ids=str)
def test_logits_are_found(output):
    assert logits_of(output, 2) is LOGITS
    assert logits_of(output, 2, 3) is LOGITS


@pytest.mark.parametrize("output", FOUND_AMONG_THREE_CLASSES, ids=str)
def test_of_several_outputs_the_number_of_classes_tells(output):
    assert logits_of(output, 2, 3) is LOGITS
    for classes in (None, 4):
        with pytest.raises(UsageError, match=r"tensor \[2, 3\].*wrap it in a module"):
            logits_of(output, 2, classes)


def test_what_could_be_several_is_refused_with_the_shapes():
    message = r"the teacher t gave \(a tensor \[2, 3\], a tensor \[2, 3\]\) for 2 inputs"
    with pytest.raises(UsageError, match=message):
        logits_of((LOGITS, LOGITS + 1), 2, 3, "the teacher t")
    for output in (None, "logits", SimpleNamespace(logits=None), {}, (), [None, 1]):
        with pytest.raises(UsageError, match="does not say where the logits are"):
            logits_of(output, 2, 3)
    for shape in ((2,), (3,), (2, 3, 1, 1), ()):
        with pytest.raises(UsageError, match=r"one row of numbers for each input, \[2, classes\]"):
            logits_of(torch.zeros(shape), 2, 3)


class Pair(nn.Module):
    """Features beside the logits, which are the first three numbers."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x, x[:, :3]


class Named(nn.Module):
    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"features": x, "logits": x[:, :3]}


@pytest.mark.parametrize("module", [Pair(), Named()], ids=["pair", "named"])
def test_a_teacher_of_several_outputs_is_dumped(tmp_path, module):
    torch.jit.trace(module, torch.zeros(2, 6), strict=False).save(str(tmp_path / "t.pt"))
    data, out = make_vectors(tmp_path / "v.parquet", 40), str(tmp_path / "d")
    softlabels.dump(teacher=str(tmp_path / "t.pt"), data=data, out=out, dtype="float32")
    rows = softlabels.load(out, T=1).take(list(range(40)))
    assert torch.equal(rows["logits"], rows["input"][:, :3])


def test_a_pair_is_not_guessed_where_the_data_name_no_classes(tmp_path):
    torch.jit.trace(Pair(), torch.zeros(2, 6), strict=False).save(str(tmp_path / "t.pt"))
    (tmp_path / "d.jsonl").write_text('{"x": [1, 2, 3, 4, 5, 6]}\n' * 3)
    with pytest.raises(TeacherError, match=r"tensor \[\d, 6\], a tensor \[\d, 3\].*wrap it"):
        softlabels.dump(teacher=str(tmp_path / "t.pt"), data=str(tmp_path / "d.jsonl"),
                        out=str(tmp_path / "d"))  # fmt: skip


@pytest.mark.parametrize(
    "output", [LOGITS.to(torch.complex64), LOGITS.to_sparse(), LOGITS.to("meta")], ids=str
)
def test_tensors_of_another_kind_are_refused_in_words(output):
    with pytest.raises(UsageError, match="logits are real numbers, one beside the other"):
        logits_of(output, 2, 3)


class Failing(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return {}["weights"]


def test_whatever_a_teacher_raises_is_told_in_words(tmp_path):
    torch.save(Failing(), tmp_path / "t.pt")
    data = make_vectors(tmp_path / "v.parquet", 40)
    with pytest.raises(TeacherError, match=r"can't take inputs of shape .*: KeyError, 'weights'"):
        softlabels.dump(teacher=str(tmp_path / "t.pt"), data=data, out=str(tmp_path / "d"),
                        trust_pickle=True)  # fmt: skip
