"""A sweep: every combination, each student as `train` makes it, one table, the best by name."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import softlabels
from softlabels.errors import TrainingError, UsageError
from softlabels.students import state_file
from softlabels.students.stack.optimization import StackOptimization
from softlabels.students.stack.trainer import StackTrainer
from softlabels.students.sweeps.grid import Setting, Trial, settings_of
from softlabels.students.sweeps.results import Ended, Measure, SweepResult
from tests import processes
from tests.conftest import Lines

OTHER = "tests.students.test_sweep:own_code"  # such students can't be trained together
QUICK = {"epochs": 2, "rows": 200, "batch_size": 50, "lr": 3e-3, "device": "cpu"}


def own_code() -> torch.nn.Module:
    layers = torch.nn.Linear(64, 8), torch.nn.ReLU(), torch.nn.Linear(8, 10)
    return torch.nn.Sequential(torch.nn.Flatten(), *layers)


def sweep(out: Path, **words: Any) -> SweepResult:
    return softlabels.sweep(**(QUICK | words), out=out)


def test_every_combination_is_trained_as_train_trains_it(dump_folder, tmp_path):
    words = {"dump": dump_folder, "student": ["linear", "mlp:8"], "lr": [1e-3, 1e-2]}
    result = sweep(tmp_path / "o", T=[1, 5], alpha=[0, 0.5, 1], seeds=2, seed=3, **words)
    rows = pq.read_table(tmp_path / "o/results.parquet").to_pylist()
    found = {
        (r["student"], r["lr"], r["T"], r["alpha"], r["seed"], Path(r["checkpoint"])) for r in rows
    }
    soft = [(T, alpha) for T in (1.0, 5.0) for alpha in (0.5, 1.0)]
    assert len(found) == len(rows) == 2 * 2 * 2 * (len(soft) + 1)
    assert {one[:5] for one in found} == {
        (student, lr, T, alpha, seed)
        for student in words["student"]
        for lr in words["lr"]
        for T, alpha in [*soft, (None, 0.0)]
        for seed in (3, 4)
    }
    for student, lr, T, alpha, seed, path in sorted(found, key=str)[::7]:
        alone = softlabels.train(
            **(QUICK | {"dump": dump_folder, "student": student, "lr": lr, "seed": seed}),
            T=T or 1, alpha=alpha, out=tmp_path / "alone.pt",
        )  # fmt: skip
        weights = torch.load(path, weights_only=True)["state_dict"]
        torch.testing.assert_close(weights, alone.checkpoint.state_dict, atol=1e-5, rtol=0)
    record = json.loads((tmp_path / "o/results.json").read_text())
    assert record["students"] == rows
    assert repr(result).startswith(f"SweepResult({tmp_path}/o: 40 students, best ")


def test_the_table_is_means_spreads_and_differences_by_seed(dump_folder, tmp_path):
    words = {"dump": dump_folder, "student": "mlp:8", "T": [1, 4], "alpha": 0.9, "seeds": 3}
    result = sweep(tmp_path / "o", epochs=4, **words)
    errors = {T: [] for T in (None, 1.0, 4.0)}
    for row in pq.read_table(tmp_path / "o/results.parquet").to_pylist():
        held = softlabels.evaluate(checkpoint=row["checkpoint"], holdout=True)
        assert held["errors"] == row["held_out_errors"]
        errors[row["T"]].append(held["errors"])
    for line in result.as_json["settings"]:
        own, hard = np.array(errors[line["T"]]), np.array(errors[None])
        assert line["mean"] == pytest.approx(own.mean())
        assert line["spread"] == pytest.approx(own.std(ddof=1))
        if line["T"] is None:
            assert line["difference"] is line["difference_spread"] is None
        else:
            assert line["difference"] == pytest.approx((own - hard).mean())
            assert line["difference_spread"] == pytest.approx((own - hard).std(ddof=1))
    best = min(errors, key=lambda T: np.mean(errors[T]))
    if np.mean(errors[best]) < min(np.mean(e) for T, e in errors.items() if best != T):
        assert best == result.best.setting.T
    saved = softlabels.evaluate(checkpoint=tmp_path / "o/best.pt", holdout=True)["errors"]
    assert saved == min(errors[result.best.setting.T])
    for text in ("hard labels", "T=4, alpha=0.9", "errors of 120 held-out rows", "best.pt"):
        assert text in result.text
    pytest.importorskip("matplotlib")
    assert (tmp_path / "o/results.png").read_bytes().startswith(b"\x89PNG")


def test_models_of_other_kinds_are_trained_one_by_one(dump_folder, tmp_path):
    words = {"dump": dump_folder, "student": [OTHER, "mlp:8"], "T": 2, "seeds": 2}
    result = sweep(tmp_path / "o", **words)
    assert [one.trial.setting.student for one in result.ended].count(OTHER) == 4
    alone = softlabels.train(
        **QUICK, dump=dump_folder, student=OTHER, T=2, alpha=0.9, seed=1, out=tmp_path / "a.pt"
    )
    path = next(
        one.checkpoint
        for one in result.ended
        if one.trial == Trial(Setting(OTHER, 3e-3, 0.0, 2.0, 0.9), 1)
    )
    weights = torch.load(path, weights_only=True)["state_dict"]
    assert all(torch.equal(weights[k], v) for k, v in alone.checkpoint.state_dict.items())
    told = Lines()
    again = softlabels.sweep(**(QUICK | words), out=tmp_path / "o", resume=True, progress=told)
    assert "4 students of 4 are complete" in str(told)
    assert str(told).count("is complete; nothing is left to do") == 4
    assert again.as_json == result.as_json


WHOSE = ("student", "T", "alpha", "lr", "weight_decay", "seed")


def test_curves_have_every_epoch_of_every_student_also_of_one_that_fails(dump_folder, tmp_path):
    """Of students that are trained together as of others; the first of the table fails."""
    words = {"dump": dump_folder, "student": [OTHER, "mlp:8"], "T": 2, "lr": [1e30, 3e-3]}
    words |= {"epochs": 3, "seeds": 1}
    sweep(tmp_path / "o", **words)
    table = pq.read_table(tmp_path / "o/curves.parquet")
    found: dict[tuple, list[dict[str, Any]]] = {}
    for row in table.to_pylist():
        found.setdefault(tuple(row[name] for name in WHOSE), []).append(row)
    students = pq.read_table(tmp_path / "o/results.parquet").to_pylist()
    assert students[0]["failure"]
    assert students[0]["held_out_errors"] is None
    assert sum(row["failure"] is None for row in students) == 4
    for row in students:
        curve = found.get(tuple(row[name] for name in WHOSE), [])
        if row["failure"]:
            assert len(curve) < 3
            continue
        assert [one["epoch"] for one in curve] == [1, 2, 3]
        assert all(one["learning_rate"] > 0 for one in curve)
        chosen = curve[row["epoch"] - 1]
        assert chosen["loss"] == row["loss"]
        assert chosen["held_out_errors"] == row["held_out_errors"]
        assert chosen["held_out_nll"] == pytest.approx(row["held_out_nll"], rel=1e-5)
        assert min(one["held_out_errors"] for one in curve) == row["held_out_errors"]
    told = Lines()
    (tmp_path / "o/curves.parquet").unlink()
    softlabels.sweep(**(QUICK | words), out=tmp_path / "o", resume=True, progress=told)
    assert pq.read_table(tmp_path / "o/curves.parquet").equals(table)
    assert "no history" not in str(told)


def test_what_a_student_of_a_stack_did_before_it_failed_is_kept(dump_folder, tmp_path, monkeypatch):
    step = StackOptimization.step

    def breaking(self: StackOptimization, *given: Any) -> torch.Tensor:
        losses_S = step(self, *given)
        losses_S[0] = math.nan if self.steps > 8 else losses_S[0]  # 200 rows are 4 steps of 50
        return losses_S

    monkeypatch.setattr(StackOptimization, "step", breaking)
    words = {"dump": dump_folder, "student": "mlp:8", "T": 2, "seeds": 2, "epochs": 4}
    result = sweep(tmp_path / "o", **words)
    failed = [one for one in result.ended if one.metrics is None]
    (failure,) = [one.failure for one in failed]
    assert failure.startswith("the loss became nan in epoch 3; try a smaller --lr than ")
    curves = pq.read_table(tmp_path / "o/curves.parquet").to_pylist()
    own = [row for row in curves if row["T"] is None and row["seed"] == 0]
    assert failed[0].trial == Trial(result.ended[0].trial.setting.hard, 0)
    assert [row["epoch"] for row in own] == [1, 2]
    assert len(curves) == 2 + 3 * 4


def test_what_is_complete_is_not_trained_again(dump_folder, tmp_path, monkeypatch):
    words = {"dump": dump_folder, "student": "mlp:8", "alpha": 0.5, "seeds": 2}
    sweep(tmp_path / "o", T=2, **words)
    trained = []
    run = StackTrainer.run
    monkeypatch.setattr(
        StackTrainer, "run", lambda self: (trained.append(len(self.stack)), run(self))[1]
    )
    more = sweep(tmp_path / "o", T=[2, 6], resume=True, **words)
    assert trained == [2]
    assert len(more.ended) == 6
    whole = sweep(tmp_path / "whole", T=[2, 6], **words)
    assert [one.metrics for one in more.ended] == [one.metrics for one in whole.ended]


def test_without_labels_students_are_compared_by_kl(tmp_path, vectors):
    import datasets

    data = datasets.Dataset.from_parquet(vectors).remove_columns("label")
    data.to_parquet(tmp_path / "bare.parquet")
    teacher = torch.nn.Sequential(torch.nn.Linear(6, 3))
    softlabels.dump(teacher=teacher, data=tmp_path / "bare.parquet", out=tmp_path / "d")
    words = {"dump": tmp_path / "d", "student": "mlp:5", "seeds": 2, "T": [1, 3]}
    result = sweep(tmp_path / "o", alpha=1, **words)
    assert [line.setting.T for line in result.lines] == [1.0, 3.0]
    assert result.measure.name == "kl"
    assert result.verdict == ""
    with pytest.raises(UsageError, match="has no labels; use --alpha 1"):
        sweep(tmp_path / "p", alpha=0.5, **words)


def test_a_student_that_breaks_is_named(dump_folder, tmp_path):
    words = {"dump": dump_folder, "student": "mlp:8", "T": 2, "seeds": 1}
    result = sweep(tmp_path / "o", lr=[3e-3, 1e30], **words)
    assert "2 students failed: mlp-8-hard-lr1e+30-wd0-s0, " in result.text
    assert [line.failures for line in result.lines] == [0, 0, 1, 1]
    with pytest.raises(TrainingError, match="no student came to an end"):
        sweep(tmp_path / "p", lr=1e30, **words)


def test_what_is_refused(dump_folder, tmp_path):
    words = {"dump": dump_folder, "student": "linear", "T": 2, "seeds": 1}
    with pytest.raises(UsageError, match="--holdout is 0, and a sweep chooses"):
        sweep(tmp_path / "o", holdout=0, **words)
    with pytest.raises(UsageError, match="log_with follows one training"):
        sweep(tmp_path / "o", log_with="tensorboard", **words)
    with pytest.raises(UsageError, match="--lr has no value"):
        sweep(tmp_path / "o", lr=(), **words)
    with pytest.raises(UsageError, match="no model is called 'mpl:8'"):
        sweep(tmp_path / "p", **(words | {"student": ["linear", "mpl:8"]}))
    sweep(tmp_path / "p", **words)
    with pytest.raises(UsageError, match=r"which is not empty\. Add --resume"):
        sweep(tmp_path / "p", **words)
    with pytest.raises(UsageError, match="made otherwise: --epochs is 5 and was 2"):
        sweep(tmp_path / "p", epochs=5, resume=True, **words)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="a file; a sweep writes a folder"):
        sweep(tmp_path / "file", **words)


HARD = Setting("mlp:8", 1e-3, 0.0, None, 0.0)
SOFT = Setting("mlp:8", 1e-3, 0.0, 4.0, 0.9)


def made(hard: list[int], soft: list[int]) -> SweepResult:
    ended = [
        Ended(Trial(setting, seed), "s.pt", {"held_out": {"errors": value, "rows": 100}})
        for setting, values in ((HARD, hard), (SOFT, soft))
        for seed, value in enumerate(values)
    ]
    return SweepResult("o", Measure("errors", 100), ended)


@pytest.mark.parametrize(
    ("hard", "soft", "words"),
    [
        ([20, 22, 24], [10, 11, 14], "Soft targets help: T=4, alpha=0.9 has 11.7 errors"),
        ([20, 22, 24], [10, 30, 23], "Soft targets help by no more than chance may"),
        ([20, 22, 24], [20, 22, 24], "Soft targets do not help here: at their best, T=4"),
        ([20, 22, 24], [30, 32, 24], "have 22.0."),
        ([20], [10], "one seed can't say by how much"),
    ],
)
def test_the_verdict_says_whether_soft_targets_help(hard, soft, words):
    assert words in made(hard, soft).verdict


def test_the_baseline_is_in_the_grid_once():
    assert settings_of(["mlp:8"], [1e-3], [0.0], [4.0, 4.0], [0, 0.9], True) == [HARD, SOFT]


@pytest.mark.parametrize(
    ("student", "epochs"),
    [("mlp:16", 4), pytest.param("mlp:1400", 3, marks=pytest.mark.slow), ("cnn:4", 3)],
)
def test_auto_takes_the_best_temperature_of_trainings(dump_folder, tmp_path, student, epochs):
    """Small students are tried for all epochs."""
    words = QUICK | {"dump": dump_folder, "student": student, "epochs": 4, "alpha": 1}
    told = Lines()
    result = softlabels.train(**words, T="auto", out=tmp_path / "s.pt", progress=told)
    tried = sweep(
        tmp_path / "o",
        **(words | {"epochs": epochs}),
        T=[1, 2, 4, 8, 16],
        seeds={"mlp:16": 3, "mlp:1400": 2, "cnn:4": 1}[student],
    )
    soft = [line for line in tried.lines if not line.setting.is_hard]
    best = min(soft, key=lambda line: line.key).setting.T
    assert result.checkpoint.training["T"] == best
    assert f"T is {best:g}, the best of these: errors of 120 held-out rows: " in str(told)
    plain = softlabels.train(**words, T=best, out=tmp_path / "plain.pt").checkpoint.state_dict
    assert all(torch.equal(plain[name], v) for name, v in result.checkpoint.state_dict.items())
    assert sorted(p.name for p in tmp_path.iterdir() if p.suffix == ".pt") == ["plain.pt", "s.pt"]


def test_where_no_temperature_can_be_chosen(dump_folder, tmp_path):
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    for words, message in (
        ({"alpha": 0}, "with --alpha 0 every T is the same"),
        ({"loss": "mse"}, "the loss mse has no temperature"),
        ({"holdout": 0}, "chooses by held-out rows, and --holdout is 0"),
        ({"student": module}, "is one model that is trained itself"),
    ):
        given = QUICK | {"dump": dump_folder, "student": "linear", "T": "auto"} | words
        with pytest.raises(UsageError, match=message):
            softlabels.train(**given, out=tmp_path / "s.pt")


def test_two_sweeps_do_not_write_one_folder(dump_folder, tmp_path):
    words = {"dump": dump_folder, "student": "mlp:30", "T": [2.0], "seeds": 1, "epochs": 2000,
             "out": str(tmp_path / "o"), "device": "cpu"}  # fmt: skip
    process = processes.start(softlabels.sweep, **words)
    processes.wait_for(lambda: (tmp_path / ".o.lock").exists())
    with pytest.raises(UsageError, match=r"another sweep is writing .*--out"):
        softlabels.sweep(**words, resume=True)
    assert processes.kill(process)


def sweep_saving_often(**words: Any) -> None:
    """As `softlabels.sweep`, but it saves its state after each step."""
    state_file.SAVE_SECONDS, state_file.MOST_SHARE = 0.0, float("inf")
    softlabels.sweep(**words)


@pytest.mark.slow
def test_a_killed_sweep_of_24_goes_on(dump_folder, tmp_path):
    """A real process, killed once its state is there; the results are those of one run."""
    words = {"dump": dump_folder, "T": [1, 2, 8], "student": "mlp:64x64", "seeds": 6, "rows": 1000,
             "batch_size": 20, "epochs": 10, "dropout": 0.1, "device": "cpu"}  # fmt: skip
    softlabels.sweep(**words, out=tmp_path / "whole")
    process = processes.start(sweep_saving_often, **words, out=tmp_path / "o")
    processes.wait_for(lambda: list((tmp_path / "o").glob("stack-*.state")))
    assert processes.kill(process), "one step was enough for all"
    assert not list((tmp_path / "o/students").glob("*.pt"))
    told = Lines()
    softlabels.sweep(**words, out=tmp_path / "o", resume=True, progress=told)
    assert "goes on after epoch" in str(told)
    for path in (tmp_path / "whole/students").glob("*.pt"):
        one, other = (
            torch.load(p, weights_only=True)["state_dict"]
            for p in (path, tmp_path / "o/students" / path.name)
        )
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert not list((tmp_path / "o").glob("stack-*"))
