"""Students that need care: what they give, what they are made of, and batches of one row."""

import re
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import softlabels
from softlabels.errors import SourceError, TrainingError, UsageError
from softlabels.targets.batches import steps
from tests.conftest import Linear, Lines, save_script

HERE = "tests.students.test_odd_students"


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, x):
        return self.layer(x.flatten(1))


class Attribute(Base):
    def forward(self, x):
        return SimpleNamespace(logits=super().forward(x))


class Named(Base):
    def forward(self, x):
        return {"features": x.flatten(1), "logits": super().forward(x)}


class Pair(Base):
    """Logits and features while it is trained; logits alone otherwise."""

    def forward(self, x):
        logits = super().forward(x)
        return (logits, x.flatten(1)) if self.training else logits


class Double(Base):
    def forward(self, x):
        return super().forward(x.mul_(1.0)).double()


class Normed(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Linear(16, 10))


class Frozen(Normed):
    def __init__(self) -> None:
        super().__init__()
        self[1].requires_grad_(False)


class AllFrozen(Normed):
    def __init__(self) -> None:
        super().__init__()
        self.requires_grad_(False)


class Detached(Base):
    def forward(self, x):
        return super().forward(x).detach()


class Half(Base):
    def __init__(self) -> None:
        super().__init__()
        self.half()


class Seven(Base):
    def forward(self, x):
        return super().forward(x)[:, :7]


class Whole(Base):
    def forward(self, x):
        return super().forward(x).long()


class OnlyEvaluates(Base):
    def forward(self, x):
        if self.training:
            raise RuntimeError("no labels were given")
        return super().forward(x)


class Infinite(Base):
    def forward(self, x):
        return super().forward(x) / 0


class Idle(Base):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 3)


class Tired(Base):
    """Its third batch in evaluation is one too many; the first tries it."""

    turn = 0

    def forward(self, x):
        self.turn += not self.training
        if self.turn == 3:
            raise ValueError("enough")
        return super().forward(x)


class Picky(Base):
    def forward(self, x):
        assert x.shape[1] == 3, "RGB only"
        return super().forward(x)


class Demanding(Base):
    def __init__(self, width) -> None:
        super().__init__()


def train(dump_folder, out, name, **options):
    heard = Lines()
    defaults = {"T": 2.0, "epochs": 1, "batch_size": 64, "alpha": 1.0}
    softlabels.train(progress=heard, dump=dump_folder, student=f"{HERE}:{name}", out=str(out),
                     **(defaults | options))  # fmt: skip
    return torch.load(out, weights_only=True)["state_dict"], str(heard)


@pytest.mark.parametrize("name", ["Attribute", "Named", "Pair", "Double"])
def test_what_holds_logits_trains_as_logits_do(dump_folder, tmp_path, name):
    plain, _ = train(dump_folder, tmp_path / "a.pt", "Base")
    other, _ = train(dump_folder, tmp_path / "b.pt", name)
    assert list(plain) == list(other)
    for key in plain:
        torch.testing.assert_close(plain[key], other[key], atol=1e-5, rtol=1e-4)
    found = softlabels.evaluate(checkpoint=str(tmp_path / "b.pt"), model=f"{HERE}:{name}")
    assert found["rows"] == 597
    again = softlabels.dump(teacher=str(tmp_path / "b.pt"), model=f"{HERE}:{name}",
                            out=str(tmp_path / "d"))  # fmt: skip
    assert again.manifest.rows == 1200


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("AllFrozen", "has no parameter that can be trained"),
        ("Detached", "depend on no parameter that can be trained"),
        ("Half", r"dtype.* \(its weights are float16, inputs float32\)"),
        ("Seven", r"gave \[2, 7\] for 2 inputs; expected \[2, 10\]"),
        ("Whole", "gave torch.int64; logits are floating point"),
        ("OnlyEvaluates", r"inputs of shape \[1, 8, 8\] in training mode: no labels were given"),
        ("Infinite", "gives NaN or infinity before it is trained"),
        ("Picky", r"can't take inputs of shape \[1, 8, 8\]: AssertionError, RGB only"),
        ("Demanding", "can't be built: TypeError, .* It is called without arguments"),
    ],
)
def test_what_can_not_be_trained_is_refused_in_words(dump_folder, tmp_path, name, message):
    with pytest.raises(UsageError, match=message):
        train(dump_folder, tmp_path / "s.pt", name)
    assert not (tmp_path / "s.pt").exists()


