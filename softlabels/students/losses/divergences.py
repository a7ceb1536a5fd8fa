"""How far a student's distribution is from the teacher's: KL either way, Jensen–Shannon.

`functions` has their formulas. M positions, C classes, S students at once; a multi-label teacher
has two outcomes a label, 2·C a position.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from softlabels.errors import UsageError
from softlabels.soft_targets import DenseTargets, SoftTargets
from softlabels.students.losses.hard import HardLabels
from softlabels.students.losses.part import Divergence, Needs, check_number, lowest


@dataclass(frozen=True)
class ForwardKL(Divergence):
    """See `kd_loss`."""

    name: ClassVar[str] = "kd"
    needs: ClassVar[Needs] = "cross-entropy"

    def distance(self, student_MC: Tensor, soft: SoftTargets, labels: HardLabels | None) -> Tensor:
        return soft.kl(student_MC)


@dataclass(frozen=True)
class ReverseKL(Divergence):
    """See `reverse_kl_loss`."""

    name: ClassVar[str] = "reverse_kl"

    def distance(self, student_MC: Tensor, soft: SoftTargets, labels: HardLabels | None) -> Tensor:
        log_q, log_p = _both(student_MC, soft)
        if not isinstance(soft, DenseTargets) and bool((log_q <= lowest(log_q)).any()):
            raise UsageError(
                f"reverse_kl is infinite where the teacher gives a class the probability 0, as "
                f"{type(soft).__name__} does here; use kd, js, dkd or dist"
            )
        return (log_p.exp() * (log_p - log_q)).sum(-1)


@dataclass(frozen=True)
class JensenShannon(Divergence):
    """See `js_loss`."""

    beta: float = 0.5
    name: ClassVar[str] = "js"

    def __post_init__(self) -> None:
        good = isinstance(self.beta, int | float) and 0 < self.beta < 1
        check_number("beta of js", self.beta, "a number between 0 and 1", good)

    def distance(self, student_MC: Tensor, soft: SoftTargets, labels: HardLabels | None) -> Tensor:
        log_q, log_p = _both(student_MC, soft)
        log_m = torch.logaddexp(log_q + math.log(self.beta), log_p + math.log(1 - self.beta))
        from_teacher = (log_q.exp() * (log_q - log_m)).sum(-1)
        from_student = (log_p.exp() * (log_p - log_m)).sum(-1)
        return self.beta * from_teacher + (1 - self.beta) * from_student


def _both(student_MC: Tensor, soft: SoftTargets) -> tuple[Tensor, Tensor]:
    """log q and log p of all outcomes; log 0 is the lowest number, of which 0 times is 0."""
    with torch.no_grad():
        log_q = soft.log_outcomes()
        log_q = log_q.clamp_min(lowest(log_q))
    return log_q, soft.log_outcomes_of(student_MC)
