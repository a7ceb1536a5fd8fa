"""A preprocessing whose steps that resize, crop and pad give way to a random crop of the source
picture. N inputs of a batch."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from softlabels.errors import UsageError
from softlabels.inputs.augmentations import RandomResizedCrop
from softlabels.inputs.pictures import (
    FILE,
    SCALING,
    SIZED,
    apply_to_pixels,
    channels_first,
    how_scaled,
    shown_by,
)
from softlabels.inputs.preprocess import Preprocess
from softlabels.inputs.rendering import Picture, Scaling, render
from softlabels.inputs.resizing import TORCH
from softlabels.inputs.steps import without_files


class OnPicture(Protocol):
    """What makes pixels of a picture, as `Preprocess` does."""

    @property
    def is_opaque(self) -> bool:
        """Whether it is a function of the user's."""

    def on_picture(self, picture: Picture) -> np.ndarray:
        """uint8 [C, H, W]."""


class Cropping:
    """A crop in the place of the first step that resizes, crops or pads, else after the last step
    on pictures.

    replaced: the steps that give way
    scaled: filter and resizer of the last of them that scales; bilinear by torch where none does

    Raises UsageError where a picture would become a file before it is cropped.
    """

    def __init__(self, preprocess: Preprocess, crop: RandomResizedCrop) -> None:
        steps = without_files(preprocess.left)
        self.crop = crop
        self.replaced = tuple(step for step in steps if step.name in SIZED)
        place = steps.index(self.replaced[0]) if self.replaced else len(steps)
        self.before = steps[:place]
        if files := [step for step in self.before if step.name == FILE]:
            raise UsageError(
                f"{crop} crops source pictures, and {files[0]} of the preprocessing, {preprocess}, "
                f"comes before that: put it behind what resizes, or leave it out"
            )
        self.after = tuple(step for step in steps[place:] if step.name not in SIZED)
        scaling = [step for step in self.replaced if step.name in SCALING]
        self.scaled = how_scaled(scaling[-1]) if scaling else ("bilinear", TORCH)

    def __str__(self) -> str:
        place = "|".join(map(str, self.replaced))
        where = f"in the place of {place}" if place else "after the other steps on pictures"
        filter, resizer = self.scaled
        return f"{self.crop} crops source pictures, {where}, {filter} by {resizer}"

    def of(self, seed: int, keys_N: np.ndarray, view: int) -> list[OnPicture]:
        """The preprocessing of each input in this view. keys_N: ids as `counters` gives them."""
        return [OneCrop(self, chances) for chances in self.crop.chances(seed, keys_N, view)]


@dataclass(frozen=True)
class OneCrop:
    """The preprocessing of one picture. chances: what its box is drawn by, whatever its size."""

    cropping: Cropping
    chances: np.ndarray
    is_opaque = False

    def on_picture(self, picture: Picture) -> np.ndarray:
        cropping, crop = self.cropping, self.cropping.crop
        picture, _ = shown_by(picture, cropping.before)
        box = crop.box(self.chances.tolist(), *picture.size)
        scaling = Scaling(crop.height, crop.width, *cropping.scaled)
        return channels_first(apply_to_pixels(render(picture, box, scaling), cropping.after))
