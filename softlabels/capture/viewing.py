"""Which views of each input a dump has, and how its pictures are shown in them. N rows of a
block."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from softlabels.errors import UsageError
from softlabels.inputs.augmented import fit_to
from softlabels.inputs.cropping import Cropping, DrawnCrop, OnPicture, Shots
from softlabels.inputs.examples import Examples
from softlabels.inputs.hashing import hash_arrays
from softlabels.inputs.preprocess import Preprocess
from softlabels.inputs.shown import Shown
from softlabels.inputs.stored_pictures import Storing
from softlabels.inputs.views.augment import CLEAN, parse_augment
from softlabels.inputs.views.augmentations import BOX, Drawn
from softlabels.inputs.views.chance import counters
from softlabels.store.plan import VIEW_HASH, Plan


@dataclass(frozen=True)
class Views:
    """Views as they were asked for.

    views: how many are drawn of each input, numbered from 1; None for none
    augment: what draws them, as text
    clean: whether there is each input as it is too, as view 0
    data_seed: what they are drawn by; None for 0
    """

    views: int | None = None
    augment: str | None = None
    clean: bool = True
    data_seed: int | None = None

    @property
    def fields(self) -> dict[str, Any]:
        """Those of the plan."""
        if self.views is None or self.augment is None:
            return {"views": [CLEAN], "augment": None}
        return {
            "views": [*[CLEAN] * self.clean, *range(1, self.views + 1)],
            "augment": str(parse_augment(self.augment)),
            "data_seed": self.data_seed or 0,
        }

    @property
    def answers_each(self) -> int:
        """How many answers there are to each picture in memory: one where each view has a picture
        of its own."""
        cut = self.augment is not None and parse_augment(self.augment).crop is not None
        return 1 if cut else len(self.fields["views"])

    @property
    def mixes(self) -> bool:
        """Whether inputs are mixed with others in the drawn views."""
        return self.augment is not None and parse_augment(self.augment).mixing is not None

    def shape(self, inputs: Examples) -> list[int] | None:
        """Of the pictures and their views, [C, H, W]; None for no views. Raises UsageError for
        inputs that have no such views."""
        if self.augment is None:
            return None
        augment, _ = fit_to(inputs, parse_augment(self.augment))
        if augment.mixing is not None and len(inputs.source) < 2:
            raise UsageError(
                f"--augment: {augment.mixing} mixes an input with another one of the data, and "
                f"{inputs.source.data!r} has one alone; leave it out"
            )
        return list(inputs.sample(1).shape[1:])


@dataclass(frozen=True)
class Viewing:
    """How the inputs of a plan are shown to its teacher.

    preprocess: of pictures of the source, where such are read
    views: some of the plan's
    """

    plan: Plan
    preprocess: Preprocess
    views: list[int]

    @property
    def at_once(self) -> int:
        """How many pictures an input needs room for."""
        drawn = len([view for view in self.views if view != CLEAN])
        partners = drawn if self.plan.mixing else 0
        return partners + (len(self.views) if self.cropping else 1)

    @cached_property
    def cropping(self) -> Cropping | None:
        """What cuts the boxes of drawn views; None where they are of whole pictures."""
        augment = self.plan.augmentation
        if augment is None or augment.crop is None:
            return None
        stored = self.plan.stored
        steps = self.preprocess if stored is None else stored.of_stored(self.preprocess)
        return Cropping(steps, augment.crop)

    def shoot(self, ids_N: np.ndarray) -> "Shooting":
        """What is made of the pictures with these ids."""
        files: list[Storing] = []
        whole: list[Any] = [self.preprocess] * len(ids_N)
        if self.plan.stored is not None:
            whole = files = [Storing(self.plan.stored, self.preprocess) for _ in range(len(ids_N))]
        if self.cropping is None:
            return Shooting(whole, files)
        seed, keys_N = self.plan.data_seed or 0, counters(ids_N)
        crops = [self.cropping.drawn(seed, keys_N, v) if v else [] for v in self.views]
        ways: list[OnPicture] = []
        for place in range(len(ids_N)):
            storing = files[place] if files else None
            clean = self.preprocess if storing is None else storing.rest
            ways.append(Shots([of_view[place] if of_view else clean for of_view in crops], storing))
        return Shooting(ways, files, crops)

    def shown(self, ids_N: np.ndarray, shots: list[Tensor], crops: list[list[DrawnCrop]]) -> Shown:
        """The views of these inputs, whose boxes are known by now.

        shots: their pictures in each view, or the same for all; crops: of each view, if there are
        any
        """
        augment = self.plan.augmentation
        assert augment is not None, "there are views"
        keys_N = counters(ids_N)  # of texts once, whatever views there are
        pictures = shots * len(self.views) if len(shots) == 1 else shots
        drawn = []
        for index, view in enumerate(self.views):
            boxes = _boxes(crops[index], len(ids_N)) if crops else {}
            steps = self.plan.draw(keys_N, view)
            hashes = np.zeros(len(ids_N), np.uint64)
            hashed = np.flatnonzero(self.plan.is_hashed(keys_N, view))
            hashes[hashed] = hash_arrays(pictures[index].numpy()[hashed])
            drawn.append(boxes | steps | {VIEW_HASH: hashes})
        return Shown(augment, self.views, pictures, drawn)


@dataclass(frozen=True)
class Shooting:
    """What is made of the pictures of a block.

    ways: of each picture
    files: those that are stored, if they are not as the source has them
    crops: of each view, of each picture, if pictures are cropped
    """

    ways: list[Any]
    files: list[Storing]
    crops: list[list[DrawnCrop]] = field(default_factory=list)

    def without(self, places: set[int]) -> "Shooting":
        """The same without these, which can't be read."""
        if not places:
            return self
        kept = [i for i in range(len(self.ways)) if i not in places]
        crops = [[of_view[i] for i in kept] if of_view else [] for of_view in self.crops]
        files = [self.files[i] for i in kept] if self.files else []
        return Shooting([self.ways[i] for i in kept], files, crops)


def _boxes(crops: list[DrawnCrop], count: int) -> Drawn:
    """The columns of what was cut out, [N] each; zeros for the inputs as they are."""
    boxes_N4 = np.array([crop.box for crop in crops] or np.zeros((count, len(BOX))), np.int32)
    return {name: boxes_N4[:, column].copy() for column, name in enumerate(BOX)}
