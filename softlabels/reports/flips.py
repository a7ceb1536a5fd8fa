"""Where two models decide otherwise about the same rows. N rows, C classes.

Of one class a row the decision is the top class; of several labels a row there are C decisions,
each whether the label is more probable than not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from softlabels.differences import within_rounding
from softlabels.logits import Logits
from softlabels.measures import decided

UNKNOWN = -1


@dataclass(frozen=True)
class Flips:
    """decisions: how many there are; changed: those that differ; within_rounding: those of them
    that storing the logits may have made by itself, since in one of both dumps the logits that
    decide are closer than their rounding; right_to_wrong, wrong_to_right: those that were as the
    label says, and that became so; None without labels.

    classes: of each class its number and name, how many rows the reference gives it and the other
        model, how many of them left it and came to it, and of the rows with this label how many
        became wrong and right; None without labels.
    pairs: of one class a row, the classes that rows went from and to, the most frequent first, with
        rows, right_to_wrong and wrong_to_right; empty for several labels a row.
    """

    decisions: int
    changed: int
    within_rounding: int
    right_to_wrong: int | None
    wrong_to_right: int | None
    classes: list[dict[str, Any]]
    pairs: list[dict[str, Any]]

    @property
    def share(self) -> float:
        return self.changed / self.decisions if self.decisions else 0.0


class TopFlips:
    """Adds up those of one class a row. Of rows that flip it keeps both classes and the label."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.rows = self.labelled = 0
        self.given = np.zeros((2, classes), np.int64)  # by the reference, by the other model
        self.flipped: list[np.ndarray] = [np.empty((3, 0), np.int64)]
        self.within_rounding = 0

    def add(
        self, reference: Logits, other: Logits, labels: Tensor, stored: Sequence[Logits]
    ) -> None:
        """labels: int64 [M], −1 for none. stored: both as their codecs have them, which know how
        far they are rounded."""
        top_2M = np.stack([decided(one.temper(1)).numpy() for one in (reference, other)])
        for given_C, top_M in zip(self.given, top_2M, strict=True):
            given_C += np.bincount(top_M, minlength=self.classes)
        labels_M = labels.numpy()
        self.rows += len(labels_M)
        self.labelled += int((labels_M >= 0).sum())
        flips_M = top_2M[0] != top_2M[1]
        self.flipped.append(np.concatenate([top_2M, labels_M[None]])[:, flips_M])
        if flips_M.any():
            flipped = torch.from_numpy(np.flatnonzero(flips_M))
            tops = [torch.from_numpy(top_M[flips_M]) for top_M in top_2M]
            first, second = (within_rounding(one.select(flipped), *tops) for one in stored)
            self.within_rounding += int((first | second).sum())

    def found(self, names: Sequence[str]) -> Flips:
        before, after, label = np.concatenate(self.flipped, axis=1)
        wrong, right = label == before, label == after  # what the flip made of the row
        left, came, lost, won = (
            np.bincount(which, minlength=self.classes).tolist()
            for which in (before, after, label[wrong], label[right])
        )
        is_known = self.labelled > 0
        classes = [
            {"class": number, "name": name, "reference": int(self.given[0, number]),
             "other": int(self.given[1, number]), "left": left[number], "came": came[number],
             "right_to_wrong": lost[number] if is_known else None,
             "wrong_to_right": won[number] if is_known else None}
            for number, name in enumerate(names)
        ]  # fmt: skip
        return Flips(
            decisions=self.rows,
            changed=len(before),
            within_rounding=self.within_rounding,
            right_to_wrong=int(wrong.sum()) if is_known else None,
            wrong_to_right=int(right.sum()) if is_known else None,
            classes=classes,
            pairs=self._pairs(before, after, wrong, right, names),
        )

    def _pairs(
        self, before: np.ndarray, after: np.ndarray, wrong: np.ndarray, right: np.ndarray,
        names: Sequence[str],
    ) -> list[dict[str, Any]]:  # fmt: skip
        codes, which, rows = np.unique(
            before * self.classes + after, return_inverse=True, return_counts=True
        )
        lost, won = (np.bincount(which, one, len(codes)).astype(int) for one in (wrong, right))
        found = []
        for place in np.argsort(-rows, kind="stable"):
            first, second = divmod(int(codes[place]), self.classes)
            labelled = self.labelled > 0
            found.append(
                {"from": first, "to": second, "from_name": names[first], "to_name": names[second],
                 "rows": int(rows[place]),
                 "right_to_wrong": int(lost[place]) if labelled else None,
                 "wrong_to_right": int(won[place]) if labelled else None}
            )  # fmt: skip
        return found


class LabelFlips:
    """Adds up those of several labels a row."""

    def __init__(self, classes: int) -> None:
        self.rows = self.labelled = 0
        counts = torch.zeros(classes, dtype=torch.int64)
        self.given = [counts, counts]
        self.lost = self.gained = self.right_to_wrong = self.wrong_to_right = counts
        self.within_rounding = 0

    def add(
        self, reference: Logits, other: Logits, labels: Tensor, stored: Sequence[Logits]
    ) -> None:
        """labels: 0 and 1, [M, C], −1 where they are unknown. stored: as those of `TopFlips`."""
        first_MC, second_MC = (decided(one.temper(1)) for one in (reference, other))
        flips_MC = first_MC != second_MC
        was_right_MC = (labels >= 0) & (first_MC == (labels > 0))
        is_right_MC = (labels >= 0) & (second_MC == (labels > 0))
        self.rows += len(labels)
        self.labelled += int((labels >= 0).all(-1).sum())
        self.given = [self.given[0] + first_MC.sum(0), self.given[1] + second_MC.sum(0)]
        self.lost = self.lost + (flips_MC & first_MC).sum(0)
        self.gained = self.gained + (flips_MC & second_MC).sum(0)
        self.right_to_wrong = self.right_to_wrong + (flips_MC & was_right_MC).sum(0)
        self.wrong_to_right = self.wrong_to_right + (flips_MC & is_right_MC).sum(0)
        may_be_storage_MC = torch.zeros_like(flips_MC)
        for logits in stored:
            if logits.is_dense:  # a label is decided by the sign of its logit
                may_be_storage_MC |= logits.dense().double().abs() <= logits.rounding()
        self.within_rounding += int((flips_MC & may_be_storage_MC).sum())

    def found(self, names: Sequence[str]) -> Flips:
        is_known = self.labelled > 0
        columns = (*self.given, self.lost, self.gained, self.right_to_wrong, self.wrong_to_right)
        classes = [
            {"class": number, "name": name, "reference": first, "other": second, "left": left,
             "came": came, "right_to_wrong": lost if is_known else None,
             "wrong_to_right": won if is_known else None}
            for number, (name, first, second, left, came, lost, won) in enumerate(
                zip(names, *(column.tolist() for column in columns), strict=True)
            )
        ]  # fmt: skip
        return Flips(
            decisions=self.rows * len(names),
            changed=int(self.lost.sum() + self.gained.sum()),
            within_rounding=self.within_rounding,
            right_to_wrong=int(self.right_to_wrong.sum()) if is_known else None,
            wrong_to_right=int(self.wrong_to_right.sum()) if is_known else None,
            classes=classes,
            pairs=[],
        )
