"""What a temperature makes of raw logits: soft targets. The only home of the softmax.

Shapes: M positions, as many as rows for a classifier; C classes; S students that are trained at
once; K of the largest. Entropy and KL are in nats; T has no unit. The softmax

    q_i = exp(z_i/T) / Σ_j exp(z_j/T)              (Hinton, Vinyals, Dean 2015, equation 1)

runs on the batch where it is asked for, on the batch's device, in float32 (float64 stays float64).
Of a multi-label teacher, whose link is `sigmoid`, each class is a distribution of its own:
q_i = 1 / (1 + exp(−z_i/T)), the probability that the label i is there.

Below them is what two sets of raw logits differ by, once a temperature makes distributions of them.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from softlabels.errors import UsageError

LOWEST_T, HIGHEST_T = 1e-6, 1e6  # beyond: one-hot, or uniform but for float32's rounding
# Above it T², by which losses multiply, times float32's error of a KL, 1e-7 nats, passes 1e-4 nats.
FLOAT32_T = 32.0

Temperature = float | Tensor
Link = Literal["softmax", "sigmoid"]
LINKS: dict[str, Link] = {"classification": "softmax", "multilabel": "sigmoid"}  # by task


def check_temperature(T: float) -> float:
    """`T` as a float. Raises UsageError unless it is a number from 1e-6 to 1e6."""
    try:
        value = float(T)
    except (TypeError, ValueError):
        raise UsageError(f"T is {T!r}; a temperature is a number above 0, such as 4") from None
    if not (math.isfinite(value) and value > 0):
        raise UsageError(f"T is {value:g}; a temperature is a finite number above 0, such as 4")
    if not LOWEST_T <= value <= HIGHEST_T:
        alike = "all classes are alike" if value > 1 else "only the first class counts"
        raise UsageError(
            f"T is {value:g}, where {alike}; use a temperature from {LOWEST_T:g} to {HIGHEST_T:g}"
        )
    return value


def check_temperatures(T: Temperature, positions: int) -> Temperature:
    """`T` as a float, or a tensor [M] or [S, 1] of temperatures for M positions or S students.

    Raises UsageError for another shape and for a value that `check_temperature` refuses. Checking a
    tensor on an accelerator waits for the device; build T on the CPU where that matters.
    """
    if not isinstance(T, Tensor):
        return check_temperature(T)
    if not T.dim():
        return check_temperature(T.item())
    one_each, of_students = T.shape == (positions,), T.dim() == 2 and T.shape[1] == 1
    if not (one_each or of_students):
        raise UsageError(
            f"T has the shape {list(T.shape)}; give one number, one for each of {positions} "
            f"positions [{positions}], or one for each student [S, 1]"
        )
    for value in T.detach().aminmax() if T.numel() else ():
        check_temperature(value.item())
    return T


def needs_double(T: Temperature, device: torch.device) -> bool:
    """Whether T² times a divergence is wrong in float32: of a difference of log Σ exp, which are
    near log C, T² makes too much. Apple's GPUs have no float64."""
    if device.type == "mps":
        return False
    return bool((torch.as_tensor(T) > FLOAT32_T).any())


def working(logits_MC: Tensor) -> Tensor:
    """Logits in the dtype of the arithmetic: float32, or float64 where they are."""
    return logits_MC if logits_MC.dtype == torch.float64 else logits_MC.float()


