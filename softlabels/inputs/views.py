"""Replayable augmentation: what is random in a view of an input depends on (seed, id, view) only.

Parameters come from a counter-based generator (SplitMix64 over the three numbers), so a view can
be drawn again in any order, on any machine, by any program that has these few lines.
"""

import numpy as np
import torch
from torch import Tensor

_STEP = np.uint64(0x9E3779B97F4A7C15)


def counter_random(seed: int, ids_N: np.ndarray, view: int, stream: int) -> np.ndarray:
    """Uniform uint64 [N], a function of its arguments alone. `ids_N` is int64."""
    state_N = np.full(ids_N.shape, seed, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for part in (ids_N.astype(np.uint64), np.uint64(view), np.uint64(stream)):
            state_N = _mix((state_N + _STEP) ^ _mix(np.asarray(part + _STEP)))
    return state_N


def _mix(z: np.ndarray) -> np.ndarray:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def draw_shifts(pixels: int, seed: int, ids_N: np.ndarray, view: int) -> np.ndarray:
    """Whole shifts in [−pixels, pixels], int64 [N, 2] as (down, right)."""
    span = np.uint64(2 * pixels + 1)
    drawn = [counter_random(seed, ids_N, view, stream) % span for stream in (0, 1)]
    return np.stack(drawn, axis=1).astype(np.int64) - pixels


def shift(batch_NCHW: Tensor, shifts_N2: np.ndarray) -> Tensor:
    """Each image moved by its (down, right); what comes in is 0. Keeps dtype and shape."""
    pixels = int(np.abs(shifts_N2).max(initial=0))
    if pixels == 0:
        return batch_NCHW
    n, _, height, width = batch_NCHW.shape
    padded = torch.nn.functional.pad(batch_NCHW, (pixels,) * 4)
    offset_N2 = pixels - torch.as_tensor(shifts_N2, device=batch_NCHW.device)
    rows_NH = offset_N2[:, :1] + torch.arange(height, device=batch_NCHW.device)
    cols_NW = offset_N2[:, 1:] + torch.arange(width, device=batch_NCHW.device)
    image_N = torch.arange(n, device=batch_NCHW.device)
    moved_NHWC = padded.permute(0, 2, 3, 1)[
        image_N[:, None, None], rows_NH[:, :, None], cols_NW[:, None, :]
    ]
    return moved_NHWC.permute(0, 3, 1, 2).contiguous()
