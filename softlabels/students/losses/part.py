"""The soft part of a loss: what it needs of a teacher, and what it makes of it.

M positions, C classes, S students at once.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import ClassVar, Literal

import torch
from torch import Tensor

from softlabels.errors import UsageError
from softlabels.logits import DenseLogits, Logits
from softlabels.soft_targets import Link, SoftTargets, needs_double, working
from softlabels.students.losses.hard import HardLabels

Needs = Literal["cross-entropy", "probabilities", "logits"]
ORDER: tuple[Needs, ...] = ("cross-entropy", "probabilities", "logits")  # each has those before it
WORDS: dict[Needs, str] = {
    "cross-entropy": "a cross-entropy",
    "probabilities": "the probability of each class",
    "logits": "all raw logits",
}

ROUNDING = 8  # of a softmax and of a mean taken away, in units of the last place
LEAST_SPREAD = 1e-8  # of what lies near 0


def known(teacher: Logits, soft: SoftTargets) -> Needs:
    """The most that a loss can have of this teacher."""
    if teacher.is_dense:
        return "logits"
    return "probabilities" if soft.has_probs else "cross-entropy"


@dataclass(frozen=True)
class SoftPart(ABC):
    """A teacher's part in a loss; its fields are the numbers in the loss's word, `dkd(1, 8)`.

    name: its word
    needs: what it takes from the teacher
    links: of which kinds of teachers it can be
    needs_labels: whether it is about the hard labels too
    has_T: whether a temperature changes it
    """

    name: ClassVar[str]
    needs: ClassVar[Needs] = "probabilities"
    links: ClassVar[tuple[Link, ...]] = ("softmax", "sigmoid")
    needs_labels: ClassVar[bool] = False
    has_T: ClassVar[bool] = True

    def __str__(self) -> str:
        """Its word and numbers."""
        numbers = ", ".join(f"{getattr(self, one.name):g}" for one in fields(self))
        return f"{self.name}({numbers})" if numbers else self.name

    @classmethod
    def fits(cls, link: Link, has: Needs) -> bool:
        return link in cls.links and ORDER.index(cls.needs) <= ORDER.index(has)

    def prepared(self, teacher: Logits) -> Logits:
        """The teacher's logits as a temperature is then applied to them."""
        return teacher

    @abstractmethod
    def mean(
        self, student_MC: Tensor, teacher: Logits, soft: SoftTargets, labels: HardLabels | None
    ) -> Tensor:
        """The mean over positions: a scalar, or [S] for logits [S, M, C]. The gradient flows into
        the student's logits only. soft: what a temperature makes of the teacher's logits."""


class Divergence(SoftPart):
    """A soft part T²·d(teacher, student), both at T, by position.

    T² since gradients of d scale as 1/T²: Hinton, Vinyals, Dean 2015, section 2. At a high T the
    arithmetic is float64, of teachers all of whose logits are known.
    """

    def mean(
        self, student_MC: Tensor, teacher: Logits, soft: SoftTargets, labels: HardLabels | None
    ) -> Tensor:
        kind = working(student_MC[..., :0]).dtype
        if teacher.is_dense and needs_double(soft.T, student_MC.device):
            student_MC = student_MC.double()
            with torch.no_grad():
                double = DenseLogits(teacher.dense().double(), link=teacher.link)
            soft = double.temper(soft.T)
        distance_M = self.distance(student_MC, soft, labels)
        T = soft.T.to(distance_M) if isinstance(soft.T, Tensor) else soft.T
        return (T**2 * distance_M).mean(-1).to(kind)

    @abstractmethod
    def distance(self, student_MC: Tensor, soft: SoftTargets, labels: HardLabels | None) -> Tensor:
        """d in nats, [M], or [S, M]."""


def check_number(name: str, value: float, text: str, holds: bool) -> None:
    """Raises UsageError for a number in a loss's word that is none of its kind."""
    if not holds:
        raise UsageError(f"{name} is {value!r}; it must be {text}")


def check_weights(word: str, **weights: float) -> None:
    """Raises UsageError unless all are finite, 0 or more, and one of them is above 0."""
    for name, value in weights.items():
        good = isinstance(value, int | float) and 0 <= value < float("inf")
        check_number(f"{name} of {word}", value, "a finite number, 0 or more", good)
    if not any(weights.values()):
        names = " and ".join(weights)
        raise UsageError(f"{names} of {word} are all 0, which leaves nothing; give one a weight")


def deviations(values: Tensor, over: int, instead: float = 1.0) -> tuple[Tensor, Tensor]:
    """Values less their mean over this dimension, and the length of that, which they are divided
    by: both keep the dimension. `instead` stands for a length that is rounding alone. To divide by
    that would blow it up, and the gradient with it; so a gradient is left by which a student whose
    head is all zeros can begin to learn."""
    centred = values - values.mean(over, keepdim=True)
    squares = centred.square().sum(over, keepdim=True)
    with torch.no_grad():
        rounding = ROUNDING * torch.finfo(values.dtype).eps
        least = (rounding * values.abs().amax(over, keepdim=True)).clamp_min(LEAST_SPREAD)
        alike = squares <= values.shape[over] * least.square()
    return centred, squares.masked_fill(alike, instead**2).sqrt()


def lowest(values: Tensor) -> float:
    """The lowest number of this dtype, for a log-probability that is −inf: its product with a
    probability of 0 is 0, and not NaN."""
    return torch.finfo(values.dtype).min
