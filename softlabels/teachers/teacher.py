"""What stage one knows of a teacher. Shapes: N rows, C classes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from softlabels.devices import autocast
from softlabels.errors import (
    LabelSpaceMismatch,
    LogitsError,
    SoftlabelsError,
    TeacherError,
    UsageError,
)
from softlabels.label_spaces import LabelSpace, match_label_spaces
from softlabels.logits import looks_like_probabilities
from softlabels.models import logits_of


@dataclass(frozen=True)
class TeacherFile:
    """What a loader is given: a file, its fingerprint, and what the user said of it.

    model builds what a bare state dict belongs to, for inputs of the shape `input_shape()`;
    weights: where in the file it lies.
    """

    path: Path
    fingerprint: str
    model: str | None = None
    input_shape: Callable[[], Sequence[int]] | None = None
    trust_pickle: bool = False
    weights: str | None = None


@dataclass
class Teacher:
    """A function from preprocessed inputs [N, …] to logits [N, C], and where it comes from.

    name: for folders; kind: checkpoint, state_dict, torchscript, exported or pickle;
    fingerprint: `sha256:` of the file; model: the spec where there is one; preprocess, data and
    class_names: what a checkpoint remembers; classes: those of the data, where they are known, by
    which logits are told from a teacher's other outputs; weights: where in a file of several the
    state dict lies; remarks: what a user has to be told of all this.
    """

    name: str
    kind: str
    fingerprint: str
    module: nn.Module
    model: str | None = None
    preprocess: str | None = None
    class_names: list[str] | None = None
    data: dict[str, Any] = field(default_factory=dict)
    call: Callable[[Tensor], Any] | None = None
    classes: int | None = None
    weights: str | None = None
    remarks: list[str] = field(default_factory=list)

    def to(self, device: torch.device) -> "Teacher":
        self.module.to(device)
        return self

    @torch.inference_mode()
    def logits(self, inputs: Tensor, precision: str = "float32") -> Tensor:
        """Raw logits, float32 [N, C] (float64 stays), on the inputs' device.

        Raises TeacherError where the teacher rejects the inputs, or gives something else than
        one row of numbers for each input.
        """
        try:
            with autocast(inputs.device, precision):
                output = (self.call or self.module)(inputs)
        except SoftlabelsError:
            raise
        except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise TeacherError(
                    f"out of memory with {len(inputs)} rows at once; use a smaller --batch-size"
                ) from error
            raise TeacherError(
                f"the teacher {self.name} can't take inputs of shape {list(inputs.shape[1:])}: "
                f"{first_line(error)}. Check --data and --preprocess"
            ) from error
        try:
            logits_NC = logits_of(output, len(inputs), self.classes, f"the teacher {self.name}")
        except UsageError as error:
            raise TeacherError(str(error)) from error
        return logits_NC if logits_NC.dtype == torch.float64 else logits_NC.float()

    def probe(self, inputs: Tensor, class_names: list[str] | None, precision: str) -> int:
        """Run a few rows before anything is written; the number of classes.

        Raises TeacherError or LabelSpaceMismatch for other classes than the data names, and
        LogitsError where the teacher applies a softmax itself.
        """
        check_class_names(self.name, self.class_names, class_names)
        self.classes = self.classes if class_names is None else len(class_names)
        logits_NC = self.logits(inputs, precision)
        classes = logits_NC.shape[1]
        if class_names is not None and len(class_names) != classes:
            raise TeacherError(
                f"the teacher {self.name} has {classes} classes, the data {len(class_names)} "
                f"({', '.join(class_names[:3])}, …); use the data that it was trained for"
            )
        if classes > 1 and looks_like_probabilities(logits_NC):
            raise LogitsError(
                f"the teacher {self.name} gives probabilities (rows sum to 1), so it ends in a "
                f"softmax. Raw logits are needed: a temperature can't be applied to "
                f"probabilities. Save the model without its last softmax"
            )
        return classes


def check_class_names(model: str, ours: list[str] | None, theirs: list[str] | None) -> None:
    """Raises LabelSpaceMismatch where a teacher and the data name other classes, or the same in
    another order: a dump has one."""
    if ours and theirs:
        teacher = LabelSpace(f"the teacher {model}", len(ours), ours)
        found = match_label_spaces(teacher, LabelSpace("the data", len(theirs), theirs))
        if found.order is not None:
            raise LabelSpaceMismatch(f"{found.note}. A dump has one: bring the data into it")


def first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
