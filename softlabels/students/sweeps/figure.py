"""The picture of a sweep: what is measured against T."""

import io

from softlabels.students.sweeps.grid import Setting, plain
from softlabels.students.sweeps.results import Line, SweepResult, spread
from softlabels.system.extras import need

GREY = "#9aa5ad"
NAMED = 6  # curves with a colour and a name; more can't be told from each other


def draw(result: SweepResult) -> bytes:
    """A PNG: a curve for each alpha and way of training, with the spread over seeds, beside the
    best of hard labels; curves beyond the best ones are grey. Raises MissingExtra without
    matplotlib."""
    figure = need("matplotlib.figure", "plot", "the picture of a sweep").Figure(
        figsize=(6.4, 4.4), layout="constrained"
    )
    axes = figure.subplots()
    there = sorted((line for line in result.lines if line.values), key=lambda line: line.key)
    curves: dict[tuple[Setting, float], list[Line]] = {}
    for line in there:
        if not line.setting.is_hard:
            curves.setdefault((line.setting.hard, line.setting.alpha), []).append(line)
    hard = next((line for line in there if line.setting.is_hard), None)
    if hard is not None:
        deviation = spread(hard.values) or 0.0
        axes.axhspan(hard.mean - deviation, hard.mean + deviation, color=GREY, alpha=0.2)
        axes.axhline(hard.mean, color=GREY, label=_name("hard labels", result.way(hard.setting)))
    for rank, ((way, alpha), lines) in enumerate(curves.items()):
        at = sorted(((line.setting.T or 0.0, line) for line in lines), key=lambda one: one[0])
        temperatures, means = [T for T, _ in at], [line.mean for _, line in at]
        if rank >= NAMED:
            axes.plot(temperatures, means, color=GREY, alpha=0.5, linewidth=0.8, zorder=1)
            continue
        axes.errorbar(
            temperatures, means, [spread(line.values) or 0.0 for _, line in at],
            marker="o", capsize=3, label=_name(f"alpha = {plain(alpha)}", result.way(way)),
        )  # fmt: skip
    every = sorted({line.setting.T for line in result.lines if line.setting.T is not None})
    axes.set_xscale("log")
    axes.set_xticks(every, [plain(T) for T in every])
    axes.minorticks_off()
    axes.set_xlabel("temperature T")
    axes.set_ylabel(result.measure.title)
    axes.spines[["top", "right"]].set_visible(False)
    if len(curves) < NAMED:
        axes.legend(frameon=False)
    else:  # it would hide the curves
        figure.set_figheight(5.6)
        figure.legend(loc="outside upper left", frameon=False, fontsize="small", ncols=2)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=130)
    return file.getvalue()


def _name(what: str, way: str) -> str:
    return f"{what}, {way}" if way else what
