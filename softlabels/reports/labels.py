"""The table of a multi-label model: a row for each label. C labels."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from softlabels.average_precision import mean_of
from softlabels.measures import MultiLabelScore
from softlabels.reports.markdown import folded, shown, table
from softlabels.system.humanize import counted, measured, short

SHOWN = 100  # labels on a page
COLUMNS = {
    "positives": "rows",
    "prevalence": "share",
    "mean_probability": "mean probability",
    "ap": "AP",
    "precision": "precision",
    "recall": "recall",
}


@dataclass(frozen=True)
class LabelTable:
    """measures: of all labels together, with `map`, the mean average precision over those that some
    row has. labels: of each one, its class and name before what `MultiLabelScore.of_labels` has."""

    measures: dict[str, Any]
    labels: list[dict[str, Any]]

    @classmethod
    def of(
        cls, score: MultiLabelScore, average_precision_C: Tensor, names: list[str] | None
    ) -> "LabelTable":
        of_each = score.of_labels(average_precision_C)
        return cls(
            score.measures | {"map": mean_of(average_precision_C)},
            [
                {"class": number, "name": names[number] if names else str(number)} | values
                for number, values in enumerate(of_each)
            ],
        )

    @property
    def sorted(self) -> list[dict[str, Any]]:
        """The labels that the model finds worst first; last those that no row has."""
        return sorted(self.labels, key=lambda label: (label["ap"] is None, label["ap"] or 0))

    @property
    def summary(self) -> str:
        """The measures of all labels in a line."""
        there = sum(label["ap"] is not None for label in self.labels)
        precision = self.measures["map"]
        if precision is None:
            return "no row has a label, so there is no average precision"
        return (
            f"mean average precision {precision:.4f} over {counted(there, 'label')} that some row "
            f"has; NLL {measured(self.measures['nll'])} nats, summed over labels"
        )

    def lines(self, most: int | None = None) -> list[list[str]]:
        """The head and the labels in words."""
        head = ["label", *COLUMNS.values()]
        rows = [[short(label["name"]), *map(_cell, COLUMNS, label_values(label))]
                for label in self.sorted[:most]]  # fmt: skip
        return [head, *rows]

    @property
    def section(self) -> str:
        """In Markdown."""
        head, *rows = self.lines(SHOWN)
        some = f", the {SHOWN} that are found worst" if len(self.labels) > SHOWN else ""
        cells = [[shown(name), *values] for name, *values in rows]
        return (
            f"{self.summary[:1].upper()}{self.summary[1:]}.\n\n"
            f"{folded(f'Each label in numbers{some}', table(head, cells))}"
        )


def label_values(label: dict[str, Any]) -> list[Any]:
    return [label[name] for name in COLUMNS]


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,}" if name == "positives" else f"{value:.4f}"
