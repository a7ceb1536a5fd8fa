"""Raw logits, and what a temperature makes of them. The only home of the softmax.

Shapes: N rows; M scored positions of them, as many as rows for a classifier; C classes; S students
that are trained at once; K of the largest. Entropy and KL are in nats; T has no unit.

A teacher's logits z are kept as they came. A store gives them back as `Logits`, of which
`DenseLogits` is the plain kind: `DenseLogits(z).temper(T)` is free; the softmax

    q_i = exp(z_i/T) / Σ_j exp(z_j/T)              (Hinton, Vinyals, Dean 2015, equation 1)

runs on the batch where it is asked for, on the batch's device, in float32 (float64 stays float64).
Of a multi-label teacher, whose link is `sigmoid`, each class is a distribution of its own:
q_i = 1 / (1 + exp(−z_i/T)), the probability that the label i is there.
"""

import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from softlabels.errors import UsageError

LOWEST_T, HIGHEST_T = 1e-6, 1e6  # beyond: one-hot, or uniform but for float32's rounding

Temperature = float | Tensor
Link = Literal["softmax", "sigmoid"]
LINKS: dict[str, Link] = {"classification": "softmax", "multilabel": "sigmoid"}  # by task

NOT_DENSE = (
    "not all raw logits are stored in this dump, so there is no logits tensor; "
    'batch["targets"].temper(T) gives its soft targets'
)
BLOCK_VALUES = 1 << 18  # float32 values that fit into the processor's cache
SPARE = threading.local()  # two such blocks for each thread


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


def working(logits_MC: Tensor) -> Tensor:
    """Logits in the dtype of the arithmetic: float32, or float64 where they are."""
    return logits_MC if logits_MC.dtype == torch.float64 else logits_MC.float()


class SoftTargets(ABC):
    """The result of `Logits.temper(T)`: M distributions over C classes, computed on demand.

    Results have the shape [M, C] or [M], with a dimension S in front if T has the shape [S, 1].
    They are float32, or float64 for logits in float64. A codec's own kind has to define only
    `log_probs`.
    """

    T: Temperature

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


@dataclass(frozen=True, eq=False, repr=False)
class DenseTargets(SoftTargets):
    """Soft targets of logits that are `dense`."""

    source: "Logits"
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


@dataclass(frozen=True, eq=False, repr=False)
class LabelTargets(DenseTargets):
    """Soft targets of a multi-label teacher: C probabilities a position, each of one label, that do
    not sum to 1. Entropy, cross-entropy and KL are sums over labels.

    `log_probs` is log q; log(1 − q) is that of the negated logits.
    """

    def log_probs(self) -> Tensor:
        return logsigmoid(self._scaled())

    def probs(self) -> Tensor:
        return torch.sigmoid(self._scaled())

    def entropy(self) -> Tensor:
        """−Σ [q log q + (1 − q) log(1 − q)] in nats, [M]."""
        return self._cross_entropy(self._scaled())

    def log_probs_of(self, student_logits_MC: Tensor) -> Tensor:
        return logsigmoid(working(student_logits_MC) / _column(self.T, student_logits_MC))

    def cross_entropy(self, student_logits_MC: Tensor) -> Tensor:
        return self._cross_entropy(working(student_logits_MC) / _column(self.T, student_logits_MC))

    def kl(self, student_logits_MC: Tensor) -> Tensor:
        """Σ over labels of KL(q ‖ p) in nats, [M]."""
        with torch.no_grad():
            entropy_M = self.entropy()
        return self.cross_entropy(student_logits_MC) - entropy_M

    def _cross_entropy(self, x_MC: Tensor) -> Tensor:
        """−Σ [q log p + (1 − q) log(1 − p)] with p = sigmoid(x), none of which is 0."""
        with torch.no_grad():
            t_MC = self._scaled()
            # 1 − q would round to 0 where a label is nearly certain, and its log p is far from 0
            q_MC, absent_MC = torch.sigmoid(t_MC), torch.sigmoid(-t_MC)
        return -(q_MC * logsigmoid(x_MC) + absent_MC * logsigmoid(-x_MC)).sum(-1)


TARGETS: dict[str, type[DenseTargets]] = {"softmax": DenseTargets, "sigmoid": LabelTargets}


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