def test_a_student_that_fails_later_is_told_with_the_best_epoch_kept(dump_folder, tmp_path):
    with pytest.raises(TrainingError, match="failed on a batch of 120 rows: ValueError, enough"):
        train(dump_folder, tmp_path / "s.pt", "Tired", epochs=3)
    saved = torch.load(tmp_path / "s.pt", weights_only=True)
    assert (saved["metrics"]["epoch"], saved["training"]["complete"]) == (1, False)


def test_frozen_parameters_stay_and_unused_ones_are_named(dump_folder, tmp_path):
    torch.manual_seed(0)
    before = Frozen()
    after, said = train(dump_folder, tmp_path / "s.pt", "Frozen", seed=0)
    assert "warning" not in said
    assert torch.equal(after["1.weight"], before[1].weight)
    assert not torch.equal(after["3.weight"], before[3].weight)
    _, said = train(dump_folder, tmp_path / "s.pt", "Idle")
    assert "warning: the logits of" in said
    assert "do not use head.weight, head.bias, which stay as they are" in said


def test_the_last_row_joins_the_batch_before_it(dump_folder, tmp_path):
    """1,200 rows are eleven batches of 109 and one row, which batch norm can't train on."""
    train(dump_folder, tmp_path / "s.pt", "Normed", batch_size=109, holdout=0)
    for options in ({"batch_size": 1, "rows": 5}, {"rows": 1}):
        with pytest.raises(UsageError, match="a batch is one row, which batch norm can't train on"):
            train(dump_folder, tmp_path / "n.pt", "Normed", **options)
    train(dump_folder, tmp_path / "n.pt", "Base", batch_size=1, rows=5)


