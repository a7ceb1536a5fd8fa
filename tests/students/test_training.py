"""Stage three, and hard labels: `fit`, `train`, `evaluate`."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar

import datasets
import numpy as np
import pytest
import torch

import softlabels
from softlabels.errors import SourceError, StoreError, TrainingError, UsageError
from softlabels.students.optimization import learning_rate_factor, limit_norms
from softlabels.targets.holdout import choose_rows
from softlabels.teachers import resolve

HERE = Path(__file__).parents[2]


def fit(out: Path, **words):
    defaults = {"data": "digits", "model": "mlp:32", "epochs": 3, "batch_size": 64, "lr": 3e-3}
    return softlabels.fit(**(defaults | words), out=str(out))


def weights(path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


def test_a_checkpoint_remembers_what_the_docs_say(tmp_path):
    result = fit(tmp_path / "t.pt", dropout=0.1)
    content = torch.load(tmp_path / "t.pt", weights_only=True)
    assert content["format"] == "softlabels-checkpoint/1"
    assert content["model"] == "mlp:32"
    assert (content["input_shape"], content["num_classes"]) == ([1, 8, 8], 10)
    assert content["class_names"] == list("0123456789")
    assert content["data"]["data"] == "digits"
    assert content["data"]["fingerprint"].startswith("sha256:")
    assert content["training"]["dropout"] == 0.1
    assert content["training"]["complete"] is True
    assert content["metrics"]["held_out"]["rows"] == 120 == result.metrics["held_out"]["rows"]
    assert {"torch", "softlabels", "python"} <= set(content["versions"])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t.pt", "t.pt.history.jsonl"]


def test_the_same_seed_gives_the_same_weights(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        fit(tmp_path / f"{name}.pt", seed=seed, dropout=0.2, augment="jitter(1)", epochs=2)
    a, b, c = (weights(tmp_path / f"{n}.pt") for n in "abc")
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not all(torch.equal(a[k], c[k]) for k in a)


class Seeing(torch.nn.Module):
    """A student that keeps what it was shown while it trained."""

    shown: ClassVar[list] = []

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            Seeing.shown.append(x.detach().clone())
        return self.layer(x.flatten(1))


@pytest.mark.parametrize("how", [{"rows": 300}, {"shuffle": "blocks(8, 16)"}])
def test_runs_of_one_data_seed_see_the_same_batches_whatever_the_seed(dump_folder, tmp_path, how):
    def run(**seeds: int) -> tuple[list, torch.Tensor]:
        Seeing.shown = []
        out = tmp_path / "s.pt"
        softlabels.train(
            dump=dump_folder, student=f"{__name__}:Seeing", epochs=2, out=out, **how, **seeds
        )
        return Seeing.shown, weights(out)["layer.weight"]

    def same(first: list, second: list) -> bool:
        return len(first) == len(second) and all(map(torch.equal, first, second))

    (a, a_weights), (b, b_weights) = run(seed=1), run(seed=2)
    other, _ = run(seed=1, data_seed=1)
    assert len(a) > 4
    assert same(a, b)
    assert not torch.equal(a_weights, b_weights)
    assert not same(a, other)


def test_hard_labels_are_learned_and_a_student_is_a_valid_teacher(dump_folder, tmp_path):
    student = str(tmp_path / "s.pt")
    softlabels.train(dump=dump_folder, T=4, student="mlp:64", epochs=10, batch_size=32, lr=3e-3,
                     out=student)  # fmt: skip
    found = softlabels.evaluate(checkpoint=student, against=dump_folder)
    assert found["rows"] == 597
    assert found["accuracy"] > 0.85
    assert found["against"]["agreement"] > 0.9
    assert 0 < found["against"]["kl"] < 0.2
    result = softlabels.dump(teacher=student, out=str(tmp_path / "second"))
    assert result.manifest.accuracy > 0.9


def test_no_teacher_is_needed_to_train(dump_folder, tmp_path):
    """In a fresh process, where resolving a teacher is an error."""
    code = f"""
import softlabels, softlabels.teachers.resolving as r
def forbidden(*a, **k): raise AssertionError("a teacher was loaded")
r.resolve = forbidden
softlabels.train(dump={dump_folder!r}, T=8, student="linear", epochs=1)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


