"""A model's logits of many rows, and their measures against hard labels. N rows, C classes."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from softlabels.inputs.examples import Examples
from softlabels.inputs.label_lists import LabelLists, Labels, as_tensor, known
from softlabels.inputs.token_inputs import TokenInputs
from softlabels.logits import DenseLogits
from softlabels.measures import LabelScore
from softlabels.models.tokens import Tokens, alike
from softlabels.multilabel import MultiLabelScore, average_precision, mean_of
from softlabels.system.progress import Advance, ignore

WINDOW = 16  # batches of tokens


@torch.inference_mode()
def predict(
    logits: Callable[[Any], Tensor],
    examples: Examples | TokenInputs,
    rows: np.ndarray,
    device: torch.device,
    batch_size: int = 1024,
    advance: Advance = ignore,
) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Batches of these rows, each with the model's logits, float32 [N, C] on the CPU.

    logits: finished inputs → logits [N, C]. Of tokens those of like lengths are given together, so
    that little is padded.
    """
    if isinstance(examples.sample(1), Tokens):
        yield from _by_length(logits, examples, rows, device, batch_size, advance)
        return
    for start in range(0, len(rows), batch_size):
        part = rows[start : start + batch_size]
        logits_NC = logits(examples.finish(examples.gather(part).to(device)))
        yield part, logits_NC.to("cpu", torch.float32, copy=True)  # the model may reuse its own
        advance(len(part), "")


def _by_length(
    logits: Callable[[Any], Tensor],
    examples: Any,
    rows: np.ndarray,
    device: torch.device,
    batch_size: int,
    advance: Advance,
) -> Iterator[tuple[np.ndarray, Tensor]]:
    for start in range(0, len(rows), WINDOW * batch_size):
        part = rows[start : start + WINDOW * batch_size]
        tokens = examples.gather(part).to(device)
        batches, given = alike(tokens.lengths, batch_size), []
        for batch in batches:
            given.append(logits(tokens[batch]).to("cpu", torch.float32, copy=True))
            advance(len(batch), "")
        back = np.argsort(np.concatenate(batches))
        yield part, torch.cat(given)[torch.from_numpy(back)]


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
