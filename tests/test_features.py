"""Logits as hidden states and a head, which are exact at any temperature."""

import pytest
import torch

from softlabels import FeatureLogits, LinearHead, features, kd_loss
from softlabels.errors import UsageError


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


@pytest.mark.parametrize("kinds", [("bfloat16", "bfloat16"), ("float16", "float32")])
@pytest.mark.parametrize("cap", [None, 2.0])
def test_logits_are_exact_whatever_is_stored(kinds, cap, monkeypatch):
    """Not those of a product in half precision; the head becomes float32 by slices."""
    monkeypatch.setattr(features, "SLICE_VALUES", 40)
    torch.manual_seed(0)
    hidden, weight = (draw(n, 16).to(getattr(torch, k)) for n, k in zip((6, 9), kinds, strict=True))
    bias = draw(9).float()
    head = LinearHead(weight, bias, soft_cap=cap, scale=0.5, valid=7)
    logits = FeatureLogits(hidden, head)
    exact = 0.5 * (hidden.double() @ weight.double().T + bias)[:, :7]
    exact = exact if cap is None else cap * torch.tanh(exact / cap)
    assert (logits.classes, len(logits), logits.is_dense) == (7, 6, True)
    assert logits.dense().dtype == torch.float32
    torch.testing.assert_close(logits.dense().double(), exact, rtol=1e-5, atol=1e-5)
    for T in (0.5, 8):
        probs = torch.softmax(exact / T, -1).float()
        torch.testing.assert_close(logits.temper(T).probs(), probs, rtol=1e-4, atol=1e-6)
    student = draw(6, 7).float()
    found = kd_loss(student, logits, T=2, alpha=1)
    torch.testing.assert_close(found, kd_loss(student, exact.float(), T=2, alpha=1))
    part = logits.select(torch.tensor([4, 1]))
    torch.testing.assert_close(part.dense(), logits.dense()[[4, 1]])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("cap", [None, 1.0])
def test_rounding_is_how_far_the_teacher_may_be(dtype, cap):
    torch.manual_seed(1)
    exact = draw(50, 8)
    stored, head = exact.to(dtype), LinearHead(draw(5, 8), scale=-2.0, soft_cap=cap)
    apart = (head.logits(exact) - head.logits(stored.double())).abs()
    bound = FeatureLogits(stored, head).rounding()
    assert bound.shape == (50, 5)
    assert (apart <= bound).all()
    assert cap or (apart.amax() > bound.mean() / 20)


def test_a_head_is_copied_once_to_each_device():
    head = LinearHead(draw(5, 3), draw(5), valid=4)
    assert head.on(torch.device("cpu")) is head
    there = head.on(torch.device("meta"))
    assert there is head.on(torch.device("meta"))
    moved = FeatureLogits(draw(2, 3), head).to("meta")
    assert moved.head is head
    assert moved.dense().shape == (2, 4)


def test_hidden_states_of_another_width_are_refused():
    with pytest.raises(UsageError, match=r"teacher's hidden states are .* \[2, 4\]; .* \[N, 3\]"):
        FeatureLogits(draw(2, 4), LinearHead(draw(5, 3)))
    assert repr(FeatureLogits(draw(2, 3), LinearHead(draw(5, 3)))) == (
        "FeatureLogits(2 × 5, float64, cpu)"
    )
