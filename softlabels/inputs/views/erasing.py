"""The augmentation `erase`: a part of the picture becomes one colour."""

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from softlabels.errors import UsageError
from softlabels.inputs.views.augmentations import TRIES, Drawn
from softlabels.inputs.views.batch_rows import copied
from softlabels.inputs.views.chance import counter_random, fractions
from softlabels.inputs.views.recolouring import is_number, is_share
from softlabels.spec import Call, short
from softlabels.system.devices import moved

TOP, LEFT, HEIGHT, WIDTH = "erase_top", "erase_left", "erase_height", "erase_width"
ERASE_STREAM = 36  # and two a try, and two for the corner
RATIOS = 0.3, 3.3  # height over width
AREAS = 0.02, 0.33  # of the picture
BRIGHTEST = 255


@dataclass(frozen=True)
class Erase:
    """In this share of the pictures a part, between these shares of the area, gets one colour.

    After Zhong et al. 2020, "Random erasing data augmentation", with the tries and the rounding of
    `RandomErasing` of torchvision. Where no try fits into the picture, nothing is erased.

    fill: a level, or one a channel
    columns: the part in pixels; a height of 0 erases nothing
    size: of the pictures, which `on` finds out
    """

    share: float
    least: float = AREAS[0]
    most: float = AREAS[1]
    fill: int | tuple[int, ...] = 0
    size: tuple[int, int] = (1, 1)
    columns: ClassVar[dict[str, str]] = dict.fromkeys((TOP, LEFT, HEIGHT, WIDTH), "int16")

    def __str__(self) -> str:
        areas = [] if (self.least, self.most) == AREAS else [self.least, self.most]
        fill = [] if self.fill == 0 else [self.fill]
        return f"erase({', '.join(map(repr, [self.share, *areas, *fill]))})"

    def on(self, shape: list[int], what: str) -> Self:
        if isinstance(self.fill, tuple) and len(self.fill) != shape[0]:
            raise UsageError(
                f"{what}: {self} fills {len(self.fill)} channels, and pictures have {shape[0]} "
                f"here; give one number, or one a channel"
            )
        if min(shape[1:]) < 2:
            raise UsageError(
                f"{what}: {self} erases nothing of pictures of {shape[1]}×{shape[2]} pixels, since "
                f"what it erases is smaller either way; leave it out"
            )
        return replace(self, size=(shape[1], shape[2]))

    def shape_after(self, shape: list[int]) -> list[int]:
        return shape

    def draw(self, seed: int, keys_N: np.ndarray, view: int) -> Drawn:
        box_N4 = np.zeros((len(keys_N), len(self.columns)), np.int64)
        chances = fractions(counter_random(seed, keys_N, view, ERASE_STREAM))
        rows = np.flatnonzero(chances < self.share)
        streams = np.arange(ERASE_STREAM + 1, ERASE_STREAM + 1 + 2 * TRIES + 2)
        drawn = counter_random(seed, keys_N[rows, None], view, streams)
        box_N4[rows] = self._boxes(fractions(drawn))
        return {
            name: values.astype(kind)
            for (name, kind), values in zip(self.columns.items(), box_N4.T, strict=True)
        }

    def _boxes(self, chances: np.ndarray) -> np.ndarray:
        """(top, left, height, width) of each, int64 [N, 4]. chances: [N, 2 · TRIES + 2]."""
        height, width = self.size
        low, high = map(math.log, RATIOS)
        areas = height * width * (self.least + (self.most - self.least) * chances[:, 0:-2:2])
        # exp may differ in its last bit from one machine to another, and 9 digits of it don't
        ratios = np.exp(low + (high - low) * chances[:, 1:-2:2]).round(9)
        tall, wide = np.rint(np.sqrt(areas * ratios)), np.rint(np.sqrt(areas / ratios))
        fits = np.all([tall > 0, tall < height, wide > 0, wide < width], axis=0)
        first = np.arange(len(fits)), fits.argmax(1)
        tall, wide = tall[first], wide[first]
        top = np.floor(chances[:, -2] * (height - tall + 1))
        left = np.floor(chances[:, -1] * (width - wide + 1))
        boxes = np.stack([top, left, tall, wide], axis=1).astype(np.int64)
        return boxes * fits.any(1)[:, None]

    def apply(self, batch_NCHW: Tensor, drawn: Drawn) -> Tensor:
        fill = self._fill(batch_NCHW)
        rows_N2 = _span(drawn, TOP, HEIGHT, batch_NCHW.shape[2])
        columns_N2 = _span(drawn, LEFT, WIDTH, batch_NCHW.shape[3])
        if batch_NCHW.device.type != "cpu":
            tall, wide = _inside(rows_N2, batch_NCHW, 2), _inside(columns_N2, batch_NCHW, 3)
            inside = (tall.unsqueeze(2) & wide.unsqueeze(1)).unsqueeze(1)
            return torch.where(inside, fill, batch_NCHW)
        # on a CPU to write the parts alone is nine times as fast as to choose for each pixel
        shown, colour = copied(batch_NCHW).numpy(), fill.numpy()
        for picture, rows, columns in zip(
            shown, rows_N2.tolist(), columns_N2.tolist(), strict=True
        ):
            if rows[1] > rows[0]:
                picture[:, slice(*rows), slice(*columns)] = colour
        return torch.from_numpy(shown)

    def _fill(self, batch_NCHW: Tensor) -> Tensor:
        """[C or 1, 1, 1], of the type of the pictures and on their device."""
        values, kind = np.atleast_1d(self.fill), batch_NCHW.dtype
        if not kind.is_floating_point and values.max() > torch.iinfo(kind).max:
            raise UsageError(
                f"{self} fills with {values.max()}, and these pictures are "
                f"{str(kind).removeprefix('torch.')}, up to {torch.iinfo(kind).max}; use that or "
                f"less"
            )
        return moved(torch.from_numpy(values).to(kind), batch_NCHW.device)[:, None, None]


