"""The logits of several teachers over the same positions as those of one.

An ensemble says the arithmetic or the geometric mean of what its members say (Hinton, Vinyals, Dean
2015, section 1). With weights w_k that sum to 1, of teachers with the logits z_k:

    prob    q = Σ_k w_k · softmax(z_k/T)        no one vector of logits gives it at every T
    logit   q = softmax(z/T), z = Σ_k w_k · z_k        the geometric mean, scaled to sum to 1

Of multi-label teachers the sigmoid stands in place of the softmax.

Shapes: K teachers, M positions, C classes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from softlabels.errors import UsageError
from softlabels.logits import NOT_DENSE, DenseLogits, Logits, Tally, TemperedLogits
from softlabels.soft_targets import (
    TARGETS,
    DenseTargets,
    Link,
    SoftLabels,
    SoftTargets,
    Temperature,
    check_temperatures,
    working,
)

Space = Literal["prob", "logit"]
SPACES: tuple[Space, ...] = ("prob", "logit")
NO_LOGITS = (
    "a mean of probabilities depends on the temperature and is not the softmax of any logits, so a "
    'mixture by "prob" has no logits: batch["targets"].temper(T) gives its soft targets, and a '
    'mixture by "logit" has logits'
)


@dataclass(frozen=True, eq=False, repr=False)
class Mixture(TemperedLogits):
    """The base of `MixedProbs` and `MixedLogits`, which are `Logits`: K teachers' answers to the
    same M positions.

    members: of any codecs, over the same classes in the same order, on one device
    weights: float64 [K] on the CPU, 0 or more, their sum 1
    """

    members: tuple[Logits, ...]
    weights: Tensor
    is_dense: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for what, values in (
            ("positions", [len(one) for one in self.members]),
            ("classes", [one.classes for one in self.members]),
            ("a link", [one.link for one in self.members]),
        ):
            if len(set(values)) > 1:
                raise UsageError(
                    f"logits of several teachers are mixed where all have the same: these have "
                    f"{what} {', '.join(map(str, values))}"
                )
        if self.weights.shape != (len(self.members),):
            raise UsageError(
                f"weights have the shape {list(self.weights.shape)}; expected is one of each "
                f"teacher, [{len(self.members)}]"
            )

    def __repr__(self) -> str:
        shares = ", ".join(f"{weight:.3g}" for weight in self.weights.tolist())
        size = f"{len(self):,} × {self.classes:,}"
        return f"{type(self).__name__}({len(self.members)} teachers by {shares}; {size})"

    @property
    def classes(self) -> int:
        return self.members[0].classes

    @property
    def link(self) -> Link:
        return self.members[0].link

    @property
    def device(self) -> torch.device:
        return self.members[0].device

    def __len__(self) -> int:
        return len(self.members[0])

    def dense(self) -> Tensor:
        raise UsageError(NO_LOGITS)

    def rounding(self) -> Tensor:
        raise UsageError(NO_LOGITS)

    def select(self, positions: Tensor) -> Self:
        return self._each(lambda member: member.select(positions))

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        return self._each(lambda member: member.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        return self._each(lambda member: member.pin_memory())

    def chunks(self, size: int) -> Iterator[Self]:
        for parts in zip(*(member.chunks(size) for member in self.members), strict=True):
            yield replace(self, members=parts)

    def joined(self, others: Sequence[Self]) -> Self:
        """Those of mixtures of the same teachers, by the same weights."""
        columns = zip(self.members, *(other.members for other in others), strict=True)
        return replace(self, members=tuple(first.joined(more) for first, *more in columns))

    def _each(self, change: Callable[[Logits], Logits]) -> Self:
        return replace(self, members=tuple(map(change, self.members)))


class MixedProbs(Mixture):
    """The weighted mean of what K teachers say: q = Σ_k w_k · softmax(z_k/T). It has no logits."""

    def temper(self, T: Temperature) -> "MixedTargets | MixedLabels":
        """Its soft targets at T, in O(1). Raises UsageError for T ≤ 0, NaN or text."""
        T = check_temperatures(T, len(self))
        members = tuple(member.temper(T) for member in self.members)
        labels = tuple(one for one in members if isinstance(one, SoftLabels))
        if labels:  # then all are
            return MixedLabels(labels, self.weights, T)
        return MixedTargets(members, self.weights, T)


class MixedLogits(Mixture):
    """The weighted mean of K teachers' logits, z = Σ_k w_k · z_k, float32 (float64 where one is):
    dense logits as those of one teacher. Raises UsageError where a teacher's codec doesn't store
    all."""

    is_dense: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(member.is_dense for member in self.members):
            raise UsageError(f'{NOT_DENSE}; mix by "prob", which needs no logits')

    def dense(self) -> Tensor:
        return self._mean([working(member.dense()) for member in self.members])

    def rounding(self) -> Tensor:
        return self._mean([member.rounding() for member in self.members])

    def temper(self, T: Temperature) -> DenseTargets:
        """Its soft targets at T, in O(1). Raises UsageError for T ≤ 0, NaN or text."""
        return TARGETS[self.link](self, check_temperatures(T, len(self)))

    def tally(self) -> Tally:
        return DenseLogits(self.dense(), link=self.link).tally()

    def _mean(self, values: Sequence[Tensor]) -> Tensor:
        return _weighted(self.weights, values)


MIXTURES: dict[Space, type[MixedProbs | MixedLogits]] = {"prob": MixedProbs, "logit": MixedLogits}


@dataclass(frozen=True, eq=False, repr=False)
class _Mean(SoftTargets):
    """The weighted mean of soft targets: q = Σ_k w_k · q_k.

    Where one of them has no probabilities, neither has the mean. Its cross-entropy is then Σ_k w_k
    · (that of q_k), which is the same number, and its KL is Σ_k w_k · KL(q_k ‖ p): more than
    KL(q ‖ p) by what the teachers differ among themselves, which no student changes.
    """

    members: tuple[SoftTargets, ...]
    weights: Tensor
    T: Temperature

    @property
    def has_probs(self) -> bool:  # type: ignore[override]
        return all(member.has_probs for member in self.members)

    def log_probs(self) -> Tensor:
        return _log_weighted(self.weights, [member.log_probs() for member in self.members])

    def probs(self) -> Tensor:
        return _weighted(self.weights, [member.probs() for member in self.members])

    def cross_entropy(self, student_logits_MC: Tensor) -> Tensor:
        if self.has_probs:
            return super().cross_entropy(student_logits_MC)
        each = [member.cross_entropy(student_logits_MC) for member in self.members]
        return _weighted(self.weights, each)

    def kl(self, student_logits_MC: Tensor) -> Tensor:
        if self.has_probs:
            return super().kl(student_logits_MC)
        return _weighted(self.weights, [one.kl(student_logits_MC) for one in self.members])


class MixedTargets(_Mean):
    """The weighted mean of soft targets over classes of which one is right."""

    def entropy(self) -> Tensor:
        q_MC = self.probs()
        return -torch.xlogy(q_MC, q_MC).sum(-1)

    def kl(self, student_logits_MC: Tensor) -> Tensor:
        """Written as Σ q·(log q − log p), since each q is K softmaxes."""
        if not self.has_probs:
            return super().kl(student_logits_MC)
        with torch.no_grad():
            q_MC = self.probs()
        log_p_MC = self.log_probs_of(student_logits_MC)
        return (torch.xlogy(q_MC, q_MC) - q_MC * log_p_MC).sum(-1)


@dataclass(frozen=True, eq=False, repr=False)
class MixedLabels(_Mean, SoftLabels):
    """The weighted mean of soft targets of multi-label teachers, label by label."""

    members: tuple[SoftLabels, ...]

    def absent(self) -> Tensor:
        return _weighted(self.weights, [member.absent() for member in self.members])

    def log_absent(self) -> Tensor:
        return _log_weighted(self.weights, [member.log_absent() for member in self.members])


def mix(members: Sequence[Logits], weights: Sequence[float], space: Space) -> Mixture:
    """K teachers' logits as those of one, mixed in probabilities ("prob") or in logits ("logit").

    weights: one of each teacher, 0 or more, their sum 1; a teacher of weight 0 is left out.

    Raises UsageError where members have other numbers of positions or classes, and for "logit"
    where one of them does not have all its logits.
    """
    pairs = [(one, w) for one, w in zip(members, weights, strict=True) if w]
    numbers = torch.tensor([weight for _, weight in pairs], dtype=torch.float64)
    return MIXTURES[space](tuple(member for member, _ in pairs), numbers)


def _weighted(weights: Tensor, values: Sequence[Tensor]) -> Tensor:
    """Σ w·v, in the values' dtype: a weight of no dimensions does not widen it, nor does it wait
    for a device."""
    terms = [weight * value for weight, value in zip(weights, values, strict=True)]
    return sum(terms[1:], terms[0])


def _log_weighted(weights: Tensor, logs: Sequence[Tensor]) -> Tensor:
    """log Σ w·exp(l), as `_weighted`."""
    pairs = zip(weights.log(), logs, strict=True)
    return reduce(torch.logaddexp, [log_w + log for log_w, log in pairs])
