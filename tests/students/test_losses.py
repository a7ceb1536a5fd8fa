"""Each loss of distillation against its formula in numpy's float64, and what it refuses."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

import softlabels
from softlabels.errors import LogitsError, UsageError
from softlabels.logits import DenseLogits, StoredLogits
from softlabels.mixtures import mix
from softlabels.soft_targets import SoftTargets
from softlabels.students.losses.registry import parse_loss
from tests.codecs import StepLogits

FUNCTIONS = {
    "kd": softlabels.kd_loss,
    "reverse_kl": softlabels.reverse_kl_loss,
    "js": softlabels.js_loss,
    "mse": softlabels.mse_loss,
    "dkd": softlabels.dkd_loss,
    "dist": softlabels.dist_loss,
    "standardise": softlabels.standardised_kd_loss,
}
WORDS = [*FUNCTIONS, "js(0.1)", "dkd(2, 0.5)", "dkd(0, 1)", "dist(2, 0)", "standardise|dkd(1, 8)"]
MANY_LABELS = ["kd", "reverse_kl", "js", "js(0.1)", "mse", "dist", "dist(0, 3)"]
CLOSE = {"rtol": 1e-9, "atol": 1e-9}


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def kl(q: np.ndarray, p: np.ndarray) -> float:
    return float((q * np.log(q / p)).sum())


def js(q: np.ndarray, p: np.ndarray, beta: float) -> float:
    m = beta * q + (1 - beta) * p
    return beta * kl(q, m) + (1 - beta) * kl(p, m)


def decoupled(q: np.ndarray, p: np.ndarray, label: int, target: float, others: float) -> float:
    """Zhao et al. 2022: b is the label's class and all others, p̂ the others among themselves."""
    if label < 0:
        return kl(q, p)
    b_q, b_p = (np.array([x[label], 1 - x[label]]) for x in (q, p))
    hat_q, hat_p = (np.delete(x, label) / (1 - x[label]) for x in (q, p))
    return target * kl(b_q, b_p) + others * kl(hat_q, hat_p)


def distances(q: np.ndarray, p: np.ndarray, inter: float, intra: float) -> float:
    """Huang et al. 2022: Pearson's distance over classes and over rows."""
    rows = [1 - np.corrcoef(a, b)[0, 1] for a, b in zip(q, p, strict=True)]
    classes = [1 - np.corrcoef(a, b)[0, 1] for a, b in zip(q.T, p.T, strict=True)]
    return inter * float(np.mean(rows)) + intra * float(np.mean(classes))


def soft_part(word: str, z: np.ndarray, s: np.ndarray, labels: np.ndarray, T: float) -> float:
    name, _, numbers = word.partition("(")
    given = [float(x) for x in numbers.rstrip(")").split(",") if x]
    if name == "standardise":
        z, s = ((x - x.mean(-1, keepdims=True)) / x.std(-1, ddof=1, keepdims=True) for x in (z, s))
        return soft_part("kd", z, s, labels, T)
    if name == "standardise|dkd":
        z, s = ((x - x.mean(-1, keepdims=True)) / x.std(-1, ddof=1, keepdims=True) for x in (z, s))
        return soft_part("dkd", z, s, labels, T)
    if name == "mse":
        centred = [x - x.mean(-1, keepdims=True) for x in (z, s)]
        return float(np.square(centred[0] - centred[1]).mean(-1).mean()) / 2
    q, p = softmax(z / T), softmax(s / T)
    if name == "dist":
        return distances(q, p, *(given or (1, 1)))
    each = {
        "kd": lambda i: kl(q[i], p[i]),
        "reverse_kl": lambda i: kl(p[i], q[i]),
        "js": lambda i: js(q[i], p[i], *(given or (0.5,))),
        "dkd": lambda i: decoupled(q[i], p[i], labels[i], *(given or (1, 8))),
    }
    return T**2 * float(np.mean([each[name](i) for i in range(len(z))]))


def hard_part(s: np.ndarray, labels: np.ndarray) -> float:
    return float(
        np.mean([-math.log(softmax(s)[i, c]) if c >= 0 else 0 for i, c in enumerate(labels)])
    )


