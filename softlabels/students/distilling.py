"""What `train` learns from a batch: a loss, at a temperature, with a share of hard labels.

N rows of a batch; M scored positions of them, C classes.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from softlabels.errors import UsageError
from softlabels.inputs.views.mixing import PARTNER_LABEL, WEIGHT
from softlabels.logits import Logits
from softlabels.schedules import Schedule, temperature_schedule
from softlabels.soft_targets import check_temperature
from softlabels.students.losses import Loss, find_loss
from softlabels.students.softness import remark_on_softness
from softlabels.targets.batch import for_each_position

# Between them float32 gives the gradient to three digits, and a loss of 1 nat or more to two: KL is
# right to about 1e-7 nats, and T² multiplies them. A loss near 0, at a high T, is mostly rounding.
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
        return said([self])

    @property
    def ends(self) -> tuple[float, float]:
        """The lowest and the highest temperature."""
        if isinstance(self.T, float):
            return self.T, self.T
        return min(self.T.first, self.T.last), max(self.T.first, self.T.last)

    @property
    def T_at(self) -> Schedule | None:
        """The temperature by how far training is, where the loss has one that changes."""
        return self.T if isinstance(self.T, Schedule) and self.loss.part.has_T else None

    @property
    def too_far(self) -> str:
        """What is to be said of a T at which float32 is not exact; else an empty text."""
        far = [T for T in self.ends if not LOW_T <= T <= HIGH_T]
        if not far or not self.loss.part.has_T:
            return ""
        return (
            f"T is {far[0]:g}; float32 gives the gradient to three digits, and a loss of 1 nat or "
            f"more to two, for T from {LOW_T:g} to {HIGH_T:,.0f} only"
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
        logits_MC = for_each_position(logits_NC, batch)
        hard = hard_labels(batch) if labelled else {}
        return self.loss(logits_MC, batch["targets"], T=self.at(progress), alpha=self.alpha, **hard)

    def at(self, progress: float) -> float:
        """T, when training is as far as this, from 0 to 1."""
        return self.T if isinstance(self.T, float) else self.T(progress)


def stacked_loss(
    learned: Sequence[Distillation],
    logits_SMC: Tensor,
    batch: Mapping[str, Any],
    progress: float,
    labelled: bool,
) -> Tensor:
    """`Distillation.of` for S students whose loss has one name, [S]. Rows are positions."""
    # on the CPU, where they are checked without waiting for an accelerator
    T_S1 = torch.tensor([[one.at(progress)] for one in learned])
    alpha_S = torch.tensor([one.alpha for one in learned])
    hard = hard_labels(batch) if labelled else {}
    return learned[0].loss(logits_SMC, batch["targets"], T=T_S1, alpha=alpha_S, **hard)


def hard_labels(batch: Mapping[str, Any]) -> dict[str, Tensor]:
    """The labels of each position, by the names that a loss gives them; of mixed inputs also those
    of their partners."""
    labels = {"labels": for_each_position(batch["label"], batch)}
    if PARTNER_LABEL in batch and WEIGHT in batch:
        labels["partner_labels"] = for_each_position(batch[PARTNER_LABEL], batch)
        labels["mix_weight"] = for_each_position(batch[WEIGHT], batch)
    return labels


def said(learned: Sequence[Distillation]) -> str:
    """What a student learns, or several of one loss, in words."""

    def listed(values: Iterable[float | Schedule]) -> str:
        texts = [f"{one:g}" if isinstance(one, float | int) else str(one) for one in values]
        return " | ".join(dict.fromkeys(texts))

    loss = learned[0].loss
    words = [f"T={listed(one.T for one in learned)}"] if loss.part.has_T else []
    words.append(f"alpha={listed(one.alpha for one in learned)}")
    if str(loss) != "kd":
        words.append(f"loss {loss}")
    return f"at {', '.join(words)}"


def distillation(loss: str, T: float | str, alpha: float) -> Distillation:
    """From the words of the command line. Raises UsageError for an unknown loss or schedule, and
    for a temperature outside 1e-6 to 1e6; it names the option."""
    part = find_loss(loss, "--loss")
    try:
        chosen = temperature_schedule(T) if isinstance(T, str) else check_temperature(T)
        made = Distillation(part, chosen, alpha)
        for end in made.ends:
            check_temperature(end)
    except UsageError as error:
        raise UsageError(f"--T: {error}") from None
    return made
