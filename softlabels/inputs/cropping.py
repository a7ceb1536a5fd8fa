"""A preprocessing whose steps that resize, crop and pad give way to a random crop of the source
picture. N inputs of a batch."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image

from softlabels.inputs.augmentations import RandomResizedCrop
from softlabels.inputs.pictures import FILTERS, SIZED, by_kind
from softlabels.inputs.preprocess import Preprocess


class OnPicture(Protocol):
    """What makes pixels of a decoded picture, as `Preprocess` does."""

    def on_picture(self, image: Image.Image) -> np.ndarray:
        """A decoded image → uint8 [C, H, W]."""


class Cropping:
    """A crop in the place of the first step that resizes, crops or pads, else after the last step
    on pictures.

    replaced: the steps that give way
    filter: the one of the last of them that scales; bilinear where none does
    """

    def __init__(self, preprocess: Preprocess, crop: RandomResizedCrop) -> None:
        steps = preprocess.picture
        self.crop = crop
        self.replaced = tuple(step for step in steps if step.name in SIZED)
        place = steps.index(self.replaced[0]) if self.replaced else len(steps)
        others = tuple(step for step in steps[place:] if step.name not in SIZED)
        self.before, self.after = Preprocess(steps[:place], ()), Preprocess(others, ())
        scaling = [step for step in self.replaced if SIZED[step.name] == FILTERS]
        named = [name for step in scaling[-1:] for name in by_kind(step)[1]]
        self.filter = named[0] if named else "bilinear"

    def __str__(self) -> str:
        place = "|".join(map(str, self.replaced))
        where = f"in the place of {place}" if place else "after the other steps on pictures"
        return f"{self.crop} crops source pictures, {where}, {self.filter}"

    def of(self, seed: int, keys_N: np.ndarray, view: int) -> list[OnPicture]:
        """The preprocessing of each input in this view. keys_N: ids as `counters` gives them."""
        return [OneCrop(self, chances) for chances in self.crop.chances(seed, keys_N, view)]


@dataclass(frozen=True)
class OneCrop:
    """The preprocessing of one picture. chances: what its box is drawn by, whatever its size."""

    cropping: Cropping
    chances: np.ndarray

    def on_picture(self, image: Image.Image) -> np.ndarray:
        cropping, crop = self.cropping, self.cropping.crop
        image = cropping.before.apply(image)
        top, left, height, width = crop.box(self.chances.tolist(), image.height, image.width)
        # cropped first, as torchvision does: a filter of resize(box=…) would see pixels around it
        part = image.crop((left, top, left + width, top + height))
        filter = Image.Resampling[cropping.filter.upper()]
        return cropping.after.on_picture(part.resize((crop.width, crop.height), filter))
