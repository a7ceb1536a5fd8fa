"""What all rows of a dump say of its teacher, from passes over its logits: how well its confidence
fits the labels, and how soft its targets are. M positions of a row group, C labels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from softlabels.inputs.label_lists import LabelLists, as_tensor, known
from softlabels.logits import Logits
from softlabels.measures import BINS, Calibration, Softness, most_entropy
from softlabels.multilabel import AveragePrecision, MultiLabelScore
from softlabels.reports.classes import ClassTable, LabelTable
from softlabels.reports.confusions import MOST_CLASSES, Confusions
from softlabels.reports.markdown import folded, shown, table
from softlabels.store.reader import DumpReader
from softlabels.system.humanize import short

TEMPERATURES = (1.0, 4.0, 8.0)
PAIRS = 10  # of classes, on a card


@dataclass(frozen=True)
class Survey:
    """calibration: of the labelled rows, or of their labels where they have several; softness: of
    all rows, by temperature; most: the largest entropy that there can be, in nats; labels: of a
    multi-label teacher; confusions: which classes are confused, None for too many."""

    calibration: Calibration
    softness: dict[float, Softness]
    most: float
    labels: LabelTable | None = None
    confusions: Confusions | None = None

    @property
    def section(self) -> str:
        """What the card says of the teacher's calibration, in Markdown."""
        error = self.calibration.error
        if error is None:
            return (
                "The source has no labels, so the teacher's accuracy and calibration are unknown."
            )
        what, share = ("rows", "accuracy") if self.labels is None else ("labels", "are there")
        head = ("confidence", what, "mean confidence", share)
        calibration = (
            f"Expected calibration error at T = 1, {BINS} bins: {error:.4f}.\n\n"
            f"{folded('Calibration in numbers', table(head, self.bins))}"
        )
        return calibration if self.labels is None else f"{self.labels.section}\n\n{calibration}"

    def pairs_section(self, names: Sequence[str]) -> str:
        """What the card says of classes that are confused with each other, in Markdown; empty where
        that is not known, or none are. names: of all classes"""
        if self.confusions is None or not (pairs := self.confusions.pairs(PAIRS)):
            return ""
        head = ("classes", "rows of each", "probability, T = 1", "T = 4", "errors")
        rows = [
            (f"{shown(short(names[pair.first]))}, {shown(short(names[pair.second]))}",
             " + ".join(f"{rows:,}" for rows in pair.rows),
             f"{pair.probability:.2%}", f"{pair.softly:.2%}",
             "" if pair.errors is None else f"{pair.errors:,}")
            for pair in pairs
        ]  # fmt: skip
        return folded("The most confused pairs of classes, in numbers", table(head, rows))

    @property
    def bins(self) -> list[tuple[str, ...]]:
        """Of each bin that is not empty its confidences, how many, their mean, and the accuracy."""
        bins = self.calibration
        columns = (bins.counts.tolist(), bins.confidence.tolist(), bins.hits.tolist())
        return [
            (f"{b / BINS:.2f} to {(b + 1) / BINS:.2f}", f"{count:,}", f"{confidence / count:.3f}",
             f"{hits / count:.3f}")
            for b, (count, confidence, hits) in enumerate(zip(*columns, strict=True))
            if count
        ]  # fmt: skip


def survey(reader: DumpReader, also: Callable[[Logits, Tensor], None] | None = None) -> Survey:
    """Reads every row's logits, a row group at a time: once, or twice where rows have several
    labels.

    also: gets each block in the same pass: its logits and labels, int64 [M], −1 for none, or 0 and
        1 [M, C].
    """
    calibration, plan = Calibration(), reader.plan
    classes = plan.classes
    softness = {T: Softness() for T in TEMPERATURES}
    holds_all = classes <= MOST_CLASSES
    confusions = Confusions(classes, plan.labelled, plan.several_labels) if holds_all else None
    for logits, labels in reader.groups(labels=True):
        labels_M = as_tensor(labels, classes)
        several = isinstance(labels, LabelLists)
        calibration += (Calibration.of_pairs if several else Calibration.of)(logits, labels_M)
        for T in TEMPERATURES:
            softness[T] += Softness.of(logits.temper(T), classes)
        if confusions is not None:
            confusions.count(logits, labels_M)
        if also is not None:
            also(logits, labels_M)
    of_labels = survey_labels(reader) if plan.several_labels else None
    return Survey(calibration, softness, most_entropy(classes, plan.link), of_labels, confusions)


def survey_classes(reader: DumpReader) -> ClassTable | LabelTable:
    """The teacher against the hard labels of each class. Reads the logits as `survey` does."""
    if reader.plan.several_labels:
        return survey_labels(reader)
    labels, tops = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for logits, labels_M in reader.groups(labels=True):
        assert isinstance(labels_M, np.ndarray), "rows have one label"
        labels.append(labels_M[labels_M >= 0])
        tops.append(logits.check()[0][labels_M >= 0])
    return ClassTable.of(np.concatenate(labels), np.concatenate(tops), _names(reader))


def survey_labels(reader: DumpReader) -> LabelTable:
    """A multi-label teacher against the labels of each class, at T = 1."""
    classes = reader.plan.classes
    score, ranked = MultiLabelScore.none(classes), AveragePrecision(classes)
    for counting in (False, True):
        for logits, labels in reader.groups(labels=True):
            there = torch.from_numpy(known(labels).nonzero()[0])
            logits, labels_MC = logits.select(there), as_tensor(labels, classes)[there]
            if counting:
                ranked.count(logits.dense())
                continue
            score += MultiLabelScore.of(logits, labels_MC)
            ranked.collect(logits.dense(), labels_MC)
    return LabelTable.of(score, ranked.of_each, _names(reader))


def _names(reader: DumpReader) -> list[str]:
    return reader.plan.source.class_names or list(map(str, range(reader.plan.classes)))
