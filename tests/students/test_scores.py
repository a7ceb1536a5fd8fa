"""What chooses the epoch: labels where there are enough, else the KL; never NaN."""

import json
import tempfile

import datasets
import numpy as np
import pytest
import torch
from torch import nn

import softlabels
from softlabels.errors import DiskFull, TeacherError, TrainingError, UntrustedPickle, UsageError
from softlabels.inputs.opening import open_source
from softlabels.students import judging, label_sums
from softlabels.system.humanize import json_text
from softlabels.targets.holdout import choose_rows, labels_choose
from tests.conftest import Lines

HERE = "tests.students.test_scores"


@pytest.fixture(scope="module")
def few_labels(made, tmp_path_factory):
    """A dump of digits of which every n-th has a label: n → folder. 0: none has."""
    place, digits = tmp_path_factory.mktemp("few"), open_source("digits").dataset
    names = datasets.ClassLabel(names=list("0123456789"))
    features = datasets.Features({"image": datasets.Image(), "label": names})
    folders: dict[int, str] = {}

    def make(every: int) -> str:
        if every not in folders:
            labels = np.full(1200, -1)
            if every:
                labels[::every] = np.array(digits["label"])[::every]
            data, folders[every] = str(place / f"{every}.parquet"), str(place / f"d{every}")
            columns = {"image": digits["image"][:], "label": labels.tolist()}
            datasets.Dataset.from_dict(columns, features=features).to_parquet(data)
            softlabels.dump(teacher=str(made / "t.pt"), data=data, out=folders[every])
        return folders[every]

    return make


def train(folder, out, **options):
    heard = Lines()
    defaults = {"student": "mlp:32", "T": 4, "epochs": 8, "batch_size": 64, "lr": 3e-3}
    result = softlabels.train(progress=heard, dump=folder, out=str(out), **(defaults | options))
    return result.metrics, str(heard)


@pytest.mark.parametrize(
    ("every", "words", "alpha"),
    [
        (240, "; 1 of them has a label, so epochs are chosen by the KL with the teacher", 0.9),
        (20, "of them have a label, so epochs are chosen by the KL", 0.9),
        (0, "none has a label, so epochs are chosen by the KL", 1.0),
    ],
)
def test_with_few_labels_the_kl_chooses_the_epoch(few_labels, tmp_path, every, words, alpha):
    metrics, said = train(few_labels(every), tmp_path / "s.pt", alpha=alpha)
    assert words in said
    assert metrics["epoch"] > 4
    assert metrics["held_out"]["rows"] == 120
    assert 0 < metrics["held_out"]["kl"] < 0.5
    json.dumps(metrics, allow_nan=False)
    assert softlabels.evaluate(checkpoint=str(tmp_path / "s.pt"), data="digits")["accuracy"] > 0.6


def test_half_of_the_labels_choose_the_epoch_by_errors(few_labels, tmp_path):
    metrics, said = train(few_labels(1), tmp_path / "s.pt", epochs=2)
    assert "epochs are chosen" not in said
    assert metrics["held_out"]["labelled"] == 120


@pytest.mark.parametrize(
    ("known", "rows", "enough"),
    [(0, 100, False), (29, 29, False), (30, 30, True), (30, 60, True), (30, 61, False)],
)
def test_labels_are_enough_from_thirty_rows_and_half_of_all(known, rows, enough):
    labels = np.full(rows, -1)
    labels[:known] = 3
    assert labels_choose(labels) is enough


@pytest.mark.parametrize(
    ("total", "holdout", "side"), [(1200, 0.9999, "train on"), (4, 0.1, "hold out")]
)
def test_a_hold_out_leaves_rows_on_both_sides(total, holdout, side):
    message = f"--holdout is {holdout}: of {total:,} rows it leaves none to {side}"
    with pytest.raises(UsageError, match=message):
        choose_rows(total, None, holdout=holdout, rows=None, data_seed=0)
    kept, held = choose_rows(4, None, holdout=0, rows=None, data_seed=0)
    assert (len(kept), len(held)) == (4, 0)


def test_few_held_out_rows_are_said(vectors, tmp_path):
    heard = Lines()
    softlabels.fit(progress=heard, data=vectors, model="linear", epochs=1, holdout=0.02,
                   out=str(tmp_path / "t.pt"))  # fmt: skip
    assert "warning: 6 rows held out choose the epoch, and one error among them is 17 points" in (
        str(heard)
    )


