"""Options of a step: accumulated batches, clipped gradients, averaged weights, compiled models."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

import softlabels
from softlabels.errors import TrainingError, UsageError
from tests.conftest import Lines
from tests.students.test_ranks import train_in_two

HERE = "tests.students.test_optimization"


def train(dump_folder: str, out: Path, **words) -> dict[str, torch.Tensor]:
    """The weights of a student of 1,130 rows: five batches of 200, and a last one of 130."""
    options = {"student": "mlp:16", "T": 2.0, "epochs": 3, "batch_size": 200, "rows": 1130,
               "holdout": 0.0, "lr": 1e-2, "device": "cpu", "out": str(out)}  # fmt: skip
    softlabels.train(dump=dump_folder, **options | words)
    weights: dict[str, torch.Tensor] = torch.load(out, weights_only=True)["state_dict"]
    return weights


def test_accumulated_batches_learn_what_large_ones_do(dump_folder, tmp_path):
    """The last step has batches of 50, 50 and 30 rows: the loss is the mean over all of them."""
    large = train(dump_folder, tmp_path / "large.pt")
    small = train(dump_folder, tmp_path / "small.pt", batch_size=50, accumulate=4)
    other = train(dump_folder, tmp_path / "other.pt", batch_size=50)
    for name, value in large.items():
        torch.testing.assert_close(small[name], value, atol=2e-5, rtol=1e-4)
    assert not torch.allclose(other["layers.0.weight"], large["layers.0.weight"], atol=1e-2)


@pytest.mark.slow
def test_two_ranks_accumulate_as_one_process_takes_large_batches(dump_folder, tmp_path):
    words = {"student": "mlp:16", "rows": 1130, "holdout": 0.0}
    large = train(dump_folder, tmp_path / "large.pt", **words)
    train_in_two(tmp_path, dump=dump_folder, **words, batch_size=50, accumulate=4)
    two = torch.load(tmp_path / "s.pt", weights_only=True)["state_dict"]
    for name, value in large.items():
        torch.testing.assert_close(two[name], value, atol=2e-5, rtol=1e-4)


def gradient_norms(dump_folder: str, out: Path, **words) -> torch.Tensor:
    norms = []

    def note(optimizer, *rest) -> None:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
        norms.append(torch.cat([gradient.flatten() for gradient in gradients]).norm())

    hook = register_optimizer_step_pre_hook(note)
    try:
        train(dump_folder, out, **words)
    finally:
        hook.remove()
    return torch.stack(norms)


def test_gradients_above_the_norm_are_scaled_down_to_it(dump_folder, tmp_path):
    free = gradient_norms(dump_folder, tmp_path / "a.pt", lr=1e-9)
    most = float(free.median())
    clipped = gradient_norms(dump_folder, tmp_path / "b.pt", lr=1e-9, clip_norm=most)
    torch.testing.assert_close(clipped, free.clamp(max=most), atol=1e-4, rtol=1e-4)
    assert 0 < int((free > most).sum()) < len(free)


class Net(nn.Sequential):
    """With statistics of batch norm, and whole numbers that must stay as they are."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, 10))
        self.register_buffer("index", torch.tensor([5, 7, 1]))
        Net.last = self


def test_the_average_of_the_weights_is_saved(dump_folder, tmp_path):
    averages: dict[str, torch.Tensor] = {}

    def note(*rest) -> None:
        for name, value in Net.last.state_dict().items():
            now = value.detach().double()
            averages[name] = now if name not in averages else 0.8 * averages[name] + 0.2 * now

    hook = register_optimizer_step_post_hook(note)
    try:
        saved = train(dump_folder, tmp_path / "s.pt", student=f"{HERE}:Net", ema=0.8)
    finally:
        hook.remove()
    assert torch.equal(saved.pop("index"), torch.tensor([5, 7, 1]))
    assert int(saved.pop("2.num_batches_tracked")) == 18
    for name, value in saved.items():
        torch.testing.assert_close(value.double(), averages[name], atol=1e-5, rtol=1e-5)
    last = Net.last.state_dict()["1.weight"]
    assert not torch.allclose(saved["1.weight"], last, atol=1e-4)


