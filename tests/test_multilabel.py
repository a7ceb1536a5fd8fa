"""Multi-label teachers: soft targets sigmoid(z / T), with KL and entropy summed over labels."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Bernoulli
from torch.nn.functional import logsigmoid

import softlabels
from softlabels.errors import PlanMismatch, SourceError, UsageError
from softlabels.logits import DenseLogits
from softlabels.soft_targets import kl_of_change
from tests.conftest import Linear, save_script


def random_logits(seed: int, scale: float, shape=(4, 7)) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double() * scale


def kl(z_MC: torch.Tensor, student_MC: torch.Tensor) -> torch.Tensor:
    """Σ over labels of KL, from its definition; that of torch.distributions ends at −log 1e-16."""
    q_MC = torch.sigmoid(z_MC)
    there = q_MC * (logsigmoid(z_MC) - logsigmoid(student_MC))
    absent = (1 - q_MC) * (logsigmoid(-z_MC) - logsigmoid(-student_MC))
    return (there + absent).sum(-1)


numbers = {"seed": st.integers(0, 999), "scale": st.floats(0.01, 30), "T": st.floats(0.3, 20)}


@given(**numbers)
def test_targets_are_one_distribution_a_label(seed, scale, T):
    z_MC, student_MC = random_logits(seed, scale), random_logits(seed + 1, scale)
    targets = DenseLogits(z_MC, link="sigmoid").temper(T)
    q = Bernoulli(logits=z_MC / T)
    close = {"atol": 1e-9, "rtol": 1e-7}
    torch.testing.assert_close(targets.probs(), q.probs, **close)
    torch.testing.assert_close(targets.log_probs().exp(), q.probs, **close)
    torch.testing.assert_close(targets.entropy(), q.entropy().sum(-1), **close)
    torch.testing.assert_close(targets.kl(student_MC), kl(z_MC / T, student_MC / T), **close)
    assert targets.top(2)[1].tolist() == z_MC.argsort(descending=True)[:, :2].tolist()


@given(**numbers, step=st.floats(1e-4, 1))
def test_the_kl_of_a_small_change_is_exact(seed, scale, T, step):
    z_MC = random_logits(seed, scale)
    changed_MC = z_MC + step * random_logits(seed + 1, 1)
    exact = kl(z_MC / T, changed_MC / T)
    got = kl_of_change(z_MC, changed_MC, T, "sigmoid")
    torch.testing.assert_close(got, exact, atol=1e-11, rtol=1e-5)


def test_the_loss_sums_over_labels_and_takes_hard_labels():
    z_MC, student_MC = random_logits(0, 3).float(), random_logits(1, 3).float().requires_grad_()
    labels_MC = (random_logits(2, 1) > 0).float()
    targets = DenseLogits(z_MC, link="sigmoid")
    loss = softlabels.kd_loss(student_MC, targets, labels_MC, T=4, alpha=0.7)
    soft = 16 * kl(z_MC / 4, student_MC / 4).mean()
    hard = -Bernoulli(logits=student_MC).log_prob(labels_MC).sum(-1).mean()
    torch.testing.assert_close(loss, 0.7 * soft + 0.3 * hard)
    (ours,) = torch.autograd.grad(loss, student_MC, retain_graph=True)
    (theirs,) = torch.autograd.grad(0.7 * soft + 0.3 * hard, student_MC)
    torch.testing.assert_close(ours, theirs)
    stack = torch.stack([student_MC, student_MC])
    torch.testing.assert_close(
        softlabels.kd_loss(stack, targets, labels_MC.long(), T=4, alpha=0.7),
        torch.stack([loss] * 2),
    )
    partners_MC, weight_M = labels_MC.flip(0), torch.linspace(0, 1, len(labels_MC))
    mixed_MC = weight_M[:, None] * labels_MC + (1 - weight_M[:, None]) * partners_MC
    of_mixed = softlabels.kd_loss(
        student_MC, targets, labels_MC, T=4, alpha=0.7, partner_labels=partners_MC,
        mix_weight=weight_M,
    )  # fmt: skip
    hard = -Bernoulli(logits=student_MC, validate_args=False).log_prob(mixed_MC).sum(-1).mean()
    torch.testing.assert_close(of_mixed, 0.7 * soft + 0.3 * hard)
    with pytest.raises(UsageError, match=r"expected is \[4, 7\], 0 or 1 for each class"):
        softlabels.kd_loss(student_MC, targets, torch.zeros(4).long(), T=4, alpha=0.7)


@pytest.fixture(scope="module")
def given_data(tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("multi")
    x = torch.randn(400, 6, generator=torch.Generator().manual_seed(0))
    pq.write_table(pa.table({"x": x.tolist()}), folder / "x.parquet")
    teacher = save_script(Linear(3.0), folder / "net.pt")
    return {"teacher": teacher, "data": str(folder / "x.parquet"), "task": "multilabel"}


@pytest.mark.parametrize("codec", ["dense", "int8"])
def test_the_road_of_a_multi_label_teacher(given_data, tmp_path, cli, codec):
    out = str(tmp_path / "d")
    softlabels.dump(**given_data, out=out, codec=codec, shard_rows=150)
    dataset = softlabels.load(out, T=2)
    x = torch.tensor(pq.read_table(given_data["data"])["x"].to_pylist())
    with torch.no_grad():
        exact = torch.sigmoid(Linear(3.0)(x) / 2)
    soft = dataset.take(np.arange(400))["soft_target"]
    torch.testing.assert_close(soft, exact, atol=2e-2 if codec == "int8" else 1e-3, rtol=0)
    assert not torch.allclose(soft.sum(-1), torch.ones(400), atol=0.1)
    plan = json.loads((tmp_path / "d" / "plan.json").read_text())
    assert plan["task"] == "multilabel"
    card = (tmp_path / "d" / "README.md").read_text()
    assert "`sigmoid(logits / T)`" in card
    assert "softmax" not in card
    assert "--task multilabel" in card
    assert softlabels.verify(dump=out, replay=50, teacher=given_data["teacher"]).good
    entropy = softlabels.info(out)["manifest"]["statistics"]["entropy"]
    with torch.no_grad():
        expected = Bernoulli(logits=Linear(3.0)(x)).entropy().sum(-1).mean()
    assert entropy == pytest.approx(float(expected), abs=2e-2)
    shown = str(softlabels.show(dump=out, rows=1, top=2))
    assert "others" not in shown
    result = softlabels.train(
        dump=out, T=2, alpha=1, epochs=30, lr=0.05, student="linear", out=str(tmp_path / "s.pt")
    )
    held = result.metrics["held_out"]
    assert held["kl"] < 0.02
    assert held["agreement"] > 0.9
    with pytest.raises(UsageError, match=r"trained for multilabel, .* Say --task multilabel"):
        softlabels.dump(teacher=str(tmp_path / "s.pt"), data=given_data["data"], out=out + "2")
    measured = softlabels.evaluate(
        checkpoint=str(tmp_path / "s.pt"), split="train", labels=False, against=out
    )
    assert measured["against"]["kl"] == pytest.approx(held["kl"], abs=0.02)
    done = cli("eval", "s.pt", "--split", "train")
    assert (done.code, done.out) == (1, "")
    assert "has no labels to measure against" in done.err
    softlabels.dump(**given_data | {"task": "classification"}, out=out + "c")
    with pytest.raises(UsageError, match=r"its task is classification, and .* of the task multi"):
        softlabels.evaluate(
            checkpoint=str(tmp_path / "s.pt"), split="train", labels=False, against=out + "c"
        )
    with pytest.raises(
        UsageError, match=r"was trained for multilabel, .* --task is classification"
    ):
        softlabels.evaluate(checkpoint=str(tmp_path / "s.pt"), task="classification")


def test_what_a_multi_label_dump_refuses(given_data, tmp_path, vectors):
    with pytest.raises(SourceError, match=r"one label a row, in the column 'label'.*--no-labels"):
        softlabels.dump(**given_data | {"data": vectors}, out=str(tmp_path / "v"))
    out = str(tmp_path / "d")
    softlabels.dump(**given_data, out=out)
    with pytest.raises(PlanMismatch, match="task is 'classification' and was 'multilabel'"):
        softlabels.dump(**given_data | {"task": "classification"}, out=out, resume=True)
    with pytest.raises(UsageError, match="no labels; use --alpha 1"):
        softlabels.train(dump=out, T=2, alpha=0.5, student="linear", out=str(tmp_path / "s.pt"))
    softlabels.dump(**given_data | {"task": "classification"}, out=str(tmp_path / "c"))
    with pytest.raises(UsageError, match="can't be one dataset: task"):
        softlabels.load([out, str(tmp_path / "c")], T=2)
    assert not (tmp_path / "v").exists()
