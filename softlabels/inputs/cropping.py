"""A preprocessing whose steps that resize, crop and pad give way to a part of the source picture: a
box that is drawn, or one that a dump has stored. N inputs of a batch."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from PIL import Image

from softlabels.errors import AlignmentError, UsageError
from softlabels.inputs.pictures import (
    FILE,
    SCALING,
    SIZED,
    apply_to_pixels,
    apply_words,
    channels_first,
    how_scaled,
    shown_by,
)
from softlabels.inputs.preprocess import Preprocess
from softlabels.inputs.rendering import Box, Picture, Scaling, render
from softlabels.inputs.resizing import TORCH
from softlabels.inputs.steps import without_files
from softlabels.inputs.views.augmentations import RandomResizedCrop


class OnPicture(Protocol):
    """What makes pixels of a picture, as `Preprocess` does."""

    @property
    def is_opaque(self) -> bool:
        """Whether it is a function of the user's."""

    def on_picture(self, picture: Picture) -> np.ndarray | list[np.ndarray]:
        """uint8 [C, H, W]; of `Shots` one for each of its ways."""


class Cropping:
    """A crop in the place of the first step that resizes, crops or pads, else after the last step
    on pictures.

    stored: how many steps make of a source picture the one that a dump stores, from which boxes are
    then cut; 0 where the pictures are these already, or as the source has them
    replaced: the steps that give way
    scaled: filter and resizer of the last step that scales, also of one that stored pictures have
    behind them; bilinear by torch where none does

    Raises UsageError where a picture would become a file before it is cropped.
    """

    def __init__(self, preprocess: Preprocess, crop: RandomResizedCrop, stored: int = 0) -> None:
        self.crop, self.storing = crop, preprocess.left[:stored]
        steps = without_files(preprocess.left[stored:])
        self.replaced = tuple(step for step in steps if step.name in SIZED)
        place = steps.index(self.replaced[0]) if self.replaced else len(steps)
        self.before = steps[:place]
        if files := [step for step in self.before if step.name == FILE]:
            raise UsageError(
                f"{crop} crops source pictures, and {files[0]} of the preprocessing, {preprocess}, "
                f"comes before that: put it behind what resizes, or leave it out"
            )
        self.after = tuple(step for step in steps[place:] if step.name not in SIZED)
        scaling = [step for step in preprocess.picture if step.name in SCALING]
        self.scaled = how_scaled(scaling[-1]) if scaling else ("bilinear", TORCH)

    def __str__(self) -> str:
        place = "|".join(map(str, self.replaced))
        where = f"in the place of {place}" if place else "after the other steps on pictures"
        filter, resizer = self.scaled
        return f"{self.crop} crops source pictures, {where}, {filter} by {resizer}"

    def drawn(self, seed: int, keys_N: np.ndarray, view: int) -> "list[DrawnCrop]":
        """The preprocessing of each input in a view, 1 or more, whose box is drawn. keys_N: ids as
        `counters` gives them."""
        return [DrawnCrop(self, chances) for chances in self.crop.chances(seed, keys_N, view)]

    def shown(self, picture: Picture) -> Picture:
        """The picture from which boxes are cut."""
        if self.storing:
            pixels = apply_words(picture, self.storing)
            grey = pixels.shape[2] == 1
            picture = Picture(Image.fromarray(pixels[:, :, 0] if grey else pixels))
        return shown_by(picture, self.before)[0]

    def cut(self, picture: Picture, box: Box) -> np.ndarray:
        """uint8 [C, H, W] of a part of what `shown` gives: the same for whoever drew the box and
        for whoever reads it from a dump."""
        scaling = Scaling(self.crop.height, self.crop.width, *self.scaled)
        return channels_first(apply_to_pixels(render(picture, box, scaling), self.after))


@dataclass
class DrawnCrop:
    """The preprocessing of one picture, whose box depends on its size.

    chances: what the box is drawn by; box: what was drawn, once the picture was read
    """

    cropping: Cropping
    chances: np.ndarray
    box: Box = field(default=(0, 0, 0, 0), init=False)
    is_opaque = False

    def on_picture(self, picture: Picture) -> np.ndarray:
        picture = self.cropping.shown(picture)
        self.box = self.cropping.crop.box(self.chances.tolist(), *picture.size)
        return self.cropping.cut(picture, self.box)


@dataclass(frozen=True)
class StoredCrop:
    """The preprocessing of one picture, whose box a dump has stored."""

    cropping: Cropping
    box: Box
    is_opaque = False

    def on_picture(self, picture: Picture) -> np.ndarray:
        picture = self.cropping.shown(picture)
        (top, left, height, width), (whole_height, whole_width) = self.box, picture.size
        inside = 0 <= top <= whole_height - height and 0 <= left <= whole_width - width
        if min(height, width) < 1 or not inside:
            raise AlignmentError(
                f"its view is cut from {height}×{width} pixels at {top} down, {left} right, and "
                f"its picture has {whole_height}×{whole_width}: it is not the picture that the "
                f"teacher saw, or the dump's columns {', '.join(self.cropping.crop.columns)} are "
                f"wrong"
            )
        return self.cropping.cut(picture, self.box)


@dataclass(frozen=True)
class Shots:
    """What several ways make of one picture, which is decoded once.

    storing: makes of it the picture that they take, if that is another one
    """

    ways: Sequence[OnPicture]
    storing: "Stores | None" = None
    is_opaque = False

    def on_picture(self, picture: Picture) -> list[np.ndarray]:
        if self.storing is None:
            return [self._shot(way, picture) for way in self.ways]
        stored = self.storing.stored(picture)
        try:
            return [self._shot(way, stored) for way in self.ways]
        finally:
            stored.close()

    def _shot(self, way: OnPicture, picture: Picture) -> np.ndarray:
        pixels = way.on_picture(picture)
        assert isinstance(pixels, np.ndarray), "ways are no shots themselves"
        return pixels


class Stores(Protocol):
    """What makes of a source picture the one that a dump stores."""

    def stored(self, picture: Picture) -> Picture:
        """Decoded from the stored file."""
