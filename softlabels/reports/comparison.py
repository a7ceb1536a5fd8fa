"""Two models over the same rows: what `compare` found, as values, as tables and in words."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

from softlabels.reports.contrast import PERCENTILES, At
from softlabels.reports.flips import Flips
from softlabels.reports.wording import of_changes, of_distances, of_labels, verdict
from softlabels.system.humanize import aligned, counted, fact_lines, measured, short

NAME = 40  # characters
CLASS = 24  # characters
SHOWN = 10  # pairs of classes, or labels
CLASSES = 3  # of a row, in a terminal
MEASURES = {
    "accuracy": "accuracy", "map": "mAP", "top5": "top-5", "nll": "NLL", "ece": "ECE",
    "entropy": "entropy",
}  # fmt: skip


@dataclass(frozen=True)
class Side:
    """One of both. measures: against the labels at T = 1, as those of `evaluate`, and the entropy.
    labels: of several labels a row, label by label. made: by which version, when, by which plan."""

    name: str
    dump: str
    teacher: str
    codec: str
    made: str
    measures: dict[str, Any]
    labels: list[dict[str, Any]] | None = None


@dataclass(frozen=True)
class Beside:
    """A class of a row: its probability at each temperature, by the reference and by the other."""

    number: int
    name: str
    reference: list[float]
    other: list[float]


@dataclass(frozen=True)
class WorstRow:
    """A row whose soft targets are far apart. kl: at each temperature. classes: the most probable
    ones of both, those of the reference first, and the label's. label, label_name, path: as those
    of `ShownRow`."""

    id: int | str
    view: int | None
    label: int | list[int] | None
    label_name: str | list[str] | None
    path: str | None
    kl: list[float]
    classes: list[Beside]


@dataclass(frozen=True)
class Comparison:
    """What `softlabels.compare` returns; prints as tables, which a notebook shows too.

    reference, other: the two, A and B; rows: all of them, labelled: those whose label counts
    temperatures: how far apart they are at each
    agreement: the share of the rows with the same top-1 prediction, or of several labels a row of
        the label decisions that are the same, at a probability of a half
    top5_agreement: the share of the 5 most probable classes that is the same, the mean over rows;
        None where there are no more classes, and for several labels a row
    flips: the rows, or labels of rows, that they decide otherwise, by class
    views: of each view its rows, agreement and mean KL at each T; empty where rows are inputs
    worst: the rows of the largest KL at the first temperature
    """

    reference: Side
    other: Side
    data: str
    split: str
    task: str
    classes: int
    rows: int
    labelled: int
    temperatures: list[At]
    agreement: float
    top5_agreement: float | None
    flips: Flips
    views: list[dict[str, Any]]
    worst: list[WorstRow]

    def __repr__(self) -> str:
        first = self.temperatures[0]
        return (
            f"Comparison({self.reference.name} and {self.other.name}: {counted(self.rows, 'row')}, "
            f"agreement {self.agreement:.4f}, mean KL {nats(first.kl['mean'])} nats at "
            f"T={first.T:g})"
        )

    def __str__(self) -> str:
        return "\n".join(self.lines)

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"

    @property
    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"summary": self.summary}

    @property
    def summary(self) -> list[str]:
        """What changed, in sentences."""
        several = self.task == "multilabel"
        return [
            f"Is B still A? {verdict(self.temperatures, self.flips, several)}",
            *of_changes(self.flips, several),
            *of_labels(self.reference.measures, self.other.measures, self.flips, not self.views),
            *of_distances(self.temperatures, [self.reference.codec, self.other.codec]),
        ]

    @property
    def lines(self) -> list[str]:
        """Tables, and the summary at the end."""
        parts = [self._about, self._distances, self._sides, self._changes, self._of_views,
                 list(self._rows()), self.summary]  # fmt: skip
        return [line for part in parts if part for line in ["", *part]][1:]

    @property
    def _about(self) -> list[str]:
        labelled = ""
        if self.labelled < self.rows:
            labelled = f"{self.labelled:,} with a label" if self.labelled else "without labels"
            labelled = f", {labelled},"
        return fact_lines(
            {"A, the reference": _title(self.reference), "B": _title(self.other),
             "measured on": f"{counted(self.rows, 'row')}{labelled} of {short(self.data)}, split "
                            f"{self.split}"}
        )  # fmt: skip

    @property
    def _distances(self) -> list[str]:
        heads = [f"{name[1:]} %" for name in PERCENTILES]
        heads = ["KL(A‖B), nats", "mean", *heads, "max", "total variation", "KL of storage"]
        table = [
            [f"T = {at.T:g}", *map(nats, at.kl.values()), nats(at.total_variation["mean"]),
             "–" if at.storage is None else nats(at.storage)]
            for at in self.temperatures
        ]  # fmt: skip
        return aligned([heads, *table])

    @property
    def _sides(self) -> list[str]:
        both = (self.reference, self.other)
        names = [name for name in MEASURES if any(name in one.measures for one in both)]
        table = [
            [letter, *(_cell(one.measures.get(name)) for name in names)]
            for letter, one in zip("AB", both, strict=True)
        ]
        agreement = [f"agreement {measured(self.agreement)}"]
        if self.top5_agreement is not None:
            agreement.append(f"of the top 5 classes {measured(self.top5_agreement)}")
        return [*aligned([["", *(MEASURES[name] for name in names)], *table]), ", ".join(agreement)]

    @property
    def _changes(self) -> list[str]:
        """The pairs of classes between which most rows moved, or the labels that changed most."""
        pairs = self.flips.pairs
        if pairs:
            heads = ["A predicts", "B predicts", "rows"]
            named = [[short(pair["from_name"], CLASS), short(pair["to_name"], CLASS),
                      f"{pair['rows']:,}"] for pair in pairs]  # fmt: skip
            entries: list[dict[str, Any]] = pairs
        else:
            entries = sorted(
                (one for one in self.flips.classes if one["left"] or one["came"]),
                key=lambda one: -one["left"] - one["came"],
            )
            heads = ["label", "A only", "B only"]
            named = [[short(one["name"], CLASS), f"{one['left']:,}", f"{one['came']:,}"]
                     for one in entries]  # fmt: skip
        if not entries:
            return []
        if self.flips.right_to_wrong is not None:
            heads += ["became wrong", "became right"]
            for line, one in zip(named, entries, strict=True):
                line += [f"{one['right_to_wrong']:,}", f"{one['wrong_to_right']:,}"]
        table = aligned([heads, *named[:SHOWN]], left=2 if pairs else 1)
        more, what = len(entries) - SHOWN, "pairs of classes" if pairs else "labels"
        return table + [f"and {more:,} more {what} (all of them with --json)"] * (more > 0)

    @property
    def _of_views(self) -> list[str]:
        heads = ["view", "rows", "agreement", *(f"KL at T = {at.T:g}" for at in self.temperatures)]
        table = [
            [str(one["view"]), f"{one['rows']:,}", measured(one["agreement"]),
             *map(nats, one["kl"])]
            for one in self.views
        ]  # fmt: skip
        return aligned([heads, *table]) if table else []

    def _rows(self) -> Iterator[str]:
        """A line for each of the worst rows: what both say."""
        if not self.worst:
            return
        labelled = any(row.label is not None for row in self.worst)
        heads = ["worst rows", *(["label"] if labelled else []), "A predicts", "B predicts"]
        table = [
            [
                _key(row),
                *([_label(row)] if labelled else []),
                _says([(one.name, one.reference[0]) for one in row.classes]),
                _says([(one.name, one.other[0]) for one in row.classes]),
                nats(row.kl[0]),
            ]
            for row in self.worst
        ]
        T = self.temperatures[0].T
        yield from aligned([[*heads, f"KL at T = {T:g}"], *table], left=len(heads))


def nats(value: float) -> str:
    """A KL in three digits, however small: `0.00123`, `3.2e-07`."""
    return f"{value:.3g}"


def _title(side: Side) -> str:
    return f"{side.dump} ({short(side.teacher, NAME)}, {side.codec})"


def _cell(value: float | None) -> str:
    return "–" if value is None else measured(value)


def _key(row: WorstRow) -> str:
    view = "" if row.view is None else f", view {row.view}"
    return f"id {short(str(row.id), NAME)}{view}"


def _label(row: WorstRow) -> str:
    names = row.label_name if isinstance(row.label_name, list) else [row.label_name or "–"]
    return short(", ".join(names) or "none", CLASS)


def _says(classes: list[tuple[str, float]]) -> str:
    """The most probable classes."""
    top = sorted(classes, key=lambda one: -one[1])[:CLASSES]
    return ", ".join(f"{short(name, CLASS)} {q:.3f}" for name, q in top)
