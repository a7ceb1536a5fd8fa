"""What a loss refuses, before anything is computed.

M scored positions, C classes, S students at once.
"""

from collections.abc import Mapping
from numbers import Real

from torch import Tensor

from softlabels.errors import LogitsError, UsageError
from softlabels.logits import DenseLogits, Logits
from softlabels.probabilities import looks_like, scaled_probabilities
from softlabels.soft_targets import SoftTargets
from softlabels.students.losses.part import WORDS, SoftPart, known
from softlabels.students.losses.registry import fitting
from softlabels.system.humanize import counted, either

LOOKED_AT = 64  # rows of a plain tensor that are checked for probabilities
EVIDENCE = 2  # rows at least: a single row may sum to 1 by chance
FOUND = {
    "softmax": "are 0 or more and their rows sum to 1",
    "percent": "are 0 or more and their rows sum to 100",
    "sigmoid": "all lie from 0 to 1, as those of a sigmoid do",
}


def check_alpha(alpha: float | Tensor, student_MC: Tensor) -> float | Tensor:
    """`alpha` as a number, or as float32 [S] of logits [S, M, C], on the device where it is. Raises
    UsageError for one outside [0, 1], and for another shape."""
    if isinstance(alpha, Tensor) and alpha.dim():
        stack = student_MC.shape[:-2]
        if alpha.shape != stack:
            expected = f"one of each student, {list(stack)}" if stack else "a number"
            raise UsageError(f"alpha has the shape {list(alpha.shape)}; expected is {expected}")
        for value in alpha.detach().aminmax() if alpha.numel() else ():
            check_alpha(value.item(), student_MC)
        return alpha.float()
    number = alpha.item() if isinstance(alpha, Tensor) else alpha
    if not isinstance(number, Real):
        raise UsageError(f"alpha is {number!r}; it must be a number from 0 to 1, such as 0.5")
    if not 0 <= number <= 1:
        raise UsageError(f"alpha is {number}; it must be a number from 0 to 1")
    return float(number)


def check_teacher(part: SoftPart, teacher: Logits, soft: SoftTargets) -> None:
    """Raises UsageError where a loss is not for such a teacher; it names those that are."""
    has = known(teacher, soft)
    if part.fits(teacher.link, has):
        return
    others, given = either(fitting(teacher.link, has)), type(teacher).__name__
    if teacher.link not in part.links:
        raise UsageError(
            f"{part} compares classes of which one is right, and these targets, {given}, are of a "
            f"multi-label teacher; use {others}"
        )
    raise UsageError(
        f"{part} needs {WORDS[part.needs]}, and these targets, {given}, have {WORDS[has]} alone; "
        f"use {others}"
    )


def check_unlabelled(part: SoftPart, teacher: Logits, alpha: float | Tensor) -> None:
    """Raises UsageError for what needs the labels that are missing."""
    if isinstance(alpha, Tensor) or alpha < 1:
        least = float(alpha.min()) if isinstance(alpha, Tensor) else alpha
        if least < 1:
            raise UsageError(f"alpha is {least:g}, but there are no labels; use alpha 1")
    if part.needs_labels:
        others = either(fitting(teacher.link, known(teacher, teacher.temper(1)), labelled=False))
        raise UsageError(
            f"{part} is about the label's class, and there are no labels; use {others}"
        )


def check_shape(student_logits_MC: Tensor, teacher: Logits) -> None:
    """Raises UsageError where a student's logits are not [M, C], or [S, M, C], of these targets."""
    if not isinstance(student_logits_MC, Tensor):
        raise UsageError(
            f"the student's logits are a {type(student_logits_MC).__name__}; give the tensor in "
            f"it, such as outputs.logits"
        )
    shape = tuple(student_logits_MC.shape)
    if len(shape) not in (2, 3):
        raise UsageError(
            f"the student's logits have the shape {list(shape)}; expected are [M, C], or [S, M, C] "
            f"of S students"
        )
    if shape[-1] != teacher.classes:
        raise UsageError(
            f"the student gives {shape[-1]:,} logits a row, and the teacher has "
            f"{teacher.classes:,} classes; build the student with as many"
        )
    if shape[-2] != len(teacher):
        raise UsageError(
            f"the student's logits are of {shape[-2]:,} rows and the targets of {len(teacher):,}; "
            f"give both of the same batch"
        )


def as_logits(teacher: Logits | Tensor) -> Logits:
    """Raises UsageError for a tensor of another shape, for the targets of several dumps and for
    what is no logits; LogitsError for probabilities."""
    if isinstance(teacher, Tensor):
        return _wrapped(teacher)
    if isinstance(teacher, Mapping) and "targets" not in teacher:
        raise UsageError(
            f"the targets are those of {counted(len(teacher), 'dump')}, by name; choose one, such "
            f'as batch["targets"][{next(iter(teacher), "")!r}], or mix them'
        )
    if not hasattr(teacher, "temper"):
        what = "soft targets" if isinstance(teacher, SoftTargets) else "no logits"
        raise UsageError(
            f"the teacher's logits are {what}, a {type(teacher).__name__}; give "
            f'batch["targets"], or a tensor of raw logits, which the loss tempers itself'
        )
    return teacher


def _wrapped(teacher_logits_MC: Tensor) -> Logits:
    if teacher_logits_MC.dim() != 2:
        raise UsageError(
            f"the teacher's logits have the shape {list(teacher_logits_MC.shape)}; expected is "
            f"[rows, classes]"
        )
    _refuse_probabilities(teacher_logits_MC[:LOOKED_AT].detach())
    return DenseLogits(teacher_logits_MC)


def _refuse_probabilities(first_MC: Tensor) -> None:
    """Raises LogitsError for what `dump` refuses in a teacher's answers."""
    if len(first_MC) < EVIDENCE or not first_MC.numel() or not float(first_MC.min()) >= 0:
        return  # nearly all logits: some are below 0, which is quick to see
    kind = looks_like(first_MC)
    if kind == "sigmoid" and bool((first_MC == first_MC[0, 0]).all()):
        kind = None  # an untrained model's zeros
    total = None if kind else scaled_probabilities(first_MC)
    if kind or total is not None:
        found = FOUND[kind] if kind else f"are 0 or more and their rows sum to {total:.6g}"
        sure = kind in ("softmax", "percent")
        unless = "" if sure else ". If these are logits, give softlabels.DenseLogits(logits)"
        raise LogitsError(
            f"the teacher's logits {found}: these are probabilities, to which no temperature can "
            f'be applied. Give raw logits, such as batch["logits"] or batch["targets"], and not '
            f'batch["soft_target"]{unless}'
        )
