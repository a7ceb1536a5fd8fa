"""What all rows of a dump say of its teacher, from one pass over its logits: how well its
confidence fits the labels, and how soft its targets are."""

from dataclasses import dataclass

import torch

from softlabels.measures import BINS, Calibration, Softness, most_entropy
from softlabels.reports.markdown import folded, table
from softlabels.store.reader import DumpReader

TEMPERATURES = (1.0, 4.0, 8.0)


@dataclass(frozen=True)
class Survey:
    """calibration: of the labelled rows; softness: of all rows, by temperature; most: the largest
    entropy that there can be, in nats."""

    calibration: Calibration
    softness: dict[float, Softness]
    most: float

    @property
    def section(self) -> str:
        """What the card says of the teacher's calibration, in Markdown."""
        error = self.calibration.error
        if error is None:
            return (
                "The source has no labels, so the teacher's accuracy and calibration are unknown."
            )
        head = ("confidence", "rows", "mean confidence", "accuracy")
        return (
            f"Expected calibration error at T = 1, {BINS} bins: {error:.4f}.\n\n"
            f"{folded('Calibration in numbers', table(head, self._rows()))}"
        )

    def _rows(self) -> list[tuple[str, ...]]:
        """A row for each bin that is not empty."""
        bins = self.calibration
        columns = (bins.counts.tolist(), bins.confidence.tolist(), bins.hits.tolist())
        return [
            (f"{b / BINS:.2f} to {(b + 1) / BINS:.2f}", f"{count:,}", f"{confidence / count:.3f}",
             f"{hits / count:.3f}")
            for b, (count, confidence, hits) in enumerate(zip(*columns, strict=True))
            if count
        ]  # fmt: skip


def survey(reader: DumpReader) -> Survey:
    """Reads every row's logits once, a row group at a time."""
    calibration, classes = Calibration(), reader.plan.classes
    softness = {T: Softness() for T in TEMPERATURES}
    for logits, labels in reader.groups(labels=True):
        calibration += Calibration.of(logits, torch.from_numpy(labels))
        for T in TEMPERATURES:
            softness[T] += Softness.of(logits.temper(T), classes)
    return Survey(calibration, softness, most_entropy(classes, reader.plan.link))
