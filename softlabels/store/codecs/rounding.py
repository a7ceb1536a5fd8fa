"""Raw logits rounded to float16 or float32, and what the rounding does to soft targets.

N rows, C classes.
"""

import math

import numpy as np
import torch
from torch import Tensor

from softlabels.errors import LogitsError
from softlabels.logits import DenseLogits

# half a step beyond the largest number, where rounding to even goes up
ROUNDS_TO_INFINITY = {torch.float16: 65520.0, torch.float32: 2.0**128 - 2.0**103}

# What rounding may do at T = 1: to a probability of any row, and to the mean KL of many, in nats.
MOST_MOVED, MOST_KL = 1e-2, 1e-4
# Below these magnitudes half a step is e = 2⁻⁷ at most, and neither can be. Each logit moves by e
# at most, so the odds of a class change by e^(2e) at most, its probability by tanh(e/2) < 0.004;
# and KL ≤ (2e)²/8 < 3.1e-5 (Hoeffding's lemma for the differences, which span 2e).
HARMLESS = {torch.float16: 2.0**5, torch.float32: 2.0**18}


def cast_for_storage(logits_NC: Tensor, dtype: torch.dtype, ids: list) -> Tensor:
    """Logits rounded to `dtype`.

    Raises LogitsError that names the row for NaN, for ±inf, and for a value that `dtype` rounds to
    ±inf.
    """
    stored_NC = logits_NC.to(dtype)
    # aminmax propagates NaN, so these two numbers stand for all
    ends = torch.stack(logits_NC.aminmax()).tolist() if logits_NC.numel() else []
    if all(abs(end) < ROUNDS_TO_INFINITY[dtype] for end in ends):
        return stored_NC
    if not bool(torch.isfinite(logits_NC).all()):
        row = int((~torch.isfinite(logits_NC)).any(-1).nonzero()[0])
        value = logits_NC[row][~torch.isfinite(logits_NC[row])][0]
        remedy = "Check the teacher on that input, or run it in float32 (--precision float32)"
        if value == -math.inf:
            remedy += "; if it masks a class, mask it with -1e4, whose probability is 0 too"
        raise LogitsError(
            f"the teacher gave {float(value)} for the row with id {ids[row]!r}; logits must be "
            f"finite. Nothing of its shard was stored. {remedy}"
        )
    remedy = "Store these logits with --dtype float32, in another folder"
    if dtype == torch.float32:
        remedy = "A logit of that size is an error of what computed it"
    row = int((~torch.isfinite(stored_NC)).any(-1).nonzero()[0])
    value = logits_NC[row][~torch.isfinite(stored_NC[row])][0]
    raise LogitsError(
        f"the logit {float(value):g} of the row with id {ids[row]!r} can't be stored; "
        f"{_name(dtype)} ends at {torch.finfo(dtype).max:g}. Nothing of its shard was stored. "
        f"{remedy}"
    )


def rounding_kl(logits_NC: Tensor, stored_NC: Tensor, ids: list) -> float:
    """What rounding to the stored dtype changed: Σ over rows of KL(logits ‖ stored) at T = 1, in
    nats. Rows whose values are all below `HARMLESS` count as 0, so that the sum does not depend on
    batches.

    Raises LogitsError that names a row in which a probability at T = 1 moved by more than 0.01.
    """
    dtype = stored_NC.dtype
    if not logits_NC.numel() or logits_NC.dtype == dtype:
        return 0.0
    if max(abs(end) for end in torch.stack(logits_NC.aminmax()).tolist()) < HARMLESS[dtype]:
        return 0.0
    large_N = logits_NC.abs().amax(-1) >= HARMLESS[dtype]
    exact_NC = logits_NC[large_N].double()
    rounded_NC = stored_NC[large_N.to(stored_NC.device)].to(exact_NC)
    exact = DenseLogits(exact_NC).temper(1)
    moved_N = (exact.probs() - DenseLogits(rounded_NC).temper(1).probs()).abs().amax(-1)
    if float(moved_N.max()) > MOST_MOVED:
        row = int(moved_N.argmax())
        id = ids[int(large_N.nonzero()[row])]
        raise LogitsError(
            f"rounding to {_name(dtype)} would move a probability of the row with id {id!r} by "
            f"{float(moved_N[row]):.2g} at T = 1 (at most {MOST_MOVED:g} is stored): its logits go "
            f"up to {float(exact_NC[row].abs().max()):g}, where {_name(dtype)} has steps of "
            f"{_step(exact_NC[row], dtype):g}. {_finer(dtype)}"
        )
    return float(exact.kl(rounded_NC).sum())


def check_rounding(kl: float, rows: int, dtype: torch.dtype, where: str) -> None:
    """Raises LogitsError if the mean of `rounding_kl` over the rows of `where` is too large."""
    if kl > MOST_KL * rows:
        raise LogitsError(
            f"rounding to {_name(dtype)} would move the soft targets of {where} by a mean KL of "
            f"{kl / rows:.2g} nats at T = 1 (at most {MOST_KL:g} is stored). {_finer(dtype)}"
        )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _step(logits_C: Tensor, dtype: torch.dtype) -> float:
    """The distance between neighbouring numbers of `dtype` at the largest of these values."""
    return 2.0 ** math.floor(math.log2(float(logits_C.abs().max()))) * torch.finfo(dtype).eps


def _finer(dtype: torch.dtype) -> str:
    centre = "take a constant off each row, which no softmax sees"
    if dtype == torch.float32:
        return f"Nothing finer is stored: {centre}"
    return f"Store these logits with --dtype float32, or {centre}"


def round_towards(limit: float, values: np.ndarray, dtype: str) -> np.ndarray:
    """Numbers as `dtype`, rounded up or down: towards `limit`, −inf or inf."""
    cast = values.astype(dtype)
    wrong = cast > values if limit < 0 else cast < values
    return np.where(wrong, np.nextafter(cast, np.dtype(dtype).type(limit)), cast)
