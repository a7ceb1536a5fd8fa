"""How far one model's soft targets are from another's, position by position.

M positions, C classes. KL is in nats. What all logits are stored of is compared in float64: a model
and its quantised self may differ by less than the rounding of float32.
"""

import torch
from torch import Tensor

from softlabels.logits import DenseLogits, Logits
from softlabels.soft_targets import SoftLabels, kl_of_change, total_variation


def widened(logits: Logits) -> Logits:
    """The same in float64 and on the CPU; logits of which not all are stored as they are."""
    logits = logits.to("cpu")
    return DenseLogits(logits.dense().double(), link=logits.link) if logits.is_dense else logits


def kl_of_each(one: Logits, other: Logits, T: float) -> Tensor:
    """KL(one ‖ other, both at T), float64 [M], 0 or more; infinite where `other` rules out what
    `one` does not. Of several labels a row it is the sum over labels."""
    if one.is_dense and other.is_dense:
        kl_M = kl_of_change(one.dense().double(), other.dense().double(), T, one.link)
    else:
        log_q_MC, log_p_MC = (logits.temper(T).log_outcomes().double() for logits in (one, other))
        # what has no probability counts as 0, though its logarithm is −inf
        kl_M = (log_q_MC.exp() * (log_q_MC - log_p_MC)).nansum(-1)
    return kl_M.clamp_min(0)  # rounding may make less than nothing of it


def variation_of_each(one: Logits, other: Logits, T: float) -> Tensor:
    """The total variation ½ Σ |q − p| at T, float64 [M]: by how much the probability of any set of
    classes may differ. Of several labels a row, the largest difference of a label's probability."""
    return total_variation(_at(one, T), _at(other, T), one.link).double()


def _at(logits: Logits, T: float) -> Tensor:
    """Logits whose soft targets at T = 1 are these logits' at T."""
    if logits.is_dense:
        return logits.dense() / T
    soft = logits.temper(T)
    return soft.log_odds() if isinstance(soft, SoftLabels) else soft.log_probs()


def shared_top(one: Logits, other: Logits, count: int) -> Tensor:
    """Which share of the `count` most probable classes is the same, in whatever order, float64
    [M]; among equals the lower numbers are taken. There are more classes than that."""
    ours_MK, theirs_MK = _most_probable(one, count), _most_probable(other, count)
    return (ours_MK[:, :, None] == theirs_MK[:, None, :]).any(-1).double().mean(-1)


def _most_probable(logits: Logits, count: int) -> Tensor:
    """Those classes, int64 [M, count], in no order: only where the last of them equals the next is
    all sorted, which takes twenty times as long."""
    if not logits.is_dense:
        return logits.temper(1).top(count)[1]
    largest = logits.dense().topk(count + 1)
    found_MK = largest.indices[:, :count].clone()
    tied = (largest.values[:, count - 1] == largest.values[:, count]).nonzero()[:, 0]
    found_MK[tied] = logits.select(tied).temper(1).top(count)[1]
    return found_MK


def variance_of_rounding(logits: Logits) -> Tensor | None:
    """The variance of what storing added to each logit, float64 [M, C]; None where not all logits
    are stored. A stored logit is off by up to r, as `Logits.rounding` says, anywhere between −r and
    r alike: r²/3. A class that the codec cut off counts as exact: its probability is next to
    nothing."""
    if not logits.is_dense:
        return None
    return logits.rounding().square().nan_to_num(posinf=0.0) / 3


def kl_of_noise(logits: Logits, variance_MC: Tensor, T: float) -> Tensor:
    """The KL at T that noise of this variance in the logits makes on average, float64 [M], to the
    second order, where KL is half the variance of z/T under q: Σ q_i (1 − q_i) σ_i² / 2T².

    NaN where the noise in z/T has a standard deviation above 1, weighted by q, or of several labels
    a row that of any label: there the next orders are as large, and the sum says nothing."""
    q_MC = logits.temper(T).probs().double()
    noise_M = (q_MC * variance_MC).sum(-1) if logits.link == "softmax" else variance_MC.amax(-1)
    kl_M = (q_MC * (1 - q_MC) * variance_MC).sum(-1) / (2 * T**2)
    return kl_M.masked_fill(noise_M > T**2, torch.nan)


def within_rounding(logits: Logits, one_M: Tensor, other_M: Tensor) -> Tensor:
    """Whether the logits of two classes, int64 [M] each, are closer than storing rounded both, so
    that the model may have had either above the other, bool [M]; False where not all logits are
    stored."""
    if not logits.is_dense:
        return torch.zeros(len(one_M), dtype=torch.bool)
    both_M2 = torch.stack([one_M, other_M], dim=-1)
    z_M2 = logits.dense().double().gather(-1, both_M2)
    r_M2 = logits.rounding().gather(-1, both_M2)
    return (z_M2[:, 0] - z_M2[:, 1]).abs() <= r_M2.sum(-1)
