"""How a step changes a stack: gradients of all its batches, AdamW, the schedule, norms, an average.

S students, N rows, C classes.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from softlabels.students.optimization import Batch, learning_rate_factor
from softlabels.students.recipe import Recipe
from softlabels.students.stack.adamw import StackedAdamW
from softlabels.students.stack.layers import Stacked
from softlabels.students.student import as_training_errors
from softlabels.system.devices import autocast

StackLoss = Callable[[Tensor, Batch, float, slice], Tensor]
OWN = ("lr", "weight_decay", "dropout", "input_dropout", "seed")  # what students may differ in


def shared(recipes: Sequence[Recipe]) -> Recipe:
    """What all members of a stack have alike, with the first one's own part."""
    first = recipes[0]
    for other in recipes:
        own = {name: getattr(first, name) for name in OWN}
        assert replace(other, **own) == first, "students of a stack share all but their own part"
    return first


class StackOptimization:
    """A stack, its optimizer and its schedule.

    loss: (logits [S, N, C], batch, how far training is, from 0 to 1, whose logits these are) → [S],
        the mean over rows of each student
    steps: of the whole training, for the schedule
    spec: what messages call a student
    """

    def __init__(
        self,
        stack: Stacked,
        loss: StackLoss,
        recipes: Sequence[Recipe],
        steps: int,
        spec: str,
    ) -> None:
        self.spec = spec
        self.stack, self.loss, self.recipe, self.total = stack, loss, shared(recipes), steps
        self.rate_S = torch.tensor([one.lr for one in recipes], dtype=torch.float64)
        decay_S = torch.tensor([one.weight_decay for one in recipes], dtype=torch.float64)
        self.parameters = [values.requires_grad_() for values in stack.parameters]
        self.optimizer = StackedAdamW(self.parameters, decay_S)
        self.average: list[Tensor] | None = None

    @property
    def steps(self) -> int:
        """Those that have been taken."""
        return self.optimizer.steps

    @property
    def judged(self) -> list[Tensor]:
        """The parameters that are scored and kept."""
        return self.parameters if self.average is None else self.average

    @property
    def progress(self) -> float:
        """How far training is: 0 in its first step, 1 in its last."""
        return min(1.0, self.steps / max(1, self.total - 1))

    @property
    def reached(self) -> float:
        """How far it was in the last step that was taken."""
        return max(0, self.steps - 1) / max(1, self.total - 1)

    def factor(self, step: int) -> float:
        """Of the peak learning rate, at a step from 0."""
        return learning_rate_factor(step, self.total, self.recipe.warmup)

    def step(self, parts: Iterable[tuple[Batch, float]]) -> Tensor:
        """One step on batches, each with the weight of its loss. Returns the summed losses, [S]."""
        gradients: list[Tensor] = []
        total = None
        for batch, weight in parts:
            loss_S, more = self._backward(batch, weight)
            total = loss_S if total is None else total + loss_S
            gradients = [a + b for a, b in zip(gradients, more, strict=True)] if gradients else more
        assert total is not None, "a step has a batch"
        if self.recipe.clip_norm is not None:
            gradients = clipped(gradients, self.recipe.clip_norm)
        self.optimizer.step(gradients, self.rate_S * self.factor(self.steps))
        self._limit_norms()
        self._follow()
        return total

    def _backward(self, batch: Batch, weight: float) -> tuple[Tensor, list[Tensor]]:
        """Losses, [S], and gradients. Forward and backward pass are of one part of the students
        after the other."""
        ends = [self._backward_of(part, batch, weight) for part in self.stack.parts(batch["input"])]
        if len(ends) == 1:
            return ends[0]
        losses, gradients = zip(*ends, strict=True)
        return torch.cat(losses), [torch.cat(each) for each in zip(*gradients, strict=True)]

    def _backward_of(self, part: slice, batch: Batch, weight: float) -> tuple[Tensor, list[Tensor]]:
        inputs, spec = batch["input"], f"{self.spec} in a stack of {len(self.stack)}"
        own = [values[part] for values in self.parameters]
        with (
            as_training_errors(spec, len(inputs)),
            autocast(self.stack.device, self.recipe.precision, training=True),
        ):
            logits_SNC = self.stack.logits(inputs, own, part, training=True)
        loss_S = self.loss(logits_SNC, batch, self.progress, part) * weight
        with as_training_errors(spec, len(inputs)):
            # a student's loss depends on its own parameters alone: the sum's gradient is its own
            gradients = torch.autograd.grad(loss_S.sum(), own)
        return loss_S.detach(), list(gradients)

    @torch.no_grad()
    def _limit_norms(self) -> None:
        """As `limit_norms` does for one student: the weights into each hidden unit."""
        if self.recipe.max_norm is None:
            return
        for weight_SOI in self.parameters[:-2:2]:
            units = weight_SOI.flatten(0, 1)
            units.copy_(torch.renorm(units, p=2, dim=0, maxnorm=self.recipe.max_norm))

    @torch.no_grad()
    def _follow(self) -> None:
        """The average, which begins with the weights after the first step."""
        if self.recipe.ema is None:
            return
        if self.average is None:
            self.average = [values.detach().clone() for values in self.parameters]
            return
        for mean, values in zip(self.average, self.parameters, strict=True):
            mean.lerp_(values, 1 - self.recipe.ema)

    def state(self) -> dict[str, Any]:
        return {
            "parameters": [values.detach() for values in self.parameters],
            "average": self.average,
            "optimizer": self.optimizer.state(),
        }

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Any]) -> None:
        for values, saved in zip(self.parameters, state["parameters"], strict=True):
            values.copy_(saved)
        average = state["average"]
        if average is not None:
            self.average = [values.to(self.stack.device) for values in average]
        self.optimizer.load_state(state["optimizer"])


def clipped(gradients: Sequence[Tensor], largest: float) -> list[Tensor]:
    """Each student's gradients, scaled down to this norm of all of them together, as
    `torch.nn.utils.clip_grad_norm_` does. gradients: [S, …]."""
    norms = torch.stack([one.flatten(1).norm(dim=1) for one in gradients])
    scale_S = (largest / (norms.norm(dim=0) + 1e-6)).clamp(max=1)
    return [one * scale_S.view(-1, *[1] * (one.dim() - 1)) for one in gradients]
