"""How well the teacher's confidence fits its labels, from the stored logits. N rows, C classes."""

from dataclasses import dataclass

import numpy as np
import torch

from softlabels.logits import DenseLogits
from softlabels.store.reader import DumpReader

BINS = 15
BLOCK_ROWS = 16_384


@dataclass(frozen=True)
class Calibration:
    """Of the labelled rows, by confidence (the largest probability at T = 1) in BINS equal bins:
    how many, their summed confidence, and how many are right."""

    counts: np.ndarray
    confidence: np.ndarray
    correct: np.ndarray

    @property
    def labelled(self) -> int:
        return int(self.counts.sum())

    @property
    def error(self) -> float:
        """The expected calibration error: Σ_b n_b/N · |accuracy_b − confidence_b| (Guo et al. 2017,
        "On Calibration of Modern Neural Networks", eq. 3)."""
        return float(np.abs(self.correct - self.confidence).sum() / self.labelled)

    @property
    def words(self) -> str:
        if not self.labelled:
            return (
                "The source has no labels, so the teacher's accuracy and calibration are unknown."
            )
        rows = "\n".join(
            f"| {b / BINS:.2f} to {(b + 1) / BINS:.2f} | {int(n):,} | {confidence / n:.3f} "
            f"| {correct / n:.3f} |"
            for b, (n, confidence, correct) in enumerate(
                zip(self.counts, self.confidence, self.correct, strict=True)
            )
            if n
        )
        return (
            f"Expected calibration error at T = 1, {BINS} bins: {self.error:.4f}.\n\n"
            f"| confidence | rows | mean confidence | accuracy |\n|---|---|---|---|\n{rows}"
        )


def calibrate(reader: DumpReader) -> Calibration:
    """Reads every row's logits, a block at a time."""
    sums = np.zeros((3, BINS))
    labels = reader.labels
    for start in range(0, len(reader) if labels is not None else 0, BLOCK_ROWS):
        rows = np.arange(start, min(start + BLOCK_ROWS, len(reader)))
        rows = rows[labels[rows] >= 0]  # type: ignore[index]
        if not len(rows):
            continue
        logits_NC = torch.from_numpy(reader.logits_of(rows))
        best, found = DenseLogits(logits_NC).temper(1).probs().max(1)
        right = found.numpy() == labels[rows]  # type: ignore[index]
        bins = np.minimum((best.numpy() * BINS).astype(int), BINS - 1)
        for row, weights in enumerate((None, best.numpy(), right)):
            sums[row] += np.bincount(bins, weights, BINS)
    return Calibration(*sums)