def test_the_average_is_what_is_scored_and_that_is_said(dump_folder, tmp_path):
    progress, out = Lines(), str(tmp_path / "s.pt")
    words = {"dump": dump_folder, "student": "mlp:16", "epochs": 2, "device": "cpu", "out": out}
    result = softlabels.train(**words, ema=0.999, progress=progress)
    assert "an average of the weights is scored and saved (--ema 0.999)" in progress.lines
    warning = "warning: in 10 steps --ema 0.999 leaves 99% of the average to the weights after the"
    assert warning in str(progress)
    assert result.metrics["held_out"]["accuracy"] < 0.5, "as good as untrained"
    calm = Lines()
    softlabels.train(**words, ema=0.5, progress=calm)
    assert "leaves" not in str(calm)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"ema": 0.0}, "--ema is 0.0; it must be a number between 0 and 1"),
        ({"ema": 1.0}, "--ema is 1.0; it must be a number between 0 and 1"),
        ({"accumulate": 0}, "--accumulate is 0; it must be a whole number, 1 or more"),
        ({"accumulate": 7}, "--accumulate is 7, and an epoch has 6 batches of 200 rows; use at"),
        ({"clip_norm": 0.0}, "--clip-norm is 0.0; it must be a finite number above 0"),
    ],
)
def test_options_that_can_not_work_are_refused(dump_folder, tmp_path, words, message):
    with pytest.raises(UsageError, match=message):
        train(dump_folder, tmp_path / "s.pt", **words)
    assert not list(tmp_path.iterdir())


def test_a_system_on_which_torch_does_not_compile_is_told(dump_folder, tmp_path, monkeypatch):
    def refuse(*what):
        raise RuntimeError("torch.compile is not supported on Python 4")

    monkeypatch.setattr(torch, "compile", refuse)
    with pytest.raises(UsageError, match="--compile is not possible here: "):
        train(dump_folder, tmp_path / "s.pt", compile=True)


@pytest.mark.slow
def test_a_compiled_student_learns_what_the_eager_one_does(dump_folder, tmp_path, monkeypatch):
    eager = train(dump_folder, tmp_path / "eager.pt")
    compiled = train(dump_folder, tmp_path / "compiled.pt", compile=True)
    for name, value in eager.items():
        torch.testing.assert_close(compiled[name], value, atol=1e-4, rtol=1e-3)
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("no-such-compiler",))
    monkeypatch.setattr(torch._inductor.config, "force_disable_caches", True)
    torch._dynamo.reset()
    with pytest.raises(TrainingError, match=r"model mlp:16 failed .*; try it without --compile"):
        train(dump_folder, tmp_path / "failed.pt", compile=True)


class Frozen(Net):
    """Its first layer, which has large weights, is not trained."""

    def __init__(self) -> None:
        super().__init__()
        self.insert(3, nn.Linear(8, 8))
        self[1].requires_grad_(False).weight.fill_(2.0)


def test_max_norm_leaves_frozen_layers_alone(dump_folder, tmp_path):
    saved = train(dump_folder, tmp_path / "s.pt", student=f"{HERE}:Frozen", max_norm=0.1)
    assert torch.equal(saved["1.weight"], torch.full((8, 64), 2.0))
    assert float(saved["3.weight"].norm(dim=1).max()) < 0.1001


def test_max_norm_of_a_model_without_hidden_units_is_refused(dump_folder, tmp_path):
    with pytest.raises(UsageError, match=r"--max-norm is 0\.1, and linear has no hidden layer"):
        train(dump_folder, tmp_path / "s.pt", student="linear", max_norm=0.1)


def test_patience_without_held_out_rows_is_refused(dump_folder, tmp_path):
    with pytest.raises(UsageError, match=r"--patience is 2, .* and --holdout is 0"):
        train(dump_folder, tmp_path / "s.pt", patience=2)
