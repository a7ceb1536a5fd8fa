"""A training whose data are open. N rows of a batch, C classes."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from softlabels.students.distilling import Distillation
from softlabels.students.job import Job
from softlabels.students.optimization import Batch
from softlabels.students.recipe import Recipe
from softlabels.students.result import TrainResult
from softlabels.system.progress import Progress


@dataclass(frozen=True)
class Prepared:
    """A training whose data are open, for any student of these data.

    labelled: whether hard labels count
    take, order, ahead: as of `Task`
    """

    job: Job
    labelled: bool
    take: Callable[[np.ndarray, int, torch.device], Batch]
    order: Callable[[np.ndarray, int], np.ndarray]
    ahead: bool

    def run(self, learned: Distillation, progress: Progress) -> TrainResult:
        """Train the job's student."""

        def loss(logits_NC: Tensor, batch: Batch, progress: float) -> Tensor:
            return learned.of(logits_NC, batch, progress, self.labelled)

        job = replace(self.job, T_at=learned.T_at)
        remedy = remedy_of(learned, job.recipe)
        return job.run(loss, self.take, self.order, remedy, progress, self.ahead)


def remedy_of(learned: Distillation, recipe: Recipe) -> str:
    """What to try where the loss becomes NaN or infinite."""
    return learned.too_far or recipe.remedy
