"""How good the answers of a multi-label model are, label by label.

M rows, or scored positions; C labels. Probabilities are those at T = 1; NLL is in nats.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from softlabels.logits import DenseLogits, Logits
from softlabels.soft_targets import SoftLabels

LABEL = 32  # bits below the label in a key
BLOCK_ROWS = 4096


@dataclass(frozen=True, eq=False)
class MultiLabelScore:
    """Multi-label logits against hard labels, of the rows whose labels are known.

    rows: how many. nll: the summed −Σ over labels of log p, of the label or of its absence.
    Of each label, [C]: positives, the rows that have it; predicted, those whose logit is above 0,
    and so its probability above a half; hits, those among both; probability, the summed one.
    """

    rows: int
    nll: float
    positives: Tensor
    predicted: Tensor
    hits: Tensor
    probability: Tensor

    @classmethod
    def none(cls, classes: int) -> "MultiLabelScore":
        counts = torch.zeros(classes, dtype=torch.int64)
        return cls(0, 0.0, counts, counts, counts, torch.zeros(classes, dtype=torch.float64))

    @classmethod
    def of(cls, logits: Logits, labels_MC: Tensor) -> "MultiLabelScore":
        """Of a block of positions. labels: 0 and 1, [M, C]; positions with −1 are left out."""
        known_M = (labels_MC >= 0).all(-1)
        logits, there_MC = logits.select(known_M.nonzero()[:, 0]), labels_MC[known_M] > 0
        x_MC = label_logits(logits).cpu().float()
        # log p of a label, and of its absence log(1 − p), which is that of the negated logit
        log_p_MC = DenseLogits(torch.where(there_MC, x_MC, -x_MC), link="sigmoid").temper(1)
        above_MC = x_MC > 0
        return cls(
            rows=len(x_MC),
            nll=-float(log_p_MC.log_probs().double().sum()),
            positives=there_MC.sum(0),
            predicted=above_MC.sum(0),
            hits=(there_MC & above_MC).sum(0),
            probability=logits.temper(1).probs().cpu().double().sum(0),
        )

    def __add__(self, other: "MultiLabelScore") -> "MultiLabelScore":
        mine, others = vars(self), vars(other)
        return MultiLabelScore(**{name: mine[name] + others[name] for name in mine})

    @property
    def measures(self) -> dict[str, float]:
        """rows: those with known labels; labels_each: the mean number of a row's labels; nll: the
        mean of a row. Empty without such rows."""
        if not self.rows:
            return {}
        positives = int(self.positives.sum())
        each, nll = positives / self.rows, self.nll / self.rows
        return {"rows": self.rows, "labels_each": each, "nll": nll}

    def of_labels(self, average_precision_C: Tensor) -> list[dict[str, float | None]]:
        """For each label: positives, prevalence (their share of the rows), mean probability, ap,
        precision and recall at a probability of a half. None where it is undefined."""
        columns = (self.positives, self.predicted, self.hits, self.probability, average_precision_C)
        return [
            {
                "positives": positives,
                "prevalence": _share(positives, self.rows),
                "mean_probability": _share(probability, self.rows),
                "ap": None if math.isnan(ap) else ap,
                "precision": _share(hits, predicted),
                "recall": _share(hits, positives),
            }
            for positives, predicted, hits, probability, ap in zip(
                *(column.tolist() for column in columns), strict=True
            )
        ]


def _share(part: float, whole: int) -> float | None:
    return part / whole if whole else None


class AveragePrecision:
    """Average precision of each label.

    Rows are ordered by a label's logit; the average precision is the mean, over the rows that have
    the label, of the share of them among all rows whose logit is at least as high. That is the area
    under the steps of precision over recall, without interpolation, rows of equal logits taken
    together: `sklearn.metrics.average_precision_score`. Logits are compared in float32.

    It needs two passes over the same rows, and memory for the positives alone: call `collect` with
    every block of rows, then `count` with every block, then `of_each`. Where processes share the
    rows, `begin_count` and `end_count` stand around the second pass.
    """

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self._parts: list[np.ndarray] = [np.empty(0, np.int64)]
        self._keys: np.ndarray | None = None  # of all positives, ascending
        self._changes = np.empty(0, np.int64)

    def collect(self, logits_MC: Tensor, labels_MC: Tensor) -> None:
        """labels: 1 where a row has the label, [M, C]."""
        keys_MC = _keys(logits_MC)
        self._parts.append(keys_MC[(labels_MC > 0).cpu().numpy()])

    def count(self, logits_MC: Tensor) -> None:
        """A row is at least as high as the positives of a label whose keys are not above its own:
        a run of the ascending keys, so only where it begins and ends is noted."""
        if self._keys is None:
            self.begin_count([self.positives])
        assert self._keys is not None, "it has begun"
        ascending = np.sort(_keys(logits_MC).T, axis=1).ravel()  # found four times as fast
        ends = np.searchsorted(self._keys, ascending, side="right")
        self._changes -= np.bincount(ends, minlength=len(self._changes))
        starts = np.searchsorted(self._keys, np.arange(self.classes) << LABEL)
        of_labels = np.bincount(starts, minlength=len(self._changes))
        self._changes += of_labels * len(logits_MC)

    @property
    def positives(self) -> np.ndarray:
        """What the first pass has found, int64."""
        return np.concatenate(self._parts)

    @property
    def changes(self) -> np.ndarray:
        """What the second pass has found, int64."""
        return self._changes

    def begin_count(self, positives: Sequence[np.ndarray]) -> None:
        """Between the passes: the positives of every process."""
        self._keys, self._parts = np.sort(np.concatenate(positives)), []
        self._changes = np.zeros(len(self._keys) + 1, np.int64)

    def end_count(self, changes: Sequence[np.ndarray]) -> None:
        """After both passes: the changes of every process."""
        self._changes = np.sum(changes, axis=0)

    @property
    def of_each(self) -> Tensor:
        """float64 [C]; NaN for a label that no row has."""
        keys = np.empty(0, np.int64) if self._keys is None else self._keys
        at_least = np.cumsum(self._changes[: len(keys)])
        label = keys >> LABEL
        ends = np.searchsorted(label, label, side="right")
        positives = ends - np.searchsorted(keys, keys)  # of the same label, as high or higher
        precision = np.bincount(label, positives / at_least, minlength=self.classes)
        counts = np.bincount(label, minlength=self.classes)
        each = np.full(self.classes, np.nan)
        np.divide(precision, counts, out=each, where=counts > 0)
        return torch.from_numpy(each)


def label_logits(logits: Logits) -> Tensor:
    """The raw logits of labels, [M, C]; where there are none, as of a mean of probabilities, those
    that give its probabilities at T = 1."""
    if logits.is_dense:
        return logits.dense()
    soft = logits.temper(1)
    assert isinstance(soft, SoftLabels), "of several labels a row"
    return soft.log_odds()


def mean_of(average_precision_C: Tensor) -> float | None:
    """The mean over the labels that some row has; None where no row has any."""
    there_C = average_precision_C[~average_precision_C.isnan()]
    return float(there_C.mean()) if len(there_C) else None


def average_precision(logits_MC: Tensor, labels_MC: Tensor) -> Tensor:
    """Of rows that are in memory: float64 [C], NaN for a label that no row has."""
    ranked = AveragePrecision(logits_MC.shape[1])
    for take in (ranked.collect, lambda logits, _: ranked.count(logits)):
        blocks = (one.split(BLOCK_ROWS) for one in (logits_MC, labels_MC))
        for logits, labels in zip(*blocks, strict=True):
            take(logits, labels)
    return ranked.of_each


def _keys(logits_MC: Tensor) -> np.ndarray:
    """int64 [M, C]: the label in the upper bits, and below it a number that orders as the logit
    does."""
    values_MC = logits_MC.detach().to("cpu", torch.float32).numpy() + np.float32(0)  # no −0
    bits_MC = values_MC.view(np.int32).astype(np.int64)
    order_MC = np.where(bits_MC < 0, ~bits_MC, bits_MC | (1 << 31)) & 0xFFFFFFFF
    return order_MC | (np.arange(values_MC.shape[1]) << LABEL)