class SoftTargets(ABC):
    """The result of `Logits.temper(T)`: M distributions over C classes, computed on demand.

    Results have the shape [M, C] or [M], with a dimension S in front if T has the shape [S, 1].
    They are float32, or float64 for logits in float64. A codec's own kind has to define only
    `log_probs`.

    link: the function that makes probabilities of logits
    has_probs: whether `log_probs` and `probs` are known; else `cross_entropy` and `kl` alone are,
    as where samples estimate them
    """

    T: Temperature
    link: ClassVar[Link] = "softmax"
    has_probs: ClassVar[bool] = True

    @abstractmethod
    def log_probs(self) -> Tensor:
        """log q, [M, C]; exact where probabilities would underflow."""

    def probs(self) -> Tensor:
        """q, [M, C]; rows sum to 1."""
        return self.log_probs().exp()

    def entropy(self) -> Tensor:
        """−Σ q log q in nats, [M]; a class of probability 0 counts as 0."""
        log_q_MC = self.log_probs()
        lowest = torch.finfo(log_q_MC.dtype).min  # −inf · 0 would be NaN
        return -(log_q_MC.exp() * log_q_MC.clamp_min(lowest)).sum(-1)

    def top(self, k: int) -> tuple[Tensor, Tensor]:
        """The k most probable classes: their probabilities and numbers (int64), both [M, k], in the
        order of falling probability; among equals the lower number comes first."""
        log_q_MC = self.log_probs()
        top_MK = _largest(log_q_MC, k)
        return log_q_MC.gather(-1, top_MK).exp(), top_MK

    def log_probs_of(self, student_logits_MC: Tensor) -> Tensor:
        """log p, a student's softmax at the same T: of logits [M, C], or [S, M, C] of S students,
        in their shape. The gradient flows into them."""
        scaled = working(student_logits_MC) / _column(self.T, student_logits_MC)
        return torch.log_softmax(scaled, dim=-1)

    def log_outcomes(self) -> Tensor:
        """log q of all that may be, whose probabilities sum to 1: `log_probs`, [M, C]; of a
        multi-label teacher log q and log(1 − q) of each label, [M, 2·C], and the sum is C."""
        return self.log_probs()

    def log_outcomes_of(self, student_logits_MC: Tensor) -> Tensor:
        """The same of a student's logits, in the same order. The gradient flows into them."""
        return self.log_probs_of(student_logits_MC)

    def cross_entropy(self, student_logits_MC: Tensor) -> Tensor:
        """−Σ q log p in nats, [M], with p the student's softmax at the same T.

        student_logits: [M, C], or [S, M, C] of S students. The gradient flows into them only.
        """
        with torch.no_grad():
            q_MC = self.probs()
        student_MC = working(student_logits_MC) / _column(self.T, student_logits_MC)
        return student_MC.logsumexp(-1) - (q_MC * student_MC).sum(-1)

    def kl(self, student_logits_MC: Tensor) -> Tensor:
        """KL(q ‖ p) in nats, [M]: the cross-entropy less the entropy."""
        with torch.no_grad():
            entropy_M = self.entropy()
        return self.cross_entropy(student_logits_MC) - entropy_M


class Restorable(Protocol):
    def dense(self) -> Tensor:
        """All raw logits, [M, C]."""


@dataclass(frozen=True, eq=False, repr=False)
class DenseTargets(SoftTargets):
    """Soft targets of logits that can all be restored, which they are when they are asked for."""

    source: Restorable
    T: Temperature

    def __repr__(self) -> str:
        T = f"{float(self.T):g}" if torch.as_tensor(self.T).numel() == 1 else "one of each row"
        return f"DenseTargets(T={T}, {self.source!r})"

    @property
    def logits_MC(self) -> Tensor:
        return self.source.dense()

    def log_probs(self) -> Tensor:
        return torch.log_softmax(self._scaled(), dim=-1)

    def probs(self) -> Tensor:
        return torch.softmax(self._scaled(), dim=-1)

    def top(self, k: int) -> tuple[Tensor, Tensor]:
        top_MK, log_q_MC = _largest(self.logits_MC, k), self.log_probs()
        top_MK = top_MK.expand(*log_q_MC.shape[:-1], -1)
        return log_q_MC.gather(-1, top_MK).exp(), top_MK

    def kl(self, student_logits_MC: Tensor) -> Tensor:
        """Written as Σ q·(z_t − z_s)/T − lse(z_t/T) + lse(z_s/T): one softmax and no log q, log p.
        The gradient flows into the student's logits only.
        """
        with torch.no_grad():
            teacher_MC = self._scaled()
            lse_teacher_M = teacher_MC.logsumexp(-1)
            q_MC = (teacher_MC - lse_teacher_M[..., None]).exp()
        student_MC = working(student_logits_MC) / _column(self.T, student_logits_MC)
        difference_M = (q_MC * (teacher_MC - student_MC)).sum(-1)
        return difference_M - lse_teacher_M + student_MC.logsumexp(-1)

    def _scaled(self) -> Tensor:
        logits_MC = self.logits_MC
        return working(logits_MC) / _column(self.T, logits_MC)


