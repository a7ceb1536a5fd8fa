"""What stage one knows of a teacher. Shapes: N rows, C classes."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from softlabels.errors import (
    LabelSpaceMismatch,
    SoftlabelsError,
    TeacherError,
    UsageError,
)
from softlabels.label_spaces import LabelSpace, match_label_spaces
from softlabels.models import cause, logits_of
from softlabels.system.devices import autocast, tf32
from softlabels.teachers.feeding import Feed, weights_dtype


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
    state dict lies; remarks: what a user has to be told of all this; feed: how it takes inputs.
    """

    name: str
    kind: str
    fingerprint: str
    module: nn.Module
    model: str | None = None
    preprocess: str | None = None
    class_names: list[str] | None = None
    data: dict[str, Any] = field(default_factory=dict)
    classes: int | None = None
    weights: str | None = None
    remarks: list[str] = field(default_factory=list)
    feed: Feed = field(default_factory=Feed)

    def __repr__(self) -> str:
        model = f", {self.model}" if self.model else ""
        return f"Teacher({self.name}, {self.kind}{model})"

    def __post_init__(self) -> None:
        self.feed.dtype = self.feed.dtype or weights_dtype(self.module)

    def to(self, device: torch.device) -> "Teacher":
        self.module.to(device)
        return self

    @torch.inference_mode()
    def logits(self, inputs: Tensor, precision: str = "float32") -> Tensor:
        """Raw logits, float32 [N, C] (float64 stays), on the inputs' device.

        precision: float32 (IEEE, never TF32), tf32, bf16 or fp16.

        Raises TeacherError where the teacher rejects the inputs, or gives something else than
        one row of numbers for each input.
        """

        def call(part: Tensor) -> Tensor:
            output = self.module(part.clone())  # it may work in place,
            logits_NC = logits_of(output, len(part), self.classes, f"the teacher {self.name}")
            return logits_NC.clone()  # or give the same memory each time, as CUDA graphs do

        try:
            with tf32(precision == "tf32"), autocast(inputs.device, precision):
                logits_NC = self.feed.run(call, inputs)
        except UsageError as error:
            raise TeacherError(str(error)) from error
        except SoftlabelsError:
            raise
        except Exception as error:  # of code that is not ours
            if isinstance(error, torch.OutOfMemoryError):
                raise TeacherError(
                    f"out of memory with {len(inputs)} rows at once; use a smaller --batch-size"
                ) from error
            raise TeacherError(
                f"the teacher {self.name} can't take inputs of shape "
                f"{list(inputs.shape)}: {_reason(error)}. Check --data and --preprocess; if "
                f"it was traced for another number of rows, give that as --batch-size"
            ) from error
        return logits_NC if logits_NC.dtype == torch.float64 else logits_NC.float()

    def check_classes(self, classes: int, class_names: list[str] | None) -> None:
        """Raises TeacherError for another number of classes than the data has, and for one."""
        if classes == 1:
            raise TeacherError(
                f"the teacher {self.name} gives one number a row, whose softmax is always 1. A "
                f"dump has a logit for each class: of a binary teacher that ends in a sigmoid, "
                f"give two columns, torch.cat([torch.zeros_like(z), z], 1), or train it with two"
            )
        if class_names is not None and len(class_names) != classes:
            raise TeacherError(
                f"the teacher {self.name} has {classes} classes, "
                f"{LabelSpace('the data', len(class_names), class_names)}; use the data that it "
                f"was trained for"
            )


# What files of teachers are called that say nothing of the teacher.
PLAIN_NAMES = re.compile(
    r"t|teacher|logits|probs|(pytorch_|best_|final_)?model(_best|_final)?|weights|state_dict"
    r"|checkpoint|ckpt|best|last|final",
    re.IGNORECASE,
)


def suggest_name(name: str) -> list[str]:
    """What to say where records would call a teacher `model`, after its file, or nothing."""
    if not PLAIN_NAMES.fullmatch(name):
        return []
    return [
        f"records and the card will call the teacher {name!r}, after its file; --name, such as "
        f"--name resnet50-a1, says what it is"
    ]


def check_class_names(model: str, ours: list[str] | None, theirs: list[str] | None) -> None:
    """Raises LabelSpaceMismatch where a teacher and the data name other classes, or the same in
    another order: a dump has one."""
    if ours and theirs:
        teacher = LabelSpace(f"the teacher {model}", len(ours), ours)
        found = match_label_spaces(teacher, LabelSpace("the data", len(theirs), theirs))
        if found.order is not None:
            raise LabelSpaceMismatch(f"{found.note}. A dump has one: bring the data into it")


def _reason(error: Exception) -> str:
    return first_line(error) if isinstance(error, RuntimeError) else cause(error)


def first_line(error: BaseException) -> str:
    """The line that says why: TorchScript's own message comes last, below its stack."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    traced = "TorchScript interpreter" in lines[0]
    return re.sub(r"^(\w+\.)*\w*(Error|Exception): ", "", lines[-1]) if traced else lines[0]
