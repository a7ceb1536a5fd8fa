"""The loss from hidden states and a head is `kd_loss` of all logits, without holding them."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.overrides import TorchFunctionMode

from softlabels import DenseLogits, FeatureLogits, LinearHead, kd_loss, linear_kd_loss
from softlabels.errors import LogitsError, UsageError
from softlabels.mixtures import mix
from softlabels.store.codecs.int8 import Int8Codec
from softlabels.store.codecs.kinds import Dense
from softlabels.students.losses import chunked

SMALL = chunked.Sizes(chunk=64, teacher=32, block=16)  # so that few positions are many chunks

HALF_AND_DOUBLE = (torch.float16, torch.float64)
FLOAT_AND_DOUBLE = (torch.float32, torch.float64)


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    monkeypatch.setattr(chunked, "PROCESSOR", SMALL)


@dataclass
class Case:
    """N positions, of which `mask` scores some; D numbers; C classes and rows of padding."""

    hidden: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor | None
    targets: DenseLogits | FeatureLogits
    labels: torch.Tensor
    mask: torch.Tensor | None
    head: dict
    classes: int

    def parameters(self) -> list[torch.Tensor]:
        return [x for x in (self.hidden, self.weight, self.bias) if x is not None]

    def loss(self, **words) -> torch.Tensor:
        return linear_kd_loss(
            self.hidden, self.weight, self.targets, self.labels, bias=self.bias, mask=self.mask,
            **self.head, **words,
        )  # fmt: skip

    def logits(self) -> torch.Tensor:
        z = self.hidden @ self.weight.T + (0 if self.bias is None else self.bias)
        z, cap = z * self.head["scale"], self.head["soft_cap"]
        return (z if cap is None else cap * torch.tanh(z / cap))[:, : self.classes]

    def teacher(self) -> torch.Tensor:
        if not isinstance(self.targets, FeatureLogits):
            return self.targets.dense()[:, : self.classes]
        head, hidden = self.targets.head, self.targets.hidden_MD
        z = head.scale * (hidden.double() @ head.weight_VD.double().T + head.bias_V)
        z = z if head.soft_cap is None else head.soft_cap * torch.tanh(z / head.soft_cap)
        return z[:, : self.classes].to(self.hidden.dtype)

    def whole(self, **words) -> torch.Tensor:
        """By all logits, which is what the loss says it is."""
        scored = slice(None) if self.mask is None else self.mask
        teacher = DenseLogits(self.teacher()[scored])
        return kd_loss(self.logits()[scored], teacher, self.labels[scored], **words)


def make(
    seed=0, count=7, width=3, classes=5, padding=(0, 0), dtype=torch.float64, features=False,
    bias=True, cap=None, scale=1.0, masked=False,
) -> Case:  # fmt: skip
    random = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=random, dtype=torch.float64).to(dtype)

    own, teachers = (classes + more for more in padding)
    head = {"soft_cap": cap, "scale": scale, "valid": classes if any(padding) else None}
    if features:
        teacher_head = LinearHead(draw(teachers, 2), draw(teachers), soft_cap=cap, scale=1.5)
        targets = FeatureLogits(2 * draw(count, 2), teacher_head)
    else:
        targets = DenseLogits(3 * draw(count, teachers))
    mask = torch.rand(count, generator=random) < 0.6 if masked else None
    if mask is not None:
        mask[0] = True
    return Case(
        draw(count, width).requires_grad_(), draw(own, width).requires_grad_(),
        draw(own).requires_grad_() if bias else None, targets,
        torch.randint(-1, classes, (count,), generator=random), mask, head, classes,
    )  # fmt: skip


cases = {
    "seed": st.integers(0, 10**6), "count": st.integers(1, 30), "width": st.integers(1, 5),
    "classes": st.integers(2, 9), "padding": st.tuples(st.integers(0, 2), st.integers(0, 2)),
    "features": st.booleans(), "bias": st.booleans(), "cap": st.sampled_from([None, 2.0]),
    "scale": st.sampled_from([1.0, 0.25]), "masked": st.booleans(),
}  # fmt: skip


@given(
    T=st.sampled_from([0.5, 1, 2.5, 8]), alpha=st.sampled_from([0.0, 0.3, 1.0]),
    dtype=st.sampled_from([torch.float64, torch.float32]), **cases,
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_it_is_the_loss_of_all_logits(T, alpha, dtype, **drawn):
    case = make(dtype=dtype, **drawn)
    with_double = make(dtype=torch.float64, **drawn)
    close = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-9, "atol": 1e-9}
    if dtype == torch.float32:  # the same numbers, in float64
        for one, other in zip(with_double.parameters(), case.parameters(), strict=True):
            one.data = other.data.double()
        with_double.targets = DenseLogits(case.teacher().double())
        with_double.head["valid"] = case.classes if any(drawn["padding"]) else None
    found, expected = case.loss(T=T, alpha=alpha), with_double.whole(T=T, alpha=alpha)
    torch.testing.assert_close(found.double(), expected.double(), **close)
    gradients = [
        torch.autograd.grad(loss, one.parameters())
        for loss, one in ((found, case), (expected, with_double))
    ]
    for one, other in zip(*gradients, strict=True):
        assert one.dtype == dtype
        torch.testing.assert_close(one.double(), other, **close)


@pytest.mark.parametrize("features", [False, True])
@pytest.mark.parametrize("T", [1, 3])
def test_gradients_are_those_of_the_value(features, T):
    case = make(1, count=9, features=features, cap=3.0, padding=(1, 1), masked=True)

    def loss(hidden, weight, bias):
        case.hidden, case.weight, case.bias = hidden, weight, bias
        return case.loss(T=T, alpha=0.4)

    assert torch.autograd.gradcheck(loss, tuple(case.parameters()))


def test_a_graph_that_is_kept_gives_the_same_gradients_again():
    case = make(2)
    loss = case.loss(T=2, alpha=0.5)
    first = torch.autograd.grad(3 * loss, case.parameters(), retain_graph=True)
    kept = [one.clone() for one in first]
    again = torch.autograd.grad(loss, case.parameters())
    for one, other, before in zip(first, again, kept, strict=True):
        assert torch.equal(one, before)
        torch.testing.assert_close(one, 3 * other)
    loss = case.loss(T=2, alpha=0.5)
    with pytest.raises(UsageError, match="no gradient of its gradient"):
        torch.autograd.grad(loss, case.hidden, create_graph=True)


def test_only_what_is_trained_has_a_gradient():
    case = make(3)
    case.weight.requires_grad_(False)
    case.loss(T=2, alpha=0.5).backward()
    assert case.weight.grad is None
    of_hidden, of_bias = torch.autograd.grad(case.whole(T=2, alpha=0.5), [case.hidden, case.bias])
    torch.testing.assert_close(case.hidden.grad, of_hidden)
    torch.testing.assert_close(case.bias.grad, of_bias)
    with torch.no_grad():
        loss = case.loss(T=2, alpha=0.5)
    assert not loss.requires_grad
    torch.testing.assert_close(loss, case.whole(T=2, alpha=0.5).detach())


class Largest(TorchFunctionMode):
    """The number of floats in the largest tensor that anything gives back."""

    values = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.dtype == torch.float32:
            self.values = max(self.values, result.numel())
        return result


@pytest.mark.parametrize("features", [False, True])
def test_all_logits_are_never_there(features):
    case = make(4, count=400, classes=8, features=features, dtype=torch.float32)
    if not features:
        case.targets = Int8Codec(8, "float32").of_arrays(
            Int8Codec(8, "float32").encode(Dense(case.targets.values_MC), list(range(400)))
        )
    with Largest() as largest:
        case.loss(T=2, alpha=0.5).backward()
    most = max(SMALL.chunk, 3 * SMALL.block, *(len(x.flatten()) for x in case.parameters()))
    assert SMALL.block < largest.values <= most
    assert most < 400 * 8 / 2
    with Largest() as largest:
        case.whole(T=2, alpha=0.5)
    assert largest.values >= 400 * 8


def test_no_scored_position_gives_no_loss_and_no_gradient():
    """As on a rank whose part of a batch has none."""
    case = make(5)
    case.mask = torch.zeros(7, dtype=torch.bool)
    loss = case.loss(T=2, alpha=0.5)
    loss.backward()
    assert loss == 0
    assert all(not one.grad.any() for one in case.parameters())
    case.labels, case.mask = torch.full((7,), -100), None
    hard = case.loss(T=2, alpha=0)
    hard.backward()
    assert hard == 0


def test_targets_may_be_of_the_scored_positions_alone():
    case = make(6, masked=True, features=True)
    expected = case.loss(T=2, alpha=0.5)
    case.targets = case.targets.select(case.mask.nonzero()[:, 0])
    assert len(case.targets) < 7
    assert case.loss(T=2, alpha=0.5) == expected
    parts = list(case.targets.chunks(2))
    case.targets = parts[0].joined(parts[1:])
    assert case.loss(T=2, alpha=0.5) == expected


def test_targets_of_any_codec_that_knows_probabilities():
    case = make(7)
    values = case.targets.values_MC
    codec = Int8Codec(5, "float32")
    packed = codec.of_arrays(codec.encode(Dense(values), list(range(7))))
    mixed = mix([DenseLogits(values), DenseLogits(values.flip(0))], [0.3, 0.7], "prob")
    certain = mix([DenseLogits(values * 2000), DenseLogits(values * 3000)], [0.5, 0.5], "prob")
    for targets in (packed, mixed, certain, values):
        expected = kd_loss(case.logits(), targets, case.labels, T=2, alpha=0.6)
        case.targets = targets
        torch.testing.assert_close(case.loss(T=2, alpha=0.6), expected)


def test_sequences_may_keep_their_shape():
    case = make(18, count=6, masked=True)
    expected = case.loss(T=2, alpha=0.5)
    case.hidden = case.hidden.view(2, 3, 3)
    case.labels, case.mask = case.labels.view(2, 3), case.mask.view(2, 3)
    assert case.loss(T=2, alpha=0.5) == expected
    case.targets = case.targets.values_MC.view(2, 3, 5)
    assert case.loss(T=2, alpha=0.5) == expected
    case.mask = case.mask.T
    with pytest.raises(UsageError, match=r"mask is torch.bool \[3, 2\]; expected"):
        case.loss(T=2, alpha=0.5)


@pytest.mark.parametrize("T", [100, 1e4])
@pytest.mark.parametrize("features", [False, True])
def test_a_high_temperature_is_exact(T, features):
    case, exact = (
        make(19, count=9, classes=200, features=features, dtype=kind) for kind in FLOAT_AND_DOUBLE
    )
    for one, other in zip(exact.parameters(), case.parameters(), strict=True):
        one.data = other.data.double()
    exact.targets = DenseLogits(case.teacher().double())
    found, expected = case.loss(T=T, alpha=0.9), exact.whole(T=T, alpha=0.9)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=0)
    gradients = [
        torch.autograd.grad(loss, one.parameters())
        for loss, one in ((found, case), (expected, exact))
    ]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("features", [False, True])
def test_half_precision(dtype, features):
    """Beside the same numbers in float64: what is rounded is products alone."""
    case = make(8, count=40, width=16, features=features, dtype=dtype)
    exact = make(8, count=40, width=16, features=features)
    for one, other in zip(exact.parameters(), case.parameters(), strict=True):
        one.data = other.data.double()
    exact.targets = DenseLogits(case.teacher().double())
    found, expected = case.loss(T=2, alpha=0.5), exact.whole(T=2, alpha=0.5)
    assert found.dtype == torch.float32
    unit = torch.finfo(dtype).eps
    torch.testing.assert_close(found.double(), expected.double(), rtol=10 * unit, atol=unit)
    gradients = [
        torch.autograd.grad(loss, one.parameters())
        for loss, one in ((found, case), (expected, exact))
    ]
    for one, other in zip(*gradients, strict=True):
        assert one.dtype == dtype
        largest = float(other.abs().max())
        torch.testing.assert_close(one.double(), other, rtol=0, atol=10 * unit * largest)


def test_a_scaled_loss_keeps_gradients_that_float16_could_not_hold():
    count, scale = 1000, 2.0**16
    case, exact = (make(9, count=count, dtype=kind) for kind in (torch.float16, torch.float64))
    for one, other in zip(exact.parameters(), case.parameters(), strict=True):
        one.data = other.data.zero_().double() if one is exact.hidden else other.data.double()
    teacher = case.bias.detach().double() + 1e-4 * torch.arange(5)
    case.targets = exact.targets = DenseLogits(teacher.expand(count, 5))
    (found,) = torch.autograd.grad(scale * case.loss(T=1, alpha=1), case.hidden)
    (expected,) = torch.autograd.grad(exact.whole(T=1, alpha=1), exact.hidden)
    assert not expected.half().any()
    torch.testing.assert_close(found.double() / scale, expected, rtol=0.02, atol=1e-10)


def test_sums_over_many_positions_do_not_overflow_in_float16(monkeypatch):
    monkeypatch.setattr(chunked, "PROCESSOR", chunked.Sizes(1 << 22, 1 << 21, 1 << 17))
    case, exact = (make(16, count=40_000, width=4, dtype=kind) for kind in HALF_AND_DOUBLE)
    for one, other in zip(exact.parameters(), case.parameters(), strict=True):
        one.data = other.data.double()
    case.hidden.data, exact.hidden.data = (x.hidden.data.abs() for x in (case, exact))
    exact.targets = case.targets = DenseLogits(torch.tensor([[20.0, 0, 0, 0, 0]]).expand(40_000, 5))
    given = {"T": 4, "alpha": 1}
    (found,), (expected,) = (
        torch.autograd.grad(loss, one.weight)
        for loss, one in ((case.loss(**given), case), (exact.whole(**given), exact))
    )
    assert float(expected.abs().max()) * 40_000 > torch.finfo(torch.float16).max
    torch.testing.assert_close(found.double(), expected, rtol=0.01, atol=1e-3)


def test_a_class_that_is_rare_keeps_its_gradient_in_float16():
    """Of autocast, whose parameters are float32: that of a class of probability 1e-9 too."""
    case, exact = (make(17, count=4, dtype=kind, bias=False) for kind in FLOAT_AND_DOUBLE)
    for one, other in zip(exact.parameters(), case.parameters(), strict=True):
        one.data = other.data.half().double()
        other.data = other.data.half().float()
    rare = torch.tensor([0.0, 0, 0, -20, -21])
    case.targets = exact.targets = DenseLogits((case.logits() + rare).detach())
    with torch.no_grad():
        for one in (case, exact):
            one.weight[3:] = one.weight[3:] / 64
            one.hidden[:] = one.hidden.abs()
            one.weight[3:] -= 8
    with torch.autocast("cpu", torch.float16):
        found = torch.autograd.grad(case.loss(T=1, alpha=1), [case.weight, case.hidden])
    expected = torch.autograd.grad(exact.whole(T=1, alpha=1), [exact.weight, exact.hidden])
    assert 0 < float(expected[0][3:].abs().max()) < torch.finfo(torch.float16).tiny / 8
    torch.testing.assert_close(found[0].double(), expected[0], rtol=0.03, atol=1e-9)
    assert bool(found[0].all())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_says_what_products_run_in(dtype):
    case = make(10, count=40, width=16, dtype=torch.float32)
    exact = case.loss(T=2, alpha=0.5)
    with torch.autocast("cpu", dtype):
        found, expected = (f(T=2, alpha=0.5) for f in (case.loss, case.whole))
    assert found != exact
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-3)
    gradients = [torch.autograd.grad(loss, case.parameters()) for loss in (found, expected)]
    for one, other in zip(*gradients, strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, other, rtol=0, atol=0.02 * float(other.abs().max()))


def test_a_teacher_that_is_not_finite_is_named_by_position():
    case = make(11)
    case.mask = torch.tensor([False, True, True, False, True, True, True])
    case.targets.values_MC[0, 2] = float("nan")  # which is not scored
    assert case.loss(T=2, alpha=0.5).isfinite()
    case.targets.values_MC[4, 3] = float("-inf")
    message = r"logits of position 4 are not finite: -inf for class 3\. Leave"
    with pytest.raises(LogitsError, match=message):
        case.loss(T=2, alpha=0.5)
    case.targets = DenseLogits(case.targets.values_MC[case.mask])
    with pytest.raises(LogitsError, match=message):
        case.loss(T=2, alpha=0.5)
    case.labels.clamp_(min=0)
    assert case.loss(T=2, alpha=0).isfinite()


def test_a_student_that_is_not_finite_has_no_loss():
    case = make(12)
    case.weight.data[1, 0] = float("nan")
    assert case.loss(T=2, alpha=0.5).isnan()


def test_targets_are_made_again_in_parts_when_the_student_is_not_finite():
    """One position at a time took four times as long as the loss itself."""
    case = make(12, count=64, features=True, dtype=torch.float32)
    case.weight.data[1, 0] = float("nan")
    case.mask, made = None, []

    class Counted(FeatureLogits):
        def dense(self):
            made.append(len(self))
            return super().dense()

    case.targets = Counted(case.targets.hidden_MD, case.targets.head)
    assert case.loss(T=2, alpha=0.5).isnan()
    assert sum(made) == 2 * 64
    assert min(made) > 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"T": 0}, "T is 0; a temperature is a finite number above 0"),
        ({"T": torch.ones(7)}, "a temperature is a number above 0"),
        ({"alpha": 1.5}, "alpha is 1.5; it must be a number from 0 to 1"),
        ({"labels_N": None}, "alpha is 0.5, but there are no labels"),
        ({"labels_N": torch.full((7,), 5)}, "the labels have 5; expected is the number of a class"),
        ({"labels_N": torch.ones(6).long()}, r"the labels have the shape \[6\]; expected is \[7\]"),
        ({"labels_N": torch.ones(7)}, "the labels are torch.float32; expected are whole numbers"),
        ({"mask": torch.ones(7)}, r"mask is torch.float32 \[7\]; expected is a tensor of bool"),
        ({"mask": torch.ones(8).bool()}, r"mask is torch.bool \[8\]; expected .* \[7\]"),
        ({"hidden_ND": torch.ones(7, 4)}, r"student's hidden states are .* \[7, 4\]; its head"),
        ({"hidden_ND": torch.ones(2, 4, 3)}, "are of 8 positions, and the targets of 7"),
        ({"hidden_ND": (torch.ones(7, 3),)}, "hidden states are a tuple; give the tensor"),
        ({"head_weight_VD": torch.nn.Linear(3, 5)}, "is a Linear; give the tensor .*weight"),
        ({"head_weight_VD": torch.ones(5)}, r"weight of the head is .* \[5\]; expected are floats"),
        ({"bias": torch.ones(4)}, r"the bias of the head is \[4\]; expected is a tensor of \[5\]"),
        ({"soft_cap": 0}, "soft_cap is 0; it must be a finite number above 0"),
        ({"scale": 0}, "scale is 0; it must be a finite number, and not 0"),
        ({"valid": 6}, "valid is 6; the head has 5 rows, of which so many count: 1 to 5"),
        ({"targets": torch.randn(7, 6)}, "5 rows, and the teacher has 6 classes. .* valid=5; else"),
        ({"targets": torch.randn(7, 4), "valid": 5}, "valid is 5, and the teacher has 4 classes"),
        ({"targets": torch.randn(6, 5)}, "are of 7 positions, and the targets of 6"),
        ({"targets": torch.randn(6, 5), "mask": torch.arange(7) < 4}, "positions, of which 4 are"),
        ({"targets": DenseLogits(torch.ones(7, 5), link="sigmoid")}, "multi-label teacher; use kd"),
        (
            {"targets": mix([DenseLogits(torch.ones(7, 6))] * 2, [0.5, 0.5], "prob"), "valid": 5},
            "valid is 5, and these targets, MixedProbs, are the probabilities of 6 classes",
        ),
    ],
)  # fmt: skip
def test_what_would_be_wrong_in_silence_is_refused(changed, message):
    case = make(13)
    words = {
        "hidden_ND": case.hidden, "head_weight_VD": case.weight, "targets": case.targets,
        "labels_N": case.labels, "T": 2, "alpha": 0.5,
    }  # fmt: skip
    assert linear_kd_loss(**words).isfinite()
    with pytest.raises(UsageError, match=message):
        linear_kd_loss(**words | changed)


def test_probabilities_are_refused():
    case = make(14)
    case.targets = case.targets.temper(1).probs()
    with pytest.raises(LogitsError, match="these are probabilities"):
        case.loss(T=2, alpha=1)
