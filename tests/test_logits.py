import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from softlabels.errors import LogitsError, UsageError
from softlabels.logits import DenseLogits
from softlabels.probabilities import looks_like, scaled_probabilities
from softlabels.soft_targets import SoftTargets, entropy_at_one
from softlabels.store.codecs.rounding import cast_for_storage
from softlabels.students.losses import kd_loss

TEMPERATURES = st.sampled_from([0.5, 1, 2, 4, 8, 20, 100])
LOGITS = arrays(np.float64, (3, 7), elements=st.floats(-40, 40))


def softmax64(z: np.ndarray, T: float) -> np.ndarray:
    scaled = z / T - (z / T).max(-1, keepdims=True)
    return np.exp(scaled) / np.exp(scaled).sum(-1, keepdims=True)


@given(LOGITS, TEMPERATURES)
def test_probabilities_are_the_papers_formula(z, T):
    probs = DenseLogits(torch.from_numpy(z)).temper(T).probs()
    np.testing.assert_allclose(probs.numpy(), softmax64(z, T), atol=1e-12)


@given(LOGITS, TEMPERATURES)
def test_float32_logits_are_within_1e6(z, T):
    probs = DenseLogits(torch.from_numpy(z.astype(np.float32))).temper(T).probs()
    assert probs.dtype == torch.float32
    np.testing.assert_allclose(probs.numpy(), softmax64(z.astype(np.float32), T), atol=1e-6)


@given(LOGITS, LOGITS, TEMPERATURES)
def test_kl_equals_its_definition(teacher, student, T):
    found = DenseLogits(torch.from_numpy(teacher)).temper(T).kl(torch.from_numpy(student))
    expected = torch.nn.functional.kl_div(
        torch.log_softmax(torch.from_numpy(student) / T, -1),
        torch.log_softmax(torch.from_numpy(teacher) / T, -1),
        log_target=True,
        reduction="none",
    ).sum(-1)
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-9)


def test_kl_gradient_is_the_difference_of_probabilities():
    torch.manual_seed(0)
    teacher, student = torch.randn(4, 5), torch.randn(4, 5, requires_grad=True)
    DenseLogits(teacher).temper(3).kl(student).sum().backward()
    p, q = torch.softmax(student / 3, -1), torch.softmax(teacher / 3, -1)
    torch.testing.assert_close(student.grad, (p - q) / 3)


def test_entropy_of_equal_logits_is_log_c():
    entropy = DenseLogits(torch.zeros(2, 8)).temper(5).entropy()
    torch.testing.assert_close(entropy, torch.full((2,), math.log(8)))


def test_tempering_computes_nothing():
    values = torch.randn(2, 3)
    assert DenseLogits(values).temper(8).logits_MC is values


@pytest.mark.parametrize("T", [0, -1, float("nan"), float("inf"), "warm", None])
def test_temperatures_that_are_none(T):
    with pytest.raises(UsageError, match="temperature"):
        DenseLogits(torch.zeros(1, 2)).temper(T)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_alpha_outside(alpha):
    with pytest.raises(UsageError, match="alpha"):
        kd_loss(torch.zeros(1, 2), torch.zeros(1, 2), torch.zeros(1).long(), T=1, alpha=alpha)


def test_kd_loss_is_the_papers_sum():
    torch.manual_seed(1)
    student, teacher, labels = torch.randn(6, 4), torch.randn(6, 4), torch.arange(6) % 4
    soft = torch.nn.functional.kl_div(
        torch.log_softmax(student / 8, -1), torch.softmax(teacher / 8, -1), reduction="batchmean"
    )
    hard = torch.nn.functional.cross_entropy(student, labels)
    expected = 0.7 * 64 * soft + 0.3 * hard
    torch.testing.assert_close(kd_loss(student, teacher, labels, T=8, alpha=0.7), expected)


def test_labels_of_mixed_inputs_count_by_their_weight():
    """mixup's cross-entropy is that of the mixed target, by hand; a missing label has no part."""
    torch.manual_seed(1)
    student, teacher = torch.randn(3, 4), torch.randn(3, 4)
    labels, partners = torch.tensor([1, 2, -1]), torch.tensor([3, 2, 0])
    weight = torch.tensor([0.75, 0.5, 0.25])
    mixed = {"partner_labels": partners, "mix_weight": weight}
    p = -torch.log_softmax(student, -1)
    hard = (0.75 * p[0, 1] + 0.25 * p[0, 3] + p[1, 2] + 0.75 * p[2, 0]) / 3
    loss = kd_loss(student, teacher, labels, T=8, alpha=0.7, **mixed)
    soft = kd_loss(student, teacher, T=8, alpha=1)
    torch.testing.assert_close(loss, 0.7 * soft + 0.3 * hard)
    stack = torch.stack([student, student])
    both = kd_loss(stack, DenseLogits(teacher), labels, T=8, alpha=0.7, **mixed)
    torch.testing.assert_close(both, torch.stack([loss, loss]))
    for wrong, message in (
        ({"mix_weight": weight}, "mix_weight is given without partner_labels"),
        ({"partner_labels": partners}, "partner_labels is given without mix_weight"),
        (mixed | {"mix_weight": weight[:1]}, r"mix_weight is \[1\]; expected is a tensor of \[3\]"),
        (mixed | {"partner_labels": partners[:2]}, r"partner_labels have the shape \[2\]"),
    ):
        with pytest.raises(UsageError, match=message):
            kd_loss(student, teacher, labels, T=8, alpha=0.7, **wrong)


