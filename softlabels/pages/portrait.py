"""What a report tells of a teacher, from one pass over all of its logits. M positions of a block,
C classes."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from softlabels.logits import Logits
from softlabels.measures import LabelScore, Uncertainty
from softlabels.reports.choosing import first_views
from softlabels.reports.classes import ClassTable
from softlabels.reports.survey import Survey, survey
from softlabels.store.reader import DumpReader
from softlabels.system.progress import Progress

TEMPERATURES = (0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 20.0, 40.0)


class Looked:
    """What is kept of each position, in the order of the rows; sums over all.

    score: against the hard labels, of rows that have one; of several views only the first of each
        input, since augmented inputs are harder.
    by_view: the same for each view, where there are several.
    entropies: of the soft targets by T, in nats.
    """

    def __init__(self, several: bool, views: np.ndarray | None = None) -> None:
        """views: the view of each position, in order, int [all M]; None where there is one."""
        self.several = several
        self._views = views
        self._all = LabelScore()
        self.by_view: dict[int, LabelScore] = {}
        self.entropies = {T: Uncertainty() for T in TEMPERATURES}
        self._parts: list[tuple[np.ndarray, ...]] = []

    def add(self, logits: Logits, labels: Tensor) -> None:
        """Add a block, as `survey` hands it on."""
        for T in TEMPERATURES:
            self.entropies[T] += Uncertainty.of(logits.temper(T))
        if not self.several:
            self._all += LabelScore.of(logits, labels)
            if self._views is not None:
                view_M = torch.from_numpy(self._views[len(self) : len(self) + len(labels)])
                for view in view_M.unique().tolist():
                    of_view = LabelScore.of(logits, labels.where(view_M == view, -1))
                    self.by_view[view] = self.by_view.get(view, LabelScore()) + of_view
        soft = logits.temper(1)
        confidence_M, top_M = (one[:, 0].cpu() for one in soft.top(1))
        if self.several:
            off_MC = (soft.probs().cpu() - labels).abs()
            wrong_M = torch.where((labels >= 0).all(-1), off_MC.amax(-1), -1.0)
            label_M = torch.full_like(top_M, -1)
        else:
            label_M = labels
            wrong_M = torch.where((labels >= 0) & (top_M != labels), confidence_M, -1.0)
        parts = (wrong_M, soft.entropy().cpu(), top_M, label_M)
        self._parts.append(tuple(part.numpy() for part in parts))

    @property
    def score(self) -> LabelScore:
        return self.by_view[min(self.by_view)] if self.by_view else self._all

    def __len__(self) -> int:
        return sum(len(part[0]) for part in self._parts)

    def _column(self, place: int) -> np.ndarray:
        parts = [part[place] for part in self._parts]
        return np.concatenate(parts) if parts else np.empty(0)

    @property
    def wrong(self) -> np.ndarray:
        """How probable the teacher holds what is wrong, float32 [M], below 0 where the label is not
        known: the top class that is not the label, else −1; of several labels the one that is
        furthest from what it should be."""
        return self._column(0)

    @property
    def entropy(self) -> np.ndarray:
        """At T = 1 in nats, float32 [M]."""
        return self._column(1)

    def table(self, names: list[str]) -> ClassTable:
        """The teacher against the hard labels of each class."""
        tops, labels = self._column(2), self._column(3)
        return ClassTable.of(labels[labels >= 0], tops[labels >= 0], names)


@dataclass(frozen=True)
class Portrait:
    """mistaken, softest: rows of the dump, one of each input: those where the teacher errs, the
    most confident first, and those with the most entropy. None where a row has several positions.
    """

    survey: Survey
    looked: Looked
    mistaken: np.ndarray | None
    softest: np.ndarray | None


def portray(reader: DumpReader, rows: int, progress: Progress) -> Portrait:
    """rows: how many of each kind are chosen at most."""
    plan = reader.plan
    looked = Looked(plan.several_labels, reader.views if plan.has_views else None)
    with progress.bar("report", len(reader), "rows") as advance:

        def also(logits: Logits, labels: Tensor) -> None:
            looked.add(logits, labels)
            advance(len(logits) // max(plan.positions or 1, 1))

        surveyed = survey(reader, also)
    if plan.positions != 1:
        return Portrait(surveyed, looked, None, None)
    first = first_views(reader)
    wrong, entropy = looked.wrong[first], looked.entropy[first]
    least = 0.5 if plan.several_labels else 0.0
    order = np.argsort(-wrong, kind="stable")
    mistaken = first[order][wrong[order] > least][:rows]
    softest = first[np.argsort(-entropy, kind="stable")][:rows]
    return Portrait(surveyed, looked, mistaken, softest)
