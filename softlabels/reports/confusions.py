"""The dark knowledge: which classes a teacher holds for alike. M positions of a block, C classes.

Of all rows with a label, the mean soft target says how probable the teacher holds each other class
for (Hinton et al. 2015, section 1: a BMW may be taken for a garbage truck, but not for a carrot).
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from softlabels.logits import Logits

AT_ONE, SOFT = 1.0, 4.0  # at 1 soft targets are beside errors; at 4 every row has its say
MOST_CLASSES = 2048  # of which all pairs are held: three matrices of 8 bytes a pair


@dataclass(frozen=True)
class Pair:
    """Two classes. probability: how probable rows of one are held for the other at T = 1, the mean
    of both ways; softly: the same at T = 4; errors: rows of one whose top class is the other, of
    both ways, None where there are no labels, or several a row."""

    first: int
    second: int
    probability: float
    softly: float
    errors: int | None


class Confusions:
    """Sums over blocks of positions, in float64; counts are exact.

    by: `label`, or `top class` where there are no labels: what rows are summed by. A row with
        several labels counts for each; positions whose labels are unknown are left out.
    held: what the teacher does with a pair, in words.
    rows: how many positions there are of each class, float64 [C].
    soft: by T, their summed soft targets, float64 [C, C], rows by class.
    taken: by label and top class, how many positions, float64 [C, C]; None as for `Pair.errors`.
    """

    def __init__(self, classes: int, labelled: bool, several: bool = False) -> None:
        square = (classes, classes)
        self.by = "label" if labelled else "top class"
        self.held = "given together" if labelled and several else "held for each other"
        self.rows = torch.zeros(classes, dtype=torch.float64)
        self.soft = {T: torch.zeros(square, dtype=torch.float64) for T in (AT_ONE, SOFT)}
        is_counted = labelled and not several
        self.taken = torch.zeros(square, dtype=torch.float64) if is_counted else None

    def count(self, logits: Logits, labels: Tensor) -> None:
        """Add a block. labels: int64 [M], −1 for none, or 0 and 1 [M, C], −1 for unknown; without
        labels they are not looked at."""
        soft = {T: logits.temper(T).probs().cpu().double() for T in self.soft}
        top_M = logits.temper(AT_ONE).top(1)[1][:, 0].cpu()
        if self.by == "top class" or labels.dim() == 1:
            class_M = top_M if self.by == "top class" else labels
            known_M = class_M >= 0
            class_M = class_M[known_M]
            self.rows += class_M.bincount(minlength=len(self.rows))
            for T, sums in self.soft.items():
                sums.index_add_(0, class_M, soft[T][known_M])
            if self.taken is not None:
                pairs = class_M * len(self.rows) + top_M[known_M]
                self.taken += pairs.bincount(minlength=self.taken.numel()).view_as(self.taken)
            return
        known_M = (labels >= 0).all(-1)
        hot_MC = labels[known_M].double()
        self.rows += hot_MC.sum(0)
        for T, sums in self.soft.items():
            sums += hot_MC.T @ soft[T][known_M]

    def mean(self, T: float) -> np.ndarray:
        """The mean soft target of the rows of each class, float64 [C, C]; 0 for one without."""
        return (self.soft[T] / self.rows.clamp_min(1)[:, None]).numpy()

    def between(self, T: float) -> np.ndarray:
        """How probable rows of one class are held for another, both ways alike, float64 [C, C]:
        the mean of both where both have rows, else of those that have. The diagonal is 0."""
        mean, has = self.mean(T), (self.rows > 0).numpy().astype(float)
        counted = np.maximum(has[:, None] + has[None, :], 1)
        both: np.ndarray = (mean + mean.T) / counted
        np.fill_diagonal(both, 0)
        return both

    def pairs(self, most: int) -> list[Pair]:
        """The most confused pairs of classes, by `probability`, `most` of them at most. Pairs of
        which nothing was confused are none."""
        at_one, softly = self.between(AT_ONE), self.between(SOFT)
        taken = None if self.taken is None else (self.taken + self.taken.T).numpy()
        first, second = np.triu_indices(len(at_one), 1)
        values = at_one[first, second]
        order = np.argsort(-values, kind="stable")[:most]
        return [
            Pair(int(i), int(j), float(at_one[i, j]), float(softly[i, j]),
                 None if taken is None else int(taken[i, j]))
            for i, j in zip(first[order], second[order], strict=True)
            if at_one[i, j] > 0
        ]  # fmt: skip