def test_temperatures_may_lie_on_another_device_than_the_logits():
    """`meta` stands for an accelerator: it too refuses to mix devices."""
    student, teacher = (torch.zeros(3, 4, device="meta") for _ in range(2))
    for T, shape in ((torch.ones(3), ()), (torch.ones(2, 1), (2,))):
        logits = student if T.dim() == 1 else student.expand(2, 3, 4)
        loss = kd_loss(logits, DenseLogits(teacher), T=T, alpha=1)
        assert loss.device.type == "meta"
        assert loss.shape == shape


def test_a_students_log_probs_at_the_targets_temperature():
    student, teacher = torch.randn(2, 3, 4), torch.randn(3, 4)
    for T in (8, torch.tensor([1.0, 2.0, 4.0]), torch.tensor([[1.0], [8.0]])):
        targets = DenseLogits(teacher).temper(T)
        log_p = targets.log_probs_of(student)
        kl = (targets.probs() * (targets.log_probs() - log_p)).sum(-1)
        torch.testing.assert_close(kl, targets.kl(student))


def test_logits_are_a_matrix():
    with pytest.raises(UsageError, match=r"shape \[2, 3, 4\]; expected is \[positions, classes\]"):
        DenseLogits(torch.zeros(2, 3, 4))


def test_kd_loss_without_labels():
    student, teacher = torch.randn(6, 4), torch.randn(6, 4)
    assert kd_loss(student, teacher, T=2, alpha=1).isfinite()
    with pytest.raises(UsageError, match="labels"):
        kd_loss(student, teacher, T=2, alpha=0.5)


def test_soft_gradients_keep_their_share_when_T_changes():
    """T² times the soft gradient tends to (z_s − z_t)/C at high T with zero-mean logits (2.1)."""
    torch.manual_seed(2)
    teacher = torch.randn(1, 4, dtype=torch.float64)
    teacher -= teacher.mean()
    student = torch.zeros(1, 4, dtype=torch.float64, requires_grad=True)
    kd_loss(student, teacher, T=1000, alpha=1).backward()
    torch.testing.assert_close(student.grad, -teacher / 4, atol=1e-3, rtol=1e-3)


@given(arrays(np.float32, (4, 3), elements=st.floats(-65504, 65504, width=32)))
@settings(max_examples=50)
def test_float16_storage_rounds_to_nearest(z):
    stored = cast_for_storage(torch.from_numpy(z), torch.float16, [0, 1, 2, 3])
    assert torch.equal(stored, torch.from_numpy(z.astype(np.float16)))


@given(
    z=arrays(np.float64, (3, 2), elements=st.one_of(
        st.floats(width=64), st.floats(65500, 65540), st.floats(-65540, -65500),
        st.floats(3.4028e38, 3.4029e38))),
    source=st.sampled_from([np.float32, np.float64]),
    kept=st.sampled_from([np.float16, np.float32]),
)  # fmt: skip
def test_exactly_what_rounds_to_no_number_is_refused(z, source, kept):
    with np.errstate(all="ignore"):
        z = z.astype(source)
        expected = z.astype(kept)
    dtype = torch.from_numpy(expected).dtype
    if np.isfinite(expected).all():
        assert cast_for_storage(torch.from_numpy(z), dtype, [0, 1, 2]).numpy().tobytes() == (
            expected.tobytes()
        )
    else:
        row = int(np.flatnonzero(~np.isfinite(expected).all(-1))[0])
        if not np.isfinite(z).all():
            row = int(np.flatnonzero(~np.isfinite(z).all(-1))[0])
        with pytest.raises(LogitsError, match=f"id {row}"):
            cast_for_storage(torch.from_numpy(z), dtype, [0, 1, 2])


