"""The picture of a sweep: what is measured against T."""

import io

from softlabels.students.sweeps.grid import Setting, plain
from softlabels.students.sweeps.results import SweepResult, spread
from softlabels.system.extras import need

GREY = "#9aa5ad"


def draw(result: SweepResult) -> bytes:
    """A PNG: a curve for each alpha and way of training, with the spread over seeds, beside hard
    labels. Raises MissingExtra without matplotlib."""
    figure = need("matplotlib.figure", "plot", "the picture of a sweep").Figure(
        figsize=(6.4, 4.4), layout="constrained"
    )
    axes = figure.subplots()
    curves: dict[tuple[Setting, float], list] = {}
    for line in result.lines:
        if line.values:
            curves.setdefault((line.setting.hard, line.setting.alpha), []).append(line)
    ways = list(dict.fromkeys(way for way, _ in curves))
    temperatures = sorted({line.setting.T for line in result.lines if line.setting.T is not None})
    for (way, alpha), lines in curves.items():
        name = _name(way, ways)
        if not alpha:
            mean, deviation = lines[0].mean, spread(lines[0].values) or 0.0
            axes.axhspan(mean - deviation, mean + deviation, color=GREY, alpha=0.2)
            axes.axhline(mean, color=GREY, label=f"hard labels{name}")
            continue
        lines = sorted(lines, key=lambda line: line.setting.T)
        axes.errorbar(
            [line.setting.T for line in lines],
            [line.mean for line in lines],
            [spread(line.values) or 0.0 for line in lines],
            marker="o", capsize=3, label=f"alpha = {plain(alpha)}{name}",
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xticks(temperatures, [plain(T) for T in temperatures])
    axes.minorticks_off()
    axes.set_xlabel("temperature T")
    axes.set_ylabel(result.measure.title)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=130)
    return file.getvalue()


def _name(way: Setting, ways: list[Setting]) -> str:
    """What tells a way of training from the others."""
    own = [
        f"{name} {getattr(way, name)}"
        for name in ("student", "lr", "weight_decay")
        if len({getattr(one, name) for one in ways}) > 1
    ]
    return "".join(f", {part}" for part in own)
