"""How a step changes a student: gradients of all ranks and batches, AdamW, the schedule.

N rows of a batch, C classes.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from softlabels.errors import TrainingError, UsageError
from softlabels.models.causes import cause
from softlabels.models.compiling import compiled
from softlabels.students.ranks import Ranks
from softlabels.students.recipe import Recipe
from softlabels.students.scaling import LossScale
from softlabels.students.state_file import restore_tensors, tensors_of
from softlabels.students.student import Student, as_training_errors
from softlabels.system.devices import autocast
from softlabels.system.humanize import few

Batch = Mapping[str, Any]
Loss = Callable[[Tensor, Batch, float], Tensor]


class Optimization:
    """A student, its optimizer and its schedule. All ranks make one of the same student.

    steps: of the whole training, for the schedule.
    use_differs: whether some steps use only some of its parameters.

    Raises UsageError where torch can't compile, for a norm where there is no hidden layer to limit,
    and for fp16 of weights that are fp16 themselves; TrainingError where a model can't be copied.
    """

    def __init__(
        self,
        student: Student,
        loss: Loss,
        recipe: Recipe,
        steps: int,
        ranks: Ranks,
        use_differs: bool = False,
    ) -> None:
        self.student, self.loss, self.recipe, self.ranks = student, loss, recipe, ranks
        self.all_steps = steps
        if recipe.max_norm is not None and not hidden_layers(student.model):
            raise UsageError(
                f"--max-norm is {recipe.max_norm:g}, and {student.spec} has no hidden layer of "
                f"Linear or Conv2d that is trained; leave it out"
            )
        if recipe.precision == "fp16":
            _check_weights(student)
        self.wrapped = ranks.wrap(student, use_differs)
        self.forward: Callable[..., Tensor] = self.wrapped
        if recipe.compile:
            self.forward = compiled(self.wrapped)
        parameters = list(student.model.parameters())
        # fused: one pass over the weights in place of about ten. In fp16 it would skip a step that
        # overflows inside, unseen by LossScale, which counts the steps that are taken; and it takes
        # no whole numbers, which a quantised net that is partly trained has. Then None: False would
        # keep torch from its foreach loop, too
        fused = recipe.precision != "fp16" and all(one.is_floating_point() for one in parameters)
        self.optimizer = torch.optim.AdamW(
            parameters, lr=recipe.lr, weight_decay=recipe.weight_decay, fused=fused or None
        )
        self.scale = LossScale(self.optimizer, ranks.device.type, recipe.precision)
        self.factor = partial(learning_rate_factor, steps=steps, warmup=recipe.warmup)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self.factor)
        self.judged, self.average = student, None
        if recipe.ema is not None:
            self.average = averaged(student.model, recipe.ema)
            self.judged = student.around(self.average.module)

    @property
    def steps(self) -> int:
        """Those that have been taken."""
        return self.schedule.last_epoch

    @property
    def progress(self) -> float:
        """How far training is in the next step: 0 in its first, 1 in its last."""
        return min(1.0, self.steps / max(1, self.all_steps - 1))

    @property
    def reached(self) -> float:
        """How far it was in the last step that was taken."""
        return max(0, self.steps - 1) / max(1, self.all_steps - 1)

    @property
    def rate(self) -> float:
        """The learning rate of the last step that was taken."""
        return self.recipe.lr * self.factor(max(0, self.steps - 1))

    def step(self, parts: Iterable[tuple[Batch, float]], count: int) -> Tensor | None:
        """One step on `count` batches, each with the weight of its loss: the sum of weight · loss
        is the mean over all their rows on this rank, and the mean of that over ranks the mean over
        all rows. Returns this rank's sum; None, on every rank, where gradients overflow fp16: then
        weights, schedule and average stay as they are."""
        self.optimizer.zero_grad(set_to_none=True)
        total: Tensor | None = None
        for number, (batch, weight) in enumerate(parts, 1):
            # ranks average gradients once a step, in the last backward pass
            with nullcontext() if number == count else self._alone():
                loss = self._backward(batch, weight)
            total = loss if total is None else total + loss
        assert total is not None, "a step has a batch"
        if self.recipe.clip_norm is not None:
            self.scale.unscale()
            parameters = self.student.model.parameters()
            torch.nn.utils.clip_grad_norm_(parameters, self.recipe.clip_norm)
        if not self.scale.step():
            return None
        self.schedule.step()
        if self.recipe.max_norm is not None:
            limit_norms(self.student.model, self.recipe.max_norm)
        if self.average is not None:
            self.average.update_parameters(self.student.model)
        return total

    def _backward(self, batch: Batch, weight: float) -> Tensor:
        inputs, spec = batch["input"], self.student.spec
        remedy = "; try it without --compile" if self.recipe.compile else ""
        with (
            as_training_errors(spec, len(inputs), remedy),
            autocast(self.ranks.device, self.recipe.precision, training=True),
        ):
            given, named = self.student.given(inputs)
            logits_NC = self.forward(*given, **named)
        loss = self.loss(logits_NC, batch, self.progress)
        if weight != 1:
            loss = loss * weight
        with as_training_errors(spec, len(inputs), remedy):
            self.ranks.accelerator.backward(self.scale.scaled(loss))
        return loss.detach()

    def _alone(self) -> AbstractContextManager:
        context: AbstractContextManager = self.ranks.accelerator.no_sync(self.wrapped)
        return context

    def state(self) -> dict[str, Any]:
        """Of types that `torch.load(weights_only=True)` takes; rank 0's is that of all."""
        return {
            "model": tensors_of(self.student.model),
            "average": {} if self.average is None else tensors_of(self.average),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaling": self.scale.state(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        restore_tensors(self.student.model, state["model"])
        if self.average is not None:
            restore_tensors(self.average, state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.scale.load_state(state["scaling"])


def _check_weights(student: Student) -> None:
    named = student.model.named_parameters()
    half = [name for name, p in named if p.requires_grad and p.dtype == torch.float16]
    if half:
        raise UsageError(
            f"{few(half)} of {student.spec} {'is' if len(half) == 1 else 'are'} float16, in which "
            f"small steps are rounded away; --precision fp16 trains float32 weights: call .float()"
        )


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of a model's weights, beginning with those after the first
    step. Statistics of batch norm are averaged too, since they belong to weights as they were;
    buffers of whole numbers, such as indices, are copied. Raises TrainingError where the model
    can't be copied."""
    smooth = get_ema_multi_avg_fn(decay)

    def update(means: Any, values: Any, count: Any) -> None:
        if means[0].is_floating_point() or means[0].is_complex():
            smooth(means, values, count)
        else:  # torch would average them, and round: an index of 5 became 4
            for mean, value in zip(means, values, strict=True):
                mean.copy_(value)

    try:
        return AveragedModel(model, multi_avg_fn=update, use_buffers=True)
    except Exception as error:  # of code that is not ours
        raise TrainingError(
            f"--ema needs a copy of the model, which can't be made: {cause(error)}"
        ) from error


def learning_rate_factor(step: int, steps: int, warmup: float) -> float:
    """Rises linearly from near 0 to 1 over `warmup · steps`, then falls to 0 as a half cosine."""
    rising = round(warmup * steps)
    if step < rising:
        return (step + 1) / (rising + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def hidden_layers(model: nn.Module) -> list[nn.Linear | nn.Conv2d]:
    """Those whose weights are trained. The last layer has no hidden units."""
    layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    # a weight that is computed from others, as by weight_norm, is no parameter
    return [m for m in layers[:-1] if isinstance(m.weight, nn.Parameter) and m.weight.requires_grad]


@torch.no_grad()
def limit_norms(model: nn.Module, largest: float) -> None:
    """Shrink the weights coming into each hidden unit to a norm of at most `largest`.

    Hinton et al. 2012, "Improving neural networks by preventing co-adaptation of feature
    detectors": an L2 limit on each hidden unit's incoming weights.
    """
    for layer in hidden_layers(model):
        layer.weight.copy_(torch.renorm(layer.weight, p=2, dim=0, maxnorm=largest))
