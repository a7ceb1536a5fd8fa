"""The card's picture: the teacher's calibration, and how soft its targets are."""

import io
import math

import numpy as np

from softlabels.errors import MissingExtra
from softlabels.hub.calibration import BINS, PARTS, Calibration

PICTURE = "softlabels.png"
BLUE, GREY = "#2f6f9f", "#9aa5ad"


def draw(found: Calibration) -> bytes:
    """A PNG; the same bytes for the same numbers. Raises MissingExtra without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra("matplotlib", "plot", "the card's picture") from None
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    centers = (np.arange(BINS) + 0.5) / BINS
    full = found.counts > 0
    accuracy = found.correct[full] / found.counts[full]
    left.bar(centers[full], accuracy, 0.9 / BINS, color=BLUE, label="accuracy")
    left.plot([0, 1], [0, 1], color=GREY, linestyle="--", label="confidence")
    left.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence at T = 1", ylabel="accuracy",
             title="Calibration of the teacher")  # fmt: skip
    if full.any():
        left.legend(frameon=False)
    else:
        left.text(0.5, 0.5, "no labels", ha="center", va="center", color=GREY)
    nats = (np.arange(PARTS) + 0.5) / PARTS * math.log(found.classes)
    for shade, (T, counts) in zip((1.0, 0.6, 0.3), found.entropies.items(), strict=True):
        share = counts / max(counts.sum(), 1)
        right.step(nats, share, where="mid", color=BLUE, alpha=shade, label=f"T = {T:g}")
        right.fill_between(nats, share, step="mid", color=BLUE, alpha=0.15 * shade)
    right.set(xlim=(0, math.log(found.classes) or 1), ylim=(0, None),
              xlabel="entropy of a soft target, nats", ylabel="share of the rows",
              title="Softness of the targets")  # fmt: skip
    right.legend(frameon=False)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return file.getvalue()
