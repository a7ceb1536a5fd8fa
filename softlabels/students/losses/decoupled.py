"""Decoupled knowledge distillation: the class of the label, and the others among themselves.

`functions` has the formula. M positions, C classes, S students at once.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from softlabels.soft_targets import Link, SoftTargets, apart
from softlabels.students.losses.hard import HardLabels
from softlabels.students.losses.part import Divergence, check_weights, lowest


@dataclass(frozen=True)
class Decoupled(Divergence):
    """See `dkd_loss`."""

    target: float = 1.0
    others: float = 8.0
    name: ClassVar[str] = "dkd"
    links: ClassVar[tuple[Link, ...]] = ("softmax",)
    needs_labels: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_weights("dkd", target=self.target, others=self.others)

    def distance(self, student_MC: Tensor, soft: SoftTargets, labels: HardLabels | None) -> Tensor:
        assert labels is not None, "needs_labels says so"
        with torch.no_grad():
            log_q_MC = soft.log_probs()
        log_p_MC = soft.log_probs_of(student_MC)
        return labels.each(lambda classes_M: self._of(log_q_MC, log_p_MC, classes_M))

    def _of(self, log_q_MC: Tensor, log_p_MC: Tensor, labels_M: Tensor) -> Tensor:
        is_known, classes_M = labels_M >= 0, labels_M.clamp_min(0)
        with torch.no_grad():
            # a teacher may give 0 to a class, or to all others
            q, q_rest, q_others = (
                part.nan_to_num(nan=lowest(part), neginf=lowest(part))
                for part in apart(log_q_MC, classes_M)
            )
        p, p_rest, p_others = apart(log_p_MC, classes_M)
        target_M = q.exp() * (q - p) + q_rest.exp() * (q_rest - p_rest)
        others_M = (q_others.exp() * (q_others - p_others)).sum(-1)
        # KL itself is their sum with these weights: Zhao et al. 2022, section 3
        weight = torch.where(is_known, self.others, q_rest.exp())
        return torch.where(is_known, self.target, 1.0) * target_M + weight * others_M
