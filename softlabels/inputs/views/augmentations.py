"""Augmentations: each draws the parameters of a view of N pictures, and shows them so.

Parameters are drawn for (seed, id, view) by `chance`, those of each word from streams of its own,
so that no word changes what another draws. View 0 is the input as it is: nothing is drawn for it
and no step touches it, which `views.Augment` sees to. Pictures are tensors [N, C, H, W] as they are
stored, before the steps of the preprocessing on numbers: 0 is black. `RandomResizedCrop` alone
works earlier, on the source picture.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from softlabels.errors import SourceError, UsageError
from softlabels.inputs.views.chance import counter_random, fractions
from softlabels.system.devices import moved

DOWN, RIGHT = "shift_down", "shift_right"
FLIP = "flip"
TOP, LEFT = "window_top", "window_left"
BOX = "crop_top", "crop_left", "crop_height", "crop_width"
FARTHEST = 2**15 - 1  # pixels: these columns are int16
JITTER_STREAMS, FLIP_STREAM, CROP_STREAMS, BOX_STREAM = (0, 1), 2, (3, 4), 5
TRIES = 10
RATIOS = 3 / 4, 4 / 3  # width over height
Drawn = dict[str, np.ndarray]
"""The parameters of a view of N inputs, by the name of their column, [N] each."""


class Step(Protocol):
    """An augmentation of pictures that are tensors.

    columns: the parameters of each picture's view, with their types
    """

    columns: ClassVar[dict[str, str]]

    def on(self, shape: list[int], what: str) -> Self:
        """The same for pictures of this shape, [C, H, W]. Raises UsageError where it can't be;
        `what` names the option."""

    def shape_after(self, shape: list[int]) -> list[int]:
        """The shape of what it makes of them."""

    def draw(self, seed: int, keys_N: np.ndarray, view: int) -> Drawn:
        """The columns of this view, 1 or more, [N] each. keys_N: ids as `counters` gives them."""

    def apply(self, batch_NCHW: Tensor, drawn: Drawn) -> Tensor:
        """The pictures as these columns show them, of the same dtype, on the same device."""


@dataclass(frozen=True)
class Jitter:
    """Pictures moved by up to `pixels` each way; what comes in is 0.

    columns: whole pixels, of which more move the picture down and to the right.
    """

    pixels: int
    columns: ClassVar[dict[str, str]] = {DOWN: "int16", RIGHT: "int16"}

    def __str__(self) -> str:
        return f"jitter({self.pixels})"

    def on(self, shape: list[int], what: str) -> Self:
        least = min(shape[1:])
        if self.pixels >= least:
            raise UsageError(
                f"{what}: {self} can shift pictures of {shape[1]}×{shape[2]} pixels out of sight; "
                f"use less than {least}"
            )
        return self

    def shape_after(self, shape: list[int]) -> list[int]:
        return shape

    def draw(self, seed: int, keys_N: np.ndarray, view: int) -> Drawn:
        shifts_N2 = draw_shifts(self.pixels, seed, keys_N, view)
        return {
            name: shifts_N2[:, axis].astype(kind)
            for axis, (name, kind) in enumerate(self.columns.items())
        }

    def apply(self, batch_NCHW: Tensor, drawn: Drawn) -> Tensor:
        return shift(batch_NCHW, np.stack([drawn[DOWN], drawn[RIGHT]], axis=1))


@dataclass(frozen=True)
class Flip:
    """Half of the pictures, mirrored left to right."""

    columns: ClassVar[dict[str, str]] = {FLIP: "bool"}

    def __str__(self) -> str:
        return "flip"

    def on(self, shape: list[int], what: str) -> Self:
        return self

    def shape_after(self, shape: list[int]) -> list[int]:
        return shape

    def draw(self, seed: int, keys_N: np.ndarray, view: int) -> Drawn:
        return {FLIP: counter_random(seed, keys_N, view, FLIP_STREAM) % np.uint64(2) == 1}

    def apply(self, batch_NCHW: Tensor, drawn: Drawn) -> Tensor:
        flipped = np.flatnonzero(drawn[FLIP])
        if batch_NCHW.device.type == "cpu":  # where numpy is faster than torch, as in `windows`
            shown = batch_NCHW.numpy().copy()
            shown[flipped] = shown[flipped][..., ::-1]
            return torch.from_numpy(shown)
        index = torch.as_tensor(flipped, device=batch_NCHW.device)
        return batch_NCHW.index_copy(0, index, batch_NCHW[index].flip(-1))


@dataclass(frozen=True)
class RandomCrop:
    """A window of this size, anywhere in the picture with `padding` pixels of 0 around it.

    columns: the window's upper left corner in the padded picture, in pixels
    places: how many tops and lefts there are to choose from, which `on` finds out
    """

    height: int
    width: int
    padding: int = 0
    places: tuple[int, int] = (1, 1)
    columns: ClassVar[dict[str, str]] = {TOP: "int16", LEFT: "int16"}

    def __str__(self) -> str:
        return _shown("random_crop", (self.height, self.width), [self.padding] * (self.padding > 0))

    def on(self, shape: list[int], what: str) -> Self:
        padded = [side + 2 * self.padding for side in shape[1:]]
        places = padded[0] - self.height + 1, padded[1] - self.width + 1
        if min(places) < 1:
            around = f" with {self.padding} around them" if self.padding else ""
            raise UsageError(
                f"{what}: {self} is larger than the pictures of {shape[1]}×{shape[2]} "
                f"pixels{around}; crop less, or pad more"
            )
        if max(places) == 1:
            raise UsageError(
                f"{what}: {self} changes nothing, since pictures have {shape[1]}×{shape[2]} pixels "
                f"here; pad them, as random_crop({self.height}, {self.height // 8 or 1}) does, or "
                f"use random_resized_crop({self.height}), which crops the source picture"
            )
        return replace(self, places=places)

    def shape_after(self, shape: list[int]) -> list[int]:
        return [shape[0], self.height, self.width]

    def draw(self, seed: int, keys_N: np.ndarray, view: int) -> Drawn:
        return {
            name: (counter_random(seed, keys_N, view, stream) % np.uint64(count)).astype(kind)
            for (name, kind), stream, count in zip(
                self.columns.items(), CROP_STREAMS, self.places, strict=True
            )
        }

    def apply(self, batch_NCHW: Tensor, drawn: Drawn) -> Tensor:
        padded = [side + 2 * self.padding for side in batch_NCHW.shape[2:]]
        for name, whole, side in zip((TOP, LEFT), padded, (self.height, self.width), strict=True):
            wrong = (drawn[name] < 0) | (drawn[name] > whole - side)
            if wrong.any():
                raise SourceError(
                    f"{name} of a view is {drawn[name][wrong][0]}, and a window of {side} pixels "
                    f"lies within the {whole} of the padded picture: these columns are not of "
                    f"{self}, or not of these pictures"
                )
        top_N, left_N = (drawn[name].astype(np.int64) - self.padding for name in (TOP, LEFT))
        return windows(batch_NCHW, top_N, left_N, self.height, self.width)


@dataclass(frozen=True)
class RandomResizedCrop:
    """A part of the source picture, scaled to this size: between these shares of its area, and
    between 3/4 and 4/3 times as wide as high, each logarithm of the ratio as likely.

    After Szegedy et al. 2015, "Going deeper with convolutions", section 6; the same tries and the
    same rounding as `RandomResizedCrop.get_params` of torchvision.

    columns: the part, in pixels of the picture that it is cut from. By ids alone no more is known
    of it than chances: where it lies depends on the size of the picture, too.
    """

    height: int
    width: int
    least: float = 0.08
    most: float = 1.0
    columns: ClassVar[dict[str, str]] = dict.fromkeys(BOX, "int32")

    def __str__(self) -> str:
        standard = (self.least, self.most) == (0.08, 1.0)
        areas = [] if standard else [self.least, self.most]
        return _shown("random_resized_crop", (self.height, self.width), areas)

    def chances(self, seed: int, keys_N: np.ndarray, view: int) -> np.ndarray:
        """What `box` draws by, float64 [N, 2 · TRIES + 2] in [0, 1)."""
        streams = np.arange(BOX_STREAM, BOX_STREAM + 2 * TRIES + 2)
        return fractions(counter_random(seed, keys_N[:, None], view, streams))

    def box(self, chances: Sequence[float], height: int, width: int) -> tuple[int, int, int, int]:
        """The part of a picture of this size as (top, left, height, width), in pixels.

        chances: of one picture. Where no try fits into the picture, it is the largest part in the
        middle that has an allowed ratio.
        """
        low, high = map(math.log, RATIOS)
        for one in range(TRIES):
            area = height * width * (self.least + (self.most - self.least) * chances[2 * one])
            ratio = math.exp(low + (high - low) * chances[2 * one + 1])
            part = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
            if 0 < part[0] <= height and 0 < part[1] <= width:
                top = int(chances[-2] * (height - part[0] + 1))
                left = int(chances[-1] * (width - part[1] + 1))
                return top, left, *part
        narrow, wide = RATIOS
        part = min(height, round(width / narrow)), min(width, round(height * wide))
        return (height - part[0]) // 2, (width - part[1]) // 2, *part


def _shown(name: str, size: tuple[int, int], others: Sequence[float]) -> str:
    sides = str(size[0]) if size[0] == size[1] else str(size)
    return f"{name}({', '.join([sides, *map(repr, others)])})"


def draw_shifts(pixels: int, seed: int, keys_N: np.ndarray, view: int) -> np.ndarray:
    """Whole shifts in [−pixels, pixels], int64 [N, 2] as (down, right)."""
    span = np.uint64(2 * pixels + 1)
    drawn = [counter_random(seed, keys_N, view, stream) % span for stream in JITTER_STREAMS]
    return np.stack(drawn, axis=1).astype(np.int64) - pixels


def shift(batch_NCHW: Tensor, shifts_N2: np.ndarray) -> Tensor:
    """Each image moved by its (down, right); what comes in is 0. Keeps dtype and shape."""
    down_N, right_N = shifts_N2.astype(np.int64).T
    return windows(batch_NCHW, -down_N, -right_N, *batch_NCHW.shape[2:])


def windows(
    batch_NCHW: Tensor, top_N: np.ndarray, left_N: np.ndarray, height: int, width: int
) -> Tensor:
    """The part of this size of each picture whose upper left corner is there, int64 [N]; what of it
    lies outside of the picture is 0."""
    n, channels, *size = batch_NCHW.shape
    # what is far outside would need gigabytes of zeros around the picture; a window right beside it
    # has nothing of it either
    top_N, left_N = np.clip(top_N, -height, size[0]), np.clip(left_N, -width, size[1])
    corners = [(top_N, height, size[0]), (left_N, width, size[1])]
    before = [max(0, -int(first.min(initial=0))) for first, _, _ in corners]
    after = [max(0, int(first.max(initial=0)) + side - whole) for first, side, whole in corners]
    if not any((*before, *after)) and [height, width] == size:
        return batch_NCHW  # then each corner is 0
    tall, wide = (b + whole + a for b, whole, a in zip(before, size, after, strict=True))
    row_N1H = (top_N + before[0])[:, None, None] + np.arange(height)
    row_NCH = row_N1H + np.arange(n * channels).reshape(n, channels, 1) * tall
    start_R = (row_NCH * wide + (left_N + before[1])[:, None, None]).reshape(-1)
    shape = n, channels, height, width
    if batch_NCHW.device.type != "cpu":
        border = before[1], after[1], before[0], after[0]
        runs = torch.nn.functional.pad(batch_NCHW, border).reshape(-1).unfold(0, width, 1)
        return runs[moved(torch.from_numpy(start_R), batch_NCHW.device)].reshape(shape)
    pixels = batch_NCHW.numpy()
    padded = np.zeros((n, channels, tall, wide), pixels.dtype)
    padded[:, :, before[0] : before[0] + size[0], before[1] : before[1] + size[1]] = pixels
    return torch.from_numpy(_runs(padded.reshape(-1), start_R, width).reshape(shape))


def _runs(values: np.ndarray, starts_R: np.ndarray, length: int) -> np.ndarray:
    """So many neighbours from each of these places on, [R, length]. One item of numpy is a whole
    run here, which it copies at once; torch copies value by value, seven times as slow."""
    size = values.itemsize
    places = len(values) - length + 1
    runs: np.ndarray = np.ndarray(places, f"V{length * size}", values, strides=(size,))
    return runs[starts_R].view(values.dtype).reshape(-1, length)
