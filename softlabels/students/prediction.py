"""A model's logits of many rows. N rows, C classes."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from softlabels.inputs.examples import Examples
from softlabels.inputs.token_inputs import TokenInputs
from softlabels.models.tokens import Tokens, alike
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
