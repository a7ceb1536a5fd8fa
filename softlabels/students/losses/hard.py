"""The hard part of a loss: cross-entropy with labels, the same for every soft part.

M positions, C classes, S students at once.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from softlabels.errors import UsageError
from softlabels.soft_targets import Link, working


@dataclass(frozen=True)
class HardLabels:
    """The labels of M positions, and of mixed inputs those of their partners.

    own, partner: int64 [M], −1 for none; of a multi-label teacher 0 and 1 [M, C], −1 for unknown
    weight: of the own labels, float32 [M]; None where nothing is mixed
    """

    own: Tensor
    partner: Tensor | None = None
    weight: Tensor | None = None

    @classmethod
    def of(cls, own: Tensor, partner: Tensor | None, weight: Tensor | None) -> "HardLabels":
        """Raises UsageError for one of partner and weight without the other, and other shapes."""
        if partner is None and weight is None:
            return cls(own)
        if partner is None or weight is None:
            there, missing = ("mix_weight", "partner_labels")[:: 1 if partner is None else -1]
            raise UsageError(
                f"{there} is given without {missing}; a batch of mixed inputs has both"
            )
        if partner.shape != own.shape or weight.shape != own.shape[:1]:
            raise UsageError(
                f"partner_labels have the shape {list(partner.shape)} and mix_weight "
                f"{list(weight.shape)}; the labels have {list(own.shape)}, so expected are "
                f"{list(own.shape)} and {list(own.shape[:1])}"
            )
        return cls(own, partner, weight)

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
