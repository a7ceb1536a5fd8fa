"""What a shard's commit says of its logits. N rows, C classes."""

import numpy as np

from softlabels.logits import Logits
from softlabels.store.records import Statistics


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