def test_the_entropy_is_that_of_the_probabilities():
    torch.manual_seed(3)
    z = torch.cat([torch.randn(5, 7), torch.tensor([[9e4] + [0.0] * 6, [1.0] * 7])])
    q = torch.softmax(z.double() / 3, -1)
    exact = -(q * torch.where(q > 0, q, 1).log()).sum(-1)
    torch.testing.assert_close(DenseLogits(z).temper(3).entropy(), exact.float())
    values = (z / 3).numpy()
    found = entropy_at_one(values, values.argmax(-1), np.empty_like(values))
    torch.testing.assert_close(torch.from_numpy(found), exact.float())


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_name_their_row(bad):
    logits = torch.zeros(3, 2)
    logits[1, 1] = bad
    with pytest.raises(LogitsError, match="id 'b'"):
        cast_for_storage(logits, torch.float32, ["a", "b", "c"])


def test_float16_overflow_names_row_value_and_remedy():
    logits = torch.tensor([[1.0, 2.0], [70000.0, 0.0]])
    with pytest.raises(LogitsError, match=r"70000 .* id 11.*--dtype float32"):
        cast_for_storage(logits, torch.float16, [10, 11])
    assert cast_for_storage(logits, torch.float32, [10, 11])[1, 0] == 70000


def votes(total: float, rows: int = 200, classes: int = 10, seed: int = 0) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return total * torch.softmax(4 * torch.randn(rows, classes, generator=random), -1)


@pytest.mark.parametrize("total", [0.5, 255.0, 500.0, 1000.0, 3e5])
@pytest.mark.parametrize("classes", [2, 3, 10, 1000])
def test_probabilities_times_a_constant_are_recognised(total, classes):
    values = votes(total, classes=classes)
    assert scaled_probabilities(values) == pytest.approx(total, rel=1e-3)
    values[7] = torch.randn(classes)  # one odd row hides nothing
    assert scaled_probabilities(values) == pytest.approx(total, rel=1e-3)
    assert scaled_probabilities(values[:19]) is None
    if classes <= 10 and total > 100:
        assert scaled_probabilities(values.round()) == pytest.approx(total, rel=1e-2)


@pytest.mark.parametrize("classes", [2, 3, 10, 1000])
def test_logits_that_are_0_or_more_are_no_probabilities(classes):
    z = 3 * torch.randn(200, classes, generator=torch.Generator().manual_seed(1))
    centred = z - z.mean(-1, keepdim=True)
    for honest in (
        z.relu(), z.relu() + 0.01, z + 300, centred + 300, centred + 1e4, z - z.min(), z.abs(),
        z - z.amin(-1, keepdim=True), z.exp(), torch.log_softmax(z, -1), centred,
        torch.rand(1, classes).expand(200, classes), torch.zeros(200, classes),
    ):  # fmt: skip
        assert scaled_probabilities(honest) is None


def test_probabilities_are_recognised():
    z = torch.randn(5, 4)
    assert looks_like(torch.softmax(z, -1)) == "softmax"
    assert looks_like(100 * torch.softmax(z, -1)) == "percent"
    assert looks_like(torch.sigmoid(torch.randn(10, 4))) == "sigmoid"
    few = torch.sigmoid(z)[:, :1].expand(5, 4)
    for honest in (z, torch.log_softmax(z, -1), few, torch.full((40, 1), 0.5), torch.zeros(0, 4)):
        assert looks_like(honest) is None


@given(LOGITS, LOGITS)
def test_one_temperature_a_position_or_a_student(z, student):
    """A tensor T gives what its numbers give one by one."""
    logits, student = DenseLogits(torch.from_numpy(z)), torch.from_numpy(student)
    each, stack = torch.tensor([0.5, 2.0, 8.0]), torch.stack([student, student + 1])
    found = logits.temper(each)
    for row, T in enumerate(each.tolist()):
        one = logits.select(torch.tensor([row])).temper(T)
        torch.testing.assert_close(found.probs()[row], one.probs()[0])
        torch.testing.assert_close(found.entropy()[row], one.entropy()[0])
        torch.testing.assert_close(found.kl(student)[row], one.kl(student[row : row + 1])[0])
    of_students = logits.temper(torch.tensor([[1.0], [4.0]]))
    assert of_students.probs().shape == (2, 3, 7)
    for index, T in enumerate([1.0, 4.0]):
        alone = logits.temper(T)
        torch.testing.assert_close(of_students.probs()[index], alone.probs())
        torch.testing.assert_close(of_students.kl(stack)[index], alone.kl(stack[index]))
        torch.testing.assert_close(
            of_students.cross_entropy(stack)[index], alone.cross_entropy(stack[index])
        )


@pytest.mark.parametrize("T", [torch.ones(2), torch.ones(3, 3), torch.tensor([1.0, 0.0, 2.0])])
def test_temperatures_of_no_position(T):
    with pytest.raises(UsageError, match="T "):
        DenseLogits(torch.zeros(3, 2)).temper(T)


