"""The dark knowledge: which classes a teacher confuses. M positions of a block, C classes.

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
# A mean over one row is mostly noise. Pairs are ranked by means in which so many rows that confuse
# nothing are counted too: that hardly moves a class of a hundred rows, and halves one of five.
UNCONFUSED = 5


@dataclass(frozen=True)
class Pair:
    """Two classes. probability: that of one for rows of the other at T = 1, the mean of both ways,
    or the one way of which there are rows; softly: the same at T = 4; errors: rows of one whose top
    class is the other, of both ways, None where there are no labels, or several a row; rows: how
    many of each the means are over."""

    first: int
    second: int
    probability: float
    softly: float
    errors: int | None
    rows: tuple[int, int]


class Confusions:
    """Sums over blocks of positions, in float64; counts are exact.

    by: `label`, or `top class` where there are no labels: what rows are summed by. A row with
        several labels counts for each, and says of another class only where that is no label of the
        row too: else what is right would count as confused. Positions whose labels are unknown are
        left out.
    rows: how many positions there are of each class, float64 [C].
    counts: how many of them each mean is over, float64 [C, C], or [C, 1] where that is all.
    soft: by T, their summed soft targets, float64 [C, C], rows by class.
    taken: by label and top class, how many positions, float64 [C, C]; None as for `Pair.errors`.
    """

    def __init__(self, classes: int, labelled: bool, several: bool = False) -> None:
        square = (classes, classes)
        self.by = "label" if labelled else "top class"
        self.rows = torch.zeros(classes, dtype=torch.float64)
        self.soft = {T: torch.zeros(square, dtype=torch.float64) for T in (AT_ONE, SOFT)}
        self._together = torch.zeros(square, dtype=torch.float64) if labelled and several else None
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
                self.taken.view(-1).index_add_(0, pairs, torch.ones(len(pairs)).double())
            return
        known_M = (labels >= 0).all(-1)
        hot_MC = labels[known_M].double()
        self.rows += hot_MC.sum(0)
        if self._together is not None:
            self._together += hot_MC.T @ hot_MC
        for T, sums in self.soft.items():
            q_MC = soft[T][known_M]
            own = (hot_MC * q_MC).sum(0)
            sums += hot_MC.T @ (q_MC * (1 - hot_MC)) + own.diag()

    @property
    def counts(self) -> Tensor:
        if self._together is None:
            return self.rows[:, None]
        return self.rows[:, None] - self._together + self.rows.diag()

    def mean(self, T: float) -> np.ndarray:
        """The mean soft target of the rows of each class, float64 [C, C]; 0 without rows."""
        return (self.soft[T] / self.counts.clamp_min(1)).numpy()

    def between(self, T: float, unconfused: int = 0) -> np.ndarray:
        """How probable one class is for rows of another, the same both ways, float64 [C, C]: the
        mean of both ways where both have rows, else of that which has. The diagonal is 0.

        unconfused: so many rows that confuse nothing are counted too, of each class.
        """
        if unconfused:
            one_way = (self.soft[T] / (self.counts + unconfused)).numpy()
            both: np.ndarray = (one_way + one_way.T) / 2
        else:
            mean, has = self.mean(T), (self.counts > 0).numpy().astype(float)
            has = np.broadcast_to(has, mean.shape)
            both = (mean + mean.T) / np.maximum(has + has.T, 1)
        np.fill_diagonal(both, 0)
        return both

    def pairs(self, most: int) -> list[Pair]:
        """The most confused pairs of classes, `most` of them at most: by `probability`, in which
        `UNCONFUSED` rows are counted too, so that pairs of few rows don't come first by chance.
        Pairs of which nothing was confused are none."""
        at_one, softly = self.between(AT_ONE), self.between(SOFT)
        counts = np.broadcast_to(self.counts.numpy(), at_one.shape)
        taken = None if self.taken is None else (self.taken + self.taken.T).numpy()
        first, second = np.triu_indices(len(at_one), 1)
        values = self.between(AT_ONE, UNCONFUSED)[first, second]
        order = np.argsort(-values, kind="stable")[:most]
        return [
            Pair(int(i), int(j), float(at_one[i, j]), float(softly[i, j]),
                 None if taken is None else int(taken[i, j]),
                 (int(counts[i, j]), int(counts[j, i])))
            for i, j in zip(first[order], second[order], strict=True)
            if at_one[i, j] > 0
        ]  # fmt: skip
