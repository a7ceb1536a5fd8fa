"""`train --loss` and `--T` with a schedule: what a step learns is the loss of the batch."""

import json
import shutil
from functools import partial

import numpy as np
import pytest
import torch

import softlabels
from softlabels.errors import UsageError
from softlabels.store.reader import DumpReader
from tests.conftest import Lines

WORDS = ["kd", "reverse_kl", "js(0.2)", "mse", "dkd(1, 8)", "dist(2, 1)", "standardise|kd",
         "standardise|dkd(1, 2)"]  # fmt: skip


class Fixed(torch.nn.Module):
    """A student whose first weights are always the same."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(64, 10)
        with torch.no_grad():
            self.layer.weight.copy_(torch.linspace(-0.3, 0.4, 640).sin().view(64, 10).T)
            self.layer.bias.copy_(torch.linspace(-1, 1, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x.flatten(1))


def trained(dump: str | list[str], out, **words) -> list[float]:
    """The losses of epochs of one step each, with a learning rate that changes nothing."""
    whole = {"epochs": 1, "batch_size": 2000, "holdout": 0, "lr": 1e-30, "out": out / "s.pt"}
    softlabels.train(dump=dump, student=f"{__name__}:Fixed", **whole | words)
    return history(out, "loss")


def history(out, name: str) -> list[float]:
    lines = (out / "s.pt.history.jsonl").read_text().splitlines()
    return [json.loads(line)[name] for line in lines]


@pytest.fixture(scope="module")
def batch(dump_folder):
    dataset = softlabels.load(dump_folder)
    return dataset.take(np.arange(len(dataset)))


@pytest.mark.parametrize("word", WORDS)
def test_a_student_is_trained_with_a_loss(word, dump_folder, batch, tmp_path):
    with torch.no_grad():
        logits = Fixed()(batch["input"])
    loss = partial(softlabels.find_loss(word), logits, batch["targets"], batch["label"], T=3.0)
    found = trained(dump_folder, tmp_path, loss=word, T=3, alpha=0.8)
    assert found == pytest.approx([loss(alpha=0.8).item()], rel=1e-5)
    result = softlabels.train(
        dump=dump_folder, loss=word, T=3, alpha=1, student="linear", epochs=4, lr=0.05,
        batch_size=64, out=tmp_path / "good.pt",
    )  # fmt: skip
    assert result.metrics["held_out"]["accuracy"] > 0.8
    assert result.checkpoint.training["loss"] == word


@pytest.mark.parametrize("T", ["cosine(20, 2)", "exponential(1, 16)"])
def test_the_temperature_follows_its_schedule(T, dump_folder, batch, tmp_path):
    with torch.no_grad():
        logits = Fixed()(batch["input"])
    schedule = [softlabels.temperature_schedule(T)(x) for x in (0, 0.25, 0.5, 0.75, 1)]
    expected = [
        softlabels.kd_loss(logits, batch["targets"], batch["label"], T=t, alpha=0.9).item()
        for t in schedule
    ]
    found = trained(dump_folder, tmp_path, T=T, epochs=5)
    assert found == pytest.approx(expected, rel=1e-5)
    assert len(set(found)) == 5
    assert history(tmp_path, "T") == pytest.approx(schedule)


def test_of_a_mixture_a_loss_takes_what_there_is(dump_folder, tmp_path):
    """A teacher twice is the teacher; probabilities that are mixed have no logits."""
    twice = shutil.copytree(dump_folder, tmp_path / "twice")
    dumps = [dump_folder, str(twice)]
    alone, mixed = tmp_path / "alone", tmp_path / "mixed"
    alone.mkdir(), mixed.mkdir()
    for word, space in (("dkd(1, 8)", "prob"), ("mse", "logit")):
        words = {"loss": word, "T": "cosine(9, 2)"}
        expected = trained(dump_folder, alone, **words)
        assert trained(dumps, mixed, mix=space, **words) == pytest.approx(expected, rel=1e-5)
    with pytest.raises(UsageError, match=r"MixedProbs, have the .* alone; use kd, reverse_kl, js"):
        trained(dumps, mixed, loss="mse", mix="prob")


def test_what_is_learned_is_said_with_warnings_about_its_temperatures(dump_folder, tmp_path):
    def said(**words) -> str:
        progress = Lines()
        trained(dump_folder, tmp_path, progress=progress, **words)
        return f"{progress}\n"

    soft = "the soft targets are nearly uniform"
    text = said(T=500)
    assert "at T=500, alpha=0.9\n" in text
    assert soft in text
    text = said(T=500, loss="mse")
    assert "at alpha=0.9, loss mse\n" in text
    assert soft not in text
    text = said(T="cosine(5000, 2)", loss="dkd")
    assert "at T=cosine(5000, 2), alpha=0.9, loss dkd(1, 8)\n" in text
    assert soft not in text
    assert "warning: T is 5000; float32" in text
    text = said(T=5, loss="standardise")
    assert "at T=5, alpha=0.9, loss standardise|kd\n" in text
    assert soft in text, "standardised logits are small"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"loss": "kdd"}, "--loss: no loss 'kdd'; did you mean kd?"),
        ({"loss": "dkd(1)|kd"}, "--loss is 'dkd(1)|kd'; it must be one loss"),
        ({"T": "hot"}, "--T: 'hot' is not a valid number, nor a schedule such as 'cosine(20, 2)'"),
        ({"T": "cosine(20)"}, "--T: 'cosine(20)' is no schedule"),
        ({"T": "linear(20, 1e9)"}, "--T: T is 1e+09, where all classes are alike"),
        ({"T": [1]}, "--T is [1]; it must be a finite number above 0, or text such as 'cosine("),
        ({"T": -1}, "--T is -1"),
    ],
)
def test_words_that_are_refused_before_anything_is_read(words, message, tmp_path):
    with pytest.raises(UsageError) as caught:
        softlabels.train(dump=tmp_path / "none", **words)
    assert message in str(caught.value)


def test_a_loss_about_labels_needs_some(dump_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(DumpReader, "labels", property(lambda self: None))
    with pytest.raises(UsageError, match=r"no labels; use kd, reverse_kl, js, mse or dist$"):
        trained(dump_folder, tmp_path, loss="dkd", alpha=1)
    assert not list(tmp_path.iterdir())
