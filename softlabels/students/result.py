"""What `fit` and `train` return."""

from dataclasses import dataclass
from typing import Any

from softlabels.models.checkpoint import Checkpoint
from softlabels.system.humanize import counted, measured


@dataclass(frozen=True)
class TrainResult:
    """What training wrote.

    out: the checkpoint's file.
    checkpoint: its content; `metrics` has the measures of the held-out rows.
    rank: this process's; rank 0 writes.
    """

    out: str
    checkpoint: Checkpoint
    rank: int = 0

    @property
    def metrics(self) -> dict[str, Any]:
        return self.checkpoint.metrics

    def __repr__(self) -> str:
        held, facts = self.metrics["held_out"] or {}, []
        if "errors" in held:
            rows = counted(held["labelled"], "held-out row")
            facts.append(f"{counted(held['errors'], 'error')} of {rows}")
        if held.get("map") is not None:
            facts.append(f"mAP {held['map']:.4f}")
        if "kl" in held:
            facts.append(f"KL {measured(held['kl'])} nats")
        what = f"epoch {self.metrics['epoch']}, loss {measured(self.metrics['loss'])}"
        return f"TrainResult({self.out}: {', '.join([what, *facts])})"
