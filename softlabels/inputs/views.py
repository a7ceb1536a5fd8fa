"""The language of augmentations, `random_resized_crop(224)|flip`, and views made by them.

A view of an input depends on (seed, id, view) only. A student draws its parameters for each epoch;
a dump stores them, a column each, and `replay` makes the view from these columns alone.

    random_resized_crop(H[, least, most])  a part of the source picture, of     first
                                           this share of its area (0.08 to 1),
                                           scaled to H×H
    random_crop(H[, padding])              a part of the picture in a border    fit and train
                                           of 0
    flip                                   half of them left to right           fit and train
    jitter(p)                              shifted by up to p pixels each way   dump too
    color_jitter(b[, c[, s[, h]]])         brightness, contrast and saturation  fit and train
                                           times a factor within b, c, s of 1,
                                           hue moved by up to h of the circle,
                                           in any order; uint8 alone
    grey(p)                                a share p of them without colours    fit and train
    erase(p[, least, most][, fill])        in a share p of them a part, of this fit and train
                                           share of the area (0.02 to 0.33),
                                           becomes `fill`: 0, a level or one a
                                           channel

In place of H stands (height, width) for one that is not square. random_resized_crop works on source
pictures, and is for fit and train; the others work on what the preprocessing made of them.
"""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from softlabels.errors import SourceError, UsageError
from softlabels.inputs.augmentations import (
    FARTHEST,
    Drawn,
    Flip,
    Jitter,
    RandomCrop,
    RandomResizedCrop,
    Step,
    shifted,
)
from softlabels.inputs.erasing import parse_erase
from softlabels.inputs.pictures import LARGEST
from softlabels.inputs.recolouring import parse_color_jitter, parse_grey
from softlabels.spec import Call, parse_pipeline, short

KNOWN = (
    "random_resized_crop", "random_crop", "flip", "jitter", "color_jitter", "grey", "erase"
)  # fmt: skip
EXAMPLES = "random_resized_crop(224)|flip, random_crop(32, 4)|flip or jitter(2)"


@dataclass(frozen=True)
class Augment:
    """A parsed pipeline; `str()` gives its text.

    crop: what is cut out of the source picture, before all else
    steps: what then happens to tensors, in this order
    """

    crop: RandomResizedCrop | None
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        return "|".join(map(str, [*([self.crop] if self.crop else []), *self.steps]))

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
                f"the preprocessing gives {shape[1]}×{shape[2]}, as held-out rows are scored: make "
                f"both the same, here or with --preprocess, such as resize and center_crop"
            )
        return Augment(self.crop, tuple(steps))

    def draw(self, seed: int, keys_N: np.ndarray, view: int) -> Drawn:
        """The parameters of the steps for this view of these inputs. keys_N: ids as `counters` of
        `chance` gives them."""
        drawn: Drawn = {}
        for step in self.steps:
            drawn |= step.draw(seed, keys_N, view)
        return drawn

    def apply(self, batch_NCHW: Tensor, drawn: Drawn) -> Tensor:
        """What the steps make of pictures, of any dtype, on any device."""
        for step in self.steps:
            batch_NCHW = step.apply(batch_NCHW, drawn)
        return batch_NCHW


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
    return Augment(crop, tuple(parsers[call.name](call, what) for call in rest))


def parse_views(text: str, what: str = "--augment") -> Jitter:
    """What can draw the views of a dump: `"jitter(2)"`. Raises UsageError for anything else."""
    augment = parse_augment(text, what)
    parts: list[Step | RandomResizedCrop] = [*([augment.crop] if augment.crop else [])]
    parts += augment.steps
    if len(parts) == 1 and isinstance(parts[0], Jitter):
        return parts[0]
    other = next(part for part in parts if not isinstance(part, Jitter))
    raise UsageError(
        f"{what}: {other} is for fit and train; the views of a dump are drawn by jitter alone, as "
        f"by jitter(2), which shifts by up to 2 pixels each way"
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


def replay(batch: Tensor, drawn: Drawn) -> Tensor:
    """Inputs [N, C, H, W] of any dtype, on any device, as the view with these columns shows
    them. Raises SourceError for inputs that are no pictures."""
    if batch.ndim != 4:
        raise SourceError(
            f"views are of pictures [C, H, W], and these inputs are {list(batch.shape[1:])}: they "
            f"are not what the teacher saw"
        )
    return shifted(batch, drawn)


def joined(views: list[Drawn]) -> Drawn:
    """The parameters of one view after the other, [V·N] each."""
    names = views[0] if views else {}
    return {name: np.concatenate([drawn[name] for drawn in views]) for name in names}


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
