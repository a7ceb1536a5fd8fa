"""Several teachers over the same rows, and their mixture, from passes over all of their logits: how
right each is, how well its confidence fits, how soft its targets are, and how they differ.

M positions of a block, C classes, K teachers. Everything is measured at T = 1.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from softlabels.logits import Logits
from softlabels.measures import Calibration, Diversity, LabelScore, Uncertainty
from softlabels.multilabel import AveragePrecision, MultiLabelScore, label_logits, mean_of
from softlabels.system.humanize import aligned, measured, short

NAME = 40  # characters
MOST_PAIRS = 28  # those of eight teachers
COLUMNS = {
    "weight": "weight",
    "accuracy": "accuracy",
    "map": "mAP",
    "top5": "top-5",
    "nll": "NLL",
    "ece": "ECE",
    "entropy": "entropy",
}


@dataclass(frozen=True)
class Block:
    """Some positions. teachers: their logits by name; mixture: what is mixed of them, if anything
    is; labels: int64 [M], −1 for none, or of several labels a row 0 and 1, [M, C], −1 where they
    are unknown."""

    teachers: Mapping[str, Logits]
    mixture: Logits | None
    labels: Tensor

    @property
    def each(self) -> list[Logits]:
        """The teachers in their order, and the mixture after them."""
        return [*self.teachers.values(), *([] if self.mixture is None else [self.mixture])]


@dataclass(frozen=True)
class Ensemble:
    """measures: of each teacher by name. mixture: those of the mixture, None where there is none.
    diversity: of the teachers, in the order of `measures`."""

    measures: dict[str, dict[str, Any]]
    mixture: dict[str, Any] | None
    diversity: Diversity

    @property
    def pairs(self) -> list[dict[str, Any]]:
        """The diversity of each pair: the names of its teachers, agreement, and KL in both
        directions, that of the first from the second before that of the second from the first."""
        names = list(self.measures)
        return [
            {
                "teachers": [names[int(pair["first"])], names[int(pair["second"])]],
                "agreement": pair["agreement"],
                "kl": [pair["kl"], pair["kl_back"]],
            }
            for pair in self.diversity.pairs
        ]

    @property
    def values(self) -> dict[str, Any]:
        diversity = self.diversity.measures | {"pairs": self.pairs} if self.pairs else None
        return {"teachers": self.measures, "mixture": self.mixture, "diversity": diversity}

    @property
    def lines(self) -> list[str]:
        """A table with a line for each teacher and one for the mixture, and one of the pairs."""
        lines = {short(name, NAME): found for name, found in self.measures.items()}
        if self.mixture is not None:
            lines["mixture"] = self.mixture
        columns = [name for name in COLUMNS if any(name in found for found in lines.values())]
        head = ["teacher", *(COLUMNS[name] for name in columns)]
        table = [
            [name, *(_cell(found.get(one)) for one in columns)] for name, found in lines.items()
        ]
        return [*aligned([head, *table]), *self._of_pairs]

    @property
    def _of_pairs(self) -> list[str]:
        pairs, means = self.pairs, self.diversity.measures
        if not pairs:
            return []
        head = ["pair", "agreement", "KL(1‖2)", "KL(2‖1)"]
        table = [
            [" and ".join(short(name, NAME) for name in pair["teachers"]),
             *map(measured, (pair["agreement"], *pair["kl"]))]
            for pair in pairs[:MOST_PAIRS] if len(pairs) <= MOST_PAIRS
        ]  # fmt: skip
        if len(pairs) > 1:
            mean = [means["agreement"], means["kl"], means["kl"]]
            table.append([f"mean of {len(pairs):,} pairs", *map(measured, mean)])
        return ["", *aligned([head, *table])]


def survey_ensemble(
    blocks: Callable[[], Iterable[Block]], names: list[str], classes: int, several: bool
) -> Ensemble:
    """Adds up block by block. blocks: all of them, anew each time; they are read once, or twice
    where rows have several labels. names: of the teachers. several: whether rows may have several
    labels."""
    diversity = Diversity.none(len(names))

    def add(block: Block) -> None:
        nonlocal diversity
        diversity += Diversity.of(list(block.teachers.values()))

    found = [one.measures for one in survey_each(blocks, len(names), classes, several, add)]
    mixture = found[len(names)] if len(found) > len(names) else None
    return Ensemble(dict(zip(names, found, strict=False)), mixture, diversity)


def survey_each(
    blocks: Callable[[], Iterable[Block]],
    teachers: int,
    classes: int,
    several: bool,
    beside: Callable[[Block], None],
) -> "list[OfLabel] | list[OfLabels]":
    """Of each teacher, and after them of the mixture, what `survey_ensemble` says of it. teachers:
    how many. beside: takes each block once."""
    kind: Any = OfLabels if several else OfLabel
    sums: list[Any] = [kind(classes) for _ in range(teachers)]
    for block in blocks():
        if len(block.each) > len(sums):
            sums.append(kind(classes))
        for one, logits in zip(sums, block.each, strict=True):
            one.add(logits, block.labels)
        beside(block)
    for block in blocks() if several else ():
        for one, logits in zip(sums, block.each, strict=True):
            one.add_again(logits, block.labels)
    return sums


@dataclass
class _Sums:
    """Of one teacher, or of the mixture."""

    classes: int
    uncertainty: Uncertainty = field(default_factory=Uncertainty)

    def add(self, logits: Logits, labels: Tensor) -> None:
        self.uncertainty += Uncertainty.of(logits.temper(1))

    def add_again(self, logits: Logits, labels: Tensor) -> None:
        """The second pass."""

    @property
    def measures(self) -> dict[str, Any]:
        """Against the labels, as `evaluate` has them, if there are any; and the mean entropy."""
        return dict(self.uncertainty.measures)


@dataclass
class OfLabel(_Sums):
    """Of one label a row."""

    score: LabelScore = field(default_factory=LabelScore)

    def add(self, logits: Logits, labels: Tensor) -> None:
        super().add(logits, labels)
        self.score += LabelScore.of(logits, labels)

    @property
    def labelled(self) -> int:
        return self.score.labelled

    @property
    def measures(self) -> dict[str, Any]:
        return self.score.measures | super().measures


@dataclass
class OfLabels(_Sums):
    """Of several labels a row."""

    pairs: Calibration = field(default_factory=Calibration)

    def __post_init__(self) -> None:
        self.score = MultiLabelScore.none(self.classes)
        self.ranked = AveragePrecision(self.classes)

    def add(self, logits: Logits, labels: Tensor) -> None:
        super().add(logits, labels)
        self.score += MultiLabelScore.of(logits, labels)
        self.pairs += Calibration.of_pairs(logits, labels)
        logits, labels = _known(logits, labels)
        self.ranked.collect(label_logits(logits), labels)

    def add_again(self, logits: Logits, labels: Tensor) -> None:
        self.ranked.count(label_logits(_known(logits, labels)[0]))

    @property
    def labelled(self) -> int:
        return self.score.rows

    @property
    def measures(self) -> dict[str, Any]:
        found: dict[str, Any] = dict(self.score.measures)
        if found:
            found |= {"map": mean_of(self.ranked.of_each), "ece": self.pairs.error}
        return found | super().measures

    @property
    def of_labels(self) -> list[dict[str, Any]]:
        """Label by label, as `MultiLabelScore.of_labels`."""
        return self.score.of_labels(self.ranked.of_each)


def _known(logits: Logits, labels_MC: Tensor) -> tuple[Logits, Tensor]:
    there = (labels_MC >= 0).all(-1).nonzero()[:, 0]
    return logits.select(there), labels_MC[there]


def _cell(value: float | None) -> str:
    return "–" if value is None else measured(value)
