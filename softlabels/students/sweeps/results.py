"""What came of a sweep: means and spreads over seeds, and differences to hard labels by seed."""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from softlabels.students.sweeps.grid import Setting, Trial, plain
from softlabels.system.humanize import aligned, counted, html_table

SURE = 2.0  # standard errors
MEASURES = {"errors": "errors of", "map": "mAP over", "kl": "KL with the teacher, nats, over"}


@dataclass(frozen=True)
class Measure:
    """By which held-out students are compared.

    name: of the measure in a checkpoint: errors, map or kl
    sign: 1 where less is better, −1 where more is
    rows: held out, with a label where errors count
    """

    name: str
    rows: int

    @property
    def sign(self) -> int:
        return -1 if self.name == "map" else 1

    @property
    def title(self) -> str:
        return f"{MEASURES[self.name]} {counted(self.rows, 'held-out row')}"

    @property
    def digits(self) -> int:
        return 1 if self.name == "errors" else 4

    def of(self, held: dict[str, Any]) -> float:
        return float(held[self.name] or 0.0)

    def key(self, held: dict[str, Any]) -> tuple[float, ...]:
        """Smaller is better: as the best epoch is chosen."""
        return (self.sign * self.of(held), held.get("nll", 0.0))


@dataclass(frozen=True)
class Ended:
    """A trial that has ended. checkpoint: its file; metrics: those of the checkpoint, None where
    there is none; failure: why."""

    trial: Trial
    checkpoint: str
    metrics: dict[str, Any] | None
    failure: str = ""

    @property
    def row(self) -> dict[str, Any]:
        setting, metrics = self.trial.setting, self.metrics or {}
        held = metrics.get("held_out") or {}
        return {
            "student": setting.student,
            "T": setting.T,
            "alpha": setting.alpha,
            "lr": setting.lr,
            "weight_decay": setting.weight_decay,
            "seed": self.trial.seed,
            "checkpoint": self.checkpoint if self.metrics else None,
            "failure": self.failure or None,
            "epoch": metrics.get("epoch"),
            "loss": metrics.get("loss"),
            **{f"held_out_{name}": value for name, value in held.items()},
        }


@dataclass(frozen=True)
class Line:
    """A setting over its seeds. differences: to hard labels with the same seeds; empty for the
    baseline itself."""

    setting: Setting
    values: list[float]
    keys: list[tuple[float, ...]]
    differences: list[float]
    failures: int

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def difference_error(self) -> float | None:
        """The standard error of the mean difference; None of fewer than two seeds."""
        deviation = spread(self.differences)
        return None if deviation is None else deviation / len(self.differences) ** 0.5

    @property
    def key(self) -> tuple[float, ...]:
        return tuple(statistics.fmean(column) for column in zip(*self.keys, strict=True))

    @property
    def as_json(self) -> dict[str, Any]:
        there = bool(self.values)
        return {
            **vars(self.setting),
            "seeds": len(self.values),
            "failures": self.failures,
            "mean": self.mean if there else None,
            "spread": spread(self.values),
            "difference": statistics.fmean(self.differences) if self.differences else None,
            "difference_spread": spread(self.differences),
        }


