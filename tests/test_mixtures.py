"""The mixtures of several teachers' logits, against their definitions in float64."""

import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import softlabels
from softlabels.errors import UsageError
from softlabels.logits import DenseLogits
from softlabels.mixtures import MixedLogits, MixedProbs, mix
from tests.codecs import StepLogits

numbers = {
    "seed": st.integers(0, 999),
    "scale": st.floats(0.01, 60),
    "T": st.sampled_from([0.5, 1, 2, 8, 20]),
    "teachers": st.integers(1, 4),
    "link": st.sampled_from(["softmax", "sigmoid"]),
}
CLOSE = {"atol": 1e-9, "rtol": 1e-7}


def drawn(seed: int, scale: float, teachers: int, shape=(5, 7)) -> tuple[list[Tensor], list[float]]:
    source = torch.Generator().manual_seed(seed)
    logits = [scale * torch.randn(shape, generator=source).double() for _ in range(teachers)]
    weights = torch.rand(teachers, generator=source).double() + 0.01
    return logits, (weights / weights.sum()).tolist()


def means(logits: list[Tensor], weights: list[float], T: float, link: str, space: str) -> Tensor:
    """q, from its definition, over the last dimension; of labels over label and its absence."""
    if link == "sigmoid":
        logits = [torch.stack([z, torch.zeros_like(z)], -1) for z in logits]
    pairs = list(zip(weights, logits, strict=True))
    if space == "prob":
        return sum(w * torch.softmax(z / T, -1) for w, z in pairs)
    return torch.softmax(sum(w * z for w, z in pairs) / T, -1)


@pytest.mark.parametrize("space", ["prob", "logit"])
@given(**numbers)
def test_soft_targets_are_the_mean_of_the_teachers(space, seed, scale, T, teachers, link):
    logits, weights = drawn(seed, scale, teachers)
    student = drawn(seed + 1, 3.0, 1)[0][0].requires_grad_()
    q = means(logits, weights, T, link, space)
    mixture = mix([DenseLogits(z, link=link) for z in logits], weights, space)
    targets = mixture.temper(T)
    present = q if link == "softmax" else q[..., 0]
    torch.testing.assert_close(targets.probs(), present, **CLOSE)
    torch.testing.assert_close(targets.log_probs().exp(), present, **CLOSE)
    # far below float64's smallest numbers log q is right, too
    assert torch.isfinite(targets.log_probs()).all()
    over = (-1,) if link == "softmax" else (-2, -1)
    entropy = -torch.xlogy(q, q).sum(over)
    torch.testing.assert_close(targets.entropy(), entropy, **CLOSE)
    both = student if link == "softmax" else torch.stack([student, torch.zeros_like(student)], -1)
    cross = -(q * torch.log_softmax(both / T, -1)).sum(over)
    torch.testing.assert_close(targets.cross_entropy(student), cross, **CLOSE)
    torch.testing.assert_close(targets.kl(student), cross - entropy, **CLOSE)
    targets.kl(student).sum().backward()
    p = torch.softmax(student / T, -1) if link == "softmax" else torch.sigmoid(student / T)
    torch.testing.assert_close(student.grad, ((p - present) / T).detach(), **CLOSE)
    assert targets.link == mixture.link == link
    assert targets.top(7)[1].sort(-1).values.tolist() == [list(range(7))] * 5
    assert (targets.top(2)[0].diff() <= 0).all()


@pytest.mark.parametrize("space", ["prob", "logit"])
def test_temperatures_of_rows_and_of_students(space):
    logits, weights = drawn(0, 4.0, 3)
    mixture = mix([DenseLogits(z) for z in logits], weights, space)
    each = torch.tensor([0.5, 1, 2, 4, 8])
    found = mixture.temper(each).probs()
    stacked = mixture.temper(each[:, None]).probs()
    student = torch.randn(5, 5, 7)
    kl = mixture.temper(each[:, None]).kl(student)
    for row, T in enumerate(each.tolist()):
        alone = mixture.temper(T)
        torch.testing.assert_close(found[row], alone.probs()[row])
        torch.testing.assert_close(stacked[row], alone.probs())
        torch.testing.assert_close(kl[row], alone.kl(student[row]))
    with pytest.raises(UsageError, match="above 0"):
        mixture.temper(0)
    with pytest.raises(UsageError, match="T has the shape"):
        mixture.temper(torch.ones(4))


