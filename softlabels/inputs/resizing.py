"""Pixels of a picture, scaled: by torch, or by Pillow. H, W, C of a picture.

Both scale one axis after the other and round to whole levels in between, so the order of the axes
shows where a bicubic filter overshoots. It is Pillow 13's here (before it, width always came
first), whatever Pillow is installed.
"""

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate

FILTERS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
TORCH, PILLOW = "torch", "pillow"
RESIZERS = (TORCH, PILLOW)
OF_TORCH = ("bilinear", "bicubic")  # the filters that torch has with antialiasing


def resize(
    pixels_HWC: np.ndarray, height: int, width: int, filter: str, resizer: str
) -> np.ndarray:
    """uint8 [height, width, C] of uint8 [H, W, C].

    resizer: torch takes the filters of `OF_TORCH`. Its bilinear is within one level of Pillow's,
    its bicubic within two.
    """
    if resizer == PILLOW:
        grey = pixels_HWC.shape[2] == 1
        image = Image.fromarray(pixels_HWC[:, :, 0] if grey else pixels_HWC)
        scaled = np.asarray(image.resize((width, height), Image.Resampling[filter.upper()]))
        return scaled[:, :, None] if grey else scaled
    old_height, old_width = pixels_HWC.shape[:2]
    less_height, less_width = old_height - height, old_width - width
    if less_height > max(0, 2 * less_width):
        pixels_HWC = _by_torch(pixels_HWC, height, old_width, filter)
    return _by_torch(pixels_HWC, height, width, filter)


def _by_torch(pixels_HWC: np.ndarray, height: int, width: int, filter: str) -> np.ndarray:
    """Width first. torch does it in one thread, without the interpreter's lock. A copy of pixels
    that don't lie side by side is numpy's, since torch would start threads for it."""
    side_by_side = np.require(pixels_HWC, requirements=["C", "W"])
    # numpy leaves any stride to an axis of one, even a negative one, and torch reads by it
    flat = torch.from_numpy(side_by_side.reshape(-1))
    # by the stride of its only row torch tells whether channels come last; else it would copy what
    # it has scaled into planes, which takes as long as to scale it
    batch_1CHW = flat.view(1, *pixels_HWC.shape).permute(0, 3, 1, 2)
    scaled = interpolate(batch_1CHW, (height, width), mode=filter, antialias=True)
    return scaled[0].permute(1, 2, 0).numpy()