class Logits(Protocol):
    """Logits as a codec stores them: M scored positions of N rows, each over C classes. For a
    classifier a position is a row. They know no temperature.

    What all positions share, such as the head of a language model, exists once per process and
    device. It is not pickled or moved with the logits.
    """

    @property
    def classes(self) -> int: ...

    @property
    def link(self) -> Link:
        """The function that makes probabilities of them: `softmax`, or `sigmoid`."""

    @property
    def device(self) -> torch.device: ...

    @property
    def is_dense(self) -> bool:
        """Whether all raw logits are stored, so that `dense` works."""

    def __len__(self) -> int:
        """M."""

    def dense(self) -> Tensor:
        """All raw logits, [M, C]. Raises UsageError unless `is_dense`."""

    def select(self, positions: Tensor) -> Self:
        """These positions, int64 [K], in their order."""

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self: ...

    def pin_memory(self) -> Self: ...

    def chunks(self, size: int) -> Iterator[Self]:
        """These logits, up to `size` positions at a time."""

    def joined(self, others: Sequence[Self]) -> Self:
        """These positions, followed by those of other logits of the same codec."""

    def tally(self) -> "Tally":
        """The statistics of these positions."""

    def rounding(self) -> Tensor:
        """How far the teacher's raw logits may be from the stored ones, float64 [M, C]. Raises
        UsageError unless `is_dense`."""

    def check(self) -> tuple[np.ndarray, int | None]:
        """The top class of each position, int64 [M], and the number of the first position that is
        not finite, if there is one."""

    def temper(self, T: Temperature) -> SoftTargets:
        """Soft targets at T, in O(1). T: a number above 0, or a tensor [M], or [S, 1] for a stack
        of S students. Raises UsageError for another."""


@dataclass(frozen=True)
class Tally:
    """Of M positions: the top class (int64) and the entropy at T = 1 in nats, both [M]; the
    smallest and the largest raw logit and the sum of all, None where not all are stored."""

    top: np.ndarray
    entropy: np.ndarray
    smallest: float | None = None
    largest: float | None = None
    total: float | None = None


@dataclass(frozen=True, eq=False, repr=False)
class StoredLogits:
    """The base of `Logits` that consist of tensors of M rows, where a position is a row of each.

    A subclass is a dataclass. Its fields that are tensors have a row a position; others, such as a
    number of classes, are shared by all rows. It defines `temper` and `classes`. Logits that can
    all be restored are `PackedLogits`.
    """

    link: Link = field(default="softmax", kw_only=True)
    is_dense: ClassVar[bool] = False

    if TYPE_CHECKING:  # a property here would become the default of a field of this name

        @property
        def classes(self) -> int: ...

    def __repr__(self) -> str:
        kinds = [str(value.dtype).removeprefix("torch.") for value in self._tensors.values()]
        return (
            f"{type(self).__name__}({len(self):,} × {self.classes:,}, {' '.join(kinds)}, "
            f"{self.device})"
        )

    @property
    def _tensors(self) -> dict[str, Tensor]:
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}

    @property
    def device(self) -> torch.device:
        return next(iter(self._tensors.values())).device

    def __len__(self) -> int:
        return len(next(iter(self._tensors.values())))

    def dense(self) -> Tensor:
        raise UsageError(NOT_DENSE)

    def rounding(self) -> Tensor:
        raise UsageError(NOT_DENSE)

    def select(self, positions: Tensor) -> Self:
        return self._each(lambda tensor: tensor.index_select(0, positions.to(tensor.device)))

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        return self._each(Tensor.pin_memory)

    def chunks(self, size: int) -> Iterator[Self]:
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            yield self._of({name: value[part] for name, value in self._tensors.items()})

    def joined(self, others: Sequence[Self]) -> Self:
        parts = [self._tensors, *(other._tensors for other in others)]
        return self._of({n: torch.cat([part[n] for part in parts]) for n in parts[0]})

    def temper(self, T: Temperature) -> SoftTargets:
        raise NotImplementedError

    def tally(self) -> Tally:
        soft = self.temper(1)
        return Tally(soft.top(1)[1][:, 0].numpy(), soft.entropy().numpy())

    def check(self) -> tuple[np.ndarray, int | None]:
        soft = self.temper(1)
        bad = (~torch.isfinite(soft.entropy())).nonzero()
        return soft.top(1)[1][:, 0].numpy(), int(bad[0]) if len(bad) else None

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        return self._of({name: change(value) for name, value in self._tensors.items()})

    def _of(self, tensors: dict[str, Any]) -> Self:
        return replace(self, **tensors)


class PackedLogits(StoredLogits):
    """The base of `Logits` from whose tensors all raw logits can be restored.

    A subclass is a dataclass, as for `StoredLogits`. It defines `classes`, `dense` and `rounding`.
    """

    is_dense: ClassVar[bool] = True

    def dense(self) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} has to define dense()")

    def rounding(self) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} has to define rounding()")

    def temper(self, T: Temperature) -> DenseTargets:
        return TARGETS[self.link](self, check_temperatures(T, len(self)))

    def tally(self) -> Tally:
        return DenseLogits(self.dense(), link=self.link).tally()

    def check(self) -> tuple[np.ndarray, int | None]:
        return DenseLogits(self.dense(), link=self.link).check()


