"""Students of one shape, trained together: each is the student that `train` makes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import softlabels
from softlabels.errors import UsageError
from softlabels.options import TrainOptions
from softlabels.students.distilling import distillation
from softlabels.students.recipe import Recipe
from softlabels.students.stack.running import Learner, can_stack, train_stack
from softlabels.students.stack.trainer import StackTrainer
from softlabels.students.trackers import joined_ranks
from softlabels.students.training import prepare
from softlabels.system.progress import SILENT

COMMON = {"epochs": 2, "rows": 200, "batch_size": 32, "holdout": 0.2}


def together(folder: Path, common: dict[str, Any], own: list[dict[str, Any]]) -> list[Any]:
    """Train as a stack, into folder/NUMBER.pt. The checkpoint of each, or why it has none."""
    each = [
        TrainOptions(**(COMMON | common | one), out=folder / f"{number}.pt")
        for number, one in enumerate(own)
    ]
    learned = [distillation(one.loss, one.T, one.alpha) for one in each]
    ranks = joined_ranks("cpu", each[0].precision, (), "")
    ready = prepare(each[0], learned, ranks, SILENT)
    assert can_stack(ready.job)
    learners = [
        Learner(its, one.part(Recipe), one.plain, one.out)
        for its, one in zip(learned, each, strict=True)
    ]
    return train_stack(ready, learners, str(folder / "stack"), SILENT)


def flat(metrics: dict[str, Any]) -> dict[str, Any]:
    return metrics | {"held_out": None} | (metrics["held_out"] or {})


def temperatures(checkpoint: Path) -> list[float | None]:
    lines = Path(f"{checkpoint}.history.jsonl").read_text().splitlines()
    return [json.loads(line).get("T") for line in lines]


def assert_each_is_as_alone(
    folder: Path, common: dict[str, Any], own: list[dict[str, Any]]
) -> None:
    for number, (one, end) in enumerate(zip(own, together(folder, common, own), strict=True)):
        alone = softlabels.train(**(COMMON | common | one), out=folder / "alone.pt").checkpoint
        written = torch.load(folder / f"{number}.pt", weights_only=True)
        assert written["training"] == alone.training | {"out": str(folder / f"{number}.pt")}
        torch.testing.assert_close(end.state_dict, alone.state_dict, atol=1e-5, rtol=0)
        torch.testing.assert_close(written["state_dict"], alone.state_dict, atol=1e-5, rtol=0)
        assert flat(end.metrics) == pytest.approx(flat(alone.metrics), abs=1e-5)
        assert end.data == alone.data
        assert temperatures(folder / f"{number}.pt") == temperatures(folder / "alone.pt")


# A hidden unit whose sum is within rounding of 0 may be on here and off there; a step of Adam is as
# long for its small gradient as for any. So shapes and steps are few, and the examples always the
# same.
@settings(max_examples=4, derandomize=True, phases=[Phase.generate])
@given(
    student=st.sampled_from(["linear", "mlp:9", "mlp:12x7", "mlp:6x5x4"]),
    own=st.lists(
        st.fixed_dictionaries(
            {
                "T": st.floats(0.5, 20),
                "alpha": st.sampled_from([0, 1]) | st.floats(0, 1),
                "lr": st.floats(1e-4, 1e-2),
                "weight_decay": st.sampled_from([0, 0.1]),
                "seed": st.integers(0, 2**40),
                "dropout": st.sampled_from([0, 0.3]),
                "input_dropout": st.sampled_from([0, 0.2]),
            }
        ),
        min_size=1,
        max_size=4,
    ),
    data_seed=st.integers(0, 9),
)
def test_each_is_as_alone(dump_folder, tmp_path_factory, student, own, data_seed):
    common = {"dump": dump_folder, "student": student, "data_seed": data_seed}
    assert_each_is_as_alone(tmp_path_factory.mktemp("stack"), common, own)


TWO = [{"T": 2, "alpha": 0.5, "lr": 3e-3}, {"T": 8, "alpha": 0.9, "lr": 1e-3, "seed": 4}]


@pytest.mark.parametrize(
    "how",
    [
        {"max_norm": 0.4, "accumulate": 3, "loss": "dkd(1, 8)"},
        {"clip_norm": 0.1, "warmup": 0.3, "T": "cosine(20, 2)"},
        {"ema": 0.7, "holdout": 0.0},
        {"patience": 1, "epochs": 4, "lr": 0.3},
        {"shuffle": "blocks(8, 16)", "augment": "jitter(1)"},
    ],
    ids=str,
)  # fmt: skip
def test_options_of_training_mean_the_same(dump_folder, tmp_path, how):
    own = [one | {name: how[name] for name in how if name in one} for one in TWO]
    assert_each_is_as_alone(tmp_path, {"dump": dump_folder, "student": "mlp:8", **how}, own)


@pytest.mark.parametrize("at_once", [None, 0], ids=["at once", "one after the other"])
def test_convolutional_students(dump_folder, tmp_path, monkeypatch, at_once):
    """The last layer is of one pixel, which is not pooled; how many are run at once
    changes nothing."""
    if at_once is not None:
        monkeypatch.setattr("softlabels.students.stack.convolutions.AT_ONCE_BYTES", at_once)
    own = [*TWO, {"T": 1, "alpha": 0, "lr": 2e-3, "seed": 2, "dropout": 0.3, "input_dropout": 0.2}]
    common = {"dump": dump_folder, "student": "cnn:3x2x2x2", "max_norm": 0.5, "clip_norm": 0.5}
    assert_each_is_as_alone(tmp_path, common, own)


def test_a_dump_with_views(views_folder, tmp_path):
    """Epochs of a dump with views see them in turn, also stacked."""
    assert_each_is_as_alone(tmp_path, {"dump": views_folder, "student": "mlp:8", "epochs": 3}, TWO)


def test_without_labels_the_kl_chooses(teacher, tmp_path, vectors):
    import datasets

    data = datasets.Dataset.from_parquet(vectors).remove_columns("label")
    data.to_parquet(tmp_path / "bare.parquet")
    linear = torch.nn.Sequential(torch.nn.Linear(6, 3))
    softlabels.dump(teacher=linear, data=tmp_path / "bare.parquet", out=tmp_path / "d")
    own = [{"T": 1, "alpha": 1}, {"T": 3, "alpha": 1, "seed": 1}]
    assert_each_is_as_alone(tmp_path, {"dump": tmp_path / "d", "student": "mlp:5"}, own)


def test_one_that_breaks_leaves_the_others(dump_folder, tmp_path):
    own = [TWO[0], {"T": 2, "alpha": 0.5, "lr": 1e30, "seed": 1}, TWO[1]]
    ends = together(tmp_path, {"dump": dump_folder, "student": "mlp:8"}, own)
    assert "loss became" in ends[1] or "no epoch" in ends[1]
    assert not (tmp_path / "1.pt").exists()
    alone = softlabels.train(
        **COMMON, **TWO[1], dump=dump_folder, student="mlp:8", out=tmp_path / "alone.pt"
    )
    torch.testing.assert_close(ends[2].state_dict, alone.checkpoint.state_dict, atol=1e-5, rtol=0)


@pytest.mark.parametrize("stop", [3, 9], ids=["within an epoch", "in the next"])
def test_a_stack_goes_on_from_its_state(dump_folder, tmp_path, monkeypatch, stop):
    common = {"dump": dump_folder, "student": "mlp:8", "epochs": 3, "dropout": 0.2}
    whole = together(tmp_path, common, TWO)
    monkeypatch.setattr("softlabels.students.state_file.SAVE_SECONDS", 0)
    monkeypatch.setattr("softlabels.students.state_file.MOST_SHARE", 1e9)
    saved = StackTrainer._save_state
    left = [stop]

    def killed(self: StackTrainer) -> None:
        saved(self)
        left[0] -= 1
        if not left[0]:
            raise SystemExit

    (tmp_path / "again").mkdir()
    monkeypatch.setattr(StackTrainer, "_save_state", killed)
    with pytest.raises(SystemExit):
        together(tmp_path / "again", common, TWO)
    monkeypatch.setattr(StackTrainer, "_save_state", saved)
    assert (tmp_path / "again/stack.state").exists()
    steps = []
    judged = StackTrainer._judge
    monkeypatch.setattr(
        StackTrainer, "_judge", lambda self: (steps.append(self.epoch), judged(self))[1]
    )
    again = together(tmp_path / "again", common, TWO)
    assert steps == ([1, 2, 3] if stop == 3 else [2, 3])
    for one, other in zip(whole, again, strict=True):
        assert all(torch.equal(one.state_dict[k], other.state_dict[k]) for k in one.state_dict)
        assert one.metrics == other.metrics
    assert not (tmp_path / "again/stack.state").exists()


def test_the_state_of_other_students_is_refused(dump_folder, tmp_path, monkeypatch):
    common = {"dump": dump_folder, "student": "mlp:8"}
    monkeypatch.setattr("softlabels.students.stack.running._end", lambda *_: 1 / 0)
    monkeypatch.setattr("softlabels.students.state_file.EPOCH_SECONDS", 0)
    with pytest.raises(ZeroDivisionError):
        together(tmp_path, common, TWO)
    monkeypatch.undo()
    with pytest.raises(UsageError, match="made otherwise: another set of students"):
        together(tmp_path, common, [TWO[0], {**TWO[1], "T": 9}])
