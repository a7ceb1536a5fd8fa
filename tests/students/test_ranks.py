"""Two real processes that train one student: they learn what one does, and end together."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

import softlabels
from tests import processes

pytestmark = pytest.mark.slow

SECONDS = 60.0


def free_port() -> str:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return str(door.getsockname()[1])


def train_in_two(folder: Path, one: dict | None = None, harm: str = "", **options) -> list[dict]:
    """Two ranks call `softlabels.train` with `options`, rank 1 with its own; what they say."""
    port = free_port()
    ranks = []
    for rank, own in enumerate([{}, one or {}]):
        environment = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2",
                       "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "HARM": harm}  # fmt: skip
        words = {"T": 2.0, "epochs": 3, "batch_size": 64, "lr": 1e-2, "out": str(folder / "s.pt")}
        ranks.append(
            processes.start(work, environment, folder=str(folder), options=words | options | own)
        )
    for process in ranks:
        process.join(SECONDS)
        assert not process.is_alive(), "a rank waits for one that has left"
    files = [folder / f"{rank}.json" for rank in range(2)]
    return [json.loads(file.read_text()) if file.exists() else {} for file in files]


def work(folder: str, options: dict) -> None:
    import accelerate

    value: dict = {}
    if os.environ["HARM"] == "late" and os.environ["RANK"] == "1":
        meet = torch.distributed.rendezvous
        torch.distributed.rendezvous = lambda *a, **k: (time.sleep(3), meet(*a, **k))[1]
    try:
        value["metrics"] = softlabels.train(device="cpu", **options).metrics
    except BaseException as error:
        value = {"error": type(error).__name__, "text": str(error)}
    value["world"] = accelerate.PartialState().num_processes
    if isinstance(module := options.get("student"), nn.Module):
        value["weights"] = {name: t.tolist() for name, t in module.state_dict().items()}
    Path(folder, f"{os.environ['RANK']}.json").write_text(json.dumps(value))


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


class Unused(nn.Module):
    """Logits as an attribute; a layer that nothing uses, and one that is left out at times."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.unused = nn.Linear(64, 10), nn.Linear(3, 3)
        self.rare = nn.Linear(64, 10)
        self.turn = 0

    def forward(self, x: torch.Tensor) -> object:
        logits = self.layer(x.flatten(1))
        self.turn += self.training
        if self.turn % 3 == 0:
            logits = logits + self.rare(x.flatten(1))
        return type("Output", (), {"logits": logits})()


class Normed(nn.Sequential):
    """With batch norm, whose statistics each rank gathers from its own rows."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Linear(16, 10))


class Fragile(nn.Sequential):
    """On rank 1 something happens in the 40th pass of training, in the second epoch."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(64, 10))
        self.turn = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.turn += self.training
        logits: torch.Tensor = super().forward(x)
        if self.turn == 40 and os.environ["RANK"] == "1":
            return HARMS[os.environ["HARM"]](logits)
        return logits


def boom(logits: torch.Tensor) -> torch.Tensor:
    raise ValueError("boom")


def interrupted(logits: torch.Tensor) -> torch.Tensor:
    raise KeyboardInterrupt


def killed(logits: torch.Tensor) -> torch.Tensor:
    os.kill(os.getpid(), signal.SIGKILL)
    return logits


HARMS = {"boom": boom, "interrupted": interrupted, "killed": killed,
         "nan": lambda logits: logits * torch.nan}  # fmt: skip
HERE = "tests.students.test_ranks"