@dataclass(frozen=True, eq=False, repr=False)
class DenseLogits(StoredLogits):
    """All C logits of each position, [M, C], in their stored dtype. Knows no temperature.

    Raises UsageError for another shape.
    """

    values_MC: Tensor
    is_dense: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.values_MC.dim() != 2:
            raise UsageError(
                f"the logits have the shape {list(self.values_MC.shape)}; expected is "
                f"[positions, classes]"
            )

    @property
    def classes(self) -> int:
        return self.values_MC.shape[1]

    def dense(self) -> Tensor:
        return self.values_MC

    def temper(self, T: Temperature) -> DenseTargets:
        """These logits at temperature T, in O(1). Raises UsageError for T ≤ 0, NaN or text."""
        return TARGETS[self.link](self, check_temperatures(T, len(self)))

    def rounding(self) -> Tensor:
        """Half a unit in the last place, by the stored dtype."""
        spacing_MC = np.spacing(self.values_MC.abs().cpu().numpy()).astype(np.float64)
        return torch.from_numpy(spacing_MC / 2)

    def check(self) -> tuple[np.ndarray, int | None]:
        return _top_and_finite(self.values_MC.numpy())

    def tally(self) -> Tally:
        """A block at a time, in memory that the thread keeps: asking for it anew would cost as much
        as the work."""
        parts = [_tally(part) for part in self.chunks(max(1, BLOCK_VALUES // self.classes))]
        return Tally(
            np.concatenate([part.top for part in parts]),
            np.concatenate([part.entropy for part in parts]),
            min(part.smallest for part in parts if part.smallest is not None),
            max(part.largest for part in parts if part.largest is not None),
            sum(part.total for part in parts if part.total is not None),
        )


def _top_and_finite(values_MC: np.ndarray) -> tuple[np.ndarray, int | None]:
    """The top class of each position, int64 [M], and the first one that is not finite, if any.

    float16 is compared as whole numbers in the same order, since numpy has no fast float16.
    """
    if values_MC.dtype != np.float16:
        bad = np.flatnonzero(~np.isfinite(values_MC).all(-1))
        return values_MC.argmax(-1), int(bad[0]) if len(bad) else None
    bits_MC = values_MC.view(np.int16)
    magnitude_MC = bits_MC & np.int16(0x7FFF)
    first = None
    if magnitude_MC.size and magnitude_MC.max() >= 0x7C00:
        first = int(np.flatnonzero((magnitude_MC >= 0x7C00).any(-1))[0])
    order_MC = bits_MC ^ ((bits_MC >> 15) & np.int16(0x7FFF))
    return order_MC.argmax(-1), first


def _tally(logits: DenseLogits) -> Tally:
    stored_MC = logits.values_MC
    rows, classes = stored_MC.shape
    spare = vars(SPARE).get("blocks")
    if spare is None or spare.shape[1] < stored_MC.numel():
        spare = SPARE.blocks = np.empty((2, stored_MC.numel()), np.float32)
    values_MC, spare_MC = (block[: rows * classes].reshape(rows, classes) for block in spare)
    values = torch.from_numpy(values_MC).copy_(stored_MC)
    smallest, largest = values.aminmax()
    total = values.sum(-1).sum(dtype=torch.float64)
    top = values_MC.argmax(-1)
    if logits.link == "softmax":
        entropy = entropy_at_one(values_MC, top, spare_MC)
    else:
        entropy = logits.temper(1).entropy().numpy()
    return Tally(top, entropy, float(smallest), float(largest), float(total))


def entropy_at_one(z_NC: np.ndarray, top_N: np.ndarray, spare_NC: np.ndarray) -> np.ndarray:
    """What `DenseLogits(z).temper(1).entropy()` is, float32 [N], for a thread that counts its time.

    With d = z − max z it is log Σ eᵈ − Σ eᵈ·d / Σ eᵈ: one exp, numpy's, which is twice as fast as
    torch's. `top_N` are the top classes. z and `spare_NC`, float32 [N, C], are overwritten, so
    that no memory is asked for.
    """
    z_NC -= np.take_along_axis(z_NC, top_N[:, None], -1)
    np.exp(z_NC, out=spare_NC)
    total_N = spare_NC.sum(-1)
    expected_N: np.ndarray = np.einsum("nc,nc->n", spare_NC, z_NC) / total_N
    return np.log(total_N) - expected_N


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
        exact = DenseLogits(logits_MC[far_M].double()).temper(T)
        kl_M[far_M] = exact.kl(changed_MC[far_M].double()).to(kl_M.dtype)
    return kl_M


def total_variation(a_NC: Tensor, b_NC: Tensor, link: Link = "softmax") -> Tensor:
    """½ Σ |softmax(a) − softmax(b)| at T = 1, [N]: by how much any probability may differ. Of a
    multi-label teacher, the largest difference of a label's probability."""
    if link == "sigmoid":
        return (torch.sigmoid(working(a_NC)) - torch.sigmoid(working(b_NC))).abs().amax(-1)
    return (_at_one(a_NC) - _at_one(b_NC)).abs().sum(-1) / 2


def _at_one(logits_NC: Tensor) -> Tensor:
    return torch.softmax(working(logits_NC), dim=-1)