class SoftLabels(SoftTargets):
    """The base of soft targets of a multi-label teacher: C probabilities a position, each of one
    label, that do not sum to 1. Entropy, cross-entropy and KL are sums over labels.

    A kind of them has to define `log_probs` and `absent`.
    """

    link = "sigmoid"

    @abstractmethod
    def absent(self) -> Tensor:
        """1 − q, [M, C]. Where a label is nearly certain the difference would be 0 in float32, and
        its log p is far from 0."""

    def log_absent(self) -> Tensor:
        """log(1 − q), [M, C]; where 1 − q underflows, that of the smallest number, unless a kind
        has it exactly."""
        absent_MC = self.absent()
        return absent_MC.clamp_min(torch.finfo(absent_MC.dtype).tiny).log()

    def log_odds(self) -> Tensor:
        """The logits whose sigmoid is q, [M, C]: log q − log(1 − q)."""
        return self.log_probs() - self.log_absent()

    def log_outcomes(self) -> Tensor:
        return torch.cat([self.log_probs(), self.log_absent()], -1)

    def log_outcomes_of(self, student_logits_MC: Tensor) -> Tensor:
        x_MC = working(student_logits_MC) / _column(self.T, student_logits_MC)
        return torch.cat([logsigmoid(x_MC), logsigmoid(-x_MC)], -1)

    def entropy(self) -> Tensor:
        """−Σ [q log q + (1 − q) log(1 − q)] in nats, [M]."""
        q_MC, absent_MC = self.probs(), self.absent()
        return -(torch.xlogy(q_MC, q_MC) + torch.xlogy(absent_MC, absent_MC)).sum(-1)

    def log_probs_of(self, student_logits_MC: Tensor) -> Tensor:
        return logsigmoid(working(student_logits_MC) / _column(self.T, student_logits_MC))

    def cross_entropy(self, student_logits_MC: Tensor) -> Tensor:
        """−Σ [q log p + (1 − q) log(1 − p)] in nats, [M], with p the student's, none of them 0."""
        x_MC = working(student_logits_MC) / _column(self.T, student_logits_MC)
        with torch.no_grad():
            q_MC, absent_MC = self.probs(), self.absent()
        return -(q_MC * logsigmoid(x_MC) + absent_MC * logsigmoid(-x_MC)).sum(-1)


@dataclass(frozen=True, eq=False, repr=False)
class LabelTargets(SoftLabels, DenseTargets):
    """Soft targets of a multi-label teacher's logits: q = sigmoid(z/T)."""

    def log_probs(self) -> Tensor:
        return logsigmoid(self._scaled())

    def probs(self) -> Tensor:
        return torch.sigmoid(self._scaled())

    def absent(self) -> Tensor:
        return torch.sigmoid(-self._scaled())

    def log_absent(self) -> Tensor:
        return logsigmoid(-self._scaled())

    def log_odds(self) -> Tensor:
        return self._scaled()

    def entropy(self) -> Tensor:
        return self.cross_entropy(self.logits_MC)

    def kl(self, student_logits_MC: Tensor) -> Tensor:
        """Σ over labels of KL(q ‖ p) in nats, [M]."""
        return SoftTargets.kl(self, student_logits_MC)


TARGETS: dict[str, type[DenseTargets]] = {"softmax": DenseTargets, "sigmoid": LabelTargets}


def exponentials(logits_MC: Tensor, T: float, out_MC: Tensor) -> tuple[Tensor, Tensor]:
    """exp((z − max z)/T), written into `out`, which may be the logits themselves; the results are
    their sum, by which they are divided to be the softmax, and log Σ exp(z/T), both [M, 1]. For a
    loss that asks for no memory, and divides together with what it does next.
    """
    largest_M1 = logits_MC.amax(-1, keepdim=True).div_(T)
    shifted_MC = torch.add(-largest_M1, logits_MC, alpha=1 / T, out=out_MC)  # one pass for both
    total_M1 = shifted_MC.exp_().sum(-1, keepdim=True)
    return total_M1, total_M1.log().add_(largest_M1)


