"""Losses of distillation. N rows, C classes; every loss is a mean over rows, in nats."""

import torch
from torch import Tensor

from softlabels.errors import UsageError
from softlabels.logits import DenseLogits


def kd_loss(
    student_logits_NC: Tensor,
    teacher_logits_NC: Tensor,
    labels_N: Tensor | None = None,
    *,
    T: float,
    alpha: float,
) -> Tensor:
    """α·T²·KL(teacher ‖ student, both at T) + (1−α)·CE(labels, student at 1): a scalar.

    Hinton, Vinyals, Dean 2015, section 2: gradients of the soft part scale as 1/T², so T² keeps
    the two parts' shares when T changes. Rows with label −1 have no hard part. With α = 1 labels
    are not needed. float32 inside, whatever the logits' dtype.

    Raises UsageError for T ≤ 0 or not finite, α outside [0, 1], and α < 1 without labels.
    """
    if not 0 <= alpha <= 1:
        raise UsageError(f"alpha is {alpha}; it must be a number from 0 to 1")
    targets = DenseLogits(teacher_logits_NC).temper(T)
    loss = student_logits_NC.new_zeros((), dtype=torch.float32)
    if alpha > 0:
        loss = loss + alpha * targets.T**2 * targets.kl(student_logits_NC).mean()
    if alpha < 1:
        if labels_N is None:
            raise UsageError(f"alpha is {alpha}, but there are no labels; use alpha 1")
        loss = loss + (1 - alpha) * hard_loss(student_logits_NC, labels_N)
    return loss


def hard_loss(logits_NC: Tensor, labels_N: Tensor) -> Tensor:
    """Cross-entropy with hard labels, a scalar; rows with label −1 count as 0."""
    summed = torch.nn.functional.cross_entropy(
        logits_NC.float(), labels_N, ignore_index=-1, reduction="sum"
    )
    return summed / len(labels_N)
