"""Whether numbers that should be raw logits are probabilities, possibly times a constant.

N rows, C classes. No softmax is computed here; the output of one is recognised by its sums.
"""

import torch
from torch import Tensor

from softlabels.soft_targets import working

SUM = 5e-3  # how far the sum of a thousand float16 probabilities may be from 1
ENOUGH = 40  # so many values, all from 0 to 1, are no coincidence

# Scaled probabilities: so many rows with the same sum are no coincidence; the share of rows that
# have to have it; how far whole numbers of 0 to 255, rounded more coarsely, may be off it.
ENOUGH_ROWS, NEARLY_ALL, ROUNDED = 20, 0.95, 2e-2


def sums_to(total: float, values_NC: Tensor) -> Tensor:
    """Whether each row is 0 or more and sums to `total` up to rounding, bool [N]."""
    values_NC = working(values_NC)
    return (values_NC.amin(-1) >= 0) & ((values_NC.sum(-1) - total).abs() <= SUM * total)


def looks_like(logits_NC: Tensor) -> str | None:
    """`softmax` or `percent` if most rows (of two classes or more) are 0 or more and sum to 1 or
    100; `sigmoid` if all values, at least `ENOUGH`, lie from 0 to 1; else None."""
    values_NC = working(logits_NC)
    if values_NC.shape[1] < 2 or not len(values_NC):
        return None
    for name, total in (("softmax", 1.0), ("percent", 100.0)):
        if 2 * int(sums_to(total, values_NC).sum()) > len(values_NC):  # an odd row changes nothing
            return name
    smallest, largest = torch.stack(values_NC.aminmax()).tolist()
    return "sigmoid" if values_NC.numel() >= ENOUGH and 0 <= smallest <= largest <= 1 else None


def scaled_probabilities(logits_NC: Tensor) -> float | None:
    """The constant that these rows sum to, where they are probabilities times it (votes of 500
    trees, 0 to 255); None where they are not, and where there are fewer than `ENOUGH_ROWS`.

    Nearly all rows are 0 or more and have one sum, though their values differ, and some values are
    near 0. So logits are left alone that are 0 or more by a constant (these sum to one number too,
    but none is near 0), by relu (whose sums differ), or the same in each row.
    """
    values_NC = logits_NC.double()
    if values_NC.shape[1] < 2 or len(values_NC) < ENOUGH_ROWS:
        return None
    total = float(values_NC.sum(-1).median())
    if total <= 0:
        return None
    sums_N = values_NC.sum(-1)
    good_N = (values_NC.amin(-1) >= 0) & ((sums_N - total).abs() <= ROUNDED * total)
    good_NC = values_NC[good_N]
    if len(good_NC) < NEARLY_ALL * len(values_NC):
        return None
    spread = float(good_NC.var(0).sum().sqrt())  # that of the sums, if classes knew nothing of
    near_zero = float(good_NC.min()) <= total / good_NC.shape[1] / 10  # each other
    tied = float(sums_N[good_N].std()) <= spread / 10 and spread > 1e-3 * total
    return total if tied and near_zero else None