def apart(log_q_MC: Tensor, classes_M: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A distribution as one class c and the others: log q_c and log(1 − q_c), [M], and log of the
    others among themselves, q_i/(1 − q_c), [M, C], where c itself has 0.

    log_q: [M, C], or [S, M, C]; classes: int64 [M].
    """
    index = classes_M[:, None]
    is_own = torch.arange(log_q_MC.shape[-1], device=log_q_MC.device) == index
    own = log_q_MC.gather(-1, index.expand(*log_q_MC.shape[:-1], 1)).squeeze(-1)
    rest_MC = log_q_MC.masked_fill(is_own, -math.inf)
    rest = rest_MC.logsumexp(-1, keepdim=True)
    return own, rest.squeeze(-1), (rest_MC - rest).masked_fill(is_own, 0)


def _largest(values_MC: Tensor, k: int) -> Tensor:
    """The classes of the k largest values of each position, int64 [M, k], the lower number first
    where values are equal."""
    if k == 1:  # of equal values, argmax gives the first
        return values_MC.argmax(-1, keepdim=True)
    ordered = working(values_MC).sort(dim=-1, descending=True, stable=True)
    return ordered.indices[..., :k]


def _column(T: Temperature, logits_MC: Tensor) -> Temperature:
    """T as it divides logits […, M, C], in their working dtype and on their device."""
    if not isinstance(T, Tensor):
        return T
    return T.to(logits_MC.device, working(logits_MC[..., :0]).dtype)[..., None]


def entropy_at_one(z_NC: np.ndarray, top_N: np.ndarray, spare_NC: np.ndarray) -> np.ndarray:
    """What `DenseLogits(z).temper(1).entropy()` is, float32 [N], for a thread that counts its time.

    With d = z − max z and p = softmax(d) it is −log p_max − Σ p·d. `top_N` are the top classes. z
    and `spare_NC`, float32 [N, C], are overwritten, so that no memory is asked for.
    """
    rows = np.arange(len(z_NC))
    z_NC -= z_NC[rows, top_N][:, None]
    # one kernel for exp, sum and quotient: numpy's exp alone takes half as long again
    torch.softmax(torch.from_numpy(z_NC), -1, out=torch.from_numpy(spare_NC))
    entropy_N: np.ndarray = -np.log(spare_NC[rows, top_N]) - np.einsum("nc,nc->n", spare_NC, z_NC)
    return entropy_N


def kl_of_change(logits_MC: Tensor, changed_MC: Tensor, T: float, link: Link = "softmax") -> Tensor:
    """KL(logits ‖ changed, both at T) in nats, [M], right where it is far below the rounding of
    log Σ exp: with x the change over T, less its mean Σ q x, it is log(1 + Σ q (eˣ − 1)).

    Where a logit moved by more than T, the difference of log Σ exp is right, in float64. A label of
    a multi-label teacher is such a distribution over two classes, whose logits are 0 and z.
    """
    if link == "sigmoid":
        pair, changed = (
            torch.stack([torch.zeros_like(z), z], -1).flatten(0, 1)
            for z in (working(logits_MC), working(changed_MC))
        )
        return kl_of_change(pair, changed, T).view(logits_MC.shape).sum(-1)
    x_MC = (working(changed_MC) - working(logits_MC)) / T
    q_MC = torch.softmax(working(logits_MC) / T, -1)
    x_MC = x_MC - (q_MC * x_MC).sum(-1, keepdim=True)
    kl_M = (q_MC * x_MC.clamp(-1, 1).expm1()).sum(-1).log1p()
    far_M = (x_MC.abs() > 1).any(-1)
    if bool(far_M.any()):
        exact = (torch.log_softmax(z[far_M].double() / T, -1) for z in (logits_MC, changed_MC))
        log_q, log_p = exact
        kl_M[far_M] = (log_q.exp() * (log_q - log_p)).sum(-1).to(kl_M.dtype)
    return kl_M


def total_variation(a_NC: Tensor, b_NC: Tensor, link: Link = "softmax") -> Tensor:
    """½ Σ |softmax(a) − softmax(b)| at T = 1, [N]: by how much any probability may differ. Of a
    multi-label teacher, the largest difference of a label's probability."""
    if link == "sigmoid":
        return (torch.sigmoid(working(a_NC)) - torch.sigmoid(working(b_NC))).abs().amax(-1)
    return (_at_one(a_NC) - _at_one(b_NC)).abs().sum(-1) / 2


def _at_one(logits_NC: Tensor) -> Tensor:
    return torch.softmax(working(logits_NC), dim=-1)