def test_alpha_one_ignores_labels(dump_folder, tmp_path, monkeypatch):
    words = {"dump": dump_folder, "T": 2, "student": "linear", "epochs": 2, "holdout": 0}
    softlabels.train(**words, alpha=1, out=str(tmp_path / "a.pt"))
    from softlabels.store.reader import DumpReader

    monkeypatch.setattr(DumpReader, "labels", property(lambda self: None))
    softlabels.train(**words, alpha=1, out=str(tmp_path / "b.pt"))
    a, b = weights(tmp_path / "a.pt"), weights(tmp_path / "b.pt")
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_temperature_changes_what_is_learned(dump_folder, tmp_path):
    for T in (1, 20):
        softlabels.train(dump=dump_folder, T=T, alpha=1, student="linear", epochs=2, holdout=0,
                         out=str(tmp_path / f"{T}.pt"))  # fmt: skip
    a, b = weights(tmp_path / "1.pt"), weights(tmp_path / "20.pt")
    assert not torch.allclose(a["layers.0.weight"], b["layers.0.weight"])


@pytest.mark.slow
def test_without_a_dump_the_newest_is_taken_and_named(dump_folder, cli, tmp_path):
    import shutil

    missing = cli("train", "--T", 8)
    assert missing.code == 1
    assert "no complete dump under data/" in missing.err
    shutil.copytree(dump_folder, tmp_path / "data" / "digits-t")
    done = cli("train", "--T", 8, "--student", "linear", "--epochs", 1, "--json")
    assert done.code == 0
    assert "data/digits-t (the newest complete dump)" in done.err
    assert done.value["out"] == "s.pt"


def test_the_best_epoch_is_kept_and_patience_ends_it(tmp_path):
    fit(tmp_path / "t.pt", model="mlp:256", epochs=60, patience=3, lr=1e-2)
    metrics = torch.load(tmp_path / "t.pt", weights_only=True)["metrics"]
    assert metrics["epoch"] < 57
    examples = softlabels.evaluate(checkpoint=str(tmp_path / "t.pt"), split="train")
    assert examples["errors"] >= metrics["held_out"]["errors"]


def test_the_hold_out_is_apart_even_and_of_the_right_size():
    labels = np.arange(1000) % 10
    kept, held = choose_rows(1000, labels, holdout=0.2, rows=100, data_seed=3)
    assert (len(kept), len(held)) == (100, 200)
    assert not set(kept) & set(held)
    assert np.bincount(labels[kept]).tolist() == [10] * 10
    with pytest.raises(UsageError, match="only 800 rows"):
        choose_rows(1000, labels, holdout=0.2, rows=801, data_seed=0)


def test_learning_rate_rises_then_falls_to_zero():
    factors = [learning_rate_factor(step, 100, 0.1) for step in range(101)]
    assert factors[:10] == sorted(factors[:10])
    assert factors[10] == 1
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[100] == 0


def test_max_norm_holds_for_hidden_units_only(tmp_path):
    fit(tmp_path / "t.pt", max_norm=0.5, lr=1e-2)
    found = weights(tmp_path / "t.pt")
    assert found["layers.0.weight"].norm(dim=1).max() <= 0.5 + 1e-5
    assert found["layers.1.weight"].norm(dim=1).max() > 0.5
    layer = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 2))
    with torch.no_grad():
        layer[0].weight.copy_(torch.tensor([[3.0, 4.0, 0.0], [0.1, 0.0, 0.0]]))
    limit_norms(layer, 1.0)
    torch.testing.assert_close(
        layer[0].weight.detach(), torch.tensor([[0.6, 0.8, 0.0], [0.1, 0.0, 0.0]]),
        atol=1e-5, rtol=1e-5,
    )  # fmt: skip


def test_a_checkpoint_of_a_factory_asks_before_it_imports(tmp_path, monkeypatch):
    monkeypatch.chdir(HERE)
    spec = "tests.students.test_training:small"
    fit(tmp_path / "t.pt", model=spec)
    with pytest.raises(UsageError, match=f"if you trust it, say so with --model {spec}"):
        resolve(str(tmp_path / "t.pt"))
    assert softlabels.evaluate(checkpoint=str(tmp_path / "t.pt"), model=spec)["rows"] == 597
    with pytest.raises(UsageError, match=r"can't be put into .*:small; build it in"):
        fit(tmp_path / "t.pt", model=spec, dropout=0.5)


def small() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))


def wrong() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 7))


