"""The hard part of a loss: cross-entropy with labels, the same for every soft part.

M positions, C classes, S students at once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from softlabels.errors import UsageError
from softlabels.soft_targets import Link, working


@dataclass(frozen=True)
class HardLabels:
    """The labels of M positions, and of mixed inputs those of their partners.

    own, partner: int64 [M], −1 for none; of a multi-label teacher 0 and 1 [M, C], below 0 unknown
    weight: of the own labels, float32 [M]; None where nothing is mixed
    """

    own: Tensor
    partner: Tensor | None = None
    weight: Tensor | None = None

    @classmethod
    def of(
        cls,
        own: Tensor,
        partner: Tensor | None,
        weight: Tensor | None,
        *,
        shape: Sequence[int],
        link: Link,
    ) -> "HardLabels":
        """shape: of the student's logits, [..., M, C]. Raises UsageError for one of partner and
        weight without the other, and for what are no labels of these positions and classes."""
        own = _checked("labels", own, shape, link)
        if partner is None and weight is None:
            return cls(own)
        if partner is None or weight is None:
            there, missing = ("mix_weight", "partner_labels")[:: 1 if partner is None else -1]
            raise UsageError(
                f"{there} is given without {missing}; a batch of mixed inputs has both"
            )
        partner = _checked("partner_labels", partner, shape, link)
        return cls(own, partner, _checked_weight(weight, shape[-2]))

    def each(self, loss: Callable[[Tensor], Tensor]) -> Tensor:
        """The losses [M] or [S, M] that `loss` gives for labels; of mixed inputs their means with
        those for the partners' labels: w·loss(labels) + (1 − w)·loss(partners')."""
        own = loss(self.own)
        if self.partner is None or self.weight is None:
            return own
        return self.weight * own + (1 - self.weight) * loss(self.partner)

    def loss(self, logits_MC: Tensor, link: Link) -> Tensor:
        """The cross-entropy: a scalar, or [S] for logits [S, M, C]."""
        hard = hard_loss if link == "softmax" else hard_label_loss
        if self.partner is None or self.weight is None:
            return hard(logits_MC, self.own)
        return mixed_loss(hard, logits_MC, self.own, self.partner, self.weight)


def _checked(name: str, labels: Tensor, shape: Sequence[int], link: Link) -> Tensor:
    """Labels as int64 [M], −1 for all below 0; of a multi-label teacher [M, C], in their dtype.
    Raises UsageError for another shape or dtype, and on the CPU for values that are no labels: on
    an accelerator that would wait for it."""
    expected = list(shape[-2:] if link == "sigmoid" else shape[-2:-1])
    kind = "0 or 1 for each class" if link == "sigmoid" else "the number of a class a position"
    if not isinstance(labels, Tensor):
        raise UsageError(
            f"the {name} are a {type(labels).__name__}; expected is a tensor of {expected}, {kind}"
        )
    if list(labels.shape) != expected:
        hint = ""
        if link == "softmax" and labels.shape == tuple(shape[-2:]):
            hint = (
                '. Those of a multi-label teacher go with batch["targets"] in the place of a plain '
                "tensor of logits, which doesn't say whose it is; of one-hot ones take argmax(-1)"
            )
        raise UsageError(
            f"the {name} have the shape {list(labels.shape)}; expected is {expected}, {kind}{hint}"
        )
    if link == "sigmoid":
        _check_values(name, labels, ~((labels <= 0) | (labels == 1)), kind)
        return labels
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise UsageError(
            f"the {name} are {labels.dtype}; expected are whole numbers, {kind}: int64, or −1 "
            f"where there is none"
        )
    _check_values(name, labels, labels >= shape[-1], f"{kind}, from 0 to {shape[-1] - 1:,}")
    return labels.long().clamp_min(-1)


def _check_values(name: str, labels: Tensor, is_bad: Tensor, kind: str) -> None:
    if labels.device.type == "cpu" and bool(is_bad.any()):
        bad = labels[is_bad][0].item()
        raise UsageError(f"the {name} have {bad!r}; expected is {kind}, or −1 where there is none")


def _checked_weight(weight: Tensor, rows: int) -> Tensor:
    if not isinstance(weight, Tensor) or weight.shape != (rows,):
        given = list(weight.shape) if isinstance(weight, Tensor) else type(weight).__name__
        raise UsageError(f"mix_weight is {given}; expected is a tensor of [{rows}], from 0 to 1")
    if weight.device.type == "cpu" and not bool(((weight >= 0) & (weight <= 1)).all()):
        raise UsageError("mix_weight has values outside 0 to 1; it is each input's own share")
    return weight


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


def hard_loss(logits_MC: Tensor, labels_M: Tensor, weight_M: Tensor | None = None) -> Tensor:
    """Cross-entropy with hard labels, a scalar, or [S] for logits [S, M, C]; positions with label
    −1 count as 0. weight: by which each position's is multiplied."""
    if logits_MC.dim() == 3:
        loss_SM = cross_entropy(
            working(logits_MC).flatten(0, 1),
            labels_M.expand(logits_MC.shape[:2]).flatten(),
            ignore_index=-1,
            reduction="none",
        ).view(logits_MC.shape[:2])
        return (loss_SM if weight_M is None else loss_SM * weight_M).mean(-1)
    how = "sum" if weight_M is None else "none"
    loss_M = cross_entropy(working(logits_MC), labels_M, ignore_index=-1, reduction=how)
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
    x_MC = working(logits_MC)
    loss_MC = binary_cross_entropy_with_logits(
        x_MC, labels_MC.to(x_MC).expand_as(x_MC), (labels_MC >= 0).to(x_MC), reduction="none"
    )
    loss_M = loss_MC.sum(-1)
    return (loss_M if weight_M is None else loss_M * weight_M).mean(-1)