@pytest.mark.parametrize(
    ("rows", "size", "world", "sizes"),
    [
        (10, 3, 1, [3, 3, 4]),
        (11, 3, 1, [3, 3, 3, 2]),
        (1, 3, 1, [1]),
        (3, 1, 1, [1, 1, 1]),
        (11, 8, 2, [11]),
        (12, 8, 2, [8, 4]),
        (9, 2, 2, [2, 2, 2, 3]),
        (3, 8, 2, [3]),
    ],
)
def test_no_rank_gets_a_single_row_where_more_are_at_hand(rows, size, world, sizes):
    found = steps(rows, size, world)
    assert [stop - start for start, stop in found] == sizes
    middle = found[len(found) // 2][0]
    assert steps(rows, size, world, middle) == found[len(found) // 2 :]
    assert all(stop - start == size for start, stop in steps(rows, size, world, drop_last=True))


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"seed": -1}, UsageError, "--seed is -1; it must be a whole number, 0 or more"),
        ({"weight_decay": float("inf")}, UsageError, "--weight-decay is inf"),
        ({"weight_decay": 1e30, "epochs": 3}, TrainingError, "--weight-decay 1e.30 times --lr"),
        ({"augment": "jitter(8)"}, UsageError, "can shift pictures of 8×8 pixels out of sight"),
        ({"model": "mlp:999999999999"}, UsageError, "can't be built: .*allocate"),
        ({"out": "/proc/t.pt"}, UsageError, "--out is /proc/t.pt; no file can be written there"),
        ({"out": "."}, UsageError, "--out is ., which is a folder; name a file"),
    ],
)
def test_options_that_can_not_work_are_refused_before_training(
    tmp_path, monkeypatch, options, kind, message
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(kind, match=message):
        softlabels.fit(**{"data": "digits", "model": "mlp:8", "epochs": 1, "out": "t.pt"} | options)
    assert not list(tmp_path.iterdir())


def test_classes_without_a_row_are_named(tmp_path):
    heard = Lines()
    softlabels.fit(progress=heard, data="digits", model="linear", epochs=1, rows=7,
                   out=str(tmp_path / "t.pt"))  # fmt: skip
    assert "warning: 3 of 10 classes have no row to train on: " in str(heard)


def test_a_full_disk_is_said(small_disk, tmp_path):
    out = small_disk / "t.pt"
    with pytest.raises(TrainingError, match=r"t.pt can't be written: .* are free there; make room"):
        softlabels.fit(data="digits", model="mlp:8000", epochs=1, out=str(out))
    assert [path.name for path in small_disk.iterdir()] == ["t.pt.history.jsonl"]


@pytest.mark.parametrize("T", [1e308, 1e7, 1e-7, 5e-324])
def test_a_temperature_at_which_nothing_is_left_of_the_logits_is_refused(dump_folder, T):
    with pytest.raises(UsageError, match=r"T is .*use a temperature from 1e-06 to 1e\+06"):
        softlabels.train(dump=dump_folder, T=T)


def test_a_temperature_that_float32_hardly_holds_is_said(dump_folder, tmp_path):
    heard = Lines()
    softlabels.train(progress=heard, dump=dump_folder, student="linear", T=2000, epochs=1, alpha=1,
                     out=str(tmp_path / "s.pt"))  # fmt: skip
    assert "1 nat or more to two, for T from 0.01 to 1,000 only" in str(heard)


def labelled(path, labels) -> str:
    rows = [f'{{"x": [{i % 7}, 1.5], "label": {label}}}' for i, label in enumerate(labels)]
    path.write_text("\n".join(rows))
    return str(path)


def test_labels_that_number_no_classes_are_refused(tmp_path):
    one = labelled(tmp_path / "one.jsonl", [0] * 60)
    with pytest.raises(SourceError, match=r"all 60 rows of .* have the same label"):
        softlabels.fit(data=one, model="linear", out=str(tmp_path / "t.pt"))
    large = labelled(tmp_path / "large.jsonl", [0, 1] * 30 + [10**9])
    with pytest.raises(SourceError, match="go up to 1,000,000,000; labels number classes from 0"):
        softlabels.fit(data=large, model="linear", out=str(tmp_path / "t.pt"))
    assert not (tmp_path / "t.pt").exists()


@pytest.mark.parametrize("name", ["a\0b.pt", "", "x" * 300, "x" * 250])
def test_names_that_no_file_can_have_are_refused_before_training(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"--out is"):
        softlabels.fit(data="digits", model="linear", out=name)
    assert not list(tmp_path.iterdir())


class Stateful(nn.Linear):
    def get_extra_state(self):
        return {"step": 1}


class Probable(nn.Linear):
    def forward(self, x):
        return super().forward(x).softmax(-1)


def stateful() -> nn.Module:
    return nn.Sequential(nn.Flatten(), Stateful(64, 10))


def probable() -> nn.Module:
    return nn.Sequential(nn.Flatten(), Probable(64, 10))


@pytest.mark.parametrize(
    ("factory", "told"),
    [("stateful", "1._extra_state of model .* is no tensor"), ("probable", "softmax again")],
)
def test_students_that_could_not_be_stored_or_learn_are_refused(tmp_path, factory, told):
    with pytest.raises(UsageError, match=told):
        softlabels.fit(data="digits", model=f"{__name__}:{factory}", out=str(tmp_path / "t.pt"))


@pytest.mark.parametrize(
    ("teacher", "task", "T", "said"),
    [
        ("sharp", "classification", 1.0, ""),
        (
            "sharp",
            "classification",
            100.0,
            "of the largest, that of 3 equal probabilities; --T",
        ),
        ("flat", "classification", 4.0, "100.0% .* no T from 0.1 on gives less than 90%"),
        ("sharp", "multilabel", 100.0, "largest, that of 3 labels at one half; --T"),
    ],
)
def test_soft_targets_that_are_nearly_uniform_are_told(tmp_path, vectors, teacher, task, T, said):
    model = save_script(Linear(4.0 if teacher == "sharp" else 1e-3), tmp_path / "t.pt")
    softlabels.dump(
        teacher=model,
        data=vectors,
        task=task,
        labels=False,
        outputs="logits",
        out=str(tmp_path / "d"),
    )
    progress = Lines()
    softlabels.train(dump=str(tmp_path / "d"), student="linear", T=T, epochs=1, alpha=1,
                     out=str(tmp_path / "s.pt"), progress=progress)  # fmt: skip
    warning = next((line for line in progress.lines if "nearly uniform" in line), "")
    assert re.search(said, warning) if said else not warning
    fitting = re.search(r"--T (\S+) gives 8\d%|--T (\S+) gives 90%", warning)
    if fitting:
        calm = Lines()
        softlabels.train(dump=str(tmp_path / "d"), student="linear", alpha=1, epochs=1,
                         T=float(fitting[1] or fitting[2]), out=str(tmp_path / "s.pt"),
                         progress=calm)  # fmt: skip
        assert "uniform" not in str(calm)
