"""AdamW over stacked parameters, with a learning rate and a weight decay for each student.

torch's takes one learning rate for all elements of a tensor, under `torch.func.vmap` too.
S students; a parameter is [S, …].
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

BETAS, EPSILON = (0.9, 0.999), 1e-8  # torch's defaults, with which a single student is trained


class StackedAdamW:
    """Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization", algorithm 2, in the
    order of operations of `torch.optim.AdamW`.

    weight_decay: float64 [S]
    """

    def __init__(self, parameters: Sequence[Tensor], weight_decay_S: Tensor) -> None:
        self.parameters, self.weight_decay_S = parameters, weight_decay_S
        self.steps = 0
        size = sum(one.numel() for one in parameters)
        self.mean, self.square = (parameters[0].new_zeros(size) for _ in range(2))

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], rate_S: Tensor) -> None:
        """Change the parameters. gradients: in their shapes; rate: float64 [S]."""
        self.steps += 1
        flat = torch.cat([one.flatten() for one in gradients])
        self.mean.lerp_(flat, 1 - BETAS[0])
        self.square.mul_(BETAS[1]).addcmul_(flat, flat, value=1 - BETAS[1])
        corrections = [1 - beta**self.steps for beta in BETAS]
        denominator = self.square.sqrt().div_(corrections[1] ** 0.5).add_(EPSILON)
        changes = torch.div(self.mean, denominator, out=flat)
        start = 0
        for values in self.parameters:
            change = changes[start : start + values.numel()].view_as(values)
            start += values.numel()
            if bool(self.weight_decay_S.any()):
                values.mul_(_beside(1 - rate_S * self.weight_decay_S, values))
            values.addcmul_(change, _beside(-rate_S / corrections[0], values))

    def state(self) -> dict[str, Any]:
        return {"steps": self.steps, "mean": self.mean, "square": self.square}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.steps = state["steps"]
        self.mean.copy_(state["mean"])
        self.square.copy_(state["square"])


def _beside(values_S: Tensor, parameter: Tensor) -> Tensor:
    """A number for each student, as it multiplies a parameter [S, …]."""
    return values_S.to(parameter).view(-1, *[1] * (parameter.dim() - 1))
