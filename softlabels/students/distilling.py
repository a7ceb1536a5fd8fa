"""What `train` learns from a batch: a loss, at a temperature, with a share of hard labels.

N rows of a batch; M scored positions of them, C classes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from softlabels.inputs.views.mixing import PARTNER_LABEL, WEIGHT
from softlabels.logits import Logits
from softlabels.schedules import Schedule, temperature_schedule
from softlabels.soft_targets import check_temperature
from softlabels.students.losses import Loss, find_loss
from softlabels.students.softness import remark_on_softness
from softlabels.targets.batch import for_each_position

# Between them float32's gradient is right to four digits, and its loss to three unless the KL is
# far below 1 nat.
LOW_T, HIGH_T = 0.01, 1000.0


@dataclass(frozen=True)
class Distillation:
    """The loss of a student; `str()` says it in words.

    T: a temperature, or one that changes as training goes on
    alpha: the weight of the soft targets
    """

    loss: Loss
    T: float | Schedule
    alpha: float

    def __str__(self) -> str:
        T = f"{self.T:g}" if isinstance(self.T, float) else str(self.T)
        words = [f"T={T}"] if self.loss.part.has_T else []
        words.append(f"alpha={self.alpha:g}")
        if str(self.loss) != "kd":
            words.append(f"loss {self.loss}")
        return f"at {', '.join(words)}"

    @property
    def ends(self) -> tuple[float, float]:
        """The lowest and the highest temperature."""
        if isinstance(self.T, float):
            return self.T, self.T
        return min(self.T.first, self.T.last), max(self.T.first, self.T.last)

    @property
    def too_far(self) -> str:
        """What is to be said of a T at which float32 is not exact; else an empty text."""
        far = [T for T in self.ends if not LOW_T <= T <= HIGH_T]
        if not far or not self.loss.part.has_T:
            return ""
        return (
            f"T is {far[0]:g}; float32 gives the loss to three digits for T from {LOW_T:g} to "
            f"{HIGH_T:,.0f} only"
        )

    def remarks(self, logits: Logits) -> Iterator[str]:
        """Warnings about the temperature. logits: of some rows."""
        if self.too_far:
            yield f"warning: {self.too_far}"
        elif self.alpha and self.loss.part.has_T:
            # of a schedule the lowest, since it may begin as high as it likes
            remark = remark_on_softness(self.loss.part.prepared(logits), self.ends[0])
            if remark:
                yield remark

    def check(self, logits: Logits, labelled: bool) -> None:
        """Raises UsageError where the loss needs more than there is. logits: of some rows."""
        self.loss.check(logits, labelled)

    def of(
        self, logits_NC: Tensor, batch: Mapping[str, Any], progress: float, labelled: bool
    ) -> Tensor:
        """The mean over the positions of a batch. labelled: whether its hard labels count;
        progress: of the training, from 0 to 1."""
        hard = for_each_position(batch["label"], batch) if labelled else None
        mixed_with: dict[str, Tensor] = {}
        if hard is not None and PARTNER_LABEL in batch and WEIGHT in batch:
            mixed_with["partner_labels"] = for_each_position(batch[PARTNER_LABEL], batch)
            mixed_with["mix_weight"] = for_each_position(batch[WEIGHT], batch)
        return self.loss(
            for_each_position(logits_NC, batch),
            batch["targets"],
            hard,
            T=self.T if isinstance(self.T, float) else self.T(progress),
            alpha=self.alpha,
            **mixed_with,
        )


def distillation(loss: str, T: float | str, alpha: float) -> Distillation:
    """From the words of the command line. Raises UsageError for an unknown loss or schedule, and
    for a temperature outside 1e-6 to 1e6."""
    chosen = temperature_schedule(T) if isinstance(T, str) else float(T)
    made = Distillation(find_loss(loss, "--loss"), chosen, alpha)
    for end in made.ends:
        check_temperature(end)
    return made
