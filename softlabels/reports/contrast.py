"""How the answers of two models to the same rows differ, added up block by block.

N rows of all blocks, M of one, C classes. Of each row its KL at each temperature is kept, 8 bytes,
so that percentiles are exact; all else is sums.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from softlabels.differences import (
    kl_of_each,
    kl_of_noise,
    shared_top,
    variance_of_rounding,
    variation_of_each,
    widened,
)
from softlabels.logits import BLOCK_VALUES, Logits
from softlabels.measures import TOP, agrees
from softlabels.reports.flips import Flips, LabelFlips, TopFlips

PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9}
EDGES = [10 ** (power / 4) for power in range(-48, 9)]  # nats: four bins a decade
ABOUT = 2  # times what storing made by itself: that is an estimate, and the mean of other rows


@dataclass(frozen=True)
class At:
    """How far two models are apart at a temperature.

    kl: mean, p50, p90, p99, p99.9 and max of KL(reference ‖ other) over rows, in nats; percentiles
        as numpy's, linear between rows.
    total_variation: mean and max of it over rows.
    histogram: how many rows have a KL between two neighbours of `EDGES`; what is below the first or
        above the last lies in the first bin, or in the last.
    storage: about what storing both made of the mean KL by itself; None where it is unknown.
    is_coarse: whether it is unknown since logits are rounded too coarsely for this T.
    """

    T: float
    kl: dict[str, float]
    total_variation: dict[str, float]
    histogram: list[int]
    storage: float | None
    is_coarse: bool

    @property
    def is_of_storage(self) -> bool:
        """Whether the mean KL is about what storing made by itself, or less."""
        return self.storage is not None and self.kl["mean"] <= ABOUT * self.storage


@dataclass
class _Sums:
    """Those of one temperature. lost: what storing made of each of both, as estimated; None where
    it is unknown, NaN where it can't be estimated at this T."""

    kl_N: np.ndarray
    variation: float = 0.0
    most_variation: float = 0.0
    lost: list[float | None] = field(default_factory=lambda: [0.0, 0.0])


class Contrast:
    """Takes blocks in the order of their rows."""

    def __init__(
        self, rows: int, classes: int, temperatures: Sequence[float], several: bool
    ) -> None:
        self.classes, self.done = classes, 0
        self.sums = {T: _Sums(np.empty(rows)) for T in temperatures}
        self.same_N = np.empty(rows)
        self.shared = 0.0
        self.flips = LabelFlips(classes) if several else TopFlips(classes)
        self.has_top = not several and classes > TOP

    def add(self, reference: Logits, other: Logits, labels: Tensor) -> None:
        """labels: as `Block.labels`. In parts that fit into the processor's cache, which takes half
        the time."""
        size = max(1, BLOCK_VALUES // self.classes)
        parts = (reference.chunks(size), other.chunks(size), labels.split(size))
        for ours, theirs, labels_M in zip(*parts, strict=True):
            self._add(ours, theirs, labels_M)

    def _add(self, reference: Logits, other: Logits, labels: Tensor) -> None:
        rows = slice(self.done, self.done + len(reference))
        self.done = rows.stop
        ours, theirs = widened(reference), widened(other)
        noise = [(ours, variance_of_rounding(reference)), (theirs, variance_of_rounding(other))]
        for T, sums in self.sums.items():
            sums.kl_N[rows] = kl_of_each(ours, theirs, T).numpy()
            variation_M = variation_of_each(ours, theirs, T)
            sums.variation += float(variation_M.sum())
            sums.most_variation = max(sums.most_variation, float(variation_M.max()))
            for side, (logits, variance_MC) in enumerate(noise):
                sums.lost[side] = _plus(sums.lost[side], logits, variance_MC, T)
        self.same_N[rows] = agrees(*(one.temper(1) for one in (ours, theirs))).numpy()
        if self.has_top:
            self.shared += float(shared_top(ours, theirs, TOP).sum())
        self.flips.add(ours, theirs, labels, (reference, other))

    @property
    def agreement(self) -> float:
        """The share of the rows with the same top class, or of the labels of all rows about which
        both decide alike."""
        return float(self.same_N.mean())

    @property
    def top5(self) -> float | None:
        """The share of the 5 most probable classes that is the same, the mean over rows; None where
        there are no more classes than that, and for several labels a row."""
        return self.shared / self.done if self.has_top else None

    def of_rows(self, which_N: np.ndarray) -> dict[str, Any]:
        """Of some rows, bool [N]: agreement, and kl, the mean at each temperature."""
        kl = [float(sums.kl_N[which_N].mean()) for sums in self.sums.values()]
        return {"agreement": float(self.same_N[which_N].mean()), "kl": kl}

    def changed(self, names: Sequence[str]) -> Flips:
        return self.flips.found(names)

    def at(self, T: float, stated: Sequence[float | None]) -> At:
        """stated: what the records of each dump say that its codec lost at this temperature; where
        they don't, it is estimated."""
        sums = self.sums[T]
        percentiles = np.percentile(sums.kl_N, list(PERCENTILES.values())).tolist()
        lost = [
            estimate / self.done if own is None and estimate is not None else own
            for own, estimate in zip(stated, sums.lost, strict=True)
        ]
        known = [one for one in lost if one is not None and not math.isnan(one)]
        return At(
            T=T,
            kl={"mean": float(sums.kl_N.mean()), **dict(zip(PERCENTILES, percentiles, strict=True)),
                "max": float(sums.kl_N.max())},
            total_variation={"mean": sums.variation / self.done, "max": sums.most_variation},
            histogram=np.histogram(sums.kl_N.clip(EDGES[0], EDGES[-1]), EDGES)[0].tolist(),
            storage=sum(known) if len(known) == len(lost) else None,
            is_coarse=any(one is not None and math.isnan(one) for one in lost),
        )  # fmt: skip

    def worst(self, T: float, count: int) -> np.ndarray:
        """The rows of the largest KL at T, the largest first, int64; none where KL is 0."""
        kl_N = self.sums[T].kl_N
        order = np.argsort(-kl_N, kind="stable")[:count]
        return order[kl_N[order] > 0]


def _plus(
    before: float | None, logits: Logits, variance_MC: Tensor | None, T: float
) -> float | None:
    """What storing made of blocks before and of this one."""
    if before is None or variance_MC is None:
        return None
    return before + float(kl_of_noise(logits, variance_MC, T).sum())
