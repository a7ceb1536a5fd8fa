"""The logits of a language model as its last hidden states and its head, exact at any temperature.

    z = cap · tanh(u/cap),  u = scale · (W·h + b),    without a soft cap z = u

Shapes: M positions, D numbers in a hidden state, V rows of a head, C classes of them that count.
"""

import math
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from softlabels.errors import UsageError
from softlabels.logits import PackedLogits, last_place
from softlabels.soft_targets import working

SLICE_VALUES = 1 << 20  # of a weight in half precision that become float32 at a time


@dataclass(frozen=True, eq=False, repr=False)
class LinearHead:
    """The last layer of a language model.

    weight: [V, D], any float dtype
    bias: [V]; none where the head has none
    soft_cap: `final_logit_softcapping` of Gemma, in units of logits
    scale: by which logits are multiplied: `logit_scale` of Cohere, 1/`logits_scaling` of Granite
    valid: C, the number of classes that count; the rows beyond are padding of the vocabulary, such
        as 152,064 rows for 151,936 tokens. All V where it is not given.

    Raises UsageError for other shapes, and for numbers that are none of their kind.
    """

    weight_VD: Tensor
    bias_V: Tensor | None = None
    soft_cap: float | None = None
    scale: float = 1.0
    valid: int | None = None
    _copies: dict[torch.device, "LinearHead"] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        weight = self.weight_VD
        if not isinstance(weight, Tensor):
            raise UsageError(
                f"the weight of the head is a {type(weight).__name__}; give the tensor [V, D], "
                f"such as model.lm_head.weight"
            )
        if weight.dim() != 2 or not weight.is_floating_point():
            raise UsageError(
                f"the weight of the head is {weight.dtype} {list(weight.shape)}; expected are "
                f"floats [V, D]: a row for each class"
            )
        rows = len(weight)
        bias = self.bias_V
        if bias is not None and (not isinstance(bias, Tensor) or bias.shape != (rows,)):
            given = list(bias.shape) if isinstance(bias, Tensor) else type(bias).__name__
            raise UsageError(f"the bias of the head is {given}; expected is a tensor of [{rows}]")
        if self.soft_cap is not None and not _is_number(self.soft_cap, above_zero=True):
            raise UsageError(
                f"soft_cap is {self.soft_cap!r}; it must be a finite number above 0, such as 30, "
                f"or None"
            )
        if not _is_number(self.scale) or not self.scale:
            raise UsageError(f"scale is {self.scale!r}; it must be a finite number, and not 0")
        valid = self.valid
        if valid is not None and (type(valid) is not int or not 1 <= valid <= rows):
            raise UsageError(
                f"valid is {valid!r}; the head has {rows:,} rows, of which so many count: 1 to "
                f"{rows:,}"
            )

    def __repr__(self) -> str:
        V, D = self.weight_VD.shape
        kind = str(self.weight_VD.dtype).removeprefix("torch.")
        return f"LinearHead({self.classes:,} of {V:,} rows × {D:,}, {kind})"

    @property
    def classes(self) -> int:
        """C."""
        return len(self.weight_VD) if self.valid is None else self.valid

    @property
    def width(self) -> int:
        """D."""
        return self.weight_VD.shape[1]

    def on(self, device: torch.device) -> "LinearHead":
        """This head there, copied once."""
        if device == self.weight_VD.device:
            return self
        if device not in self._copies:
            bias = self.bias_V if self.bias_V is None else self.bias_V.to(device)
            self._copies[device] = LinearHead(
                self.weight_VD.to(device), bias, self.soft_cap, self.scale, self.valid
            )
        return self._copies[device]

    @torch.no_grad()
    def logits(self, hidden_MD: Tensor) -> Tensor:
        """Raw logits, float32 [M, C], or float64 where both are.

        The arithmetic is float32 whatever the dtypes, since a product that is rounded to bfloat16
        is wrong by 1e-4 nats at T = 1; a weight in half precision becomes float32 by slices.
        """
        weight_CD, states_MD = self.weight_VD[: self.classes], working(hidden_MD)
        exact = working(weight_CD[:0]).dtype
        if torch.float64 in (exact, states_MD.dtype):
            exact = torch.float64
        states_MD = states_MD.to(exact)
        logits_MC = states_MD.new_empty(len(states_MD), self.classes)
        rows = self.classes if weight_CD.dtype == exact else max(1, SLICE_VALUES // self.width)
        for start in range(0, self.classes, rows):
            part = slice(start, start + rows)
            torch.mm(states_MD, weight_CD[part].to(exact).T, out=logits_MC[:, part])
        if self.bias_V is not None:
            logits_MC += self.bias_V[: self.classes]
        return self.capped(logits_MC)

    def capped(self, products_MC: Tensor) -> Tensor:
        """W·h + b become logits, in place."""
        if self.scale != 1:
            products_MC.mul_(self.scale)
        if self.soft_cap is not None:
            products_MC.div_(self.soft_cap).tanh_().mul_(self.soft_cap)
        return products_MC


@dataclass(frozen=True, eq=False, repr=False)
class FeatureLogits(PackedLogits):
    """The logits of M positions as a model's last hidden states, [M, D] in any float dtype, and its
    head. They are exact at any temperature in 2·D bytes a position.

    hidden: as the head sees them, after the last norm
    head: one for all positions; it lies where it was made, and is copied once to each device on
        which logits are asked for

    Raises UsageError for hidden states of another shape than the head takes.
    """

    hidden_MD: Tensor
    head: LinearHead

    def __post_init__(self) -> None:
        check_hidden(self.hidden_MD, self.head, "the teacher's")

    @property
    def classes(self) -> int:
        return self.head.classes

    def dense(self) -> Tensor:
        """Raw logits, float32 [M, C], made anew."""
        return self.head.on(self.device).logits(self.hidden_MD)

    def rounding(self) -> Tensor:
        """What half a unit in the last place of each hidden number may make of a logit: at most
        |scale| · Σ |W_vd| · unit_d / 2, since a soft cap never stretches."""
        weight_CD = self.head.on(self.device).weight_VD[: self.classes].double().abs()
        return (last_place(self.hidden_MD) @ weight_CD.T) * abs(self.head.scale) / 2


def check_hidden(hidden_MD: Any, head: LinearHead, whose: str) -> None:
    """Raises UsageError for what are no hidden states [M, D] that this head takes."""
    if not isinstance(hidden_MD, Tensor):
        raise UsageError(
            f"{whose} hidden states are a {type(hidden_MD).__name__}; give the tensor [N, D] that "
            f"the head takes, such as outputs.last_hidden_state"
        )
    shape = list(hidden_MD.shape)
    if len(shape) == 3:
        raise UsageError(
            f"{whose} hidden states have the shape {shape}; expected is [N, {head.width}]: give "
            f"hidden.flatten(0, 1), with targets and labels in the same order"
        )
    if len(shape) != 2 or shape[1] != head.width or not hidden_MD.is_floating_point():
        raise UsageError(
            f"{whose} hidden states are {hidden_MD.dtype} {shape}; its head takes floats "
            f"[N, {head.width}]"
        )


def _is_number(value: Any, above_zero: bool = False) -> bool:
    is_finite = isinstance(value, Real) and math.isfinite(value)
    return is_finite and (not above_zero or value > 0)
