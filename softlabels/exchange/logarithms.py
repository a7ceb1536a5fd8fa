"""Whether foreign numbers are logits or probabilities, and logits from the latter.

With p = softmax(z/T), T·log p is z but for a constant in each row, which no softmax sees: soft
targets at any temperature are those of z. Shapes: N rows, C classes.
"""

import numpy as np

from softlabels.errors import LogitsError

SUM = 5e-3  # how far from 1 a thousand probabilities in float16 may sum to
DECIMALS = (1, 2, 3, 4)  # of rounding that is looked for; with more of them, SUM allows for it
MOST = 0.95  # of the rows: the sums of what was rounded have bounds, and few odd rows hide nothing
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
    """Raises LogitsError where most of these rows, however few, sum to 1; and for rounding where
    there are rows enough."""
    if values_NC.shape[1] == 1 or not len(values_NC):
        return
    sums = _sums(values_NC)
    if 2 * sums.sum() > len(sums):  # rounding or one odd row hides nothing
        raise LogitsError(
            f"{where} holds probabilities (most rows sum to 1), not logits. --probabilities stores "
            f"their logarithms, which differ from the logits by a constant in each row"
        )
    decimals = rounding(values_NC) if len(values_NC) >= ENOUGH else None
    if decimals is not None and np.median(values_NC.sum(1, dtype=np.float64)) >= 0.5:
        raise LogitsError(
            f"{where} holds probabilities rounded to {decimals} decimals (rows sum to 1 but for "
            f"that), not logits. --probabilities stores their logarithms, with --floor for those "
            f"that became 0. Better save them unrounded, or the logits"
        )


def rounding(values_NC: np.ndarray) -> int | None:
    """The decimals to which probabilities were rounded, 1 to 4; None where these are none, or are
    whole numbers."""
    if not len(values_NC):
        return None
    wide_NC = _wide(values_NC)
    if ((wide_NC >= 0) & (wide_NC <= 1)).all(1).mean() < MOST:
        return None
    if (wide_NC == np.floor(wide_NC)).all():
        return None
    for decimals in DECIMALS:
        if decimals == 1 and values_NC.shape[1] > 10:
            continue  # any sum would do
        if _fits(values_NC, decimals).mean() >= MOST:
            return decimals
    return None


def _sums(values_NC: np.ndarray) -> np.ndarray:
    """Which rows are 0 or more and sum to 1, bool [N]."""
    wide_NC = _wide(values_NC)
    with np.errstate(invalid="ignore"):
        off_N = np.abs(wide_NC.sum(1, dtype=np.float64) - 1)
        found_N: np.ndarray = (wide_NC >= 0).all(1) & (off_N <= SUM)
        return found_N


def _wide(values_NC: np.ndarray) -> np.ndarray:
    """numpy has no fast float16."""
    return values_NC.astype(np.float32) if values_NC.dtype == np.float16 else values_NC


def _fits(values_NC: np.ndarray, decimals: int) -> np.ndarray:
    """Which rows may be probabilities that were rounded so, bool [N]: each is off by half a step at
    most, and those that became 0 were less than that. A row that became 0 tells nothing."""
    wide_NC = values_NC.astype(np.float64)
    half, sums_N = 0.5 * 10.0**-decimals, wide_NC.sum(1)
    least, most_N = 1 - half * wide_NC.shape[1], 1 + half * (wide_NC > 0).sum(1)
    whole_NC = np.round(wide_NC, decimals).astype(values_NC.dtype) == values_NC
    fits_N: np.ndarray = (whole_NC & (wide_NC >= 0) & (wide_NC <= 1)).all(1)
    return fits_N & (sums_N > 0) & (sums_N >= least - SUM) & (sums_N <= most_N + SUM)


def logs(
    values_NC: np.ndarray, T: float, floor: float | None, ids: np.ndarray, where: str
) -> np.ndarray:
    """T · log p, float32 [N, C]; p below `floor` counts as `floor`. Rows that were rounded needn't
    sum to 1: the constant by which that changes a row no softmax sees.

    Raises LogitsError for rows that are no probabilities, and for p = 0 without a floor.
    """
    p_NC = values_NC.astype(np.float64)
    good_N = _sums(p_NC)
    if not good_N.all() and (decimals := rounding(values_NC)) is not None:
        good_N |= _fits(values_NC, decimals)
    if not good_N.all():
        row = int(np.argmin(good_N))
        raise LogitsError(
            f"{where}: the row with id {ids[row].item()!r} sums to {p_NC[row].sum():g}, its "
            f"least value is {p_NC[row].min():g}; probabilities are 0 or more and sum to 1. Leave "
            f"--probabilities out if these are logits"
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
