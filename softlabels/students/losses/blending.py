"""A soft part and the hard labels' cross-entropy become a loss.

M scored positions, C classes, S students at once.
"""

from dataclasses import dataclass
from types import EllipsisType

import torch
from torch import Tensor

from softlabels.logits import Logits
from softlabels.soft_targets import Temperature, working
from softlabels.students.losses.checks import (
    as_logits,
    check_alpha,
    check_shape,
    check_teacher,
    check_unlabelled,
)
from softlabels.students.losses.hard import HardLabels
from softlabels.students.losses.part import SoftPart
from softlabels.students.losses.registry import parse_loss

Which = (
    EllipsisType | Tensor
)  # as an index into what has a student in its first dimension: all, or int64


@dataclass(frozen=True)
class Loss:
    """A distillation loss by its word, to be called as `kd_loss` is; `str()` gives its word."""

    part: SoftPart

    def __str__(self) -> str:
        return str(self.part)

    def __call__(
        self,
        student_logits: Tensor,
        teacher_logits: Logits | Tensor,
        labels: Tensor | None = None,
        *,
        T: Temperature,
        alpha: float | Tensor,
        partner_labels: Tensor | None = None,
        mix_weight: Tensor | None = None,
    ) -> Tensor:
        """As `kd_loss`."""
        return blend(
            self.part,
            student_logits,
            teacher_logits,
            labels,
            T=T,
            alpha=alpha,
            partner_labels=partner_labels,
            mix_weight=mix_weight,
        )

    def check(self, teacher: Logits, labelled: bool) -> None:
        """Raises UsageError where it is not for such a teacher, or needs labels and has none."""
        check_teacher(self.part, teacher, teacher.temper(1))
        if not labelled:
            check_unlabelled(self.part, teacher, 1)


def find_loss(text: str, what: str = "loss") -> Loss:
    """A loss by the word that `train --loss` takes, such as `"dkd(1, 8)"` or `"standardise|kd"`:
    a function with the arguments of `kd_loss`. Where a loss has no temperature, T is left unused.

    Raises UsageError for an unknown word, and for numbers that it doesn't take; `what` names the
    option.
    """
    return Loss(parse_loss(text, what))


def blend(
    part: SoftPart,
    student_MC: Tensor,
    teacher: Logits | Tensor,
    labels: Tensor | None,
    *,
    T: Temperature,
    alpha: float | Tensor,
    partner_labels: Tensor | None = None,
    mix_weight: Tensor | None = None,
) -> Tensor:
    """α·soft + (1−α)·CE(labels, student at 1): a scalar, or [S] for logits [S, M, C].

    Its arguments and errors are those of `kd_loss`.
    """
    teacher = as_logits(teacher)
    check_shape(student_MC, teacher)
    alpha = check_alpha(alpha, student_MC)
    soft = teacher.temper(T)
    check_teacher(part, teacher, soft)
    hard = (
        None
        if labels is None
        else HardLabels.of(
            labels, partner_labels, mix_weight, shape=student_MC.shape, link=teacher.link
        )
    )
    if hard is None:
        check_unlabelled(part, teacher, alpha)
    if not student_MC.shape[-2]:  # as on a rank whose part of a batch scores nothing
        return working(student_MC).sum((-2, -1))

    def soft_mean(which: Which) -> Tensor:
        if which is ...:
            return part.mean(student_MC, teacher, soft, hard)
        own_T = T[which] if isinstance(T, Tensor) and T.dim() == 2 else T
        return part.mean(student_MC[which], teacher, teacher.temper(own_T), hard)

    def hard_mean(which: Which) -> Tensor:
        assert hard is not None, "without labels every alpha is 1"
        return hard.loss(student_MC[which], teacher.link)

    loss = student_MC.new_zeros((), dtype=torch.float32)
    for share, mean in ((alpha, soft_mean), (1 - alpha, hard_mean)):
        if (which := _having(share)) is not None:
            loss = loss + _shared(share, which, mean(which))
    return loss


def _having(share: float | Tensor) -> Which | None:
    """The students in whose loss a part has a share: `...` for all of them, None for nobody. What
    is infinite must not be multiplied by 0, which gives NaN, in the loss and in its gradient."""
    if not isinstance(share, Tensor):
        return ... if share > 0 else None
    has_S = share.cpu() > 0
    if bool(has_S.all()):
        return ...
    return has_S.nonzero().flatten() if bool(has_S.any()) else None


def _shared(share: float | Tensor, which: Which, mean: Tensor) -> Tensor:
    """share · mean, of the other students 0. mean: of those in `which`."""
    if not isinstance(share, Tensor):
        return share * mean
    share_S = share.to(mean.device)
    if which is ...:
        return share_S * mean
    part = share_S[which] * mean
    return part.new_zeros(share_S.shape).index_put((which,), part)
