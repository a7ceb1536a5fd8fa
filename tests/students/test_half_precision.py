"""Training in fp16: losses are scaled, steps whose gradients overflow are skipped and counted."""

import os

import accelerate
import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

import softlabels
from softlabels.errors import TrainingError, UsageError
from softlabels.students import state_file
from softlabels.students.optimization import learning_rate_factor
from tests.conftest import Lines
from tests.students.test_optimization import gradient_norms, train
from tests.students.test_ranks import train_in_two
from tests.students.test_resume import assert_same_training, history

HERE = "tests.students.test_half_precision"
TRAIN = {"student": f"{HERE}:Net", "precision": "fp16"}  # three epochs of six steps, see `train`


class Net(nn.Sequential):
    """Its gradients are infinite in chosen steps; the logits of its last step had `dtype`."""

    bad = frozenset[int]()
    interrupted = 0

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
        self.register_buffer("turns", torch.zeros((), dtype=torch.int64), persistent=False)
        Net.last = self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits_NC = super().forward(x)
        if self.training:
            self.turns += 1
            self.dtype = logits_NC.dtype
            if int(self.turns) in Net.bad:
                logits_NC.register_hook(lambda gradient: gradient * float("inf"))
            if int(self.turns) == Net.interrupted:
                raise KeyboardInterrupt
        return logits_NC


