"""Matching logits themselves, and logits that are standardised first.

`functions` has their formulas. M positions, C classes, S students at once.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from softlabels.logits import DenseLogits, Logits
from softlabels.soft_targets import Link, SoftTargets, working
from softlabels.students.losses.hard import HardLabels
from softlabels.students.losses.part import Needs, SoftPart, deviations


@dataclass(frozen=True)
class LogitMatching(SoftPart):
    """See `mse_loss`."""

    name: ClassVar[str] = "mse"
    needs: ClassVar[Needs] = "logits"
    has_T: ClassVar[bool] = False

    def mean(
        self, student_MC: Tensor, teacher: Logits, soft: SoftTargets, labels: HardLabels | None
    ) -> Tensor:
        difference_MC = working(student_MC) - working(teacher.dense()).detach()
        if teacher.link == "sigmoid":
            return difference_MC.square().sum(-1).mean(-1) / 8
        centred_MC = difference_MC - difference_MC.mean(-1, keepdim=True)
        return centred_MC.square().mean(-1).mean(-1) / 2


@dataclass(frozen=True)
class Standardised(SoftPart):
    """Another soft part, of standardised logits: see `standardised_kd_loss`."""

    part: SoftPart
    name: ClassVar[str] = "standardise"
    needs: ClassVar[Needs] = "logits"
    links: ClassVar[tuple[Link, ...]] = ("softmax",)

    @property
    def needs_labels(self) -> bool:  # type: ignore[override]
        return self.part.needs_labels

    @property
    def has_T(self) -> bool:  # type: ignore[override]
        return self.part.has_T

    def __str__(self) -> str:
        return f"{self.name}|{self.part}"

    def prepared(self, teacher: Logits) -> Logits:
        with torch.no_grad():
            return DenseLogits(standardised(teacher.dense()))

    def mean(
        self, student_MC: Tensor, teacher: Logits, soft: SoftTargets, labels: HardLabels | None
    ) -> Tensor:
        prepared = self.prepared(teacher)
        return self.part.mean(standardised(student_MC), prepared, prepared.temper(soft.T), labels)


def standardised(logits_MC: Tensor) -> Tensor:
    """(z − mean z) / std z over the classes of each position, in float32; of logits that are all
    alike z − mean z."""
    unit = math.sqrt(max(logits_MC.shape[-1] - 1, 1))  # the length where the deviation is 1
    centred_MC, length_M1 = deviations(working(logits_MC), -1, instead=unit)
    return centred_MC * (unit / length_M1)
