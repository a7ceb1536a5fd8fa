"""The teacher of a report in numbers and charts: calibration, softness."""

from typing import Any

import numpy as np

from softlabels.measures import BINS, PARTS
from softlabels.pages.portrait import TEMPERATURES, Portrait
from softlabels.reports.page import Block, Chart, Remark, Section, Table, Text, charts
from softlabels.reports.survey import Survey
from softlabels.system.humanize import measured

HISTOGRAMS = ("-", "--", ":")  # lines of the temperatures of `Survey.softness`


def calibration_section(portrait: Portrait) -> Section:
    title, bins = "Calibration", portrait.survey.calibration
    if bins.error is None:
        what = (
            "The dump has no labels of the teacher's classes, so its accuracy and calibration are "
            "unknown."
        )
        return Section(title, [Remark(what)])
    several = portrait.survey.labels is not None
    what = "labels that are there" if several else "top classes that are the label"
    text = (
        f"How often the teacher is right against how confident it is, in {BINS} equal bins of "
        f"confidence (the probability at T = 1). A teacher is calibrated where bars reach the "
        f"line, and overconfident where they stay below it. The expected calibration error is "
        f"{bins.error:.4f} (Guo et al. 2017)."
    )
    accuracy = "share there" if several else "accuracy"
    head = ["confidence", "labels" if several else "rows", "mean confidence", accuracy]
    rows = [list(row) for row in portrait.survey.bins]
    numbers = Table("Calibration in numbers", head, rows, (1, 2, 3), folded=True)

    def draw(figure: Any) -> None:
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        centers = (np.arange(BINS) + 0.5) / BINS
        counts, hits = bins.counts.numpy(), bins.hits.numpy()
        full = counts > 0
        share = hits[full] / counts[full]
        top.bar(centers[full], share, 0.86 / BINS, color=charts.SERIES[0], label=accuracy)
        top.plot([0, 1], [0, 1], color=charts.INK, linestyle="--", zorder=3, label="calibrated")
        top.set(xlim=(0, 1), ylim=(0, 1), ylabel=accuracy)
        charts.legend_above(top)
        bottom.bar(centers, counts / counts.sum(), 0.86 / BINS, color=charts.SERIES[5])
        bottom.set(xlabel="confidence at T = 1", ylabel=f"share of\n{head[1]}", ylim=(0, None))

    description = (
        f"Bars: the share of {what}, by confidence; a dashed line where both are equal. Below, the "
        f"share of the {head[1]} in each bin."
    )
    return Section(
        title, [Text(text), Chart("Reliability", description, draw, numbers, height=420)]
    )


def softness_section(portrait: Portrait) -> Section:
    most = portrait.survey.most
    means = [(T, one.measures["entropy"]) for T, one in portrait.looked.entropies.items()]
    text = (
        "A higher temperature makes soft targets softer. Their entropy says how much they spread "
        f"beyond the top class: 0 is a hard label, and the maximum, a uniform distribution, is "
        f"{most:.4g} nats here."
    )
    rows = [[f"{T:g}", measured(mean), f"{mean / most:.4f}" if most else "–"] for T, mean in means]
    head = ["T", "mean entropy, nats", "fraction of the maximum"]

    def curve(figure: Any) -> None:
        axes = figure.subplots()
        axes.plot(*zip(*means, strict=True), marker="o", label="mean of all rows")
        axes.axhline(most, color=charts.SERIES[1], linestyle="--", label="maximum (uniform)")
        ticks = [1, 4, 20] if charts.is_narrow(figure) else TEMPERATURES
        axes.set_xscale("log")
        axes.set_xticks(ticks, [f"{T:g}" for T in ticks])
        axes.minorticks_off()
        axes.set(xlabel="temperature T", ylabel="entropy, nats", ylim=(0, 1.05 * most or 1))
        charts.legend_above(axes)

    blocks: list[Block] = [
        Text(text),
        Chart(
            "Entropy against T",
            "A line that rises with T towards the entropy of a uniform distribution.",
            curve,
            Table("Entropy in numbers", head, rows, (0, 1, 2), folded=True),
        ),
        _histogram(portrait.survey),
    ]
    return Section("Softness", blocks)


def _histogram(survey: Survey) -> Chart:
    nats = (np.arange(PARTS) + 0.5) / PARTS * survey.most
    shares = {
        T: one.counts.numpy() / max(int(one.counts.sum()), 1) for T, one in survey.softness.items()
    }

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for (T, share), line in zip(shares.items(), HISTOGRAMS, strict=True):
            (drawn,) = axes.step(nats, share, where="mid", linestyle=line, label=f"T = {T:g}")
            axes.fill_between(nats, share, step="mid", alpha=0.12, color=drawn.get_color())
        axes.set(xlim=(0, survey.most or 1), ylim=(0, None))
        axes.set(xlabel="entropy of a soft target, nats", ylabel="share of the rows")
        charts.legend_above(axes, columns=len(shares))

    # in fifths: fifty lines would say no more to who reads them
    parts = {T: share.reshape(5, -1).sum(-1) for T, share in shares.items()}
    rows = [
        [f"{survey.most * i / 5:.4g} to {survey.most * (i + 1) / 5:.4g}",
         *(f"{share[i]:.4f}" for share in parts.values())]
        for i in range(5)
    ]  # fmt: skip
    head = ["nats", *(f"T = {T:g}" for T in parts)]
    return Chart(
        "How soft the rows are",
        "Histograms of the entropy of all rows, one for each of these temperatures.",
        draw,
        Table("Share of the rows by entropy", head, rows, tuple(range(1, 1 + len(parts))),
              folded=True),
        height=260,
    )  # fmt: skip
