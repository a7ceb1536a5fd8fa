"""Whether foreign numbers are logits or probabilities, and logits from the latter.

With p = softmax(z/T), T·log p is z but for a constant in each row, which no softmax sees: soft
targets at any temperature are those of z. Shapes: N rows, C classes.
"""

import numpy as np
import torch

from softlabels.errors import LogitsError
from softlabels.probabilities import SUM, looks_like, scaled_probabilities, sums_to

ENOUGH = 20  # rows from which a block may be judged


def check_logits(values_NC: np.ndarray, ids: np.ndarray, where: str) -> None:
    """Raises LogitsError for NaN and ±inf, naming the row, and for probabilities where there are
    rows enough to tell."""
    finite_N = np.isfinite(values_NC).all(1)
    if not finite_N.all():
        row = int(np.argmin(finite_N))
        value = values_NC[row][~np.isfinite(values_NC[row])][0]
        raise LogitsError(
            f"{where} has {value} for the row with id {ids[row].item()!r}; logits must be finite. "
            f"Nothing of its shard was stored"
        )
    if len(values_NC) >= ENOUGH:
        refuse_probabilities(values_NC, where)


def refuse_probabilities(values_NC: np.ndarray, where: str) -> None:
    """Raises LogitsError where most of these rows, however few, sum to 1."""
    if values_NC.shape[1] == 1 or not len(values_NC):
        return
    sums = _sums(values_NC)
    if 2 * sums.sum() > len(sums):  # one odd row hides nothing
        raise LogitsError(
            f"{where} holds probabilities (most rows sum to 1), not logits. --probabilities stores "
            f"their logarithms, which differ from the logits by a constant in each row"
        )


def refuse_strange_logits(values_NC: np.ndarray, where: str, outputs: str) -> None:
    """Raises LogitsError for one number a row, for percent, and, unless `outputs` is logits, where
    all values lie from 0 to 1 or are probabilities times a constant."""
    if values_NC.shape[1] == 1:
        raise LogitsError(
            f"{where} holds one number a row, whose softmax is always 1. A dump has a logit for "
            f"each class: of a binary teacher that ends in a sigmoid, give two columns, 0 and the "
            f"logit"
        )
    kind = looks_like(torch.from_numpy(values_NC.astype(np.float32)))
    total = scaled_probabilities(torch.from_numpy(values_NC.astype(np.float64)))
    if kind is None and total is not None and outputs != "logits":
        raise LogitsError(
            f"{where} holds probabilities times {total:.6g} (rows are 0 or more and sum to it), "
            f"such as votes, not logits. Divide by {total:.6g}, then --probabilities stores their "
            f"logarithms. If these are logits, say so with --outputs logits"
        )
    if kind == "percent":
        raise LogitsError(
            f"{where} holds percent (most rows sum to 100), not logits. Divide by 100, then "
            f"--probabilities stores their logarithms"
        )
    if kind == "sigmoid" and outputs != "logits":
        raise LogitsError(
            f"{where} holds nothing but numbers from 0 to 1, as a sigmoid gives them, or cosines "
            f"without their scale; a dump has raw logits. If these are logits, say so with "
            f"--outputs logits"
        )


def _sums(values_NC: np.ndarray) -> np.ndarray:
    """Which rows are 0 or more and sum to 1, bool [N]."""
    exact = np.float64 if values_NC.dtype.itemsize > 4 else np.float32
    good_N: np.ndarray = sums_to(1.0, torch.from_numpy(values_NC.astype(exact))).numpy()
    return good_N


def logs(
    values_NC: np.ndarray, T: float, floor: float | None, ids: np.ndarray, where: str
) -> np.ndarray:
    """T · log p, float32 [N, C]; p below `floor` counts as `floor`.

    Raises LogitsError for rows that are no probabilities, and for p = 0 without a floor.
    """
    p_NC = values_NC.astype(np.float64)
    good_N = _sums(p_NC)
    if not good_N.all():
        row = int(np.argmin(good_N))
        raise LogitsError(
            f"{where}: the row with id {ids[row].item()!r} sums to {p_NC[row].sum():g}, its "
            f"least value is {p_NC[row].min():g}; probabilities are 0 or more and sum to 1, give "
            f"or take {SUM:g}. Save them unrounded; if these are logits, leave --probabilities out"
        )
    if floor is None and (p_NC == 0).any():
        row = int(np.argmax((p_NC == 0).any(1)))
        raise LogitsError(
            f"{where}: the row with id {ids[row].item()!r} has a probability of 0, whose logit is "
            f"−∞: too small for the file's precision, or never there. --floor 1e-7 counts what is "
            f"below that as 1e-7; students learn that such classes are alike"
        )
    if floor is not None:
        p_NC = np.maximum(p_NC, floor)
    return (T * np.log(p_NC)).astype(np.float32)
