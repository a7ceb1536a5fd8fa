"""What makes a stored input the numbers a model sees, as text: `grey|resize(28)|scale(255)`.

    grey, rgb               to one or three channels             on the picture
    resize(H) resize(H, W)  bilinear, antialiased                on the picture
    center_crop(H[, W])     the middle, after a resize           on the picture
    scale(d)                divide by d                          on numbers
    normalize(mean, std)    (x − mean) / std; numbers, or one    on numbers
                            tuple entry a channel
    tokens                  whole numbers stay whole: int64      on numbers, alone

Words on the picture come first: they give uint8 [C, H, W], one input at a time, and that is what
is cached. Words on numbers run on whole float32 batches, on the device that trains.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from softlabels.errors import UsageError
from softlabels.spec import Call, parse_pipeline

ON_PICTURE = {"grey": (0, 0), "rgb": (0, 0), "resize": (1, 2), "center_crop": (1, 2)}
ON_NUMBERS = {"scale": (1, 1), "normalize": (2, 2), "tokens": (0, 0)}
LARGEST = 8192  # pixels a side: a dump's preprocessing may come from strangers
DEFAULTS = {"image": "scale(255)", "array": ""}


@dataclass(frozen=True)
class Preprocess:
    """A parsed pipeline; `str()` gives the text back."""

    picture: tuple[Call, ...]
    numbers: tuple[Call, ...]

    @classmethod
    def parse(cls, text: str) -> "Preprocess":
        """Raises UsageError for an unknown word, a wrong number of arguments or a wrong order."""
        picture: list[Call] = []
        numbers: list[Call] = []
        for call in parse_pipeline(text, "--preprocess"):
            known = ON_PICTURE | ON_NUMBERS
            if call.name not in known:
                raise UsageError(f"--preprocess: no word {call.name!r}; use {', '.join(known)}")
            least, most = known[call.name]
            if not least <= len(call.args) <= most:
                wanted = least if least == most else f"{least} or {most}"
                raise UsageError(f"--preprocess: {call} has not {wanted} arguments")
            _check_arguments(call)
            if call.name in ON_PICTURE and numbers:
                raise UsageError(f"--preprocess: {call} must come before {numbers[0]}")
            (picture if call.name in ON_PICTURE else numbers).append(call)
        if len(picture) + len(numbers) > 1 and any(call.name == "tokens" for call in numbers):
            raise UsageError(f"--preprocess: tokens stands alone, not in {text!r}")
        return cls(tuple(picture), tuple(numbers))

    def __str__(self) -> str:
        return "|".join(map(str, self.picture + self.numbers))

    def on_picture(self, image: Image.Image) -> np.ndarray:
        """A decoded image → uint8 [C, H, W]; C is 1 for greyscale, 3 for colour."""
        image = _to_grey_or_colour(image)
        for call in self.picture:
            image = _apply(image, call)
        values = np.asarray(image)
        return values[None] if values.ndim == 2 else values.transpose(2, 0, 1)

    def on_numbers(self, batch: Tensor) -> Tensor:
        """[N, …] of any dtype → float32 [N, …] on the same device; int64 with `tokens`.

        Raises UsageError for tokens that are not whole numbers.
        """
        if self.numbers and self.numbers[0].name == "tokens":
            if batch.is_floating_point():
                raise UsageError(f"--preprocess tokens: the inputs are {batch.dtype}, not whole")
            return batch.long()
        x = batch.float()
        for call in self.numbers:
            if call.name == "scale":
                x = x / call.args[0]
            else:
                mean, std = (_per_channel(value, x) for value in call.args)
                x = (x - mean) / std
        return x


def _check_arguments(call: Call) -> None:
    numbers = [number for arg in call.args for number in _flat(arg)]
    if not all(type(n) in (int, float) for n in numbers):
        raise UsageError(f"--preprocess: {call}: arguments must be numbers")
    if call.name in ON_PICTURE and not all(type(n) is int and 0 < n <= LARGEST for n in numbers):
        raise UsageError(f"--preprocess: {call}: sizes must be whole numbers from 1 to {LARGEST}")
    if call.name in ON_NUMBERS and call.args and 0 in _flat(call.args[-1]):
        raise UsageError(f"--preprocess: {call} divides by 0")


def _flat(arg: Any) -> list:
    return list(arg) if isinstance(arg, tuple | list) else [arg]


def _to_grey_or_colour(image: Image.Image) -> Image.Image:
    if image.mode in ("L", "RGB"):
        return image
    if image.mode in ("1", "LA"):
        return image.convert("L")
    if image.mode in ("P", "PA", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"):
        return image.convert("RGB")
    raise ValueError(f"pixels of mode {image.mode} hold more than 8 bits; convert them first")


def _apply(image: Image.Image, call: Call) -> Image.Image:
    if call.name == "grey":
        return image.convert("L")
    if call.name == "rgb":
        return image.convert("RGB")
    height, width = (call.args * 2)[:2] if len(call.args) == 1 else call.args
    if call.name == "resize":
        return image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    if left < 0 or top < 0:
        raise ValueError(f"{call} is larger than the image, {image.height}×{image.width}")
    return image.crop((left, top, left + width, top + height))


def _per_channel(value: float | tuple[float, ...], x: Tensor) -> Tensor:
    tensor = torch.as_tensor(value, dtype=torch.float32, device=x.device)
    return tensor.reshape(-1, *[1] * (x.ndim - 2)) if tensor.ndim else tensor
