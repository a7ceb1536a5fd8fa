"""Tables of a model's measures class by class. M scored positions, C classes."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from softlabels.multilabel import MultiLabelScore, mean_of
from softlabels.reports.markdown import folded, shown, table
from softlabels.system.humanize import aligned, counted, measured, short

SHOWN = 100  # labels on a page
NAME = 40  # characters
LABEL_COLUMNS = {
    "positives": "rows",
    "prevalence": "share",
    "mean_probability": "mean probability",
    "ap": "AP",
    "precision": "precision",
    "recall": "recall",
}
CLASS_COLUMNS = {"rows": "rows", "recall": "recall", "precision": "precision"}


@dataclass(frozen=True)
class LabelTable:
    """A multi-label model, label by label.

    measures: of all labels together, with `map`, the mean average precision over those that some
        row has.
    labels: of each one, its class and name before what `MultiLabelScore.of_labels` has.
    """

    measures: dict[str, Any]
    labels: list[dict[str, Any]]

    @classmethod
    def of(
        cls, score: MultiLabelScore, average_precision_C: Tensor, names: list[str]
    ) -> "LabelTable":
        of_each = score.of_labels(average_precision_C)
        pairs = enumerate(zip(names, of_each, strict=True))
        return cls(
            score.measures | {"map": mean_of(average_precision_C)},
            [{"class": number, "name": name} | values for number, (name, values) in pairs],
        )

    @property
    def values(self) -> list[dict[str, Any]]:
        return self.labels

    @property
    def sorted(self) -> list[dict[str, Any]]:
        """The labels that the model finds worst first; last those that no row has."""
        return sorted(self.labels, key=lambda label: (label["ap"] is None, label["ap"]))

    @property
    def summary(self) -> str:
        """The measures of all labels in a line."""
        there = sum(label["ap"] is not None for label in self.labels)
        if not there:
            return "no row has a label, so there is no average precision"
        return (
            f"mean average precision {self.measures['map']:.4f} over {counted(there, 'label')} "
            f"that some row has, NLL {measured(self.measures['nll'])} nats, summed over labels"
        )

    @property
    def lines(self) -> list[str]:
        """As a table of text."""
        return aligned(_cells(LABEL_COLUMNS, self.sorted, "label"))

    @property
    def section(self) -> str:
        """In Markdown."""
        head, *rows = _cells(LABEL_COLUMNS, self.sorted[:SHOWN], "label")
        some = f", the {SHOWN} that are found worst" if len(self.labels) > SHOWN else ""
        cells = [[shown(name), *values] for name, *values in rows]
        return (
            f"{self.summary[:1].upper()}{self.summary[1:]}.\n\n"
            f"{folded(f'Each label in numbers{some}', table(head, cells))}"
        )


@dataclass(frozen=True)
class ClassTable:
    """A classifier, class by class.

    classes: of each one its class, name, rows (those with this label), recall (the share of them
        whose top class it is), precision (the share of the rows with this top class that have this
        label), predicted (how many those are), and taken_for, the name of the class that most of
        its errors go to. None where it is undefined.
    """

    classes: list[dict[str, Any]]

    @classmethod
    def of(cls, labels_M: np.ndarray, top_M: np.ndarray, names: list[str]) -> "ClassTable":
        """labels, top classes: int64 [M], no label being −1."""
        count = len(names)
        rows, predicted = (np.bincount(one, minlength=count) for one in (labels_M, top_M))
        hits = np.bincount(labels_M[labels_M == top_M], minlength=count)
        errors = labels_M != top_M
        pairs, times = np.unique(labels_M[errors] * count + top_M[errors], return_counts=True)
        order = np.argsort(times, kind="stable")  # so that the last one of a class is most frequent
        taken = {int(pair // count): int(pair % count) for pair in pairs[order]}
        return cls(
            [
                {
                    "class": number,
                    "name": name,
                    "rows": int(rows[number]),
                    "recall": _share(hits[number], rows[number]),
                    "precision": _share(hits[number], predicted[number]),
                    "predicted": int(predicted[number]),
                    "taken_for": names[taken[number]] if number in taken else None,
                }
                for number, name in enumerate(names)
            ]
        )

    @property
    def values(self) -> list[dict[str, Any]]:
        return self.classes

    @property
    def lines(self) -> list[str]:
        """As a table of text, the worst recall first; last the classes that no row has. Those that
        are no row's top class either are counted alone: of 1,000 classes they may be most."""
        ordered = sorted(
            (one for one in self.classes if one["rows"] or one["predicted"]),
            key=lambda one: (one["recall"] is None, one["recall"], -one["rows"]),
        )
        lines = _cells(CLASS_COLUMNS, ordered, "class")
        taken = ["often taken for", *(short(one["taken_for"] or "", NAME) for one in ordered)]
        table = aligned([[*line, name] for line, name in zip(lines, taken, strict=True)])
        absent = len(self.classes) - len(ordered)
        more = f"and {absent:,} more, which are no row's label or top class"
        return [*table, more] if absent else table


def _cells(columns: dict[str, str], entries: list[dict[str, Any]], first: str) -> list[list[str]]:
    """The head, and a row for each entry."""
    rows = [
        [short(entry["name"], NAME), *(_cell(entry[name]) for name in columns)] for entry in entries
    ]
    return [[first, *columns.values()], *rows]


def _cell(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def _share(part: int, whole: int) -> float | None:
    return float(part / whole) if whole else None
