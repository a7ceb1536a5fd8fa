"""DIST: what a teacher says of classes and of rows, compared by correlation.

`functions` has the formula. M positions, C classes, S students at once.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from softlabels.errors import UsageError
from softlabels.logits import Logits
from softlabels.soft_targets import SoftTargets
from softlabels.students.losses.hard import HardLabels
from softlabels.students.losses.part import SoftPart, check_weights, deviations


@dataclass(frozen=True)
class Relations(SoftPart):
    """See `dist_loss`."""

    inter: float = 1.0
    intra: float = 1.0
    name: ClassVar[str] = "dist"

    def __post_init__(self) -> None:
        check_weights("dist", inter=self.inter, intra=self.intra)

    def mean(
        self, student_MC: Tensor, teacher: Logits, soft: SoftTargets, labels: HardLabels | None
    ) -> Tensor:
        if self.intra and len(teacher) < 2:
            raise UsageError(
                f"dist compares the rows of a batch, and this one has {len(teacher)}; give 2 or "
                f"more, or write dist({self.inter:g}, 0)"
            )
        with torch.no_grad():
            q_MC = soft.probs()
        p_MC = soft.log_probs_of(student_MC).exp()
        loss = p_MC.new_zeros(p_MC.shape[:-2])
        for weight, over, each in ((self.inter, -1, -1), (self.intra, -2, -1)):
            if weight:
                loss = loss + weight * (1 - correlation(p_MC, q_MC, over)).mean(each)
        return loss


def correlation(a: Tensor, b: Tensor, over: int) -> Tensor:
    """Pearson's, over this dimension; 0 where the values of one are all alike."""
    return (_unit(a, over) * _unit(b, over)).sum(over)


def _unit(values: Tensor, over: int) -> Tensor:
    """Values less their mean, divided by their length; where they are all alike by 1."""
    centred, length = deviations(values, over)
    return centred / length
