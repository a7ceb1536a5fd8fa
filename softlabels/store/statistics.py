"""What a shard's commit says of its logits. N rows, C classes."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from softlabels.logits import entropy_at_one

ENOUGH = 20  # labelled rows of which an accuracy is judged
BLOCK_VALUES = 1 << 18  # float32 that the processor's cache holds


class LogitStatistics:
    """Of the stored logits of several sets of rows, what `describe_logits` says of each.

    Rows are looked at a block at a time, in memory that is kept: asking for it anew would cost as
    much as the work.
    """

    def __init__(self, classes: int) -> None:
        self.parts: list[dict[str, Any]] = []
        self._rows = max(1, BLOCK_VALUES // classes)
        self._values = np.empty((self._rows, classes), np.float32)
        self._spare = np.empty_like(self._values)

    def add(self, stored_NC: Tensor, labels: np.ndarray) -> None:
        """Stored logits [N, C] on the CPU, and their labels int64 [N], −1 for none."""
        for start in range(0, len(labels), self._rows):
            part = slice(start, start + self._rows)
            self.parts.append(self._describe(stored_NC[part], labels[part]))

    @property
    def merged(self) -> dict[str, Any]:
        return merge_statistics(self.parts)

    def _describe(self, stored_NC: Tensor, labels: np.ndarray) -> dict[str, Any]:
        rows = len(labels)
        values_NC = self._values[:rows]
        values = torch.from_numpy(values_NC).copy_(stored_NC)
        smallest, largest = values.aminmax()
        total = values.sum(-1).sum(dtype=torch.float64)
        top = values_NC.argmax(-1)
        known = labels >= 0
        return {
            "rows": rows,
            "labelled": int(known.sum()),
            "correct": int(((top == labels) & known).sum()),
            "min": float(smallest),
            "max": float(largest),
            "mean": float(total) / values_NC.size,
            "entropy": float(
                entropy_at_one(values_NC, top, self._spare[:rows]).mean(dtype=np.float64)
            ),
        }


def alarm(statistics: dict[str, Any], classes: int) -> str:
    """What has to be said of an accuracy that guessing would give, or ''. Guessing is right in
    1/C of the rows, and this far above it by three standard deviations at most."""
    labelled, correct = statistics.get("labelled", 0), statistics.get("correct", 0)
    chance = 1 / classes
    guessed = labelled * chance + 3 * math.sqrt(labelled * chance * (1 - chance))
    if labelled < ENOUGH or correct > guessed:
        return ""
    return (
        f"the teacher's accuracy is {correct / labelled:.4f}, no better than guessing among "
        f"{classes} classes: are these the labels and the preprocessing it knows, and the rows and "
        f"classes in its order?"
    )


def describe_logits(stored_NC: Tensor, labels: np.ndarray) -> dict[str, Any]:
    """Of stored logits: rows, labelled, correct, accuracy (where labelled), min, max, mean (of all
    N·C values) and the mean entropy at T = 1 in nats."""
    statistics = LogitStatistics(stored_NC.shape[1])
    statistics.add(stored_NC, labels)
    return statistics.merged


def merge_statistics(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Statistics of several disjoint sets of rows as those of all."""
    parts = [part for part in parts if part["rows"]]
    rows = sum(part["rows"] for part in parts)
    if not rows:
        return {"rows": 0}
    labelled = sum(part["labelled"] for part in parts)
    merged = {
        "rows": rows,
        "labelled": labelled,
        "correct": sum(part["correct"] for part in parts),
        "min": min(part["min"] for part in parts),
        "max": max(part["max"] for part in parts),
        "mean": sum(part["mean"] * part["rows"] for part in parts) / rows,
        "entropy": sum(part["entropy"] * part["rows"] for part in parts) / rows,
    }
    if labelled:
        merged["accuracy"] = merged["correct"] / labelled
    unturned = sum(part.get("unturned", 0) for part in parts)
    if unturned:
        merged["unturned"] = unturned
    return merged
