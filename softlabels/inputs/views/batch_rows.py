"""Rows of a batch of pictures taken out and put back, on the device where they are.

On a CPU numpy does it, which copies a picture at once, and for a copy of all takes large pages of
memory; torch goes pixel by pixel, twenty times as slow.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from softlabels.system.devices import moved

# Values that are changed at once on a CPU: as float32 about what its second cache holds. Whole
# batches take four times as long, most of it for new memory.
BLOCK_VALUES = 1 << 18


def blocks(rows: np.ndarray, batch_NCHW: Tensor) -> Iterator[np.ndarray]:
    """Rows in parts whose pictures fit into a cache; for a GPU all at once."""
    size = len(rows)
    if batch_NCHW.device.type == "cpu":
        size = BLOCK_VALUES // max(1, batch_NCHW[:1].numel())
    for start in range(0, len(rows), max(1, size)):
        yield rows[start : start + max(1, size)]


def taken(batch: Tensor, rows: np.ndarray) -> Tensor:
    """These rows, [R, …]."""
    if batch.device.type == "cpu":
        return torch.from_numpy(batch.numpy()[rows])
    return batch[moved(torch.from_numpy(rows), batch.device)]


def put(batch: Tensor, rows: np.ndarray, values: Tensor) -> None:
    """These rows become the values, which fit into the type of the batch."""
    if batch.device.type == "cpu":
        batch.numpy()[rows] = values.numpy()
    else:
        batch[moved(torch.from_numpy(rows), batch.device)] = values.to(batch.dtype)


def copied(batch: Tensor) -> Tensor:
    if batch.device.type != "cpu":
        return batch.clone()
    return torch.from_numpy(batch.numpy().copy())
