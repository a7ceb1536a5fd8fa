"""Whether a teacher is a function of its row: the same rows in other company give the same.

The comparison is that of `verify --replay` too. N rows, C classes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from softlabels.errors import TeacherError
from softlabels.models.objects import OBJECTS
from softlabels.models.tokens import Tokens
from softlabels.soft_targets import Link, total_variation
from softlabels.teachers.teacher import Teacher

# By how much a probability at T = 1 may differ where kernels of another batch size add in another
# order. Half precision rounds each layer's result to 2⁻⁸ (bf16) or 2⁻¹¹ (fp16) of it, TF32 the
# factors of each product to 2⁻¹¹.
STEADY = {"float32": 1e-3, "tf32": 2e-2, "fp16": 2e-2, "bf16": 2e-2}
# For `verify --replay`: how far logits of today may be from the stored ones, as a part of their
# spread, where kernels of another machine or batch size add in another order. Ten times what two
# runs of today differ by is allowed as well, up to MOST_REPLAYED.
REPLAYED = {"float32": 1e-3, "tf32": 2e-2, "fp16": 2e-2, "bf16": 1e-1}
MOST_REPLAYED = 0.2
ALONE = 8  # rows that are tried alone
REPEATS = 3  # of the batch: a coin that decides for all of its rows may fall alike twice


@dataclass(frozen=True)
class Difference:
    """How far two answers to the same rows are apart: the largest total variation, and its row."""

    how: str
    size: float
    row: int


def difference(how: str, a_NC: Tensor, b_NC: Tensor, link: Link = "softmax") -> Difference:
    moved_N = total_variation(a_NC, b_NC, link).nan_to_num(nan=1.0)
    row = int(moved_N.argmax())
    return Difference(how, float(moved_N[row]), row)


def steady_limit(teacher: Teacher, precision: str) -> float:
    """The largest difference that is rounding, for this precision and the weights' dtype."""
    half = teacher.feed.dtype in (torch.float16, torch.bfloat16)
    return max(STEADY[precision], STEADY["fp16"] if half else 0.0)


def check_steady(
    teacher: Teacher,
    inputs: Tensor | Tokens,
    logits_NC: Tensor,
    precision: str,
    ids: list,
    allowed: bool,
) -> str:
    """Hold `logits_NC`, the teacher's for a batch of these inputs, against what it gives for them
    in reverse order, for every second of them, and for some alone. A remark, or ''.

    Raises TeacherError with the likely cause where a difference is more than rounding; if
    `allowed`, only where the same batch gives other answers each time.
    """

    def again(rows: Tensor) -> Tensor:
        some = inputs[rows.to(inputs.device)]  # a copy
        return teacher.logits(some, precision, spare=True).to(logits_NC.device)

    limit, every, link = steady_limit(teacher, precision), torch.arange(len(inputs)), teacher.link
    differences = [
        _compare("in reverse order", every.flip(0), again, logits_NC, link),
        _compare("in half the batch", every[::2], again, logits_NC, link),
        _alone(every, again, logits_NC, 2 if teacher.feed.rows else ALONE, link),
    ]
    if max(one.size for one in differences) <= limit:
        return "" if not allowed else "--allow-batch-dependence is not needed: no row depends on it"
    repeated = [difference("run twice", again(every), logits_NC, link) for _ in range(REPEATS)]
    twice = max(repeated, key=lambda one: one.size)
    if twice.size > limit:
        raise TeacherError(_random(teacher, twice, ids, limit))
    text = _dependent(teacher, differences, ids, limit)
    if not allowed:
        raise TeacherError(
            f"{text} If that is meant, say --allow-batch-dependence: the batch size is then part "
            f"of the plan"
        )
    return f"warning: {text} That was allowed, with batches of the plan's size"


def check_large(teacher: Teacher, few_NC: Tensor, many_MC: Tensor, ids: list, limit: float) -> None:
    """Raises TeacherError where a teacher answers N rows otherwise in a batch of M, in which they
    come over and over again."""
    places = torch.arange(len(many_MC)) % len(few_NC)
    moved = difference("", many_MC, few_NC[places], teacher.link)
    if moved.size > limit:
        raise TeacherError(
            f"the answers of the teacher {teacher.name} to a row depend on the size of the batch: "
            f"in one of {len(many_MC):,}, a probability of the row with id "
            f"{ids[places[moved.row]]!r} differs by {moved.size:.2g} from what it is in one of "
            f"{len(few_NC):,} (rounding: {limit:g} at most). --batch-size {len(few_NC)}, in place "
            f"of auto, keeps to what was tried"
        )


def _compare(
    how: str, rows: Tensor, again: Callable[[Tensor], Tensor], logits_NC: Tensor, link: Link
) -> Difference:
    moved = difference(how, again(rows), logits_NC[rows.to(logits_NC.device)], link)
    return Difference(how, moved.size, int(rows[moved.row]))


def _alone(
    every: Tensor, again: Callable[[Tensor], Tensor], logits_NC: Tensor, count: int, link: Link
) -> Difference:
    rows = torch.linspace(0, len(every) - 1, min(count, len(every))).round().long()
    parts = [_compare("alone", row[None], again, logits_NC, link) for row in rows]
    return max(parts, key=lambda one: one.size)


def _random(teacher: Teacher, twice: Difference, ids: list, limit: float) -> str:
    held = teacher.kind in OBJECTS  # in eval mode while it runs
    parts = [] if held else teacher.module.named_modules()
    training = [name for name, part in parts if part.training and name]
    cause = "dropout, sampling, or something that it keeps between calls"
    if training and teacher.kind not in ("torchscript", "exported"):
        shown = ", ".join(training[:3]) + ", …" * (len(training) > 3)
        cause += f"; still in train mode: {shown}"
    elif teacher.kind in ("torchscript", "exported"):
        cause += (
            ". A traced program keeps the mode that it was traced in, which eval() can't undo: "
            "trace it again after module.eval()"
        )
    return (
        f"the teacher {teacher.name} does not agree with itself: run twice on the same batch, a "
        f"probability of the row with id {ids[twice.row]!r} differs by {twice.size:.2g} (rounding: "
        f"{limit:g} at most). Something in it is random: {cause}"
    )


def _dependent(teacher: Teacher, differences: list[Difference], ids: list, limit: float) -> str:
    order, *company = differences
    shown, what, cause = order, "its place in the batch", "Does it sum, sort or index over it?"
    if order.size <= limit:
        shown, what = max(company, key=lambda one: one.size), "the rows beside it"
        cause = (
            "Are there batch statistics in it: batch norm without running statistics or in train "
            "mode, a mean or a softmax over the batch, dynamic quantization? Save or trace it in "
            "eval mode."
        )
    return (
        f"the answers of the teacher {teacher.name} to a row depend on {what}: {shown.how}, a "
        f"probability of the row with id {ids[shown.row]!r} differs by {shown.size:.2g} from what "
        f"it is in a batch of {len(ids):,} (rounding: {limit:g} at most). {cause}"
    )
