"""The rows in which two models are furthest apart, with the soft targets of both."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from softlabels.logits import Logits
from softlabels.reports.comparison import Beside, WorstRow
from softlabels.reports.contrast import Contrast
from softlabels.reports.rows import shown_rows
from softlabels.store.reader import DumpReader

TOP = 3  # classes of each of both


def worst_rows(
    readers: Sequence[DumpReader], places: Sequence[np.ndarray], contrast: Contrast
) -> list[WorstRow]:
    """These rows, in their order. readers: of the reference and of the other; places: of the rows
    in each of both."""
    if not len(places[0]):
        return []
    logits = [_logits(reader, rows) for reader, rows in zip(readers, places, strict=True)]
    probs = [_probs(one, list(contrast.sums)) for one in logits]
    top = [one.temper(1).top(min(TOP, one.classes))[1].tolist() for one in logits]
    order = np.argsort(places[0])
    shown = shown_rows(readers[0], places[0][order], [1.0], 1)
    names = readers[0].plan.source.class_names or readers[1].plan.source.class_names
    made: dict[int, WorstRow] = {}
    for place, row in zip(order.tolist(), shown.rows, strict=True):
        labels = row.label if isinstance(row.label, list) else [row.label]
        known = [label for label in labels if label is not None]
        classes = dict.fromkeys([*top[0][place], *top[1][place], *known])
        made[place] = WorstRow(
            id=row.id,
            view=row.view,
            label=row.label,
            label_name=row.label_name,
            path=row.path,
            kl=[float(sums.kl_N[places[0][place]]) for sums in contrast.sums.values()],
            classes=[
                Beside(
                    number,
                    names[number] if names else str(number),
                    *(one[:, place, number].tolist() for one in probs),
                )
                for number in classes
            ],
        )
    return [made[place] for place in sorted(made)]


def _logits(reader: DumpReader, rows: np.ndarray) -> Logits:
    """In the order of these rows."""
    order = np.argsort(rows)
    found, _ = reader.logits_of(rows[order])
    return found.select(torch.from_numpy(np.argsort(order)))


def _probs(logits: Logits, temperatures: Sequence[float]) -> Tensor:
    """At each temperature, float64 [T, M, C]."""
    return torch.stack([logits.temper(T).probs().double() for T in temperatures])
