"""The loss scale of fp16, whose smallest number is so large that gradients would vanish.

Losses are multiplied by a scale and gradients divided by it. A step whose gradients are infinite or
NaN is not taken, and the scale is halved; after 2,000 good steps it is doubled (Micikevicius et al.
2018, "Mixed precision training", section 3.2; torch.amp.GradScaler). As in accelerate, a step that
is not taken moves neither the schedule nor an average of the weights. accelerate's own scaler is a
setting of the process, which a second training could not change, and does not run on the CPU.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from softlabels.system.humanize import counted

SMALLEST = 2.0**-10  # from 65,536 after 27 halvings; no gradient of use is so large
FEW = 0.05  # of all steps


class LossScale:
    """That of an optimizer; with another precision than fp16 it does nothing.

    skipped: steps that were not taken, of the whole training.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, device: str, precision: str) -> None:
        self.optimizer, self.skipped, self._taken = optimizer, 0, 0
        self.is_on = precision == "fp16"
        self._scaler = torch.amp.GradScaler(device, enabled=self.is_on)
        # torch calls it where a step is taken; to compare scales would wait for an accelerator
        optimizer.register_step_post_hook(self._note)

    def _note(self, *step: Any) -> None:
        self._taken += 1

    def scaled(self, loss: Tensor) -> Tensor:
        scaled: Tensor = self._scaler.scale(loss)
        return scaled

    def unscale(self) -> None:
        """Divide the gradients, once before a step, so that they can be clipped."""
        self._scaler.unscale_(self.optimizer)

    def step(self) -> bool:
        """Whether the optimizer's step was taken."""
        before = self._taken
        self._scaler.step(self.optimizer)
        self._scaler.update()
        is_taken = self._taken > before
        self.skipped += not is_taken
        return is_taken

    @property
    def has_collapsed(self) -> bool:
        """Whether gradients overflow at any scale. It waits for an accelerator."""
        return self.is_on and self._scaler.get_scale() < SMALLEST

    def remark(self, steps: int) -> str:
        """What to say after so many steps; nothing where all were taken."""
        if not self.skipped:
            return ""
        text = f"{self.describe(steps)} (the loss scale is {self._scaler.get_scale():,g} now)"
        return text if self.skipped <= FEW * steps else f"warning: {text}"

    def describe(self, steps: int) -> str:
        were = "was" if self.skipped == 1 else "were"
        return (
            f"{self.skipped:,} of {counted(steps, 'step')} {were} skipped, whose gradients "
            f"overflowed fp16"
        )

    def state(self) -> dict[str, Any]:
        return {"scaler": self._scaler.state_dict(), "skipped": self.skipped}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._scaler.load_state_dict(state["scaler"])
        self.skipped = state["skipped"]
