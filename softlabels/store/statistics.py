"""What a shard's commit says of its logits. N rows, C classes."""

import math

import numpy as np

from softlabels.logits import Logits
from softlabels.store.records import Statistics

ENOUGH = 20  # labelled rows of which an accuracy is judged


class LogitStatistics:
    """Of stored logits: rows, labelled, correct, accuracy (where labelled), the mean entropy at
    T = 1 in nats, and min, max and mean of all N·C values, where these are stored."""

    def __init__(self) -> None:
        self.parts: list[Statistics] = []

    def add(self, logits: Logits, labels: np.ndarray, rows: int | None = None) -> None:
        """Stored logits of M positions, and their labels, int64 [M], −1 for none. rows: how many
        rows these are positions of, where a row may have several or none."""
        rows = len(labels) if rows is None else rows
        if not len(labels):
            return
        tally, known = logits.tally(), labels >= 0
        values = len(labels) * logits.classes
        self.parts.append(
            Statistics(
                rows=rows,
                positions=len(labels) if rows != len(labels) else None,
                labelled=int(known.sum()),
                correct=int(((tally.top == labels) & known).sum()),
                min=tally.smallest,
                max=tally.largest,
                mean=None if tally.total is None else tally.total / values,
                entropy=float(tally.entropy.mean(dtype=np.float64)),
            )
        )

    @property
    def merged(self) -> Statistics | None:
        return Statistics.merge(self.parts)


def alarm(labelled: int, correct: int, classes: int) -> str:
    """What has to be said of an accuracy that guessing would give, or ''. Guessing is right in
    1/C of the rows, and this far above it by three standard deviations at most."""
    chance = 1 / classes
    guessed = labelled * chance + 3 * math.sqrt(labelled * chance * (1 - chance))
    if labelled < ENOUGH or correct > guessed:
        return ""
    return (
        f"the teacher's accuracy is {correct / labelled:.4f}, no better than guessing among "
        f"{classes} classes: are these the labels and the preprocessing it knows, and the rows and "
        f"classes in its order?"
    )
