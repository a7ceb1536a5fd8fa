"""What the stored logits tell of the teacher: how well its confidence fits the labels, and how soft
its targets are. N rows, C classes."""

import math
from dataclasses import dataclass

import numpy as np

from softlabels.logits import Logits
from softlabels.store.markdown import folded, table
from softlabels.store.reader import DumpReader

BINS = 15
PARTS = 50
TEMPERATURES = (1.0, 4.0, 8.0)


@dataclass(frozen=True)
class Calibration:
    """Of the labelled rows, by confidence (the largest probability at T = 1) in BINS equal bins:
    how many, their summed confidence, and how many are right. entropies: of all rows, for each of
    TEMPERATURES, how many in PARTS equal parts from 0 to log C nats."""

    counts: np.ndarray
    confidence: np.ndarray
    correct: np.ndarray
    entropies: dict[float, np.ndarray]
    classes: int

    @property
    def labelled(self) -> int:
        return int(self.counts.sum())

    @property
    def error(self) -> float | None:
        """The expected calibration error: Σ_b n_b/N · |accuracy_b − confidence_b| (Guo et al. 2017,
        "On Calibration of Modern Neural Networks", eq. 3); None without labels."""
        if not self.labelled:
            return None
        return float(np.abs(self.correct - self.confidence).sum() / self.labelled)

    @property
    def words(self) -> str:
        error = self.error
        if error is None:
            return (
                "The source has no labels, so the teacher's accuracy and calibration are unknown."
            )
        rows = [
            (f"{b / BINS:.2f} to {(b + 1) / BINS:.2f}", f"{int(n):,}", f"{confidence / n:.3f}",
             f"{correct / n:.3f}")
            for b, (n, confidence, correct) in enumerate(
                zip(self.counts, self.confidence, self.correct, strict=True)
            )
            if n
        ]  # fmt: skip
        head = ("confidence", "rows", "mean confidence", "accuracy")
        return (
            f"Expected calibration error at T = 1, {BINS} bins: {error:.4f}.\n\n"
            f"{folded('Calibration in numbers', table(head, rows))}"
        )


def calibrate(reader: DumpReader) -> Calibration:
    """Reads every row's logits, once, a row group at a time."""
    sums, classes = np.zeros((3, BINS)), reader.plan.classes
    entropies = {T: np.zeros(PARTS) for T in TEMPERATURES}
    for logits, labels in reader.groups(labels=True):
        _count(logits, labels, classes, sums, entropies)
    counts, confidence, correct = sums
    return Calibration(counts, confidence, correct, entropies, classes)


def _count(
    logits: Logits,
    labels: np.ndarray,
    classes: int,
    sums: np.ndarray,
    entropies: dict[float, np.ndarray],
) -> None:
    for T, counts in entropies.items():
        share = logits.temper(T).entropy().numpy() / max(math.log(classes), 1e-9)
        counts += np.bincount(parts(share, PARTS), minlength=PARTS)
    known = labels >= 0
    best, found = (x[:, 0].numpy()[known] for x in logits.temper(1).top(1))
    for row, weights in enumerate((None, best, found == labels[known])):
        sums[row] += np.bincount(parts(best, BINS), weights, BINS)


def parts(shares: np.ndarray, count: int) -> np.ndarray:
    """Which of `count` equal parts of [0, 1] each lies in."""
    return np.clip((shares * count).astype(np.int64), 0, count - 1)