@pytest.mark.parametrize("space", ["prob", "logit"])
def test_a_mixture_is_handled_as_any_logits(space):
    logits, weights = drawn(3, 4.0, 2, (6, 4))
    mixture = mix([DenseLogits(z.half()) for z in logits], weights, space)
    q = mixture.temper(3).probs()
    assert (len(mixture), mixture.classes, q.dtype) == (6, 4, torch.float32)
    some = torch.tensor([5, 0, 5])
    assert torch.equal(mixture.select(some).temper(3).probs(), q[some])
    parts = list(mixture.chunks(4))
    assert [len(part) for part in parts] == [4, 2]
    assert torch.equal(parts[1].joined([parts[0]]).temper(3).probs(), torch.cat([q[4:], q[:4]]))
    assert mixture.to("meta").temper(3).probs().device.type == "meta"
    assert torch.equal(pickle.loads(pickle.dumps(mixture)).temper(3).probs(), q)
    tally, (top, bad) = mixture.tally(), mixture.check()
    top_at_one = mixture.temper(1).probs().argmax(-1)  # which may be another one than at T = 3
    assert tally.top.tolist() == top.tolist() == top_at_one.tolist()
    torch.testing.assert_close(torch.from_numpy(tally.entropy), mixture.temper(1).entropy())
    assert bad is None
    shares = ", ".join(f"{weight:.3g}" for weight in weights)
    assert repr(mixture) == f"{type(mixture).__name__}(2 teachers by {shares}; 6 × 4)"


def test_logits_of_a_mixture():
    logits, weights = drawn(1, 4.0, 3)
    members = [DenseLogits(z.float()) for z in logits]
    by_logit, by_prob = mix(members, weights, "logit"), mix(members, weights, "prob")
    expected = sum(w * z.float() for w, z in zip(weights, logits, strict=True))
    torch.testing.assert_close(by_logit.dense(), expected)
    assert by_logit.dense().dtype == torch.float32
    rounding = sum(w * one.rounding() for w, one in zip(weights, members, strict=True))
    torch.testing.assert_close(by_logit.rounding(), rounding)
    assert not by_prob.is_dense
    for ask in (by_prob.dense, by_prob.rounding):
        with pytest.raises(UsageError, match=r'by "prob" has no logits.*by "logit" has'):
            ask()


def test_a_teacher_of_weight_0_is_left_out():
    logits, _ = drawn(2, 4.0, 3)
    members = [DenseLogits(z) for z in logits]
    mixture = mix(members, [0, 0.25, 0.75], "prob")
    assert mixture.members == tuple(members[1:])
    assert mixture.weights.tolist() == [0.25, 0.75]


def test_what_can_not_be_mixed():
    a, b = DenseLogits(torch.zeros(3, 4)), DenseLogits(torch.zeros(3, 5))
    with pytest.raises(UsageError, match="the same: these have classes 4, 5"):
        mix([a, b], [0.5, 0.5], "prob")
    with pytest.raises(UsageError, match="positions 3, 2"):
        mix([a, a.select(torch.tensor([0, 1]))], [0.5, 0.5], "prob")
    with pytest.raises(UsageError, match="a link softmax, sigmoid"):
        mix([a, DenseLogits(torch.zeros(3, 4), link="sigmoid")], [0.5, 0.5], "logit")
    with pytest.raises(UsageError, match="weights have the shape"):
        MixedProbs((a, a), torch.ones(3))
    steps = StepLogits(torch.zeros(3, 4, dtype=torch.int16), None)
    with pytest.raises(UsageError, match=r'not all raw logits.*mix by "prob"'):
        MixedLogits((a, steps), torch.tensor([0.5, 0.5]))


def test_the_loss_takes_mixtures():
    logits, weights = drawn(4, 4.0, 2)
    student, labels = torch.randn(5, 7), torch.tensor([0, 6, -1, 2, 3])
    mixture = mix([DenseLogits(z.float()) for z in logits], weights, "prob")
    q = means(logits, weights, 4, "softmax", "prob")
    log_p = torch.log_softmax(student.double() / 4, -1)
    kl = (torch.xlogy(q, q) - q * log_p).sum(-1).mean()
    hard = torch.nn.functional.cross_entropy(
        student.double(), labels, ignore_index=-1, reduction="sum"
    )
    found = softlabels.kd_loss(student, mixture, labels, T=4, alpha=0.7)
    torch.testing.assert_close(found.double(), 0.7 * 16 * kl + 0.3 * hard / 5, atol=1e-5, rtol=1e-5)
