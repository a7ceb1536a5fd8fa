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


def check_temperature(T: float) -> float:
    """`T` as a float. Raises UsageError unless it is a finite number above 0."""
    try:
        value = float(T)
    except (TypeError, ValueError):
        raise UsageError(f"T is {T!r}; a temperature is a number above 0, such as 4") from None
    if not (math.isfinite(value) and value > 0):
        raise UsageError(f"T is {value:g}; a temperature is a finite number above 0, such as 4")
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
        raise LogitsError(
            f"the teacher gave {float(value)} for the row with id {ids[row]!r}; logits must be "
            f"finite. Nothing of its shard was stored. Check the teacher on that input, "
            f"or run it in float32 (--precision float32)"
        )
    name = str(dtype).removeprefix("torch.")
    remedy = "Store these logits with --dtype float32, in another folder"
    if dtype == torch.float32:
        remedy = "A logit of that size is an error of what computed it"
    row = int((~torch.isfinite(stored_NC)).any(-1).nonzero()[0])
    value = logits_NC[row][~torch.isfinite(stored_NC[row])][0]
    raise LogitsError(
        f"the logit {float(value):g} of the row with id {ids[row]!r} can't be stored; {name} ends "
        f"at {torch.finfo(dtype).max:g}. Nothing of its shard was stored. {remedy}"
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


def looks_like_probabilities(logits_NC: Tensor) -> bool:
    """True where every row is non-negative and sums to 1: a softmax was applied already."""
    values_NC = _working(logits_NC)
    sums_N = values_NC.sum(-1)
    return bool((values_NC >= 0).all() and (sums_N - 1).abs().max() < 1e-3)
