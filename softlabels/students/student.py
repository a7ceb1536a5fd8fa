"""A student, and the checks before it is trained: it is run on a few rows. N rows, C classes."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from softlabels.errors import SoftlabelsError, TrainingError, UsageError
from softlabels.models.causes import cause
from softlabels.models.keywords import keywords_of, whole_hint
from softlabels.models.named import NamedInputs, NumberColumns
from softlabels.models.outputs import logits_of
from softlabels.probabilities import looks_like
from softlabels.students.ranks import is_lost_touch
from softlabels.system.devices import autocast
from softlabels.system.humanize import counted
from softlabels.system.memory import is_out_of_memory

PASSES = 8  # in training mode: a layer that is left out at random is seen in one of them


@contextmanager
def as_training_errors(spec: str, rows: int, remedy: str = "") -> Iterator[None]:
    """Errors of the student's own code become TrainingErrors that name the model and the batch."""
    try:
        yield
    except SoftlabelsError:
        raise
    except Exception as error:
        if is_lost_touch(error):
            raise
        full = is_out_of_memory(error)
        raise TrainingError(
            f"model {spec} failed on a batch of {counted(rows, 'row')}: {cause(error)}"
            f"{'; use a smaller --batch-size' if full else ''}{remedy}"
        ) from error


class Student(nn.Module):
    """A model whose output is its logits [N, C] alone, whatever else `model` gives.

    made_for: what messages say of the inputs that it is made for
    side, pad: where rows of tokens are padded, right or left, and with which token
    """

    side, pad = "right", 0

    def __init__(self, model: nn.Module, classes: int, spec: str, made_for: str = "") -> None:
        super().__init__()
        self.model, self.classes, self.spec, self.made_for = model, classes, spec, made_for

    def forward(self, *given: Tensor | NamedInputs, **named: Tensor) -> Tensor:
        if given and isinstance(given[0], NamedInputs):
            given, named = self.given(given[0])
        rows = len(next(iter((*given, *named.values()))))
        return logits_of(self.model(*given, **named), rows, self.classes, f"model {self.spec}")

    def given(self, inputs: Tensor | NamedInputs) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """What the model is given by place and by name: columns by the names that it takes, tokens
        padded; others as they are."""
        if isinstance(inputs, Tensor):
            return (inputs,), {}
        return keywords_of(self.model).chosen(inputs.by_name(self.side, self.pad))

    def around(self, model: nn.Module) -> "Student":
        """The same student with another model of its kind, such as an average of it."""
        other = Student(model, self.classes, self.spec, self.made_for)
        other.side, other.pad = self.side, self.pad
        return other

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device


@dataclass(frozen=True)
class Use:
    """Which parameters the training passes used.

    unused: the names of those that no pass used.
    steady: whether each pass used the same ones.
    """

    unused: list[str]
    steady: bool

    @property
    def differs(self) -> bool:
        """Whether some steps use only some of the parameters."""
        return bool(self.unused) or not self.steady


def check_model(student: Student, sample: Any) -> None:
    """Run it on a few inputs, [N, …]. Raises UsageError unless it gives N rows of C finite
    logits."""
    with torch.no_grad():
        logits_NC = _run(student.eval(), sample)
    if logits_NC.shape[1] != student.classes:
        raise UsageError(
            f"model {student.spec} gave {list(logits_NC.shape)} for {len(sample)} inputs; expected "
            f"{[len(sample), student.classes]}"
        )
    if not logits_NC.is_floating_point():
        raise UsageError(f"model {student.spec} gave {logits_NC.dtype}; logits are floating point")
    if not bool(torch.isfinite(logits_NC).all()):
        raise UsageError(f"model {student.spec} gives NaN or infinity before it is trained")
    if looks_like(logits_NC) in ("softmax", "percent"):  # a new model's may well lie from 0 to 1
        raise UsageError(
            f"model {student.spec} gives probabilities, of which the loss would take the softmax "
            f"again; leave out its last layer, so that it gives logits"
        )


def check_training(
    student: Student, sample: Any, precision: str, share: int, world: int = 1
) -> Use:
    """Run a forward and a backward pass in training mode on the smallest share of a batch.

    share: rows of that share.
    world: number of processes.

    Weights, buffers and torch's random state stay as they were. Raises UsageError where a pass
    fails, and where no parameter can be trained.
    """
    if not any(p.requires_grad for p in student.model.parameters()):
        raise UsageError(f"model {student.spec} has no parameter that can be trained")
    passes: list[list[str]] = []
    with _left_as_it_was(student, sample.device):
        if share == 1 and len(sample) > 1:
            _check_single(student, sample, precision)
        while len(passes) < PASSES:
            passes.append(_idle(student, sample[:share], precision))
            if world == 1 and not passes[-1]:
                break
    unused = [name for name in passes[0] if all(name in idle for idle in passes)]
    return Use(unused, all(idle == passes[0] for idle in passes))


def _idle(student: Student, sample: Any, precision: str) -> list[str]:
    """The parameters to which no gradient flows from the logits of these inputs."""
    with autocast(sample.device, precision, training=True):
        logits_NC = _run(student.train(), sample, " in training mode")
    if not logits_NC.requires_grad:
        raise UsageError(
            f"the logits of model {student.spec} depend on no parameter that can be trained; does "
            f"it detach them, or run under torch.no_grad?"
        )
    try:
        logits_NC.float().sum().backward()
    except RuntimeError as error:
        raise UsageError(f"model {student.spec} can't be trained: {cause(error)}") from error
    named = student.model.named_parameters()
    idle = [name for name, p in named if p.requires_grad and p.grad is None]
    student.zero_grad(set_to_none=True)
    return idle


def _check_single(student: Student, sample: Any, precision: str) -> None:
    """Raises UsageError where the model can be trained on some rows, but not on one."""
    _idle(student, sample, precision)
    try:
        _idle(student, sample[:1], precision)
    except UsageError as error:
        raise UsageError(
            f"{error}. It trains on two rows, and here a batch is one row, which batch norm can't "
            f"train on; use a larger --batch-size, or more rows"
        ) from error


def _run(student: Student, sample: Any, how: str = "") -> Tensor:
    try:
        logits_NC: Tensor = student(sample.clone() if isinstance(sample, Tensor) else sample)
    except SoftlabelsError:
        raise
    except Exception as error:  # of code that is not ours
        dtypes = {p.dtype for p in student.model.parameters()} - {torch.float32}
        names = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))
        numbers = isinstance(sample, NumberColumns)
        shown = str(sample) if numbers else f"inputs of shape {list(sample.shape[1:])}"
        hint = whole_hint(sample) if numbers else keywords_of(student.model).hint
        raise UsageError(
            f"model {student.spec} can't take {shown}{how}: "
            f"{cause(error)}{f' (its weights are {names}, inputs float32)' * bool(names)}"
            f"{student.made_for}{hint}"
        ) from error
    return logits_NC


@contextmanager
def _left_as_it_was(model: nn.Module, device: torch.device) -> Iterator[None]:
    before = [buffer.clone() for buffer in model.buffers()]
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        model.zero_grad(set_to_none=True)
        with torch.no_grad():
            for buffer, value in zip(model.buffers(), before, strict=True):
                buffer.copy_(value)
