"""Augmentations of colour: `color_jitter` and `grey`. N pictures."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from softlabels.errors import SourceError, UsageError
from softlabels.inputs.views.augmentations import Drawn
from softlabels.inputs.views.batch_rows import blocks, copied, put, taken
from softlabels.inputs.views.chance import counter_random, fractions
from softlabels.inputs.views.colours import BY_NAME, weighed
from softlabels.spec import Call, short
from softlabels.system.devices import moved

CHANGES = tuple(BY_NAME)  # brightness, contrast, saturation, hue
ORDER, GREY = "colour_order", "grey"
ORDERS = tuple(itertools.permutations(CHANGES))
COLOUR_STREAMS, ORDER_STREAM, GREY_STREAM = (30, 31, 32, 33), 34, 35
OF_COLOURS = ("saturation", "hue")  # which pictures of one channel have not


@dataclass(frozen=True)
class ColorJitter:
    """Brightness, contrast and saturation times a factor, hue moved, in an order of chance.

    A factor lies in [max(0, 1 − b), 1 + b], hue's shift in [−h, h], where 1 is the whole circle,
    as `ColorJitter` of torchvision draws them.
    columns: the factors, the shift, and the number of the order among the permutations of
        (brightness, contrast, saturation, hue), in the order of their places
    """

    brightness: float
    contrast: float = 0
    saturation: float = 0
    hue: float = 0
    columns: ClassVar[dict[str, str]] = dict.fromkeys(CHANGES, "float32") | {ORDER: "uint8"}

    def __str__(self) -> str:
        count = max((n for n, most in enumerate(self._ranges, 1) if most), default=1)
        return f"color_jitter({', '.join(map(repr, self._ranges[:count]))})"

    @property
    def _ranges(self) -> tuple[float, ...]:
        return self.brightness, self.contrast, self.saturation, self.hue

    @property
    def _bounds(self) -> dict[str, tuple[float, float]]:
        """Between which each change lies."""
        return {
            name: (-most, most) if name == "hue" else (max(0, 1 - most), 1 + most)
            for name, most in zip(CHANGES, self._ranges, strict=True)
        }

    def on(self, shape: list[int], what: str) -> Self:
        check_channels(shape, str(self), what)
        if shape[0] == 1 and not (self.brightness or self.contrast):
            raise UsageError(
                f"{what}: {self} changes nothing, since pictures have one channel here, without "
                f"saturation or hue; leave it out, or make colour pictures of them, with rgb in "
                f"--preprocess"
            )
        return self

    def shape_after(self, shape: list[int]) -> list[int]:
        return shape

    def draw(self, seed: int, keys_N: np.ndarray, view: int) -> Drawn:
        drawn: Drawn = {}
        for (name, (low, high)), stream in zip(self._bounds.items(), COLOUR_STREAMS, strict=True):
            chances_N = fractions(counter_random(seed, keys_N, view, stream))
            drawn[name] = (low + (high - low) * chances_N).astype(self.columns[name])
        orders_N = counter_random(seed, keys_N, view, ORDER_STREAM) % np.uint64(len(ORDERS))
        return drawn | {ORDER: orders_N.astype(self.columns[ORDER])}

    def apply(self, batch_NCHW: Tensor, drawn: Drawn) -> Tensor:
        if batch_NCHW.dtype != torch.uint8:
            kind = str(batch_NCHW.dtype).removeprefix("torch.")
            raise UsageError(
                f"{self} is for pictures of 8 bits, from 0 to 255, and these are {kind}, of which "
                f"no largest value is known; store them as uint8, or leave it out"
            )
        self._check(drawn)
        factors = {name: drawn[name] for name in CHANGES}
        factors["hue"] = (drawn["hue"].astype(np.float64) % 1 * 6).astype(np.float32)
        shown = copied(batch_NCHW)
        for names, path_rows in self._paths(drawn, batch_NCHW.shape[1]):
            for rows in blocks(path_rows, batch_NCHW):
                x = taken(batch_NCHW, rows).float()
                for name in names:
                    factor = moved(torch.from_numpy(factors[name][rows]), x.device)
                    BY_NAME[name](x, factor[:, None, None, None])
                put(shown, rows, x)
        return shown

    def _check(self, drawn: Drawn) -> None:
        """Raises SourceError for columns that it never draws. They may be anyone's, and what is no
        number becomes another level on each device."""
        if drawn[ORDER].max(initial=0) >= len(ORDERS):
            raise SourceError(
                f"{ORDER} of a view is {drawn[ORDER].max()}; it is the number of one of "
                f"{len(ORDERS)} orders, 0 to {len(ORDERS) - 1}: the row is damaged"
            )
        for name, (low, high) in self._bounds.items():
            values = drawn[name]
            wrong = ~((np.float32(low) <= values) & (values <= np.float32(high)))  # of NaN, too
            if wrong.any():
                raise SourceError(
                    f"{name} of a view is {values[wrong][0]}, and {self} draws it from {low:g} to "
                    f"{high:g}: the row is damaged"
                )

    def _paths(self, drawn: Drawn, channels: int) -> Iterator[tuple[tuple[str, ...], np.ndarray]]:
        """The changes, in their order, and the rows that have them so."""
        names = [name for name, most in zip(CHANGES, self._ranges, strict=True) if most]
        names = [name for name in names if channels == 3 or name not in OF_COLOURS]
        rows_by_path: dict[tuple[str, ...], list[np.ndarray]] = {}
        for order in np.unique(drawn[ORDER]):
            path = tuple(name for name in ORDERS[order] if name in names)
            rows_by_path.setdefault(path, []).append(np.flatnonzero(drawn[ORDER] == order))
        for path, parts in rows_by_path.items():
            yield path, np.concatenate(parts)


@dataclass(frozen=True)
class Grey:
    """This share of the pictures without colours: each channel is the grey of the three.

    Of numbers that are no levels of 8 bits it is the same mean of the channels; whole ones are
    rounded, half a level up.
    """

    share: float
    columns: ClassVar[dict[str, str]] = {GREY: "bool"}

    def __str__(self) -> str:
        return f"grey({self.share!r})"

    def on(self, shape: list[int], what: str) -> Self:
        check_channels(shape, str(self), what)
        if shape[0] == 1:
            raise UsageError(
                f"{what}: {self} changes nothing, since pictures have one channel here; leave it "
                f"out"
            )
        return self

    def shape_after(self, shape: list[int]) -> list[int]:
        return shape

    def draw(self, seed: int, keys_N: np.ndarray, view: int) -> Drawn:
        return {GREY: fractions(counter_random(seed, keys_N, view, GREY_STREAM)) < self.share}

    def apply(self, batch_NCHW: Tensor, drawn: Drawn) -> Tensor:
        kind = batch_NCHW.dtype
        wide = _exact(kind)
        shown = copied(batch_NCHW)
        for rows in blocks(np.flatnonzero(drawn[GREY]), batch_NCHW):
            g = weighed(taken(batch_NCHW, rows).to(wide))
            if not kind.is_floating_point:
                g = g.add_(0.5).floor_()
            put(shown, rows, g[:, None])
        return shown


def parse_color_jitter(call: Call, what: str) -> ColorJitter:
    """Raises UsageError for other arguments than it takes."""
    ranges = call.args
    if not (1 <= len(ranges) <= len(CHANGES) and all(map(is_number, ranges))):
        raise UsageError(
            f"{what}: can't read {short(str(call))!r}; write how far {', '.join(CHANGES)} may "
            f"change, each a number of 0 or more, as many of the four as you like, such as "
            f"color_jitter(0.4, 0.4, 0.4, 0.1)"
        )
    if len(ranges) == len(CHANGES) and ranges[-1] > 0.5:
        raise UsageError(
            f"{what}: {short(str(call))} moves hue by up to {ranges[-1]}, and 0.5 reaches all of "
            f"the circle; use 0.5 or less"
        )
    if not any(ranges):
        raise UsageError(f"{what}: {short(str(call))} changes nothing; use numbers above 0")
    return ColorJitter(*ranges)


def parse_grey(call: Call, what: str) -> Grey:
    """Raises UsageError for anything but a share."""
    if len(call.args) == 1 and is_share(call.args[0]):
        return Grey(*call.args)
    raise UsageError(
        f"{what}: can't read {short(str(call))!r}; write the share of the pictures that turn grey, "
        f"above 0 and up to 1, such as grey(0.2)"
    )


def is_number(value: object) -> bool:
    """A number of 0 or more, and no infinity."""
    return type(value) in (int, float) and 0 <= value < float("inf")  # type: ignore[operator]


def is_share(value: object) -> bool:
    return is_number(value) and 0 < value <= 1  # type: ignore[operator]


def check_channels(shape: list[int], step: str, what: str) -> None:
    """Raises UsageError for pictures that are neither grey nor red, green and blue."""
    if shape[0] not in (1, 3):
        raise UsageError(
            f"{what}: {step} is for pictures of three channels, red, green and blue, or of one; "
            f"these have {shape[0]}. Leave it out, or add rgb to --preprocess where they are files"
        )


def _exact(kind: torch.dtype) -> torch.dtype:
    """What holds the sum of three channels of this type."""
    if kind.is_floating_point:
        return torch.promote_types(kind, torch.float32)
    return torch.float32 if kind.itemsize == 1 else torch.float64
