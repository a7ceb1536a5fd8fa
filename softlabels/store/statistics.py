"""What a shard's commit says of its logits. N rows, C classes."""

import math
from typing import Any

import numpy as np

from softlabels.logits import Logits

ENOUGH = 20  # labelled rows of which an accuracy is judged


class LogitStatistics:
    """Of stored logits: rows, labelled, correct, accuracy (where labelled), the mean entropy at
    T = 1 in nats, and min, max and mean of all N·C values, where these are stored."""

    def __init__(self) -> None:
        self.parts: list[dict[str, Any]] = []

    def add(self, logits: Logits, labels: np.ndarray, rows: int | None = None) -> None:
        """Stored logits of M positions, and their labels, int64 [M], −1 for none. rows: how many
        rows these are positions of, where a row may have several or none."""
        rows = len(labels) if rows is None else rows
        if not len(labels):
            return
        tally, known = logits.tally(), labels >= 0
        part: dict[str, Any] = {
            "rows": rows,
            "labelled": int(known.sum()),
            "correct": int(((tally.top == labels) & known).sum()),
            "entropy": float(tally.entropy.mean(dtype=np.float64)),
        }
        if tally.total is not None:
            mean = tally.total / (len(labels) * logits.classes)
            part |= {"min": tally.smallest, "max": tally.largest, "mean": mean}
        if rows != len(labels):
            part["positions"] = len(labels)
        self.parts.append(part)

    @property
    def merged(self) -> dict[str, Any]:
        return merge_statistics(self.parts)


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


def merge_statistics(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Statistics of several disjoint sets of rows as those of all."""
    parts = [part for part in parts if part["rows"]]
    rows = sum(part["rows"] for part in parts)
    if not rows:
        return {"rows": 0}
    labelled = sum(part["labelled"] for part in parts)
    weights = [part.get("positions", part["rows"]) for part in parts]
    merged = {
        "rows": rows,
        "labelled": labelled,
        "correct": sum(part["correct"] for part in parts),
        "entropy": _mean("entropy", parts, weights),
    }
    if all("mean" in part for part in parts):
        merged |= {
            "min": min(part["min"] for part in parts),
            "max": max(part["max"] for part in parts),
            "mean": _mean("mean", parts, weights),
        }
    if sum(weights) != rows:
        merged["positions"] = sum(weights)
    if labelled:
        merged["accuracy"] = merged["correct"] / labelled
    unturned = sum(part.get("unturned", 0) for part in parts)
    if unturned:
        merged["unturned"] = unturned
    return merged


def _mean(name: str, parts: list[dict[str, Any]], weights: list[int]) -> float:
    total: float = sum(part[name] * weight for part, weight in zip(parts, weights, strict=True))
    return total / sum(weights)