def parse_erase(call: Call, what: str) -> Erase:
    """Raises UsageError for other arguments than it takes."""
    share, *others = call.args or (None,)
    areas, fills = others[: len(others) // 2 * 2], others[len(others) // 2 * 2 :]
    if not (is_share(share) and len(others) <= 3 and all(map(_is_fill, fills))):
        raise UsageError(
            f"{what}: can't read {short(str(call))!r}; write the share of the pictures, if you "
            f"like the least and the largest share of the area, and the level that fills it, from "
            f"0 to {BRIGHTEST}, or one a channel: erase(0.25), erase(0.25, 0.02, 0.2), "
            f"erase(0.25, 127) or erase(0.25, 0.02, 0.2, (124, 116, 104))"
        )
    if areas and not (all(map(is_number, areas)) and 0 < areas[0] <= areas[1] <= 1):
        raise UsageError(
            f"{what}: {short(str(call))}: shares of the area lie between 0 and 1, the least first, "
            f"such as erase({share}, 0.02, 0.33)"
        )
    return Erase(share, *(areas or AREAS), *fills)


def _is_fill(value: Any) -> bool:
    if isinstance(value, tuple):
        return (
            len(value) > 0
            and not any(isinstance(v, tuple) for v in value)
            and all(map(_is_fill, value))
        )
    return type(value) is int and 0 <= value <= BRIGHTEST


def _span(drawn: Drawn, first: str, length: str, side: int) -> np.ndarray:
    """Where a part begins and ends, int64 [N, 2]; anyone's file may tell of one that is outside."""
    begin_N = drawn[first].astype(np.int64)
    return np.clip(np.stack([begin_N, begin_N + drawn[length]], axis=1), 0, side)


def _inside(span_N2: np.ndarray, batch_NCHW: Tensor, axis: int) -> Tensor:
    """Which rows or columns of pixels lie in the part, bool [N, H or W]."""
    places = torch.arange(batch_NCHW.shape[axis], device=batch_NCHW.device)
    begin_N1, end_N1 = moved(torch.from_numpy(span_N2), batch_NCHW.device).unsqueeze(2).unbind(1)
    return (places >= begin_N1) & (places < end_N1)