class Large(Net):
    """Its hidden values are numbers of float32, and none of fp16."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x * 1e6) / 1e6


@pytest.fixture
def bad_steps(monkeypatch):
    return lambda *steps: monkeypatch.setattr(Net, "bad", frozenset(steps))


def test_torch_may_choose_its_foreach_loop(dump_folder, tmp_path):
    """fused=False would forbid that, too."""
    groups = []
    hook = register_optimizer_step_post_hook(lambda one, *_: groups.extend(one.param_groups))
    try:
        train(dump_folder, tmp_path / "s.pt", **TRAIN, epochs=1)
    finally:
        hook.remove()
    assert {(one["fused"], one["foreach"]) for one in groups} == {(None, None)}


def test_a_student_learns_in_fp16_what_it_does_in_float32(dump_folder, tmp_path):
    whole = train(dump_folder, tmp_path / "whole.pt", student=f"{HERE}:Net")
    assert Net.last.dtype == torch.float32
    half = train(dump_folder, tmp_path / "half.pt", **TRAIN)
    assert Net.last.dtype == torch.float16
    parts = train(dump_folder, tmp_path / "parts.pt", **TRAIN, batch_size=50, accumulate=4)
    for name, value in whole.items():
        assert half[name].dtype == parts[name].dtype == torch.float32
        assert not torch.equal(half[name], value)
        for one in (half[name], parts[name]):
            torch.testing.assert_close(one, value, atol=3e-2, rtol=0)
            assert float((one - value).abs().mean()) < 1e-3
    scores = [
        softlabels.evaluate(checkpoint=str(tmp_path / name), device="cpu", model=f"{HERE}:Net")
        for name in ("whole.pt", "half.pt")
    ]
    assert abs(scores[0]["nll"] - scores[1]["nll"]) < 0.01
    softlabels.export(checkpoint=str(tmp_path / "half.pt"), to="pt2", out=str(tmp_path / "s.pt2"),
                      model=f"{HERE}:Net")  # fmt: skip
    program = torch.export.load(tmp_path / "s.pt2")
    assert {value.dtype for value in program.parameters()} == {torch.float32}


def test_gradients_are_clipped_as_they_are_without_the_scale(dump_folder, tmp_path):
    free = gradient_norms(dump_folder, tmp_path / "a.pt", **TRAIN, lr=1e-9)
    most = float(free.median())
    clipped = gradient_norms(dump_folder, tmp_path / "b.pt", **TRAIN, lr=1e-9, clip_norm=most)
    torch.testing.assert_close(clipped, free.clamp(max=most), atol=1e-3, rtol=1e-2)
    whole = gradient_norms(dump_folder, tmp_path / "c.pt", student=f"{HERE}:Net", lr=1e-9)
    torch.testing.assert_close(free, whole, atol=1e-3, rtol=1e-2)


@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_a_step_that_overflows_changes_nothing_and_is_counted(
    dump_folder, tmp_path, bad_steps, clip_norm
):
    """Neither the schedule nor the average of the weights takes a step."""
    bad_steps(1, 8, 9)
    averages: dict[str, torch.Tensor] = {}
    taken = []

    def note(*rest) -> None:
        taken.append(int(Net.last.turns))
        for name, value in Net.last.state_dict().items():
            now = value.detach().double()
            averages[name] = now if name not in averages else 0.8 * averages[name] + 0.2 * now

    hook, progress, out = register_optimizer_step_post_hook(note), Lines(), tmp_path / "s.pt"
    try:
        words = TRAIN | {"ema": 0.8, "clip_norm": clip_norm, "progress": progress}
        saved = train(dump_folder, out, **words)
    finally:
        hook.remove()
    assert taken == [step for step in range(1, 19) if step not in Net.bad]
    for name, value in saved.items():
        torch.testing.assert_close(value.double(), averages[name], atol=1e-5, rtol=1e-5)
    lines = history(out)
    assert [line["skipped_steps"] for line in lines] == [1, 2, 0]
    factors = [learning_rate_factor(step, 18, 0.02) for step in (4, 8, 14)]
    assert [line["learning_rate"] for line in lines] == pytest.approx([1e-2 * f for f in factors])
    assert (
        "warning: 3 of 18 steps were skipped, whose gradients overflowed fp16 (the loss scale is "
        "8,192 now)"
    ) in progress.lines


def test_the_scale_goes_on_where_a_training_was_stopped(
    dump_folder, tmp_path, bad_steps, monkeypatch
):
    bad_steps(1, 8, 11)
    calm = Lines()
    train(dump_folder, tmp_path / "calm.pt", **TRAIN, progress=calm)
    monkeypatch.setattr(state_file, "SAVE_SECONDS", 0)
    monkeypatch.setattr(state_file, "MOST_SHARE", float("inf"))
    monkeypatch.setattr(Net, "interrupted", 10)
    with pytest.raises(KeyboardInterrupt):
        train(dump_folder, tmp_path / "rough.pt", **TRAIN)
    monkeypatch.setattr(Net, "interrupted", 0)
    state = torch.load(tmp_path / "rough.pt.state", weights_only=True)
    assert (state["step"], state["optimization"]["scaling"]["scaler"]["scale"]) == (3, 2.0**14)
    rough = Lines()
    train(dump_folder, tmp_path / "rough.pt", **TRAIN, resume=True, progress=rough)
    assert_same_training(tmp_path / "calm.pt", tmp_path / "rough.pt")
    assert calm.lines[-1] == rough.lines[-1]
    assert "3 of 18 steps were skipped" in rough.lines[-1]


@pytest.mark.parametrize("holdout", [0.0, 0.1])
def test_a_loss_scale_is_found_over_epochs_of_one_step(dump_folder, tmp_path, bad_steps, holdout):
    bad_steps(1, 2, 5)
    words = TRAIN | {"batch_size": 5000, "epochs": 5, "rows": 1000, "holdout": holdout}
    train(dump_folder, tmp_path / "s.pt", **words)
    lines = history(tmp_path / "s.pt")
    assert [line["skipped_steps"] for line in lines] == [1, 1, 0, 0, 1]
    assert [line["loss"] is None for line in lines] == [True, True, False, False, True]
    chosen = torch.load(tmp_path / "s.pt", weights_only=True)["metrics"]["epoch"]
    assert chosen in ((3, 4) if holdout else (4,))


class BadOnOneRank(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits_NC = super().forward(x)
        if self.training and int(self.turns) == 4 and os.environ["RANK"] == "1":
            logits_NC.register_hook(lambda gradient: gradient * float("inf"))
        return logits_NC


@pytest.mark.slow
def test_ranks_skip_a_step_together(dump_folder, tmp_path):
    words = {"rows": 1130, "holdout": 0.0, "batch_size": 50, "accumulate": 4, "precision": "fp16"}
    train_in_two(tmp_path, dump=dump_folder, student=f"{HERE}:BadOnOneRank", **words)
    lines = history(tmp_path / "s.pt")
    assert [line["skipped_steps"] for line in lines] == [1, 0, 0]


@pytest.mark.parametrize("epochs", [2, 20])
@pytest.mark.parametrize("student", ["Net", "Large"])
def test_training_in_which_each_step_overflows_ends_with_an_error(
    dump_folder, tmp_path, bad_steps, student, epochs
):
    bad_steps(*range(999))
    with pytest.raises(TrainingError) as ended:
        train(dump_folder, tmp_path / "s.pt", **TRAIN | {"student": f"{HERE}:{student}"},
              epochs=epochs)  # fmt: skip
    assert "whose gradients overflowed fp16" in str(ended.value)
    assert "--precision bf16 or float32" in str(ended.value)
    assert not (tmp_path / "s.pt").exists()
    assert not (tmp_path / "s.pt.state").exists()


def test_weights_in_half_precision_are_refused(dump_folder, tmp_path):
    net = Net()
    net[3].half()
    net[2] = Halved()
    with pytest.raises(UsageError, match=r"3\.weight, 3\.bias of .* are float16, .* call \.float"):
        train(dump_folder, tmp_path / "s.pt", student=net, precision="fp16")


class Halved(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.relu().half()


def test_a_launcher_that_asks_for_another_precision_is_refused(dump_folder, tmp_path, monkeypatch):
    """accelerate would wrap the student in an autocast of its own."""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    message = "ACCELERATE_MIXED_PRECISION is bf16, and --precision is float32; use --precision bf16"
    with pytest.raises(UsageError, match=message):
        train(dump_folder, tmp_path / "s.pt")
    accelerate.state.AcceleratorState._reset_state()
    train(dump_folder, tmp_path / "s.pt", precision="bf16")
    assert accelerate.state.AcceleratorState().mixed_precision == "no"
