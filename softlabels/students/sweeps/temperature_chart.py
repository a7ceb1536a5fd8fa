"""Charts of the page about a sweep: what is measured against T, and differences to hard labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from softlabels.reports.page import Chart, Table, charts
from softlabels.students.sweeps.grid import plain
from softlabels.students.sweeps.results import Line, SweepResult, spread

CURVES = 5  # in colours of their own
BARS = 3  # seeds: two standard errors of two seeds reach far less than a 95 % interval does
DODGE = 0.022  # of T, between the error bars of two curves
NOUNS = {"errors": "errors", "map": "mAP", "kl": "KL"}
TITLES = NOUNS | {"errors": "Errors"}


def temperature_charts(result: SweepResult, most: int) -> list[Chart]:
    """One for each student, of the `most` best; all on one scale. Empty where there are hard labels
    alone."""
    soft = [line for line in result.lines if line.values and not line.setting.is_hard]
    if not soft:
        return []
    best = sorted(soft, key=lambda line: line.key)
    students = list(dict.fromkeys(line.setting.student for line in best))[:most]
    shown = [line for line in result.lines if line.values and line.setting.student in students]
    limits = _limits(shown)
    return [
        _chart(result, student, [one for one in shown if one.setting.student == student], limits)
        for student in students
    ]


def _limits(lines: Sequence[Line]) -> tuple[float, float]:
    deviations = [spread(line.values) or 0.0 for line in lines]
    each = list(zip(lines, deviations, strict=True))
    low = min(min(*line.values, line.mean - deviation) for line, deviation in each)
    high = max(max(*line.values, line.mean + deviation) for line, deviation in each)
    room = 0.06 * (high - low) or 0.5
    return max(0.0, low - room), high + room


@dataclass(frozen=True)
class Course:
    """The settings of a student that differ in T alone. rank: 0 of the best"""

    name: str
    lines: dict[float, Line]
    rank: int

    @property
    def is_named(self) -> bool:
        return self.rank < CURVES

    def draw(self, axes: Any, dodge: float) -> None:
        """dodge: by what T is multiplied, so that bars of two courses stand apart."""
        temperatures = sorted(self.lines)
        lines = [self.lines[T] for T in temperatures]
        at, means = [T * dodge for T in temperatures], [line.mean for line in lines]
        if not self.is_named:
            axes.plot(at, means, color=charts.MUTED, linewidth=1, alpha=0.35)
            return
        colour = charts.SERIES[self.rank]
        axes.errorbar(
            at, means, [spread(line.values) or 0.0 for line in lines], color=colour,
            marker="o", markersize=5, linewidth=2, elinewidth=1.4, capsize=3, label=self.name,
        )  # fmt: skip
        for x, line in zip(at, lines, strict=True):
            axes.scatter([x] * len(line.values), line.values, 22, color=colour, alpha=0.5)


def _chart(
    result: SweepResult, student: str, lines: Sequence[Line], limits: tuple[float, float]
) -> Chart:
    """lines: of this student, with hard labels where there are some."""
    courses = _courses(result, lines)
    best = min((line for line in lines if not line.setting.is_hard), key=lambda line: line.key)
    base = [line for line in lines if line.setting.is_hard]
    hard = min(base, key=lambda line: line.key) if base else None
    temperatures = sorted({T for course in courses for T in course.lines})

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        if hard is not None:
            _band(axes, hard)
        middle = (min(len(courses), CURVES) - 1) / 2
        for course in reversed(courses):
            course.draw(axes, 1 + DODGE * (course.rank - middle) * course.is_named)
        if len(temperatures) > 1:
            axes.set_xscale("log")
        axes.set_xticks(temperatures, [plain(T) for T in temperatures])
        axes.minorticks_off()
        axes.set(xlabel="temperature T", ylabel=result.measure.title, ylim=limits)
        handles, labels = axes.get_legend_handles_labels()
        columns = 1 if charts.is_narrow(figure) else 3
        figure.legend(handles[::-1], labels[::-1], loc="outside upper left", ncols=columns)

    title = f"{TITLES[result.measure.name]} against the temperature"
    if "student" in result.varied:
        title += f", {student}"
    digits = result.measure.digits
    description = (
        f"{result.measure.title} of students, for each temperature the mean and the spread "
        f"(standard deviation) over seeds. The best is {best.mean:.{digits}f} with "
        f"{best.setting.targets}"
    )
    caption = "Dots are students, bars the spread (standard deviation) over the seeds"
    if hard is not None:
        description += f"; hard labels have {hard.mean:.{digits}f}"
        caption += ", the band hard labels alone with theirs"
    if (others := len(courses) - CURVES) > 0:
        verb = "is" if others == 1 else "are"
        caption += f". The best {CURVES} curves have colours, {others} {verb} grey"
    numbers = _numbers(result, title, lines)
    return Chart(title, f"{description}.", draw, numbers, f"{caption}.", 380)


def _courses(result: SweepResult, lines: Sequence[Line]) -> list[Course]:
    """The one with the best setting first."""
    found: dict[str, dict[float, Line]] = {}
    for line in sorted(lines, key=lambda line: line.key):
        setting = line.setting
        if setting.T is not None:
            own = [
                f"{name.replace('_', ' ')} {plain(getattr(setting, name))}"
                for name in result.varied
                if name != "student"
            ]
            name = ", ".join([f"alpha = {plain(setting.alpha)}", *own])
            found.setdefault(name, {})[setting.T] = line
    return [Course(name, some, rank) for rank, (name, some) in enumerate(found.items())]


def _band(axes: Any, hard: Line) -> None:
    deviation = spread(hard.values) or 0.0
    axes.axhspan(hard.mean - deviation, hard.mean + deviation, color=charts.MUTED, alpha=0.16)
    axes.axhline(hard.mean, color=charts.MUTED, linestyle="--", label="hard labels")


def _numbers(result: SweepResult, title: str, lines: Sequence[Line]) -> Table:
    rows = [
        [result.named(line.setting), *_rounded(result, line.mean, spread(line.values)),
         len(line.values)]
        for line in lines
    ]  # fmt: skip
    head = ["learns from", "mean", "spread", "seeds"]
    return Table(f"{title}, in numbers", head, rows, (1, 2, 3), folded=True)


def difference_chart(result: SweepResult, most: int) -> Chart | None:
    """The differences to hard labels by seed, of the best settings; None where there are none."""
    lines = [line for line in result.lines if line.differences]
    lines = sorted(lines, key=lambda line: line.key)[:most]
    if not lines:
        return None

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        narrow = charts.is_narrow(figure)
        for place, line in enumerate(lines):
            colour = charts.SERIES[0]
            axes.scatter(line.differences, [place] * len(line.differences), 26,
                         color=colour, alpha=0.5)  # fmt: skip
            mean = sum(line.differences) / len(line.differences)
            reach = 2 * (line.difference_error or 0) if len(line.differences) >= BARS else 0
            axes.errorbar([mean], [place], xerr=[reach] if reach else None, fmt="o",
                          color=colour, capsize=4, linewidth=2, markersize=7)  # fmt: skip
        names = [result.named(line.setting) for line in lines]
        axes.set_ylim(len(lines) - 0.5, -0.8 if narrow else -0.5)
        axes.axvline(0, color=charts.MUTED, linestyle="--", linewidth=1.2)
        if narrow:
            axes.set_yticks([])
            for place, name in enumerate(names):
                axes.text(0.01, place - 0.32, name, transform=axes.get_yaxis_transform(),
                          fontsize=11, va="center")  # fmt: skip
        else:
            axes.set_yticks(range(len(lines)), names)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(f"difference to hard labels, {NOUNS[result.measure.name]}")

    title = "Difference to hard labels, by seed"
    rows = [
        [result.named(line.setting), *_rounded(result, *_difference(line)), len(line.differences)]
        for line in lines
    ]
    head = ["learns from", "difference", "standard error", "seeds"]
    better = "more" if result.measure.sign < 0 else "fewer"
    where = "right" if result.measure.sign < 0 else "left"
    return Chart(
        title,
        f"For each of the {len(lines)} best settings the difference to hard labels with the same "
        f"seed, its mean, and from {BARS} seeds on two standard errors to both sides.",
        draw,
        Table(f"{title}, in numbers", head, rows, (1, 2, 3), folded=True),
        f"Dots are pairs of students with one seed; bars, from {BARS} seeds "
        f"on, reach two standard errors from the mean. "
        f"What lies {where} of the dashed line has {better} {NOUNS[result.measure.name]} than "
        f"hard labels.",
        90 + (46 if len(lines) < 8 else 36) * len(lines),
    )


def _rounded(result: SweepResult, *values: float | None) -> list[str | None]:
    """As the other tables show them."""
    digits = result.measure.digits
    return [None if value is None else f"{value:.{digits}f}" for value in values]


def _difference(line: Line) -> tuple[float, float | None]:
    return sum(line.differences) / len(line.differences), line.difference_error
