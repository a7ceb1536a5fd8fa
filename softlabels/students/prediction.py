"""A model's logits of many rows, and their measures against hard labels. N rows, C classes."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from softlabels.inputs.examples import Examples
from softlabels.inputs.label_lists import LabelLists, Labels, as_tensor, known
from softlabels.logits import DenseLogits
from softlabels.measures import LabelScore
from softlabels.multilabel import MultiLabelScore, average_precision, mean_of
from softlabels.system.progress import Advance, ignore


@torch.inference_mode()
def predict(
    logits: Callable[[Tensor], Tensor],
    examples: Examples,
    rows: np.ndarray,
    device: torch.device,
    batch_size: int = 1024,
    advance: Advance = ignore,
) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Batches of these rows, each with the model's logits, float32 [N, C] on the CPU.

    logits: finished inputs → logits [N, C].
    """
    for start in range(0, len(rows), batch_size):
        part = rows[start : start + batch_size]
        logits_NC = logits(examples.finish(examples.gather(part).to(device)))
        yield part, logits_NC.to("cpu", torch.float32, copy=True)  # the model may reuse its own
        advance(len(part), "")


def broken_rows(logits_NC: Tensor) -> int:
    """How many rows hold NaN or infinity. No measure of them means anything."""
    return int((~torch.isfinite(logits_NC).all(-1)).sum())


def hard_measures(logits_NC: Tensor, labels: Labels) -> dict[str, Any]:
    """Measures of logits against hard labels; of several labels a row, with `map`, the mean average
    precision over the labels that some row has (None where no row has any). Empty where no row has
    a label."""
    labels_N = as_tensor(labels, logits_NC.shape[1])
    if not isinstance(labels, LabelLists):
        return dict(LabelScore.of(DenseLogits(logits_NC), labels_N).measures)
    there = torch.from_numpy(known(labels))
    logits_NC, labels_NC = logits_NC[there], labels_N[there]
    measures = MultiLabelScore.of(DenseLogits(logits_NC, link="sigmoid"), labels_NC).measures
    return measures | {"map": mean_of(average_precision(logits_NC, labels_NC))}