class Bare(SoftTargets):
    """A codec's own kind, which gives log q alone."""

    def __init__(self, z, T):
        self.z, self.T = z, T

    def log_probs(self):
        return torch.log_softmax(self.z / self.T, -1)


@given(LOGITS, LOGITS, TEMPERATURES)
def test_kl_is_the_cross_entropy_less_the_entropy(z, student, T):
    z, student = torch.from_numpy(z), torch.from_numpy(student)
    dense, bare = DenseLogits(z).temper(T), Bare(z, T)
    torch.testing.assert_close(dense.kl(student), bare.kl(student), atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(dense.entropy(), bare.entropy(), atol=1e-9, rtol=1e-9)
    largest = z.sort(descending=True).values[:, :2]
    for targets in (dense, bare):  # of equal probabilities, either may be named
        torch.testing.assert_close(z.gather(1, targets.top(2)[1]), largest, atol=1e-9, rtol=1e-9)


def test_kl_of_near_equals_is_not_below_nothing():
    torch.manual_seed(0)
    teacher = torch.randn(2000, 1000) * 5
    close = teacher + torch.randn_like(teacher) * 1e-3
    found, exact = (
        DenseLogits(t).temper(1).kl(s)
        for t, s in ((teacher, close), (teacher.double(), close.double()))
    )
    assert exact.min() > 0
    assert float((found.double() - exact).abs().max()) < 1e-5
    assert float((found.double() - exact).mean().abs()) < 1e-6


def test_a_class_of_no_probability_counts_as_nothing():
    z = torch.tensor([[0.0, 0.0, -math.inf]])
    torch.testing.assert_close(Bare(z, 1).entropy(), torch.tensor([math.log(2)]))


def test_the_top_classes_come_by_probability_then_by_number():
    z = torch.tensor([[1.0, 3.0, 1.0, 3.0], [0.0, 0.0, 0.0, 0.0]])
    for soft in (DenseLogits(z).temper(2), Bare(z, 2), DenseLogits(z.half()).temper(2)):
        probs, classes = soft.top(3)
        assert classes.tolist() == [[1, 3, 0], [0, 1, 2]]
        torch.testing.assert_close(probs, soft.probs().gather(1, classes))
        assert soft.top(1)[1].tolist() == [[1], [0]]


def test_logits_are_selected_cut_and_joined_by_position():
    logits = DenseLogits(torch.arange(20.0).view(10, 2))
    assert [len(part) for part in logits.chunks(4)] == [4, 4, 2]
    parts = list(logits.chunks(4))
    assert torch.equal(parts[0].joined(parts[1:]).dense(), logits.dense())
    assert logits.select(torch.tensor([3, 0])).dense().tolist() == [[6, 7], [0, 1]]
    assert (len(logits), logits.classes, logits.link) == (10, 2, "softmax")


def test_soft_targets_are_no_logits():
    """A temperature of probabilities would give targets that are nearly uniform."""
    torch.manual_seed(0)
    z, labels = torch.randn(8, 5), torch.zeros(8, dtype=torch.int64)
    with pytest.raises(LogitsError, match=r"sum to 1.*soft_target"):
        kd_loss(z, torch.softmax(z, -1), labels, T=4, alpha=0.5)
    with pytest.raises(UsageError, match="5 logits a row, and the teacher has 6 classes"):
        kd_loss(z, torch.randn(8, 6), labels, T=4, alpha=0.5)
    with pytest.raises(UsageError, match="8 rows and the targets of 4"):
        kd_loss(z, torch.randn(4, 5), labels, T=4, alpha=0.5)


def test_a_stack_of_students_has_a_loss_each():
    torch.manual_seed(0)
    teacher, stack = torch.randn(6, 5), torch.randn(2, 6, 5)
    labels, T = torch.tensor([0, 1, -1, 3, 4, 0]), torch.tensor([[2.0], [8.0]])
    losses = kd_loss(stack, DenseLogits(teacher), labels, T=T, alpha=0.7)
    alone = [
        kd_loss(one, teacher, labels, T=t, alpha=0.7) for one, t in zip(stack, (2, 8), strict=True)
    ]
    torch.testing.assert_close(losses, torch.stack(alone))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_rounding_is_half_the_distance_between_neighbours(dtype):
    limits = torch.finfo(dtype)
    smallest = limits.tiny * limits.eps
    values = torch.tensor([[0, 1, -1.5, 3, limits.tiny, limits.max]], dtype=dtype)
    expected = [smallest, limits.eps, limits.eps, 2 * limits.eps, smallest]
    below = torch.nextafter(values[0, -1], torch.zeros((), dtype=dtype))
    expected.append(limits.max - below.item())
    found = DenseLogits(values).rounding()
    assert found.dtype == torch.float64
    assert found.tolist() == [[each / 2 for each in expected]]
