"""The language of augmentations, `random_resized_crop(224)|flip`, and views made by them.

A view of an input depends on (seed, id, view) only, and on the size of its picture where a part of
that is cut out. A student draws its parameters for each epoch; a dump stores them, a column each,
and `Augment.show` makes the view from these columns alone. View 0 is the input as it is.

    random_resized_crop(H[, least, most])  a part of the source picture, of this share   first
                                           of its area (0.08 to 1), scaled to H×H
    random_crop(H[, padding])              a part of the picture in a border of 0
    flip                                   half of them left to right
    jitter(p)                              shifted by up to p pixels each way
    color_jitter(b[, c[, s[, h]]])         brightness, contrast and saturation times a factor
                                           within b, c, s of 1, hue moved by up to h of the
                                           circle, in any order; uint8 alone
    grey(p)                                a share p of them without colours
    erase(p[, least, most][, fill])        in a share p of them a part, of this share of the
                                           area (0.02 to 0.33), becomes `fill`: 0, a level or
                                           one a channel
    mixup(alpha), cutmix(alpha)            mixed with another input (see `mixing`);      last
                                           where both are given, one of them a row

In place of H stands (height, width) for one that is not square. random_resized_crop works on source
pictures (see `cropping`); the others work on what the preprocessing made of them, as tensors.
"""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from softlabels.errors import UsageError
from softlabels.inputs.pictures import LARGEST
from softlabels.inputs.views.augmentations import (
    FARTHEST,
    Drawn,
    Flip,
    Jitter,
    RandomCrop,
    RandomResizedCrop,
    Step,
)
from softlabels.inputs.views.batch_rows import copied, put, taken
from softlabels.inputs.views.chance import counter_random
from softlabels.inputs.views.erasing import parse_erase
from softlabels.inputs.views.mixing import WORDS, Mixing, parse_mixing
from softlabels.inputs.views.recolouring import parse_color_jitter, parse_grey
from softlabels.spec import Call, parse_pipeline, short

KNOWN = (
    "random_resized_crop", "random_crop", "flip", "jitter", "color_jitter", "grey", "erase", *WORDS
)  # fmt: skip
EXAMPLES = "random_resized_crop(224)|flip, random_crop(32, 4)|flip or jitter(2)"
CLEAN = 0  # the view that is the input as it is
HASH_STREAM, HASHED = 1000, 64  # one row in so many keeps a hash of its pixels


@dataclass(frozen=True)
class Augment:
    """A parsed pipeline; `str()` gives its text.

    crop: what is cut out of the source picture, before all else
    steps: what then happens to tensors, in this order
    mixing: how these are mixed with others, after all else
    """

    crop: RandomResizedCrop | None
    steps: tuple[Step, ...]
    mixing: Mixing | None = None

    def __str__(self) -> str:
        parts = [self.crop, *self.steps, self.mixing]
        return "|".join(str(part) for part in parts if part is not None)

    @property
    def columns(self) -> dict[str, str]:
        """The parameters of a view with their types, in the order of the words."""
        columns = dict(self.crop.columns) if self.crop else {}
        for step in self.steps:
            columns |= step.columns
        return columns | (self.mixing.columns if self.mixing else {})

    def is_at_another_size(self, other: "Augment") -> bool:
        """Whether the same parameters show the same part of an input by the other one, scaled to
        another size."""
        crops = [
            augment.crop and replace(augment.crop, height=1, width=1) for augment in (self, other)
        ]
        # places, sizes and shifts in pixels of what is shown are int16
        return (
            "int16" not in self.columns.values()
            and crops[0] == crops[1]
            and replace(self, crop=None) == replace(other, crop=None)
        )

    def on(self, shape: list[int], what: str) -> "Augment":
        """The same for inputs of this shape. Raises UsageError for inputs that are no pictures
        [C, H, W], for steps that don't fit them, and where another shape comes out.

        what: the name of the option
        """
        check_pictures(shape, str(self), what)
        now = [shape[0], self.crop.height, self.crop.width] if self.crop else shape
        steps = []
        for step in self.steps:
            steps.append(step.on(now, what))
            now = step.shape_after(now)
        if now != shape:
            raise UsageError(
                f"{what} is {str(self)!r}, which gives pictures of {now[1]}×{now[2]} pixels, and "
                f"the preprocessing gives {shape[1]}×{shape[2]}, as clean and held-out inputs "
                f"are: make both the same, here or with --preprocess, such as by center_crop"
            )
        mixing = self.mixing and self.mixing.on(now)
        return Augment(self.crop, tuple(steps), mixing)

    def draw(self, seed: int, keys_N: np.ndarray, view: int) -> Drawn:
        """The parameters of the steps for this view of these inputs, [N] each: all but those of
        random_resized_crop, which `cropping` knows. keys_N: ids as `counters` of `chance` gives
        them."""
        drawn: Drawn = {}
        for step in self.steps:
            if view == CLEAN:
                drawn |= {n: np.zeros(len(keys_N), kind) for n, kind in step.columns.items()}
            else:
                drawn |= step.draw(seed, keys_N, view)
        return drawn | (self.mixing.draw(seed, keys_N, view) if self.mixing else {})

    def apply(self, batch_NCHW: Tensor, drawn: Drawn) -> Tensor:
        """What the steps make of pictures of drawn views, of any dtype, on any device; not mixed
        with others yet."""
        for step in self.steps:
            batch_NCHW = step.apply(batch_NCHW, drawn)
        return batch_NCHW

    def show(self, batch: Tensor, views_N: np.ndarray, drawn: Drawn) -> Tensor:
        """Inputs [N, C, H, W] as these views with these columns show them: the rows of view 0 as
        they are. What random_resized_crop does was done before, and mixing comes after."""
        rows = np.flatnonzero(views_N != CLEAN)
        if len(rows) in (0, len(views_N)):
            return self.apply(batch, drawn) if len(rows) else batch
        of_rows = {name: values[rows] for name, values in drawn.items()}
        shown = copied(batch)
        put(shown, rows, self.apply(taken(batch, rows), of_rows))
        return shown


