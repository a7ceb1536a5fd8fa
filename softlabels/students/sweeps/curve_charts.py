"""Charts of learning curves: of some settings by name, and of the others behind them.

Curves of a setting are those of its seeds, and their mean up to the epoch that all have reached.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from softlabels.reports.page import Chart, Table, charts
from softlabels.students.sweeps.reading import Curve, SweepRecord
from softlabels.students.sweeps.results import Line
from softlabels.students.sweeps.temperature_chart import TITLES

BEHIND = 80  # settings whose mean is drawn in grey
STEPS = 10  # epochs of the table
WIDE_RANGE = 8.0  # largest over smallest value, from which on an axis is logarithmic


@dataclass(frozen=True)
class Drawn:
    """A setting with the curves of its seeds. name: such as `best: T=4, alpha=0.9`"""

    name: str
    line: Line
    curves: list[Curve]
    chosen: list[int]

    @property
    def held_out(self) -> list[float]:
        return _mean([curve.held_out for curve in self.curves])

    @property
    def loss(self) -> list[float]:
        return _mean([curve.loss for curve in self.curves])


def _mean(rows: Sequence[Sequence[float]]) -> list[float]:
    """Up to where the shortest ends: a mean over fewer seeds would jump."""
    return [statistics.fmean(column) for column in zip(*rows, strict=False)]


def curve_charts(record: SweepRecord) -> list[Chart]:
    """Held-out scores and training losses; empty where no student has a curve."""
    found = _drawn(record)
    if not found:
        return []
    named = _named(record, found)
    others = [one for one in found if one.line not in [other.line for other in named]]
    return [_held_out(record, named, others), _losses(record, named)]


def _drawn(record: SweepRecord) -> list[Drawn]:
    """The settings that have curves, the best first."""
    found = []
    for line in sorted((o for o in record.result.lines if o.values), key=lambda o: o.key):
        ended = [
            one
            for one in record.result.ended
            if one.trial.setting == line.setting and one.metrics and one.trial in record.curves
        ]
        if ended:
            curves = [record.curves[one.trial] for one in ended]
            epochs = [(one.metrics or {})["epoch"] for one in ended]
            found.append(Drawn(record.result.named(line.setting), line, curves, epochs))
    return found


def _named(record: SweepRecord, found: Sequence[Drawn]) -> list[Drawn]:
    """The best setting, hard labels, the one in the middle and the worst: each once."""
    hard = next((one for one in found if one.line.setting.is_hard), None)
    picked = {"best": found[0], "": hard, "middle": found[len(found) // 2], "worst": found[-1]}
    named: list[Drawn] = []
    for word, one in picked.items():
        if one is not None and one.line not in [other.line for other in named]:
            name = f"{word}: {one.name}" if word else one.name
            named.append(Drawn(name, one.line, one.curves, one.chosen))
    return named


def _held_out(record: SweepRecord, named: Sequence[Drawn], others: Sequence[Drawn]) -> Chart:
    measure = record.result.measure

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for one in others[:BEHIND]:
            mean = one.held_out
            axes.plot(range(1, len(mean) + 1), mean, color=charts.MUTED, linewidth=0.8, alpha=0.3)
        for place, one in reversed(list(enumerate(named))):
            colour, mean = charts.SERIES[place], one.held_out
            for curve, epoch in zip(one.curves, one.chosen, strict=True):
                epochs = range(1, len(curve.held_out) + 1)
                axes.plot(epochs, curve.held_out, color=colour, linewidth=0.7, alpha=0.35)
                axes.scatter([epoch], [curve.held_out[epoch - 1]], 12, color=colour, alpha=0.7)
            style = "--" if one.line.setting.is_hard else "-"
            axes.plot(range(1, len(mean) + 1), mean, color=colour, linewidth=2.2, linestyle=style,
                      label=one.name)  # fmt: skip
        shown = [v for one in named for curve in one.curves for v in curve.held_out]
        _scale(axes, shown)
        axes.set_xlabel("epoch")
        axes.set_ylabel(measure.title)
        _legend(figure, axes)

    title = f"{TITLES[measure.name]} by epoch"
    caption = (
        "A thick line is a mean over seeds, thin ones are students, a dot the epoch that is kept."
    )
    if others:
        count = min(len(others), BEHIND)
        caption += f" Behind them in grey: the means of {count} other settings."
    description = f"{measure.title} after each epoch: " + "; ".join(
        f"{one.name} goes from {one.held_out[0]:.{measure.digits}f} to "
        f"{one.held_out[-1]:.{measure.digits}f}"
        for one in named
        if one.held_out
    )
    values = [one.held_out for one in named]
    return Chart(title, f"{description}.", draw, _numbers(title, named, values), caption, 400)


def _losses(record: SweepRecord, named: Sequence[Drawn]) -> Chart:
    def draw(figure: Any) -> None:
        columns = min(2, len(named))
        rows = math.ceil(len(named) / columns)
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes in panels[len(named) :]:
            axes.set_visible(False)
        for place, (axes, one) in enumerate(zip(panels, named, strict=False)):
            for curve in one.curves:
                axes.plot(range(1, len(curve.loss) + 1), curve.loss, color=charts.SERIES[place],
                          linewidth=1.2, alpha=0.6)  # fmt: skip
            _scale(axes, [value for curve in one.curves for value in curve.loss])
            title = one.name.partition(": ")[0] if charts.is_narrow(figure) else one.name
            axes.set_title(title, loc="left")
            axes.set_xlabel("epoch")

    title = "Loss of training by epoch"
    description = "; ".join(
        f"{one.name} goes from {one.loss[0]:.4g} to {one.loss[-1]:.4g}" for one in named if one.loss
    )
    caption = (
        "Each has a scale of its own: losses of another T or alpha are other sums, and can't be "
        "compared."
    )
    rows = math.ceil(len(named) / 2)
    values = [one.loss for one in named]
    return Chart(
        title, f"Mean loss over the rows of each epoch, of every seed: {description}.", draw,
        _numbers(title, named, values), caption, 60 + 190 * rows,
    )  # fmt: skip


def _scale(axes: Any, values: Sequence[float]) -> None:
    there = [value for value in values if math.isfinite(value)]
    if there and min(there) > 0 and max(there) / min(there) > WIDE_RANGE:
        axes.set_yscale("log")
        axes.yaxis.get_major_locator().set_params(subs=(1, 2, 5))
        axes.yaxis.set_major_formatter("{x:g}")  # the usual one writes TeX
        axes.minorticks_off()
    axes.xaxis.get_major_locator().set_params(integer=True)


def _legend(figure: Any, axes: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    columns = 1 if charts.is_narrow(figure) else 2
    figure.legend(handles[::-1], labels[::-1], loc="outside upper left", ncols=columns)


def _numbers(title: str, named: Sequence[Drawn], values: Sequence[Sequence[float]]) -> Table:
    """Means over seeds, at some of the epochs."""
    most = max(len(one) for one in values)
    epochs = sorted({round(1 + (most - 1) * step / (STEPS - 1)) for step in range(STEPS)})
    rows = [
        [epoch, *(one[epoch - 1] if epoch <= len(one) else None for one in values)]
        for epoch in epochs
    ]
    head = ["epoch", *(one.name for one in named)]
    numbers = tuple(range(len(head)))
    return Table(f"{title}, in numbers: means over seeds", head, rows, numbers, folded=True)
