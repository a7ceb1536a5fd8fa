"""Raw logits, and what a temperature makes of them. The only home of the softmax.

Shapes: N rows, C classes. Entropy and KL are in nats; T has no unit.

A teacher's logits z are kept as they came. `DenseLogits(z).temper(T)` is free; the softmax

    q_i = exp(z_i/T) / Σ_j exp(z_j/T)              (Hinton, Vinyals, Dean 2015, equation 1)

runs on the batch where it is asked for, on the batch's device, in float32 (float64 stays float64).
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from softlabels.errors import LogitsError, UsageError

# half a step beyond the largest number, where rounding to even goes up
ROUNDS_TO_INFINITY = {torch.float16: 65520.0, torch.float32: 2.0**128 - 2.0**103}

# What rounding may do at T = 1: to a probability of any row, and to the mean KL of many, in nats.
MOST_MOVED, MOST_KL = 1e-2, 1e-4
# Below these magnitudes half a step is e = 2⁻⁷ at most, and neither can be. Each logit moves by e
# at most, so the odds of a class change by e^(2e) at most, its probability by tanh(e/2) < 0.004;
# and KL ≤ (2e)²/8 < 3.1e-5 (Hoeffding's lemma for the differences, which span 2e).
HARMLESS = {torch.float16: 2.0**5, torch.float32: 2.0**18}

LOWEST_T, HIGHEST_T = 1e-6, 1e6  # beyond them float32's softmax says no more than which is largest

SUM = 5e-3  # how far from 1 a thousand probabilities in float16 may sum to
ENOUGH = 40  # values, all from 0 to 1, that are no coincidence

# Scaled probabilities: rows from which one sum is no coincidence; the share of rows that have it;
# how far whole numbers of 0 to 255 are off it, which rounding moves more than SUM.
ENOUGH_ROWS, NEARLY_ALL, ROUNDED = 20, 0.95, 2e-2


def check_temperature(T: float) -> float:
    """`T` as a float. Raises UsageError unless it is a number from 1e-6 to 1e6."""
    try:
        value = float(T)
    except (TypeError, ValueError):
        raise UsageError(f"T is {T!r}; a temperature is a number above 0, such as 4") from None
    if not (math.isfinite(value) and value > 0):
        raise UsageError(f"T is {value:g}; a temperature is a finite number above 0, such as 4")
    if not LOWEST_T <= value <= HIGHEST_T:
        alike = "all classes are alike" if value > 1 else "only the first class counts"
        raise UsageError(
            f"T is {value:g}, where {alike}; use a temperature from {LOWEST_T:g} to {HIGHEST_T:g}"
        )
    return value


def _working(logits_NC: Tensor) -> Tensor:
    return logits_NC if logits_NC.dtype == torch.float64 else logits_NC.float()


@dataclass(frozen=True)
class SoftTargets:
    """Logits [N, C] seen at temperature T. Nothing is computed until it is asked for."""

    logits_NC: Tensor
    T: float

    def log_probs(self) -> Tensor:
        """log q, float32 [N, C]; exact where probabilities would underflow."""
        return torch.log_softmax(_working(self.logits_NC) / self.T, dim=-1)

    def probs(self) -> Tensor:
        """q, float32 [N, C]; rows sum to 1."""
        return torch.softmax(_working(self.logits_NC) / self.T, dim=-1)

    def entropy(self) -> Tensor:
        """−Σ q log q in nats, [N]."""
        log_q_NC = self.log_probs()
        return -(log_q_NC.exp() * log_q_NC).sum(-1)

    def kl(self, student_logits_NC: Tensor) -> Tensor:
        """KL(q ‖ p) in nats, [N], with p the student's softmax at the same T.

        Written as Σ q·(z_t − z_s)/T − lse(z_t/T) + lse(z_s/T): one softmax and no log q, log p.
        The gradient flows into the student's logits only.
        """
        with torch.no_grad():
            teacher_NC = _working(self.logits_NC) / self.T
            lse_teacher_N = teacher_NC.logsumexp(-1)
            q_NC = (teacher_NC - lse_teacher_N[:, None]).exp()
        student_NC = _working(student_logits_NC) / self.T
        difference_N = (q_NC * (teacher_NC - student_NC)).sum(-1)
        return difference_N - lse_teacher_N + student_NC.logsumexp(-1)


@dataclass(frozen=True)
class DenseLogits:
    """All C logits of each row, [N, C], in their stored dtype. Knows no temperature."""

    values_NC: Tensor

    def temper(self, T: float) -> SoftTargets:
        """These logits at temperature T, in O(1). Raises UsageError for T ≤ 0, NaN or text."""
        return SoftTargets(self.values_NC, check_temperature(T))


def cast_for_storage(logits_NC: Tensor, dtype: torch.dtype, ids: list) -> Tensor:
    """Logits as `dtype`, exactly as near as rounding allows, or a LogitsError that names the row.

    Raises LogitsError for NaN, for ±inf, and for a value that `dtype` rounds to ±inf.
    """
    stored_NC = logits_NC.to(dtype)
    # aminmax hands on NaN, so that the two ends speak for all
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


def entropy_at_one(z_NC: np.ndarray, top_N: np.ndarray, spare_NC: np.ndarray) -> np.ndarray:
    """What `DenseLogits(z).temper(1).entropy()` is, float32 [N], for a thread that counts its time.

    With d = z − max z it is log Σ eᵈ − Σ eᵈ·d / Σ eᵈ: one exp, numpy's, which is twice as fast as
    torch's. `top_N` are the top classes. z and `spare_NC`, float32 [N, C], are overwritten, so
    that no memory is asked for.
    """
    z_NC -= np.take_along_axis(z_NC, top_N[:, None], -1)
    np.exp(z_NC, out=spare_NC)
    total_N = spare_NC.sum(-1)
    expected_N: np.ndarray = np.einsum("nc,nc->n", spare_NC, z_NC) / total_N
    return np.log(total_N) - expected_N


def total_variation(a_NC: Tensor, b_NC: Tensor) -> Tensor:
    """½ Σ |softmax(a) − softmax(b)| at T = 1, [N]: by how much any probability may differ."""
    return (_at_one(a_NC) - _at_one(b_NC)).abs().sum(-1) / 2


def rounding_kl(logits_NC: Tensor, stored_NC: Tensor, ids: list) -> float:
    """What rounding to the stored dtype did to these rows: Σ over rows of KL(logits ‖ stored) at
    T = 1, in nats. Rows below `HARMLESS` count as 0, whatever batch they come in.

    Raises LogitsError that names a row of which a probability at T = 1 moved by more than 0.01.
    """
    dtype = stored_NC.dtype
    if not logits_NC.numel() or logits_NC.dtype == dtype:
        return 0.0
    if max(abs(end) for end in torch.stack(logits_NC.aminmax()).tolist()) < HARMLESS[dtype]:
        return 0.0
    large_N = logits_NC.abs().amax(-1) >= HARMLESS[dtype]
    exact_NC = logits_NC[large_N].double()
    rounded_NC = stored_NC[large_N.to(stored_NC.device)].to(exact_NC)
    moved_N = (_at_one(exact_NC) - _at_one(rounded_NC)).abs().amax(-1)
    if float(moved_N.max()) > MOST_MOVED:
        row = int(moved_N.argmax())
        id = ids[int(large_N.nonzero()[row])]
        raise LogitsError(
            f"rounding to {_name(dtype)} would move a probability of the row with id {id!r} by "
            f"{float(moved_N[row]):.2g} at T = 1 (at most {MOST_MOVED:g} is stored): its logits go "
            f"up to {float(exact_NC[row].abs().max()):g}, where {_name(dtype)} has steps of "
            f"{_step(exact_NC[row], dtype):g}. {_finer(dtype)}"
        )
    return float(DenseLogits(exact_NC).temper(1).kl(rounded_NC).sum())


def check_rounding(kl: float, rows: int, dtype: torch.dtype, where: str) -> None:
    """Raises LogitsError where the mean of `rounding_kl` over the rows of `where` is too large."""
    if kl > MOST_KL * rows:
        raise LogitsError(
            f"rounding to {_name(dtype)} would move the soft targets of {where} by a mean KL of "
            f"{kl / rows:.2g} nats at T = 1 (at most {MOST_KL:g} is stored). {_finer(dtype)}"
        )


def _at_one(logits_NC: Tensor) -> Tensor:
    return torch.softmax(_working(logits_NC), dim=-1)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _step(logits_C: Tensor, dtype: torch.dtype) -> float:
    """How far the numbers of `dtype` are apart at the largest of these."""
    return 2.0 ** math.floor(math.log2(float(logits_C.abs().max()))) * torch.finfo(dtype).eps


def _finer(dtype: torch.dtype) -> str:
    centre = "take a constant off each row, which no softmax sees"
    if dtype == torch.float32:
        return f"Nothing finer is stored: {centre}"
    return f"Store these logits with --dtype float32, or {centre}"


def sums_to(total: float, values_NC: Tensor) -> Tensor:
    """Which rows are 0 or more and sum to `total`, give or take rounding, bool [N]."""
    values_NC = _working(values_NC)
    return (values_NC.amin(-1) >= 0) & ((values_NC.sum(-1) - total).abs() <= SUM * total)


def looks_like(logits_NC: Tensor) -> str | None:
    """`softmax`, `percent` or `sigmoid` where most of these rows, of two classes or more, are 0 or
    more and sum to 1 or to 100, or where all values, of `ENOUGH` at least, lie from 0 to 1."""
    values_NC = _working(logits_NC)
    if values_NC.shape[1] < 2 or not len(values_NC):
        return None
    for name, total in (("softmax", 1.0), ("percent", 100.0)):
        if 2 * int(sums_to(total, values_NC).sum()) > len(values_NC):  # one odd row hides nothing
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