@pytest.mark.parametrize(
    ("words", "kind", "message"),
    [
        ({"model": "mlp:wide"}, UsageError, "can't read 'wide'"),
        ({"model": "resnet"}, UsageError, "no model is called 'resnet'; write linear"),
        ({"model": "tests.students.test_training:wrong"}, UsageError, r"gave \[2, 7\]"),
        ({"model": "tests.students.test_training:absent"}, UsageError, "has no 'absent'"),
        ({"data": "no/such/folder/x"}, SourceError, "no file or folder"),
        ({"epochs": 0}, UsageError, "--epochs is 0"),
        ({"lr": -1.0}, UsageError, "--lr is -1.0"),
        ({"dropout": 1.0}, UsageError, "--dropout is 1.0"),
        ({"device": "tpu"}, UsageError, "--device is 'tpu'"),
        ({"precision": "int4"}, UsageError, "--precision is 'int4'"),
        ({"lr": 1e30, "epochs": 2}, TrainingError, "the loss became"),
    ],
)
def test_bad_words(tmp_path, monkeypatch, words, kind, message):
    monkeypatch.chdir(HERE)
    with pytest.raises(kind, match=message):
        fit(tmp_path / "t.pt", **words)
    assert not (tmp_path / "t.pt").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"T": 0}, "T is 0"),
        ({"T": float("nan")}, "T is nan"),
        ({"alpha": 1.5}, "--alpha is 1.5"),
        ({"alpha": float("nan")}, "--alpha is nan"),
    ],
)
def test_bad_temperatures_and_weights(dump_folder, tmp_path, words, message):
    with pytest.raises(UsageError, match=message):
        softlabels.train(dump=dump_folder, out=str(tmp_path / "s.pt"), **words)


def test_a_folder_that_is_no_dump(tmp_path):
    with pytest.raises(StoreError, match="has no dump in it"):
        softlabels.train(dump=str(tmp_path), out=str(tmp_path / "s.pt"))


@pytest.mark.slow
def test_ctrl_c_keeps_the_best_so_far(tmp_path):
    command = [sys.executable, "-m", "softlabels", "fit", "--data", "digits", "--model", "mlp:64",
               "--epochs", "100000", "--out", "t.pt"]  # fmt: skip
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert any("1,080 rows to train on, 120 held out" in line for line in process.stderr)
        time.sleep(3)  # an epoch takes a few hundredths
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "is saved" in said
    assert torch.load(tmp_path / "t.pt", weights_only=True)["training"]["complete"] is False


def test_text_labels_keep_their_numbers_in_a_split_that_lacks_a_class(tmp_path):
    rows = [f"{i % 3},{i % 3},{'abc'[i % 3]}" for i in range(90)]
    (tmp_path / "all.csv").write_text("x,y,label\n" + "\n".join(rows))
    (tmp_path / "some.csv").write_text("x,y,label\n" + "\n".join(r for r in rows if "a" not in r))
    (tmp_path / "other.csv").write_text("x,y,label\n1,1,z\n2,2,z\n")
    out = str(tmp_path / "t.pt")
    fit(tmp_path / "t.pt", data=str(tmp_path / "all.csv"), model="mlp:16", epochs=60, lr=1e-2)
    for name, wanted in (("all", 1.0), ("some", 1.0)):
        words = {"data": str(tmp_path / f"{name}.csv"), "split": "train"}
        assert softlabels.evaluate(checkpoint=out, **words)["accuracy"] == wanted
        done = softlabels.dump(teacher=out, out=str(tmp_path / name), **words)
        assert done.manifest.accuracy == wanted
    with pytest.raises(SourceError, match=r"the label 'z' .* is none of the model's 3 classes"):
        softlabels.evaluate(checkpoint=out, data=str(tmp_path / "other.csv"), split="train")


def test_a_convolutional_net_for_pictures_that_are_no_squares(tmp_path):
    """The third layer has one column and four rows, which are not pooled."""
    pixels = np.random.default_rng(0).normal(size=(40, 1, 9, 3)).astype(np.float32)
    features = datasets.Features(
        {"x": datasets.Array3D((1, 9, 3), "float32"), "label": datasets.Value("int64")}
    )
    data = datasets.Dataset.from_dict(
        {"x": list(pixels), "label": [n % 2 for n in range(40)]}, features=features
    )
    made = softlabels.fit(data=data, model="cnn:2x2x2", epochs=1, out=tmp_path / "t.pt")
    assert made.checkpoint.state_dict["head.weight"].shape == (2, 2 * 4)