class Sick(nn.Module):
    """In evaluation its logits are NaN: for the first epochs, or always."""

    def __init__(self, healthy_after: float) -> None:
        super().__init__()
        self.layer, self.turn, self.healthy_after = nn.Linear(64, 10), 0, healthy_after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.turn += self.training
        logits: torch.Tensor = self.layer(x.flatten(1))
        sick = not self.training and 1 < self.turn < self.healthy_after
        return logits * torch.nan if sick else logits


def sick_for_two_epochs() -> Sick:
    return Sick(1 + 3 * 17)


def sick_for_ever() -> Sick:
    return Sick(float("inf"))


def test_an_epoch_whose_score_is_no_number_is_never_chosen(dump_folder, tmp_path):
    metrics, _ = train(dump_folder, tmp_path / "s.pt", student=f"{HERE}:sick_for_two_epochs",
                       epochs=4, alpha=1)  # fmt: skip
    assert metrics["epoch"] >= 3
    with pytest.raises(TrainingError, match="no epoch can be chosen, held out: logits of 120 of"):
        train(dump_folder, tmp_path / "n.pt", student=f"{HERE}:sick_for_ever", epochs=3, patience=2)
    assert not (tmp_path / "n.pt").exists()


def test_a_checkpoint_that_gives_nan_is_not_measured(tmp_path):
    out = tmp_path / "t.pt"
    softlabels.fit(data="digits", model="linear", epochs=1, out=str(out))
    content = torch.load(out, weights_only=True)
    content["state_dict"]["layers.0.bias"][3] = torch.nan
    torch.save(content, out)
    with pytest.raises(TeacherError, match="gives NaN or infinity for 597 of 597 rows"):
        softlabels.evaluate(checkpoint=str(out))


def test_a_pickle_is_no_checkpoint_to_measure(tmp_path):
    """The flag that dump has for a teacher's pickle is not one of eval, so it is not suggested."""
    torch.save(nn.Linear(2, 3), tmp_path / "whole.pt")
    with pytest.raises(UntrustedPickle, match=r"eval takes a checkpoint that .* wrote") as refused:
        softlabels.evaluate(checkpoint=str(tmp_path / "whole.pt"))
    assert "--trust-pickle" not in str(refused.value)


@pytest.mark.parametrize("size", [64, 4096])
def test_scores_of_blocks_are_those_of_all_rows(dump_folder, tmp_path, monkeypatch, size):
    monkeypatch.setattr(judging, "SCORED", size)
    held = train(dump_folder, tmp_path / "s.pt", epochs=1, holdout=0.4)[0]["held_out"]
    assert held["rows"] == 480
    again = softlabels.evaluate(checkpoint=str(tmp_path / "s.pt"), holdout=True, batch_size=480,
                                against=dump_folder)  # fmt: skip
    for name in ("errors", "nll", "ece", "top5"):
        assert held[name] == pytest.approx(again[name], rel=1e-6), name
    for name in ("agreement", "kl"):
        assert held[name] == pytest.approx(again["against"][name], rel=1e-6), name


def test_logits_that_find_no_room_are_named(tmp_path, monkeypatch):
    """Those that average precision reads twice, in a file where they are many."""
    monkeypatch.setattr(label_sums, "IN_MEMORY", 1000)
    blocks = label_sums.Blocks(3)
    values = [torch.randn(rows, 3) for rows in (100, 0, 7, 200)]
    for part in values:
        blocks.add(part)
    for _ in range(2):
        torch.testing.assert_close(torch.cat(list(blocks)), torch.cat(values), rtol=0, atol=0)
    full = label_sums.Blocks(3)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(DiskFull, match=r"2\.4 kB of logits, which .* twice, .* room by TMPDIR"):
        full.add(torch.zeros(200, 3))


def test_json_has_no_nan():
    value = {"a": [float("nan"), 1.5, (float("-inf"),)], "b": {"c": float("inf"), "d": None}}
    assert json.loads(json_text(value)) == {"a": [None, 1.5, [None]], "b": {"c": None, "d": None}}


def test_rows_without_a_label_keep_their_share():
    labels = np.where(np.arange(1000) % 10 == 0, np.arange(1000) // 10 % 4, -1)
    kept, _ = choose_rows(1000, labels, holdout=0, rows=400, data_seed=0)
    known = labels[kept][labels[kept] >= 0]
    assert len(set(kept)) == 400
    assert 25 < len(known) < 55  # 40 of 400, as a tenth of all rows; one class of five were 80
    assert np.ptp(np.bincount(known)) <= 1
