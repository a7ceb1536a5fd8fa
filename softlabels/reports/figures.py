"""The card's picture: calibration of the teacher, softness of its targets."""

import io

import numpy as np

from softlabels.measures import BINS, PARTS
from softlabels.reports.survey import Survey
from softlabels.system.extras import need

PICTURE = "softlabels.png"
BLUE, GREY = "#2f6f9f", "#9aa5ad"


def draw(survey: Survey) -> bytes:
    """A PNG; the same bytes for the same numbers. Raises MissingExtra without matplotlib."""
    matplotlib = need("matplotlib.figure", "plot", "the card's picture")
    figure = matplotlib.Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    centers = (np.arange(BINS) + 0.5) / BINS
    counts, hits = (sums.numpy() for sums in (survey.calibration.counts, survey.calibration.hits))
    full = counts > 0
    accuracy = hits[full] / counts[full]
    right_share = "accuracy" if survey.labels is None else "share of labels that are there"
    left.bar(centers[full], accuracy, 0.9 / BINS, color=BLUE, label=right_share)
    left.plot([0, 1], [0, 1], color=GREY, linestyle="--", label="confidence")
    left.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence at T = 1", ylabel=right_share,
             title="Calibration of the teacher")  # fmt: skip
    if full.any():
        left.legend(frameon=False)
    else:
        left.text(0.5, 0.5, "no labels", ha="center", va="center", color=GREY)
    nats = (np.arange(PARTS) + 0.5) / PARTS * survey.most
    for shade, (T, softness) in zip((1.0, 0.6, 0.3), survey.softness.items(), strict=True):
        counts = softness.counts.numpy()
        share = counts / max(counts.sum(), 1)
        right.step(nats, share, where="mid", color=BLUE, alpha=shade, label=f"T = {T:g}")
        right.fill_between(nats, share, step="mid", color=BLUE, alpha=0.15 * shade)
    right.set(xlim=(0, survey.most or 1), ylim=(0, None),
              xlabel="entropy of a soft target, nats", ylabel="share of the rows",
              title="Softness of the targets")  # fmt: skip
    right.legend(frameon=False)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return file.getvalue()
