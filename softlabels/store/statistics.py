"""What a shard's commit says of its logits. N rows, C classes."""

import numpy as np

from softlabels.inputs.label_lists import LabelLists, Labels, known
from softlabels.logits import Logits
from softlabels.store.records import Statistics


def is_right(top_M: np.ndarray, labels: Labels) -> np.ndarray:
    """Whether the top class is the label, or one of several, bool [M]."""
    if not isinstance(labels, LabelLists):
        return top_M == labels  # −1 is no class
    right = np.zeros(len(labels), bool)
    right[labels.rows[top_M[labels.rows] == labels.numbers]] = True
    return right


class LogitStatistics:
    """Of stored logits: rows, labelled, correct, accuracy (where labelled), the mean entropy at
    T = 1 in nats, and min, max and mean of all N·C values, where these are stored."""

    def __init__(self) -> None:
        self.parts: list[Statistics] = []
        self.rows = 0

    def add(self, logits: Logits, labels: Labels, rows: int | None = None) -> None:
        """Stored logits of M positions, and their labels, int64 [M], −1 for none, or lists. rows:
        how many rows these are positions of, where a row may have several or none."""
        rows = len(labels) if rows is None else rows
        self.rows += rows
        if not len(labels):  # a row group whose rows have no position: nothing of it has a mean
            return
        tally = logits.tally()
        right = is_right(tally.top, labels)
        values = len(labels) * logits.classes
        self.parts.append(
            Statistics(
                rows=rows,
                positions=len(labels) if rows != len(labels) else None,
                labelled=int(known(labels).sum()),
                correct=int(right.sum()),
                positives=len(labels.numbers) if isinstance(labels, LabelLists) else None,
                min=tally.smallest,
                max=tally.largest,
                mean=None if tally.total is None else tally.total / values,
                entropy=float(tally.entropy.mean(dtype=np.float64)),
            )
        )

    @property
    def merged(self) -> Statistics | None:
        """None where no row has a position."""
        merged = Statistics.merge(self.parts)
        if merged is None or merged.rows == self.rows:
            return merged
        scored = merged.scored
        return merged.replace(rows=self.rows, positions=scored if scored != self.rows else None)