def pair(seed: int, rows: int, classes: int, scale: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return tuple(random.normal(0, scale, (2, rows, classes)))


sizes = {
    "seed": st.integers(0, 10**6), "rows": st.integers(2, 6), "classes": st.integers(3, 8),
    "scale": st.sampled_from([0.1, 1, 4]),
}  # fmt: skip


@pytest.mark.parametrize("word", WORDS)
@given(**sizes, T=st.sampled_from([0.7, 1, 4, 20]), alpha=st.sampled_from([0.0, 0.3, 1.0]))
@settings(max_examples=25, deadline=None)
def test_a_loss_is_its_formula(word, seed, rows, classes, scale, T, alpha):
    z, s = pair(seed, rows, classes, scale)
    # correlations of what varies by less than 1e-8 are 0
    assume(not word.startswith("dist") or min(softmax(x / T).std(0).min() for x in (z, s)) > 1e-7)
    labels = np.random.default_rng(seed).integers(-1, classes, rows)
    expected = alpha * soft_part(word, z, s, labels, T) + (1 - alpha) * hard_part(s, labels)
    found = softlabels.find_loss(word)(
        torch.from_numpy(s), torch.from_numpy(z), torch.from_numpy(labels), T=T, alpha=alpha
    )
    assert found.item() == pytest.approx(expected, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("word", FUNCTIONS)
def test_a_word_is_its_function(word):
    z, s = (torch.from_numpy(x) for x in pair(0, 4, 5))
    labels, T = torch.tensor([0, 4, 2, -1]), {} if word == "mse" else {"T": 3.0}
    found = FUNCTIONS[word](s, z, labels, alpha=0.6, **T)
    assert found == softlabels.find_loss(word)(s, DenseLogits(z), labels, T=3.0, alpha=0.6)
    given = {
        "js": {"beta": 0.1},
        "dkd": {"target": 2.0, "others": 0.5},
        "dist": {"inter": 2.0, "intra": 0.5},
    }
    if word in given:
        numbers = ", ".join(map(str, given[word].values()))
        one, other = FUNCTIONS[word], softlabels.find_loss(f"{word}({numbers})")
        assert one(s, z, labels, T=2, alpha=1, **given[word]) == other(s, z, labels, T=2, alpha=1)


def one_label(z: np.ndarray, s: np.ndarray, word: str, T: float) -> float:
    """The loss of the two outcomes of one label, from their probabilities."""
    q, p = (np.array([1 / (1 + math.exp(-x / T)), 1 / (1 + math.exp(x / T))]) for x in (z, s))
    if word == "mse":
        return (z - s) ** 2 / 8
    beta = 0.1 if word == "js(0.1)" else 0.5
    divergences = {"kd": kl(q, p), "reverse_kl": kl(p, q), "js": js(q, p, beta)}
    return T**2 * divergences[word.partition("(")[0]]


@pytest.mark.parametrize("word", MANY_LABELS)
@given(**sizes, T=st.sampled_from([0.7, 4]))
@settings(max_examples=15, deadline=None)
def test_of_a_multi_label_teacher_a_loss_is_a_sum_over_labels(word, seed, rows, classes, scale, T):
    z, s = pair(seed, rows, classes, scale)
    targets = DenseLogits(torch.from_numpy(z), link="sigmoid")
    found = softlabels.find_loss(word)(torch.from_numpy(s), targets, T=T, alpha=1).item()
    if word.startswith("dist"):
        q, p = (1 / (1 + np.exp(-x / T)) for x in (z, s))
        expected = distances(q, p, *((1, 1) if word == "dist" else (0, 3)))
    else:
        of_rows = [
            [one_label(a, b, word, T) for a, b in zip(*pairs, strict=True)]
            for pairs in zip(z, s, strict=True)
        ]
        expected = np.sum(of_rows) / rows
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-8)


def test_labels_that_are_nearly_certain_keep_their_gradient():
    """1 − q is 0 in float32, and its logarithm is not."""
    z = DenseLogits(torch.tensor([[200.0, -200.0]]), link="sigmoid")
    mixed = mix([z, z], [0.5, 0.5], "prob")
    for word in ("reverse_kl", "js"):
        both = softlabels.find_loss(word)(torch.tensor([[-1.0, 1.0]]), mixed, T=1, alpha=1)
        one = softlabels.find_loss(word)(torch.tensor([[-1.0, 1.0]]), z, T=1, alpha=1)
        torch.testing.assert_close(both, one)
        student = torch.tensor([[-200.0, 200.0]], requires_grad=True)
        loss = softlabels.find_loss(word)(student, z, T=1, alpha=1)
        assert loss.item() == pytest.approx(400 if word == "reverse_kl" else 2 * math.log(2))
        student = torch.tensor([[1.0, -1.0]], requires_grad=True)
        softlabels.find_loss(word)(student, z, T=1, alpha=1).backward()
        assert (student.grad.sign() == torch.tensor([[-1, 1]])).all()


@pytest.mark.parametrize("word", WORDS)
def test_gradients_are_those_of_the_value(word):
    """And none flows into the teacher."""
    z, s = (torch.from_numpy(x).requires_grad_() for x in pair(3, 4, 5, 1.5))
    labels = torch.tensor([0, 4, -1, 2])
    loss = softlabels.find_loss(word)
    assert torch.autograd.gradcheck(lambda x: loss(x, z, labels, T=2.0, alpha=0.7), s)
    loss(s, z, labels, T=2.0, alpha=0.7).backward()
    assert z.grad is None or not z.grad.any()


@pytest.mark.parametrize("word", WORDS)
def test_equal_logits_leave_only_the_hard_part(word):
    z, _ = (torch.from_numpy(x) for x in pair(4, 5, 6))
    student, labels = z.clone().requires_grad_(), torch.tensor([0, 1, -1, 3, 4])
    loss = softlabels.find_loss(word)(student, z, labels, T=3.0, alpha=1)
    assert abs(loss.item()) < 1e-7
    loss.backward()
    assert student.grad.abs().max() < 1e-7
    if word in ("kd", "reverse_kl", "js", "mse", "dkd", "standardise"):
        other = softlabels.find_loss(word)(z + 5, z, labels, T=3.0, alpha=1)
        assert abs(other.item()) < 1e-7, "a softmax doesn't see what is added to all logits"


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_tempered_in_float32(word, dtype):
    z, s = (torch.from_numpy(x).to(dtype) for x in pair(5, 6, 7))
    labels = torch.arange(6)
    loss = softlabels.find_loss(word)
    found = loss(s, z, labels, T=4.0, alpha=0.8)
    assert found.dtype == torch.float32
    exact = loss(s.double(), z.double(), labels, T=4.0, alpha=0.8)
    torch.testing.assert_close(found.double(), exact.double(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("word", WORDS)
def test_students_at_once_have_the_losses_of_each_alone(word):
    """Each with its temperature and its share of the soft part; labels are mixed and missing."""
    teacher, stack = torch.from_numpy(pair(6, 5, 4)[0]), torch.from_numpy(np.stack(pair(7, 5, 4)))
    labels, partners = torch.tensor([0, 3, -1, 2, 1]), torch.tensor([1, -1, 2, 2, 0])
    mixed = {"partner_labels": partners, "mix_weight": torch.tensor([0.3, 1.0, 0.5, 0.8, 0.9])}
    loss, T, alpha = softlabels.find_loss(word), [1.5, 6.0], [0.2, 0.9]
    together = loss(
        stack, teacher, labels, T=torch.tensor(T)[:, None], alpha=torch.tensor(alpha), **mixed
    )
    alone = [
        loss(one, teacher, labels, T=t, alpha=a, **mixed)
        for one, t, a in zip(stack, T, alpha, strict=True)
    ]
    torch.testing.assert_close(together, torch.stack(alone), check_dtype=False)
    same = loss(stack, teacher, labels, T=4.0, alpha=0.5)
    each = [loss(one, teacher, labels, T=4.0, alpha=0.5) for one in stack]
    torch.testing.assert_close(same, torch.stack(each), check_dtype=False)


@pytest.mark.parametrize(("word", "size", "alpha"), [("mse", 1e25, 0.0), ("dist", 3e38, 1.0)])
def test_a_part_that_has_no_share_of_a_students_loss_is_not_computed(word, size, alpha):
    """It may be infinite, and 0 times that is NaN: squares of 1e25, or the log p of a label that
    lies 6e38 below. The same as alone, in the loss and in its gradient."""
    wild = torch.tensor([[-size, size, 0], [0, -size, size]])
    teacher, labels = torch.tensor([[1.0, 2, 3], [0, 0, 1]]), torch.tensor([0, 1])
    stack = torch.stack([wild, torch.ones(2, 3), wild.flip(0)]).requires_grad_()
    T, shares = [2.0, 4.0, 8.0], [alpha, 0.5, alpha]
    loss = softlabels.find_loss(word)
    together = loss(stack, teacher, labels, T=torch.tensor(T)[:, None], alpha=torch.tensor(shares))
    alone = [
        loss(one, teacher, labels, T=t, alpha=a) for one, t, a in zip(stack, T, shares, strict=True)
    ]
    torch.testing.assert_close(together, torch.stack(alone))
    found, expected = (
        torch.autograd.grad(total.sum(), stack)[0] for total in (together, torch.stack(alone))
    )
    assert bool(torch.isfinite(expected).all())
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("word", WORDS)
def test_temperatures_and_shares_may_lie_on_another_device_than_the_logits(word):
    """`meta` stands for an accelerator: it too refuses to mix devices."""
    stack, teacher = torch.zeros(2, 3, 4, device="meta"), torch.zeros(3, 4, device="meta")
    labels, weight = torch.zeros(3, device="meta").long(), torch.ones(3, device="meta")
    loss = softlabels.find_loss(word)(
        stack, DenseLogits(teacher), labels, T=torch.ones(2, 1), alpha=torch.tensor([0.5, 1.0]),
        partner_labels=labels, mix_weight=weight,
    )  # fmt: skip
    assert (loss.device.type, loss.shape) == ("meta", (2,))


@pytest.mark.parametrize("word", ["kd", "reverse_kl", "js", "dkd"])
def test_a_temperature_for_each_position(word):
    z, s = (torch.from_numpy(x) for x in pair(8, 3, 4))
    labels, T = torch.tensor([1, 2, 0]), [1.0, 3.0, 9.0]
    loss = softlabels.find_loss(word)
    found = loss(s, z, labels, T=torch.tensor(T), alpha=1)
    rows = [loss(s[i, None], z[i, None], labels[i, None], T=t, alpha=1) for i, t in enumerate(T)]
    torch.testing.assert_close(found, torch.stack(rows).mean())


def test_the_loss_of_mixed_inputs_takes_both_classes_apart():
    """Of a row that is 30 % of one class and 70 % of another, by hand; one class may be missing."""
    z, s = pair(9, 2, 5)
    q, p = softmax(z / 2), softmax(s / 2)
    first = 0.3 * decoupled(q[0], p[0], 1, 1, 8) + 0.7 * decoupled(q[0], p[0], 4, 1, 8)
    second = 0.6 * decoupled(q[1], p[1], 2, 1, 8) + 0.4 * kl(q[1], p[1])
    found = softlabels.dkd_loss(
        torch.from_numpy(s), torch.from_numpy(z), torch.tensor([1, 2]), T=2, alpha=1,
        partner_labels=torch.tensor([4, -1]), mix_weight=torch.tensor([0.3, 0.6]).double(),
    )  # fmt: skip
    assert found.item() == pytest.approx(4 * (first + second) / 2)


def difference(rows: int = 4, classes: int = 5) -> tuple[np.ndarray, ...]:
    z, s = pair(10, rows, classes, 1.0)
    d = s - z
    return z, s, d - d.mean(-1, keepdims=True)


def test_at_a_high_temperature_logits_are_matched():
    """Hinton et al. 2015, section 2.1, and what it makes of the other divergences."""
    z, s, d = difference()
    labels = np.array([0, 3, 4, 1])
    matched = float(np.square(d).mean(-1).mean()) / 2
    target = np.square(d[range(4), labels]) / 2 / 4
    others = [np.var(np.delete(row, c)) / 2 for row, c in zip(d, labels, strict=True)]
    expected = {
        "kd": matched, "reverse_kl": matched, "js": matched / 4, "js(0.1)": 0.09 * matched,
        "dkd(1, 0)": target.mean(), "dkd(0, 1)": np.mean(others),
        "dist": distances(z - z.mean(-1, keepdims=True), s - s.mean(-1, keepdims=True), 1, 1),
    }  # fmt: skip
    student = torch.from_numpy(s).requires_grad_()
    given = (torch.from_numpy(z), torch.from_numpy(labels))
    for word, value in expected.items():
        found = softlabels.find_loss(word)(student, *given, T=5e3, alpha=1)
        assert found.item() == pytest.approx(float(value), rel=1e-3), word
    softlabels.mse_loss(student, given[0], alpha=1).backward()
    gradient = student.grad.clone()
    for word in ("kd", "reverse_kl"):
        student.grad = None
        softlabels.find_loss(word)(student, *given, T=5e3, alpha=1).backward()
        torch.testing.assert_close(student.grad, gradient, rtol=1e-3, atol=1e-5)
    several = DenseLogits(given[0], link="sigmoid")
    found = softlabels.kd_loss(student, several, T=5e3, alpha=1)
    exact = softlabels.mse_loss(student, several, alpha=1)
    torch.testing.assert_close(found, exact, rtol=1e-3, atol=0)


@pytest.mark.parametrize("word", ["kd", "reverse_kl", "js", "dkd", "standardise"])
@pytest.mark.parametrize("T", [100, 1e4, torch.tensor([[2.0], [1e4]])])
def test_a_high_temperature_is_exact(word, T):
    random = torch.Generator().manual_seed(0)
    z, s = (torch.randn(4, 1000, generator=random) for _ in range(2))
    s = s.expand(2, 4, 1000) if isinstance(T, torch.Tensor) else s
    labels = torch.arange(4)
    found = softlabels.find_loss(word)(s, z, labels, T=T, alpha=0.9)
    expected = softlabels.find_loss(word)(s.double(), z.double(), labels, T=T, alpha=0.9)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected.double(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("word", WORDS)
def test_no_position_gives_no_loss_and_no_gradient(word):
    for shape in ((0, 5), (2, 0, 5)):
        student = torch.zeros(shape, requires_grad=True)
        labels = torch.zeros(0, dtype=torch.long)
        loss = softlabels.find_loss(word)(student, torch.zeros(0, 5), labels, T=2, alpha=0.5)
        assert loss.tolist() == ([0, 0] if len(shape) == 3 else 0)
        loss.sum().backward()
        assert student.grad.shape == shape


def test_at_a_low_temperature_the_teachers_class_is_a_hard_label():
    z, s = (torch.from_numpy(x) for x in pair(11, 5, 6))
    T, top = 0.01, z.argmax(-1)
    hard = T**2 * cross_entropy(s / T, top)
    torch.testing.assert_close(softlabels.kd_loss(s, z, T=T, alpha=1), hard)
    decoupled = softlabels.dkd_loss(s, z, top, T=T, alpha=1, others=0)
    torch.testing.assert_close(decoupled, hard)


@pytest.mark.parametrize("word", WORDS)
def test_without_a_soft_part_it_is_plain_cross_entropy(word):
    z, s = (torch.from_numpy(x) for x in pair(12, 5, 6))
    labels = torch.tensor([0, 5, 2, 2, 1])
    found = softlabels.find_loss(word)(s, z, labels, T=4, alpha=0)
    torch.testing.assert_close(found, cross_entropy(s, labels), check_dtype=False)


def test_decoupled_parts_make_up_the_divergence():
    """KL = TCKD + (1 − q_c)·NCKD, by Zhao et al. 2022; here the teacher is all but certain."""
    z, s = (torch.from_numpy(x).float() for x in pair(13, 1, 5))
    z[0, 2] = 90.0
    label, T = torch.tensor([2]), 1.0
    target, others = (
        softlabels.find_loss(w)(s, z, label, T=T, alpha=1) for w in ("dkd(1, 0)", "dkd(0, 1)")
    )
    left = 1 - torch.softmax(z.double(), -1)[0, 2]
    whole = softlabels.kd_loss(s, z, T=T, alpha=1)
    torch.testing.assert_close((target + left * others).float(), whole)
    rest = [i for i in range(5) if i != 2]
    alone = softlabels.kd_loss(s[:, rest], z[:, rest], T=T, alpha=1)
    torch.testing.assert_close(others, alone)


def test_two_classes_have_no_others():
    z, s = (torch.from_numpy(x) for x in pair(14, 4, 2))
    labels = torch.tensor([0, 1, 1, 0])
    found = softlabels.dkd_loss(s, z, labels, T=3, alpha=1)
    torch.testing.assert_close(found, softlabels.kd_loss(s, z, T=3, alpha=1))


@pytest.mark.parametrize("word", WORDS)
def test_a_student_comes_to_the_teacher(word):
    """By steps of the gradient alone, from a head of zeros, whose logits are all alike."""
    z = torch.from_numpy(pair(15, 16, 4, 2.0)[0]).float()
    labels, loss = z.argmax(-1), softlabels.find_loss(word)
    student = torch.zeros_like(z, requires_grad=True)
    optimizer = torch.optim.Adam([student], lr=0.05)
    begun = loss(student, z, labels, T=2.0, alpha=1).item()
    for _ in range(200):
        optimizer.zero_grad()
        loss(student, z, labels, T=2.0, alpha=1).backward()
        assert student.grad.abs().max() < 10
        optimizer.step()
    assert loss(student, z, labels, T=2.0, alpha=1).item() < 0.05 * begun


@pytest.mark.parametrize(
    ("word", "level"),
    [("dist", 0.0), ("dist", 3.7), *(("standardise", x) for x in (0.0, 3.7, -1e4))],
)
@pytest.mark.parametrize("classes", [3, 1000])
def test_logits_that_differ_by_rounding_alone_have_a_gradient_of_the_usual_size(
    word, level, classes
):
    """They are not divided by a spread that is rounding."""
    z = torch.from_numpy(pair(25, 8, classes)[0]).float()
    alike = torch.full_like(z, level)
    nearly = alike.clone()
    nearly[:, 0] = torch.nextafter(alike[:, 0], torch.tensor(math.inf))
    usual = torch.from_numpy(pair(26, 8, classes)[0]).float()
    norms = []
    for start in (usual, alike, nearly):
        student = start.clone().requires_grad_()
        softlabels.find_loss(word)(student, z, T=2.0, alpha=1).backward()
        norms.append(student.grad.norm().item())
    assert 0 < norms[1] < 10 * norms[0]
    assert norms[2] == pytest.approx(norms[1], rel=0.01)


def steps(z: torch.Tensor) -> StepLogits:
    """A codec without `dense`, whose soft targets give log q alone."""

    class Shared:
        def tensors(self, name: str, device: object = None) -> dict:
            return {"mean": torch.zeros(z.shape[1]), "step": torch.tensor(0.01)}

    return StepLogits((z * 100).round().to(torch.int16), Shared())


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
def test_a_mixture_of_probabilities_has_the_losses_that_its_maths_allow(link):
    """Against a teacher whose logits at this temperature are those of the mean."""
    zs, s = [torch.from_numpy(z) for z in pair(23, 4, 5)], torch.from_numpy(pair(24, 4, 5)[1])
    mixture = mix([DenseLogits(z, link=link) for z in zs], [0.3, 0.7], "prob")
    T, labels = 3.0, torch.tensor([0, 1, 2, -1])
    curve = torch.sigmoid if link == "sigmoid" else lambda x: torch.softmax(x, -1)
    q = 0.3 * curve(zs[0] / T) + 0.7 * curve(zs[1] / T)
    exact = DenseLogits(T * (q.logit() if link == "sigmoid" else q.log()), link=link)
    words = ["kd", "reverse_kl", "js", "dist"] + (["dkd"] if link == "softmax" else [])
    for word in words:
        loss = softlabels.find_loss(word)
        hard = labels if link == "softmax" else (labels[:, None] > torch.arange(5)).int()
        found, expected = (loss(s, t, hard, T=T, alpha=0.7) for t in (mixture, exact))
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)
    for word in ("mse", "standardise") if link == "softmax" else ("mse",):
        with pytest.raises(UsageError, match=rf"MixedProbs, have .* alone; use {words[0]}, "):
            softlabels.find_loss(word)(s, mixture, labels, T=T, alpha=1)
    dense = mix([DenseLogits(z, link=link) for z in zs], [0.3, 0.7], "logit")
    mean = DenseLogits(0.3 * zs[0] + 0.7 * zs[1], link=link)
    found, expected = (softlabels.mse_loss(s, t, alpha=1) for t in (dense, mean))
    torch.testing.assert_close(found, expected)


class Sampled(StoredLogits):
    """A codec that knows a cross-entropy alone."""

    is_dense = False

    def __init__(self, z: torch.Tensor) -> None:
        object.__setattr__(self, "z", z)
        object.__setattr__(self, "link", "softmax")

    @property
    def classes(self) -> int:
        return self.z.shape[1]

    def temper(self, T):
        return Estimated(self.z, T)


class Estimated(SoftTargets):
    has_probs = False

    def cross_entropy(self, student):
        return DenseLogits(self.z).temper(self.T).cross_entropy(student)

    def probs(self):
        raise AssertionError("samples give no probabilities")

    def __init__(self, z, T):
        self.z, self.T = z, T

    def log_probs(self):
        raise AssertionError("samples give no probabilities")

    def kl(self, student):
        return DenseLogits(self.z).temper(self.T).kl(student)


@pytest.mark.parametrize("word", ["kd", "reverse_kl", "js", "dkd", "dist"])
def test_a_codec_without_all_logits_has_the_losses_of_its_probabilities(word):
    z, s = (torch.from_numpy(x).float() for x in pair(17, 5, 4))
    coded, labels = steps(z), torch.tensor([0, 1, 2, 3, -1])
    found = softlabels.find_loss(word)(s, coded, labels, T=3.0, alpha=0.7)
    exact = softlabels.find_loss(word)(s, 0.01 * (100 * z).round(), labels, T=3.0, alpha=0.7)
    torch.testing.assert_close(found, exact, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("word", ["mse", "standardise|kd", "standardise|dkd(1, 8)"])
def test_a_loss_that_needs_logits_says_which_do_without(word):
    z, s = (torch.from_numpy(x).float() for x in pair(18, 3, 4))
    with pytest.raises(
        UsageError,
        match=r"needs all raw logits, and these targets, StepLogits, have the probability of each "
        r"class alone; use kd, reverse_kl, js, dkd or dist$",
    ):
        softlabels.find_loss(word)(s, steps(z), torch.arange(3), T=2, alpha=0.5)


def test_a_codec_that_knows_a_cross_entropy_alone_has_kd():
    z, s = (torch.from_numpy(x).float() for x in pair(19, 3, 4))
    found = softlabels.kd_loss(s, Sampled(z), T=2, alpha=1)
    torch.testing.assert_close(found, softlabels.kd_loss(s, z, T=2, alpha=1))
    for word in ("reverse_kl", "js", "mse", "dkd", "dist"):
        with pytest.raises(UsageError, match=r"have a cross-entropy alone; use kd$"):
            softlabels.find_loss(word)(s, Sampled(z), torch.arange(3), T=2, alpha=1)


def test_a_mixture_with_a_member_that_knows_a_cross_entropy_alone_has_kd():
    """Its gradient is that of the mixture's KL, and its cross-entropy that of the mixture."""
    zs, s = [torch.from_numpy(z) for z in pair(27, 3, 4)], torch.from_numpy(pair(28, 3, 4)[0])
    some = mix([DenseLogits(zs[0]), Sampled(zs[1])], [0.3, 0.7], "prob")
    known = mix([DenseLogits(z) for z in zs], [0.3, 0.7], "prob")
    found, exact = (one.temper(2.0).cross_entropy(s) for one in (some, known))
    torch.testing.assert_close(found, exact)
    assert (some.temper(2.0).has_probs, known.temper(2.0).has_probs) == (False, True)
    gradients, losses = [], []
    for teacher in (some, known):
        student = s.clone().requires_grad_()
        loss = softlabels.kd_loss(student, teacher, T=2.0, alpha=1)
        loss.backward()
        losses.append(loss.item())
        gradients.append(student.grad)
    torch.testing.assert_close(*gradients)
    far = 4 * sum(w * DenseLogits(z).temper(2).entropy() for w, z in ((0.3, zs[0]), (0.7, zs[1])))
    apart = 4 * known.temper(2).entropy() - far
    assert losses[0] - losses[1] == pytest.approx(apart.mean().item())
    for word in ("reverse_kl", "js", "mse", "dkd", "dist"):
        with pytest.raises(UsageError, match=r"have a cross-entropy alone; use kd$"):
            softlabels.find_loss(word)(s, some, torch.arange(3), T=2, alpha=1)


class Sparse(Sampled):
    """A codec whose teacher gives nothing to all but a few classes."""

    def temper(self, T):
        return Few(self.z, T)


class Few(Estimated):
    has_probs = True
    probs, cross_entropy, kl = SoftTargets.probs, SoftTargets.cross_entropy, SoftTargets.kl

    def log_probs(self):
        return torch.log_softmax(self.z / self.T, -1)


def test_a_probability_of_0_counts_as_nothing_or_is_refused():
    z = torch.tensor([[2.0, 1.0, -math.inf, -math.inf], [3.0, *[-math.inf] * 3]])
    s, labels = torch.from_numpy(pair(20, 2, 4)[1]).float(), torch.tensor([0, 0])
    near = z.clamp_min(-1e4)
    for word in ("kd", "js", "dist", "dkd(1, 0)"):
        student = s.clone().requires_grad_()
        found = softlabels.find_loss(word)(student, Sparse(z), labels, T=2.0, alpha=1)
        exact = softlabels.find_loss(word)(s, near, labels, T=2.0, alpha=1)
        torch.testing.assert_close(found, exact, rtol=1e-5, atol=1e-6)
        found.backward()
        assert student.grad.isfinite().all()
    student = s.clone().requires_grad_()  # a row that says nothing of the others has no part there
    others = softlabels.find_loss("dkd(0, 1)")
    found = others(student, Sparse(z), labels, T=2.0, alpha=1)
    torch.testing.assert_close(found, others(s[:1], near[:1], labels[:1], T=2.0, alpha=1) / 2)
    found.backward()
    assert student.grad.isfinite().all()
    with pytest.raises(UsageError, match=r"gives a class the probability 0, as Few does"):
        softlabels.reverse_kl_loss(s, Sparse(z), T=2.0, alpha=1)


@pytest.mark.parametrize("word", WORDS)
def test_what_every_loss_refuses(word):
    z, s = (torch.from_numpy(x).float() for x in pair(21, 4, 5))
    loss, labels = softlabels.find_loss(word), torch.arange(4)
    mixed = {"partner_labels": labels, "mix_weight": torch.ones(4)}
    for wrong, error, message in (
        ({"teacher_logits": torch.softmax(z, -1)}, LogitsError, "sum to 1: these are probab"),
        ({"teacher_logits": 100 * torch.softmax(z, -1)}, LogitsError, "sum to 100: these are pr"),
        ({"teacher_logits": {"a": z, "b": z}}, UsageError, r"those of 2 dumps, by name; .*'a'"),
        ({"teacher_logits": z[:3]}, UsageError, "4 rows and the targets of 3"),
        ({"teacher_logits": z[:, :4]}, UsageError, "4 classes; build the student with as many"),
        ({"teacher_logits": DenseLogits(z).temper(2)}, UsageError, "soft targets, a DenseTargets"),
        ({"teacher_logits": z.numpy()}, UsageError, "no logits, a ndarray; give batch"),
        ({"teacher_logits": {"targets": z}}, UsageError, "no logits, a dict; give batch"),
        ({"student_logits": {"logits": s}}, UsageError, "are a dict; .* such as outputs.logits"),
        ({"student_logits": s[0]}, UsageError, r"shape \[5\]; expected are \[M, C\]"),
        ({"T": 0}, UsageError, "T is 0"),
        ({"T": torch.ones(2)}, UsageError, r"T has the shape \[2\]"),
        ({"alpha": 1.5}, UsageError, "alpha is 1.5"),
        ({"alpha": torch.ones(2)}, UsageError, r"alpha has the shape \[2\]; expected is a number"),
        ({"alpha": "0.5"}, UsageError, "alpha is '0.5'; it must be a number"),
        ({"alpha": None}, UsageError, "alpha is None; it must be a number"),
        ({"labels": [0, 1, 2, 3]}, UsageError, r"labels are a list; expected is a tensor of \[4\]"),
        ({"labels": labels[:1]}, UsageError, r"labels have the shape \[1\]; expected is \[4\]"),
        ({"labels": labels[:, None]}, UsageError, r"the shape \[4, 1\]; expected is \[4\]"),
        ({"labels": labels.float()}, UsageError, r"are torch.float32; expected are whole numbers"),
        ({"labels": labels + 2}, UsageError, "labels have 5; expected is .* from 0 to 4, or −1"),
        ({"labels": torch.zeros(4, 5).char()}, UsageError, r'go with batch\["targets"\]'),
        (mixed | {"mix_weight": torch.ones(3)}, UsageError, r"is \[3\]; expected is .* \[4\]"),
        (mixed | {"mix_weight": 2 * torch.ones(4)}, UsageError, "has values outside 0 to 1"),
        (mixed | {"mix_weight": 0.5}, UsageError, "mix_weight is float; expected is a tensor"),
        (mixed | {"partner_labels": labels[:1]}, UsageError, r"partner_labels have .* \[1\]; exp"),
        ({"labels": None}, UsageError, "there are no labels; use alpha 1"),
        ({"mix_weight": torch.ones(4)}, UsageError, "without partner_labels"),
    ):  # fmt: skip
        usual = {"student_logits": s, "teacher_logits": z, "labels": labels, "T": 2, "alpha": 0.5}
        with pytest.raises(error, match=message):
            loss(**(usual | wrong))
    stack = torch.stack([s, s])
    for alpha, message in (
        (torch.ones(3), r"\[3\]; expected is one of each student, \[2\]"),
        (torch.tensor([0.5, -1.0]), "alpha is -1.0"),
    ):
        with pytest.raises(UsageError, match=message):
            loss(stack, z, labels, T=2, alpha=alpha)
    with pytest.raises(UsageError, match=r"shape \[1\]; expected is \[4\]"):
        loss(stack, z, labels[:1], T=2, alpha=0.5)


def test_values_that_a_teacher_is_refused_for_are_no_logits_of_a_loss():
    """As `dump` refuses them. Of a few rows nothing is known; zeros are an untrained model's."""
    z, s = (torch.from_numpy(x).float() for x in pair(29, 32, 3))
    votes = (500 * torch.softmax(z, -1)).round()
    votes[:, 0] += 500 - votes.sum(-1)
    for wrong, message in (
        (torch.sigmoid(z), r"all lie from 0 to 1, .* If these are logits, give softlabels.Dense"),
        (votes, r"rows sum to 500: .* If these are logits, give softlabels.DenseLogits"),
    ):
        with pytest.raises(LogitsError, match=message):
            softlabels.kd_loss(s, wrong, T=2, alpha=1)
        assert softlabels.kd_loss(s, DenseLogits(wrong), T=2, alpha=1).isfinite()
    for right in (torch.zeros_like(z), torch.relu(z), z - z.min(), torch.sigmoid(z)[:3]):
        assert softlabels.kd_loss(s[: len(right)], right, T=2, alpha=1).isfinite()


@pytest.mark.parametrize("word", ["kd", "dkd"])
@pytest.mark.parametrize("students", [0, 2])
def test_labels_of_any_whole_dtype_and_any_below_0_for_none(word, students):
    z, s = (torch.from_numpy(x).float() for x in pair(30, 4, 5))
    s = s.expand(students, 4, 5) if students else s
    loss, labels = softlabels.find_loss(word), torch.tensor([0, 4, -1, 2])
    exact = loss(s, z, labels, T=2, alpha=0.5)
    for other in (labels.int(), labels.char(), torch.tensor([0, 4, -100, 2])):
        assert torch.equal(loss(s, z, other, T=2, alpha=0.5), exact)


def test_labels_of_a_multi_label_teacher_are_0_or_1():
    z, s = (torch.from_numpy(x).float() for x in pair(31, 3, 4))
    teacher, labels = DenseLogits(z, link="sigmoid"), torch.eye(4)[:3]
    exact = softlabels.kd_loss(s, teacher, labels.char(), T=2, alpha=0.5)
    for other in (labels, labels.bool(), labels.long()):
        assert torch.equal(softlabels.kd_loss(s, teacher, other, T=2, alpha=0.5), exact)
    for wrong, message in (
        (labels / 2, r"labels have 0.5; expected is 0 or 1 for each class"),
        (2 * labels.char(), r"labels have 2; expected is 0 or 1"),
        (labels.argmax(-1), r"labels have the shape \[3\]; expected is \[3, 4\]"),
    ):
        with pytest.raises(UsageError, match=message):
            softlabels.kd_loss(s, teacher, wrong, T=2, alpha=0.5)


def test_what_some_losses_refuse():
    z, s = (torch.from_numpy(x).float() for x in pair(22, 4, 5))
    with pytest.raises(UsageError, match=r"no labels; use kd, reverse_kl, js, mse or dist$"):
        softlabels.dkd_loss(s, z, T=2, alpha=1)
    with pytest.raises(UsageError, match=r"no labels; use kd, reverse_kl, js, mse or dist$"):
        softlabels.find_loss("standardise|dkd")(s, z, T=2, alpha=1)
    several = DenseLogits(z, link="sigmoid")
    for word in ("dkd", "standardise"):
        with pytest.raises(
            UsageError, match=r"multi-label .*; use kd, reverse_kl, js, mse or dist$"
        ):
            softlabels.find_loss(word)(s, several, torch.zeros(4, 5), T=2, alpha=1)
    with pytest.raises(UsageError, match=r"compares the rows of a batch, and this one has 1; .*"):
        softlabels.dist_loss(s[:1], z[:1], T=2, alpha=1)
    assert softlabels.dist_loss(s[:1], z[:1], T=2, alpha=1, intra=0).isfinite()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("kd", "kd"), ("js", "js(0.5)"), ("js(0.25)", "js(0.25)"), ("dkd", "dkd(1, 8)"),
        (" dkd(2) ", "dkd(2, 8)"), ("dist(2,2)", "dist(2, 2)"), ("standardise", "standardise|kd"),
        ("standardise | dkd(1, 4)", "standardise|dkd(1, 4)"),
    ],
)  # fmt: skip
def test_words_of_losses(text, shown):
    part = parse_loss(text)
    assert str(part) == shown
    assert parse_loss(shown) == part
    assert str(softlabels.find_loss(text)) == shown


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it must be one loss"),
        ("kdd", "no loss 'kdd'; did you mean kd? Use kd, reverse_kl, js, mse, dkd, dist"),
        ("cosine", "no loss 'cosine'; "),
        ("kd|mse", "it must be one loss, before which standardise may stand"),
        ("kd|standardise", "it must be one loss"),
        ("standardise|standardise", "it must be one loss"),
        ("standardise(2)|kd", "takes no number"),
        ("kd(3)", "kd takes no number"),
        ("js(0)", "beta of js is 0; it must be a number between 0 and 1"),
        ("js(1, 2)", "js takes beta: js(0.5)"),
        ("dkd(1, 8, 2)", "dkd takes target, others: dkd(1, 8)"),
        ("dkd(one)", "dkd takes target, others"),
        ("dkd(True)", "dkd takes target, others"),
        ("dkd(-1, 8)", "target of dkd is -1; it must be a finite number, 0 or more"),
        ("dkd(0, 0)", "target and others of dkd are all 0"),
        ("dist(0, 1e999)", "intra of dist is inf; it must be a finite number"),
        ("dkd(1, 8", "can't read"),
        (None, "loss is None; it must be text"),
        (5, "loss is 5; it must be text"),
    ],
)
def test_words_that_are_no_loss(text, message):
    with pytest.raises(UsageError) as caught:
        softlabels.find_loss(text)
    assert message in str(caught.value)
    assert str(caught.value).startswith("loss")
