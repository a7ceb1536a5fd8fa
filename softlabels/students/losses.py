"""Losses of distillation: means over scored positions, in nats.

N rows; M scored positions of them, for a classifier as many; C classes; S students at once.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from softlabels.errors import LogitsError, UsageError
from softlabels.logits import DenseLogits, Logits
from softlabels.probabilities import looks_like
from softlabels.soft_targets import Temperature

LOOKED_AT = 64  # rows of a plain tensor that are checked for probabilities
EVIDENCE = 2  # rows at least: a single row may sum to 1 by chance


def kd_loss(
    student_logits_MC: Tensor,
    teacher_logits: Logits | Tensor,
    labels_M: Tensor | None = None,
    *,
    T: Temperature,
    alpha: float,
    partner_labels: Tensor | None = None,
    mix_weight: Tensor | None = None,
) -> Tensor:
    """α·T²·KL(teacher ‖ student, both at T) + (1−α)·CE(labels, student at 1): a scalar.

    Hinton, Vinyals, Dean 2015, section 2: gradients of the soft part scale as 1/T², so T² keeps
    the two parts' shares when T changes. Positions with label −1 have no hard part. With α = 1
    labels are not needed. float32 inside, whatever the logits' dtype. Of a multi-label teacher's
    `targets`, KL and cross-entropy are sums over labels.

    student_logits: [M, C], or [S, M, C] of S students, whose losses are then [S].
    teacher_logits: a batch's `targets`, or raw logits [M, C]. The first rows of a tensor are
    checked for probabilities, which waits for an accelerator; `targets` are not checked.
    labels: int64 [M], −1 for none; of a multi-label teacher 0 and 1 [M, C], −1 for unknown.
    T: a number, or one for each position [M], or for each student [S, 1].
    partner_labels, mix_weight: of inputs mixed by mixup or cutmix, a batch's `partner_label`, as
    labels, and `mix_weight`, float32 [M]: the hard part is then w·CE(labels) + (1−w)·CE(partners').

    Raises UsageError for T ≤ 0 or not finite, α outside [0, 1], α < 1 without labels, one of
    partner_labels and mix_weight without the other, and another number of classes or positions;
    LogitsError for probabilities in the place of the teacher's logits.
    """
    if not 0 <= alpha <= 1:
        raise UsageError(f"alpha is {alpha}; it must be a number from 0 to 1")
    if isinstance(teacher_logits, Tensor):
        teacher_logits = _wrapped(teacher_logits)
    check_shape(student_logits_MC, teacher_logits)
    targets = teacher_logits.temper(T)
    loss = student_logits_MC.new_zeros((), dtype=torch.float32)
    if alpha > 0:
        kl_M = targets.kl(student_logits_MC)
        T = targets.T.to(kl_M) if isinstance(targets.T, Tensor) else targets.T
        loss = loss + alpha * (T**2 * kl_M).mean(-1)
    if alpha < 1:
        if labels_M is None:
            raise UsageError(f"alpha is {alpha}, but there are no labels; use alpha 1")
        hard = hard_loss if teacher_logits.link == "softmax" else hard_label_loss
        if partner_labels is None and mix_weight is None:
            loss = loss + (1 - alpha) * hard(student_logits_MC, labels_M)
        else:
            partners = _partners(partner_labels, mix_weight, labels_M)
            loss = loss + (1 - alpha) * mixed_loss(hard, student_logits_MC, labels_M, *partners)
    return loss


def mixed_loss(
    hard: Callable[..., Tensor],
    logits_MC: Tensor,
    labels_M: Tensor,
    partner_labels_M: Tensor,
    weight_M: Tensor,
) -> Tensor:
    """w·CE(labels) + (1−w)·CE(partners' labels), as mixup and cutmix have it: Zhang et al. 2018,
    section 2, since cross-entropy is linear in its target. hard: `hard_loss` or `hard_label_loss`.
    weight: of each input's own labels, [M]."""
    own = hard(logits_MC, labels_M, weight_M)
    return own + hard(logits_MC, partner_labels_M, 1 - weight_M)


def _partners(
    partner_labels_M: Tensor | None, weight_M: Tensor | None, labels_M: Tensor
) -> tuple[Tensor, Tensor]:
    if partner_labels_M is None or weight_M is None:
        there, missing = ("mix_weight", "partner_labels")[:: 1 if partner_labels_M is None else -1]
        raise UsageError(f"{there} is given without {missing}; a batch of mixed inputs has both")
    if partner_labels_M.shape != labels_M.shape or weight_M.shape != labels_M.shape[:1]:
        raise UsageError(
            f"partner_labels have the shape {list(partner_labels_M.shape)} and mix_weight "
            f"{list(weight_M.shape)}; the labels have {list(labels_M.shape)}, so expected are "
            f"{list(labels_M.shape)} and {list(labels_M.shape[:1])}"
        )
    return partner_labels_M, weight_M


def hard_loss(logits_MC: Tensor, labels_M: Tensor, weight_M: Tensor | None = None) -> Tensor:
    """Cross-entropy with hard labels, a scalar, or [S] for logits [S, M, C]; positions with label
    −1 count as 0. weight: by which each position's is multiplied."""
    if logits_MC.dim() == 3:
        return torch.stack([hard_loss(one_MC, labels_M, weight_M) for one_MC in logits_MC])
    how = "sum" if weight_M is None else "none"
    loss_M = torch.nn.functional.cross_entropy(
        logits_MC.float(), labels_M, ignore_index=-1, reduction=how
    )
    summed = loss_M if weight_M is None else (loss_M * weight_M).sum()
    return summed / len(labels_M)


def hard_label_loss(logits_MC: Tensor, labels_MC: Tensor, weight_M: Tensor | None = None) -> Tensor:
    """Binary cross-entropy with hard labels, summed over labels: a scalar, or [S] for logits
    [S, M, C]. labels: 0 or 1, [M, C]; those below 0 are unknown and count as 0. weight: by which
    each position's is multiplied. Raises UsageError for labels of another shape."""
    if labels_MC.shape != logits_MC.shape[-2:]:
        raise UsageError(
            f"the labels have the shape {list(labels_MC.shape)}; those of a multi-label teacher "
            f"are 0 and 1 for each of its labels, {list(logits_MC.shape[-2:])}"
        )
    x_MC = logits_MC.float()
    loss_MC = binary_cross_entropy_with_logits(
        x_MC, labels_MC.to(x_MC).expand_as(x_MC), (labels_MC >= 0).to(x_MC), reduction="none"
    )
    loss_M = loss_MC.sum(-1)
    return (loss_M if weight_M is None else loss_M * weight_M).mean(-1)


def check_shape(student_logits_MC: Tensor, teacher: Logits) -> None:
    """Raises UsageError where a student's logits are not [M, C], or [S, M, C], of these targets."""
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


def _wrapped(teacher_logits_MC: Tensor) -> Logits:
    if teacher_logits_MC.dim() != 2:
        raise UsageError(
            f"the teacher's logits have the shape {list(teacher_logits_MC.shape)}; expected is "
            f"[rows, classes]"
        )
    first = teacher_logits_MC[:LOOKED_AT]
    positive = (
        len(first) >= EVIDENCE and float(first.min()) >= 0
    )  # rare for logits, and quick to check
    if positive and looks_like(first) == "softmax":
        raise LogitsError(
            "the rows of the teacher's logits are 0 or more and sum to 1: these are probabilities, "
            'to which no temperature can be applied. Give raw logits, such as batch["logits"] or '
            'batch["targets"], and not batch["soft_target"]'
        )
    return DenseLogits(teacher_logits_MC)