def is_hashed(seed: int, keys_N: np.ndarray, view: int) -> np.ndarray:
    """Which rows of a view, 0 included, keep a hash of their pixels, bool [N]: one in `HASHED`."""
    return counter_random(seed, keys_N, view, HASH_STREAM) % np.uint64(HASHED) == 0


def parse_augment(text: str, what: str = "--augment") -> Augment:
    """`"random_resized_crop(224)|flip"`. Raises UsageError for unknown words, other arguments than
    they take, and another order; `what` names the option."""
    calls = parse_pipeline(text, what)
    names = [call.name for call in calls]
    if not calls:
        raise UsageError(f"{what} is empty; use {EXAMPLES}, or leave it out")
    for name in names:
        if name not in KNOWN:
            near = difflib.get_close_matches(name, KNOWN, 1)
            hint = f"did you mean {near[0]}? Use" if near else "use"
            raise UsageError(f"{what}: no word {short(name)!r}; {hint} {', '.join(KNOWN)}")
        if names.count(name) > 1:
            raise UsageError(f"{what}: {name} comes {names.count(name)} times; use it once")
    crop = _parse_resized_crop(calls[0], what) if names[0] == KNOWN[0] else None
    if crop is None and KNOWN[0] in names:
        raise UsageError(
            f"{what}: random_resized_crop must come first, since it crops the source picture; "
            f"not as in {short(text)!r}"
        )
    parsers: dict[str, Callable[[Call, str], Step]] = {
        "random_crop": _parse_crop, "flip": _parse_flip, "jitter": _parse_jitter,
        "color_jitter": parse_color_jitter, "grey": parse_grey, "erase": parse_erase,
    }  # fmt: skip
    rest = calls if crop is None else calls[1:]
    mixes = [call for call in rest if call.name in WORDS]
    steps = rest[: len(rest) - len(mixes)]
    if late := [call for call in steps if call.name in WORDS]:
        raise UsageError(
            f"{what}: {late[0].name} must come last, since it mixes two finished pictures; not as "
            f"in {short(text)!r}"
        )
    return Augment(
        crop,
        tuple(parsers[call.name](call, what) for call in steps),
        parse_mixing(mixes, what) if mixes else None,
    )


def check_pictures(shape: Sequence[int], augment: str, what: str) -> None:
    """Raises UsageError for inputs that are no pictures [C, H, W]."""
    if len(shape) != 3:
        raise UsageError(
            f"{what} is {augment!r}, which is for pictures [C, H, W]; these inputs are "
            f"{list(shape)}. Leave it out"
        )
    if shape[2] in (1, 3, 4) and shape[0] > 4:
        raise UsageError(
            f"{what} is {augment!r}, which is for pictures [C, H, W]; these inputs are "
            f"{list(shape)}, with channels last as it seems. Bring the channels to the front, or "
            f"leave it out"
        )


def _parse_jitter(call: Call, what: str) -> Jitter:
    if len(call.args) == 1 and _is_count(call.args[0], FARTHEST):
        return Jitter(call.args[0])
    raise UsageError(
        f"{what}: {short(str(call))} has not one whole number of pixels from 1 to {FARTHEST:,}"
    )


def _parse_flip(call: Call, what: str) -> Flip:
    if call.args:
        raise UsageError(f"{what}: {short(str(call))}: flip takes no number; it flips half of them")
    return Flip()


def _parse_crop(call: Call, what: str) -> RandomCrop:
    size = _size(call.args[0]) if 1 <= len(call.args) <= 2 else None
    padding = call.args[1] if len(call.args) == 2 else 0
    if size is None or not (type(padding) is int and 0 <= padding <= LARGEST):
        raise UsageError(
            f"{what}: can't read {short(str(call))!r}; write the size and the padding in whole "
            f"pixels, random_crop(32, 4) or random_crop((32, 64), 4)"
        )
    return RandomCrop(*size, padding)


def _parse_resized_crop(call: Call, what: str) -> RandomResizedCrop:
    size = _size(call.args[0]) if 1 <= len(call.args) <= 3 else None
    areas = call.args[1:]
    if size is None or not all(type(area) in (int, float) for area in areas):
        raise UsageError(
            f"{what}: can't read {short(str(call))!r}; write the size in whole pixels and, if you "
            f"like, the least and the largest share of the area, random_resized_crop(224) or "
            f"random_resized_crop((128, 256), 0.35, 1)"
        )
    crop = RandomResizedCrop(*size, *areas)
    if not 0 < crop.least <= crop.most <= 1:
        raise UsageError(
            f"{what}: {short(str(call))}: shares of the area lie between 0 and 1, the least first, "
            f"such as random_resized_crop({call.args[0]}, 0.35, 1)"
        )
    return crop


def _size(given: Any) -> tuple[int, int] | None:
    """Height and width; None for what is neither one whole number of pixels nor two."""
    sides = given if isinstance(given, tuple) and len(given) == 2 else (given, given)
    return sides if all(_is_count(side, LARGEST) for side in sides) else None


def _is_count(value: Any, most: int) -> bool:
    return type(value) is int and 1 <= value <= most
