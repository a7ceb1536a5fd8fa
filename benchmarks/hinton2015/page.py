"""The page: the paper's numbers beside ours, of what has been run."""

import shutil
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jinja2

from benchmarks.hinton2015.experiments import CURVES, Experiments
from benchmarks.steps import Steps

TEMPLATE = Path(__file__).with_name("page.md.jinja")
TEST_ROWS = 10_000
MISSING = "not run"


@dataclass(frozen=True)
class Curve:
    """Errors of a sweep's students by temperature, 0 for hard labels."""

    name: str
    held: dict[float, list[float]]
    test: dict[float, list[float]]
    auto: str

    @property
    def units(self) -> str:
        return self.name.rpartition("-")[2]

    @property
    def recipe(self) -> str:
        return f"{self.name}.yaml"

    @property
    def seeds(self) -> int:
        return len(next(iter(self.held.values())))

    @property
    def best_held(self) -> float:
        return _lowest(self.held)

    @property
    def best_test(self) -> float:
        return _lowest(self.test)


class Page:
    """What the records of these experiments say, as Markdown. A step that is not done counts in no
    mean, and where there is none the page says so."""

    def __init__(self, experiments: Experiments, steps: Steps) -> None:
        self.experiments, self.steps = experiments, steps

    def write(self, path: Path) -> None:
        """The page, and the sweeps' pictures beside it."""
        for curve in CURVES:
            picture = self.experiments.out / curve / "results.png"
            if picture.exists():
                shutil.copyfile(picture, path.with_name(f"hinton2015-{curve}.png"))
        path.write_text(self.render(), encoding="utf-8")

    def render(self) -> str:
        environment = jinja2.Environment(
            undefined=jinja2.StrictUndefined, keep_trailing_newline=True
        )
        environment.filters |= {"target": _target, "spread": _mean_spread}
        template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
        doors = (
            self.where,
            self.mean,
            self.errors,
            self.time,
            self.biased,
            self.pairs,
            self.curves,
            self.mixture,
        )
        return template.render(
            {door.__name__: door for door in doors}, shares=partial(self.biased, as_share=True),
            members=len(self.experiments.members), views=self.experiments.views,
        )  # fmt: skip

    def where(self) -> str:
        """When and on what, of all records."""
        records = self._records(self.steps.by_name)
        if not records:
            return f"Nothing of {len(self.steps.by_name)} steps has been run."
        dates = sorted(record["date"] for record in records)
        days = " to ".join(dict.fromkeys((dates[0], dates[-1])))
        loads = [record["load"] for record in records]
        hours = sum(record["seconds"] for record in records) / 3600
        machines = "; ".join(sorted({record["on"] for record in records}))
        return (
            f"{days}; {machines}; load {min(loads):.0f} to {max(loads):.0f}.\n{len(records)} of "
            f"{len(self.steps.by_name)} steps, {hours:.1f} hours in all. A time is the median of "
            f"those trainings of its row that were not stopped on the way."
        )

    def errors(self, name: str, seeds: int | None = None) -> str:
        """Test errors over seeds."""
        return _listed(self._each(name, _errors, ".test", seeds))

    def mean(self, name: str) -> str:
        """Of test errors, over seeds."""
        found = self._each(name, _errors, ".test", None)
        return f"{statistics.fmean(found):.1f}" if found else MISSING

    def time(self, name: str, seeds: int | str | None = None) -> str:
        records = self._records([name]) if seeds == "" else self._by_seed(name, "", seeds)
        seconds = [one["seconds"] for one in records if one["starts"] == 1]
        return f"{statistics.median(seconds):.0f} s" if seconds else ""

    def pairs(self, one: str, other: str) -> str:
        """By how much fewer errors the other makes, by seed."""
        found = []
        for seed in self.experiments.seeds:
            pair = self._records([f"{one}-{seed}.test", f"{other}-{seed}.test"])
            found += [_errors(pair[0]) - _errors(pair[1])] if len(pair) == 2 else []
        return _listed(found, "+.0f")

    def biased(self, name: str, chosen: str, as_share: bool = False) -> str:
        """Errors, and those of the classes whose bias moves, or their share of all rows; with the
        biases, by seed."""
        found = [one["result"][chosen] for one in self._by_seed(name, ".bias")]
        if not found:
            return MISSING
        errors = [one["errors"] for one in found]
        if as_share:
            shares = [100 * count / TEST_ROWS for count in errors]
            text = f"{statistics.fmean(shares):.1f} % ({', '.join(f'{one:.1f}' for one in shares)})"
        else:
            text = f"{_listed(errors)}, {_listed([one['of_classes'] for one in found])}"
        biases = ", ".join(f"{one['bias']:+.2f}".replace("-", "−") for one in found)
        return text if chosen == "plain" else f"{text}; {biases}"

    def mixture(self) -> str:
        """Test errors of the mean of all teachers' probabilities."""
        return _listed([float(one["result"]["mixture"]["errors"])
                        for one in self._records(["ensemble.test"])])  # fmt: skip

    def curves(self) -> Iterator[Curve]:
        for name in CURVES:
            for record in self._records([f"{name}.test"]):
                auto = self._records([f"{name}-auto"])
                students = record["result"]["students"]
                yield Curve(
                    name, _by_temperature(students, "held_out_errors"),
                    _by_temperature(students, "errors"),
                    _target(auto[0]["result"]["T"]) if auto else "",
                )  # fmt: skip

    def _each(
        self, name: str, of: Callable[[dict[str, Any]], float], end: str, seeds: int | None
    ) -> list[float]:
        return [of(record) for record in self._by_seed(name, end, seeds)]

    def _by_seed(self, name: str, end: str, seeds: int | str | None = None) -> list[dict[str, Any]]:
        chosen = range(int(seeds)) if seeds else self.experiments.seeds
        return self._records([f"{name}-{seed}{end}" for seed in chosen])

    def _records(self, names: Sequence[str] | dict[str, Any]) -> list[dict[str, Any]]:
        return [found for name in names if (found := self.steps.record(name)) is not None]


def _errors(record: dict[str, Any]) -> float:
    return float(record["result"]["errors"])


def _by_temperature(students: list[dict[str, Any]], name: str) -> dict[float, list[float]]:
    temperatures = sorted({one["T"] or 0.0 for one in students})
    return {T: [one[name] for one in students if (one["T"] or 0.0) == T] for T in temperatures}


def _lowest(errors: dict[float, list[float]]) -> float:
    return min(errors, key=lambda T: statistics.fmean(errors[T]))


def _target(T: float) -> str:
    return f"T = {T:g}" if T else "hard labels"


def _mean_spread(values: Sequence[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.0f}"
    return f"{statistics.fmean(values):.1f} ± {statistics.stdev(values):.1f}"


def _listed(values: Sequence[float], form: str = ".0f") -> str:
    if not values:
        return MISSING
    each = ", ".join(format(value, form) for value in values)
    return f"{_mean_spread(values)} ({each})" if len(values) > 1 else each
