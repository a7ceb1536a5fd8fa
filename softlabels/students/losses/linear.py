"""The loss of a language model's student, from its last hidden states and its head.

Shapes: N positions, M scored ones of them, D numbers in a hidden state, V rows of a head, C classes
that count.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from softlabels.errors import LogitsError, UsageError
from softlabels.features import LinearHead, check_hidden
from softlabels.logits import Logits
from softlabels.soft_targets import check_temperature
from softlabels.students.losses.checks import as_logits, check_alpha, check_unlabelled
from softlabels.students.losses.chunked import PROCESSOR, ChunkedLoss, Task
from softlabels.students.losses.divergences import ForwardKL
from softlabels.students.losses.hard import HardLabels


def linear_kd_loss(
    hidden_ND: Tensor,
    head_weight_VD: Tensor,
    targets: Logits | Tensor,
    labels_N: Tensor | None = None,
    *,
    T: float,
    alpha: float,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    soft_cap: float | None = None,
    scale: float = 1.0,
    valid: int | None = None,
) -> Tensor:
    """`kd_loss` of a language model, whose logits [N, V] are never held: a scalar.

    It is α·T²·KL(teacher ‖ student, both at T) + (1−α)·CE(labels, student at 1), the mean over
    scored positions, of the student's logits z = hidden·Wᵀ + bias, times `scale`, then
    soft_cap·tanh(z/soft_cap). They are made for some positions at a time, and the gradients of
    hidden states, weight and bias with them, in one pass: memory is that of these gradients and of
    a few logits. There is no gradient of a gradient, and none of the targets.

    Entry i of targets and labels is what is compared with the student's hidden state i, which
    speaks of token i + 1. A model's teacher logits i do too; labels have to be shifted:

        hidden, labels = outputs[0][:, :-1].flatten(0, 1), input_ids[:, 1:].flatten()

    hidden: [N, D], as the student's head takes them, or [B, S, D]; labels, mask and a tensor of
    targets may have B and S too. Products run in the dtype that autocast asks
    for, else in that of hidden states and weight; all else in float32, or float64.
    head_weight: [V, D]; gradients are in each parameter's dtype.
    targets: raw logits [N, C] in any float dtype, a batch's `targets` or `FeatureLogits`, which
    make their logits for some positions at a time. They may lie on another device, such as the CPU.
    labels: whole numbers [N], the next tokens, below 0 for none, such as −100. Positions without a
    label have no hard part, but count in the mean.
    T, alpha: numbers; alpha from 0 to 1. With alpha = 1 labels are not needed.
    mask: bool [N], which positions are scored; all where it is not given. Hidden states and labels
    have all N positions; targets those N, or the M scored ones alone. Where none is scored the loss
    is 0, and so is each gradient. Times M, the loss is the sum over positions: divide that by the
    positions of all ranks, or of all parts of an accumulated step.
    bias, soft_cap, scale, valid: of the student's head, as `LinearHead` has them. `valid` is also
    needed where targets and head have unlike numbers of classes, since one of them is padded: then
    so many count in both.

    Raises UsageError for T ≤ 0 or not finite, α outside [0, 1], α < 1 without labels, another shape
    or dtype, a number of classes that differs without `valid`, labels that are no class that
    counts, and targets of a multi-label teacher or without probabilities; LogitsError for
    probabilities in the place of logits and, on the CPU, for a scored position where the teacher's
    logits are not finite (on an accelerator, which would be waited for, the loss is NaN then, as it
    is for a student whose logits are not finite).
    """
    hidden_ND, targets, labels_N, mask = _flattened(hidden_ND, targets, labels_N, mask)
    head = LinearHead(head_weight_VD, bias, soft_cap, scale, valid)
    check_hidden(hidden_ND, head, "the student's")
    T, alpha = check_temperature(T), float(check_alpha(alpha, hidden_ND))
    targets = as_logits(targets)
    count, classes = len(hidden_ND), _common_classes(head, targets)
    head = replace(head, valid=classes)
    positions_M = _scored(mask, count, hidden_ND.device)
    of_targets = _scored_targets(targets, positions_M, count)
    labels_M = None
    if labels_N is None:
        check_unlabelled(ForwardKL(), targets, alpha)
    elif alpha < 1:
        labels_M = _scored_labels(labels_N, positions_M, count, classes).to(hidden_ND.device)
    if positions_M is not None:
        hidden_ND = hidden_ND.index_select(0, positions_M)
    parameters = (hidden_ND, head_weight_VD, bias)
    with_gradients = [
        torch.is_grad_enabled() and x is not None and x.requires_grad for x in parameters
    ]
    task = Task(head, targets, of_targets, labels_M, T, alpha, with_gradients)
    loss = ChunkedLoss.apply(*parameters, task)
    if loss.device.type == "cpu" and alpha and not loss.isfinite():
        _name_what_is_not_finite(task, positions_M)
    return loss


def _flattened(hidden: Tensor, *others: Any) -> tuple[Any, ...]:
    """Hidden states [..., D] as [N, D], and whatever has a value for each position likewise."""
    if not isinstance(hidden, Tensor) or hidden.dim() < 3:
        return hidden, *others
    shape = hidden.shape[:-1]
    last = len(shape) - 1
    return hidden.flatten(0, last), *(
        x.flatten(0, last) if isinstance(x, Tensor) and x.shape[: last + 1] == shape else x
        for x in others
    )


def _common_classes(head: LinearHead, targets: Logits) -> int:
    """C. Raises UsageError where it is not known, and for targets that have no such classes."""
    kind, rows = type(targets).__name__, len(head.weight_VD)
    if targets.link != "softmax":
        raise UsageError(
            f"linear_kd_loss compares classes of which one is right, and these targets, {kind}, "
            f"are of a multi-label teacher; use kd_loss"
        )
    if not targets.is_dense and not targets.temper(1).has_probs:
        raise UsageError(
            f"linear_kd_loss needs the probability of each class, and these targets, {kind}, have "
            f"a cross-entropy alone; use kd_loss"
        )
    if head.valid is None and rows != targets.classes:
        raise UsageError(
            f"the student's head has {rows:,} rows, and the teacher has {targets.classes:,} "
            f"classes. If both have the same tokens and the rest is padding, say how many tokens "
            f"there are: valid={min(rows, targets.classes)}; else build the student with as many"
        )
    if head.classes > targets.classes:
        raise UsageError(
            f"valid is {head.classes:,}, and the teacher has {targets.classes:,} classes; give "
            f"the number of tokens that both have"
        )
    if head.classes < targets.classes and not targets.is_dense:
        raise UsageError(
            f"valid is {head.classes:,}, and these targets, {kind}, are the probabilities of "
            f"{targets.classes:,} classes, of which none can be left out"
        )
    return head.classes


def _scored(mask: Tensor | None, count: int, device: torch.device) -> Tensor | None:
    """The positions that are scored, int64 [M]; None for all."""
    if mask is None:
        return None
    if not isinstance(mask, Tensor) or mask.shape != (count,) or mask.dtype != torch.bool:
        is_tensor = isinstance(mask, Tensor)
        given = f"{mask.dtype} {list(mask.shape)}" if is_tensor else type(mask).__name__
        raise UsageError(
            f"mask is {given}; expected is a tensor of bool [{count}], True where a position is "
            f"scored, such as mask.bool().flatten()"
        )
    positions_M = mask.to(device).nonzero()[:, 0]
    return None if len(positions_M) == count else positions_M


def _scored_targets(targets: Logits, positions_M: Tensor | None, count: int) -> Tensor | None:
    """Which of the targets are of scored positions, int64 [M]; None for all."""
    if len(targets) == count:
        return positions_M
    if positions_M is not None and len(targets) == len(positions_M):
        return None
    masked = "" if positions_M is None else f", of which {len(positions_M):,} are scored"
    raise UsageError(
        f"the hidden states are of {count:,} positions{masked}, and the targets of "
        f"{len(targets):,}; give both of the same positions"
    )


def _scored_labels(
    labels_N: Tensor, positions_M: Tensor | None, count: int, classes: int
) -> Tensor:
    if positions_M is not None and isinstance(labels_N, Tensor) and labels_N.shape == (count,):
        labels_N = labels_N.index_select(0, positions_M.to(labels_N.device))
        count = len(positions_M)
    return HardLabels.of(labels_N, None, None, shape=(count, classes), link="softmax").own


def _name_what_is_not_finite(task: Task, positions_M: Tensor | None) -> None:
    """Raises LogitsError for the first position whose targets are not finite, if there is one."""
    size, before = max(1, PROCESSOR.teacher // task.head.classes), 0
    for targets in task.teacher(size):
        values_RC, _ = task.tempered(targets)
        bad_R = (~values_RC.isfinite().all(-1)).nonzero()[:, 0]
        if len(bad_R):
            number = before + int(bad_R[0])
            values_C = values_RC[bad_R[0]]
            bad_class = int((~values_C.isfinite()).nonzero()[0, 0])
            position = number if positions_M is None else int(positions_M[number])
            raise LogitsError(
                f"the teacher's logits of position {position} are not finite: "
                f"{values_C[bad_class].item()} for class {bad_class}. Leave such "
                f"positions out by the mask, and padding of the vocabulary by valid"
            )
        before += len(values_RC)