@pytest.mark.parametrize("augment", [None, "random_crop(8, 1)"])
def test_torchrun_trains_what_one_process_does(dump_folder, tmp_path, augment):
    """Shares of 100 and 99 rows; one of the two prints the result. Augmented pictures are those of
    one process too."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
               "--master-port", free_port(), "-m", "softlabels", "train", dump_folder, "--student",
               "linear", "--T", "2", "--epochs", "3", "--holdout", "0", "--batch-size", "199",
               "--device", "cpu", "--json", "--out", "two.pt"]  # fmt: skip
    command += [] if augment is None else ["--augment", augment]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "linear, from random weights, on 2 processes" in done.stderr
    assert json.loads(done.stdout)["out"] == "two.pt"
    softlabels.train(dump=dump_folder, student="linear", T=2, epochs=3, holdout=0, batch_size=199,
                     augment=augment, out=str(tmp_path / "one.pt"))  # fmt: skip
    one, two = weights(tmp_path / "one.pt"), weights(tmp_path / "two.pt")
    for name in one:
        torch.testing.assert_close(one[name], two[name], atol=1e-6, rtol=1e-5)


def test_parameters_that_are_not_always_used_train_as_in_one_process(dump_folder, tmp_path):
    options = {"dump": dump_folder, "student": f"{HERE}:Unused"}
    values = train_in_two(tmp_path, **options)
    assert [value["world"] for value in values] == [2, 2]
    assert values[0]["metrics"] == values[1]["metrics"]
    result = softlabels.train(**options, T=2.0, epochs=3, batch_size=64, lr=1e-2,
                              out=str(tmp_path / "one.pt"))  # fmt: skip
    one, two = weights(tmp_path / "one.pt"), weights(tmp_path / "s.pt")
    for name in one:
        torch.testing.assert_close(one[name], two[name], atol=1e-4, rtol=1e-3)
    for name in ("kl", "nll", "accuracy"):
        held_out = values[0]["metrics"]["held_out"]
        assert held_out[name] == pytest.approx(result.metrics["held_out"][name], rel=1e-3)


def test_ranks_stop_together_and_score_alike(dump_folder, tmp_path):
    """Early stopping with statistics of batch norm that differ from rank to rank."""
    values = train_in_two(tmp_path, dump=dump_folder, student=f"{HERE}:Normed",
                          epochs=60, patience=2, lr=0.05)  # fmt: skip
    assert values[0]["metrics"] == values[1]["metrics"]
    assert values[0]["metrics"]["epoch"] < 58
    evaluated = softlabels.evaluate(checkpoint=str(tmp_path / "s.pt"), holdout=True,
                                    against=dump_folder, model=f"{HERE}:Normed")  # fmt: skip
    held = values[0]["metrics"]["held_out"]
    for name in ("errors", "top5", "nll", "ece"):
        assert held[name] == pytest.approx(evaluated[name], rel=1e-5), name
    for name in ("agreement", "kl"):
        assert held[name] == pytest.approx(evaluated["against"][name], rel=1e-5), name


def test_ranks_learn_from_one_mixture(dump_folder, tmp_path):
    """Its weights are fitted by one of them; the second teacher answers by chance."""
    folders = {"a": dump_folder, "b": str(tmp_path / "b")}
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    softlabels.dump(teacher=net, data="digits", name="chance", out=folders["b"],
                    preprocess="upright|scale(255)")  # fmt: skip
    words = {"dump": folders, "mix": "prob", "mix_weights": "fit", "student": "linear"}
    values = train_in_two(tmp_path, **words)
    assert values[0]["metrics"] == values[1]["metrics"]
    result = softlabels.train(**words, T=2.0, epochs=3, batch_size=64, lr=1e-2,
                              out=str(tmp_path / "one.pt"))  # fmt: skip
    assert result.checkpoint.data["teachers"]["a"]["weight"] > 0.5
    held = values[0]["metrics"]["held_out"]
    for name in ("kl", "nll"):
        assert held[name] == pytest.approx(result.metrics["held_out"][name], rel=1e-2)


@pytest.mark.parametrize(
    ("harm", "one", "zero"),
    [
        (
            "boom",
            f"TrainingError model {HERE}:Fragile failed on a batch of 32 rows: ValueError, boom",
            f"rank 1 stopped: model {HERE}:Fragile failed on a batch of 32 rows: ValueError, boom",
        ),
        ("interrupted", "KeyboardInterrupt ", "rank 1 stopped: it was interrupted"),
        ("nan", "TrainingError the loss became nan in epoch 2", "the loss became nan in epoch 2"),
        ("killed", "", "rank 0 lost touch with the others, one of which has ended"),
    ],
)
def test_what_ends_one_rank_ends_the_other_with_its_words(dump_folder, tmp_path, harm, one, zero):
    values = train_in_two(tmp_path, harm=harm, dump=dump_folder, student=f"{HERE}:Fragile",
                          epochs=100)  # fmt: skip
    assert (values[0]["world"], values[0]["error"]) == (2, "TrainingError")
    assert values[0]["text"].startswith(zero)
    assert f"{values[1].get('error', '')} {values[1].get('text', '')}".strip().startswith(
        one.strip()
    )
    saved = torch.load(tmp_path / "s.pt", weights_only=True)
    assert (saved["metrics"]["epoch"], saved["training"]["complete"]) == (1, False)


@pytest.mark.parametrize(
    ("zero", "one", "message"),
    [
        ({}, {"lr": 0.5}, "--lr differs between ranks: rank 1 has 0.5, rank 0 has 0.01"),
        ({}, {"dump": "nowhere"}, "rank 1 stopped: "),
        ({"dump": "nowhere"}, {}, "rank 1 lost touch with the others, one of which has ended"),
        ({"rows": 1}, {}, "1 row to train on can't be shared by 2 processes"),
        ({"batch_size": 1}, {}, "--batch-size is 1, and each of 2 processes takes a share"),
    ],
)
def test_ranks_that_begin_otherwise_are_refused_together(dump_folder, tmp_path, zero, one, message):
    options = {"dump": dump_folder, "student": "linear"} | zero
    values = train_in_two(tmp_path, {"dump": dump_folder} | one, **options)
    assert {value["world"] for value in values} == {2}
    assert any(value["text"].startswith(message) for value in values)
    assert all("error" in value for value in values)
    assert not (tmp_path / "s.pt").exists()


def test_a_rank_that_comes_late_does_not_wait_for_one_that_has_ended(dump_folder, tmp_path):
    values = train_in_two(tmp_path, {"dump": dump_folder}, harm="late", dump="nowhere",
                          student="linear")  # fmt: skip
    assert values[1]["text"].startswith("rank 1 lost touch with the others, one of which has ended")


def test_every_rank_has_the_best_epochs_weights_in_its_own_module(dump_folder, tmp_path):
    values = train_in_two(tmp_path, dump=dump_folder, student=Normed())
    saved = {name: tensor.tolist() for name, tensor in weights(tmp_path / "s.pt").items()}
    assert values[0]["weights"] == values[1]["weights"] == saved


@pytest.mark.parametrize(
    ("one", "message"),
    [
        (Normed, "1.weight of the model differs between ranks: rank 1 has "),
        (Unused, "--student differs between ranks: rank 1 has 'Unused', rank 0 has 'Normed'"),
    ],
)
def test_ranks_whose_modules_differ_are_refused(dump_folder, tmp_path, one, message):
    values = train_in_two(tmp_path, {"student": one()}, dump=dump_folder, student=Normed())
    assert all(re.match(message, value["text"]) for value in values), values
    assert not (tmp_path / "s.pt").exists()