@dataclass(frozen=True)
class SweepResult:
    """What a sweep found.

    out: its folder
    ended: its students, in the order of the grid
    plot: the picture's file; None without matplotlib
    """

    out: str
    measure: Measure
    ended: list[Ended]
    plot: str | None = None

    def __repr__(self) -> str:
        best, students = self.best.setting.targets, counted(len(self.ended), "student")
        return f"SweepResult({self.out}: {students}, best {best})"

    def _repr_html_(self) -> str:
        return html_table({line.setting.targets: line.mean for line in self.lines if line.values})

    @cached_property
    def lines(self) -> list[Line]:
        """One for each setting, in the order of the grid."""
        by_trial = {one.trial: one for one in self.ended}

        def held(trial: Trial) -> dict[str, Any] | None:
            one = by_trial.get(trial)
            return None if one is None or one.metrics is None else one.metrics["held_out"]

        lines = []
        for setting in dict.fromkeys(one.trial.setting for one in self.ended):
            trials = [one.trial for one in self.ended if one.trial.setting == setting]
            there = {trial: found for trial in trials if (found := held(trial)) is not None}
            differences = [
                self.measure.of(found) - self.measure.of(base)
                for trial, found in there.items()
                if not setting.is_hard
                and (base := held(Trial(setting.hard, trial.seed))) is not None
            ]
            values = [self.measure.of(found) for found in there.values()]
            keys = [self.measure.key(found) for found in there.values()]
            lines.append(Line(setting, values, keys, differences, len(trials) - len(there)))
        return lines

    @cached_property
    def varied(self) -> list[str]:
        """In which of these the settings differ, beside T and alpha."""
        names = ("student", "lr", "weight_decay")
        return [
            name
            for name in names
            if len({getattr(one.trial.setting, name) for one in self.ended}) > 1
        ]

    def way(self, setting: Setting) -> str:
        """What tells its way of training from the others': `student mlp:8, lr 0.001`."""
        parts = {name: getattr(setting, name) for name in self.varied}
        return ", ".join(
            f"{name.replace('_', ' ')} {value if isinstance(value, str) else plain(value)}"
            for name, value in parts.items()
        )

    def named(self, setting: Setting) -> str:
        """What it learns from, and its way."""
        return ", ".join(part for part in (setting.targets, self.way(setting)) if part)

    @property
    def best(self) -> Line:
        """The setting that is best on the held-out rows, on average over its seeds."""
        return min((line for line in self.lines if line.values), key=lambda line: line.key)

    @property
    def best_student(self) -> Ended:
        """Of the best setting, the seed that is best on the held-out rows."""
        return min(
            (e for e in self.ended if e.trial.setting == self.best.setting and e.metrics),
            key=lambda e: self.measure.key((e.metrics or {})["held_out"]),
        )

    @property
    def verdict(self) -> str:
        """Whether soft targets help, in words; empty where nothing can be compared."""
        soft = [line for line in self.lines if not line.setting.is_hard and line.values]
        hard = [line for line in self.lines if line.setting.is_hard and line.values]
        if not soft or not hard or self.measure.name == "kl":
            return ""
        best, base = (min(some, key=lambda line: line.key) for some in (soft, hard))
        digits = self.measure.digits
        by = self.measure.sign * (best.mean - base.mean)
        shown = (
            f"{best.setting.targets} has {best.mean:.{digits}f} {self.measure.title}, hard labels "
            f"have {base.mean:.{digits}f}"
        )
        error = self._error(best, base)
        if by < 0 and (error is None or -by > SURE * error):
            sure = "" if error is not None else "; one seed can't say by how much: use --seeds"
            return f"Soft targets help: {shown}{sure}."
        if by < 0:
            return (
                f"Soft targets help by no more than chance may: {shown}, and by seed the "
                f"difference is {-by:.{digits}f} with a standard error of {error:.{digits}f}."
            )
        return f"Soft targets do not help here: at their best, {shown}."

    def _error(self, one: Line, other: Line) -> float | None:
        """The standard error of the mean difference, by seed; None of a single seed."""
        seeds = {e.trial: self.measure.of(e.metrics["held_out"]) for e in self.ended if e.metrics}
        pairs = [
            value - seeds[Trial(other.setting, trial.seed)]
            for trial, value in seeds.items()
            if trial.setting == one.setting and Trial(other.setting, trial.seed) in seeds
        ]
        deviation = spread(pairs)
        return None if deviation is None else deviation / len(pairs) ** 0.5

    @property
    def text(self) -> str:
        """The table, the best, and whether soft targets help."""
        seeds = max(len(line.values) + line.failures for line in self.lines)
        best, student = self.best, self.best_student
        lines = [
            f"{self.measure.title}, mean and spread over {counted(seeds, 'seed')}; beside it the "
            f"difference to hard labels, by seed:",
            "",
            *aligned(list(self._cells())),
            "",
            *([self.verdict] if self.verdict else []),
            f"best on held-out rows: {best.setting.student}, {best.setting.targets}, seed "
            f"{student.trial.seed}; saved as {self.out}/best.pt",
        ]
        failed = [one for one in self.ended if one.metrics is None]
        if failed:
            first = failed[0]
            lines.append(
                f"{counted(len(failed), 'student')} failed: {first.trial.name}, {first.failure}"
            )
        return "\n".join(lines)

    def _cells(self) -> Iterator[Sequence[str]]:
        yield ["learns from", *self.varied, "mean", "spread", "difference", "spread"]
        digits = self.measure.digits
        for line in self.lines:
            own = [str(getattr(line.setting, name)) for name in self.varied]
            values = line.as_json
            numbers = [values[n] for n in ("mean", "spread", "difference", "difference_spread")]
            signs = ("", "", "+", "")
            cells = [
                "" if number is None else f"{number:{sign}.{digits}f}"
                for number, sign in zip(numbers, signs, strict=True)
            ]
            yield [line.setting.targets, *own, *cells]

    @property
    def as_json(self) -> dict[str, Any]:
        student = self.best_student
        return {
            "measure": self.measure.name,
            "held_out_rows": self.measure.rows,
            "settings": [line.as_json for line in self.lines],
            "best": student.row | {"mean": self.best.mean, "saved": f"{self.out}/best.pt"},
            "verdict": self.verdict,
            "plot": self.plot,
            "students": [one.row for one in self.ended],
        }


def spread(values: Sequence[float]) -> float | None:
    """The standard deviation over seeds; None of fewer than two."""
    return statistics.stdev(values) if len(values) > 1 else None
