"""The inputs of rows that are views. N rows asked for, of the R rows of a dump."""

from collections.abc import Callable
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from softlabels.errors import SourceError
from softlabels.inputs.cropping import Cropping, OnPicture, StoredCrop
from softlabels.inputs.examples import Examples
from softlabels.inputs.views.augment import CLEAN, Augment
from softlabels.inputs.views.augmentations import BOX
from softlabels.inputs.views.mixing import check_mixed, mixed
from softlabels.system.cache import LocalCache
from softlabels.system.progress import SILENT, Progress


class ViewedInputs(Examples):
    """What the teacher saw of each row of a dump, [N, C, H, W], made from the stored columns.

    inputs: the examples, one each
    numbers: which of them each row shows, int64 [R]
    views: the number of each row's view, [R]
    drawn: the columns of its view by name, [R] each
    shape: of all of them, [C, H, W]
    partners: of each row the one that it is mixed with, itself for those that are not, int64 [R];
    None where none are
    stored: how many steps of the preprocessing make of these inputs those from which boxes are cut

    What is cut from source pictures is decoded when it is asked for: to keep all views would take
    as much memory as the views are many. Views by steps on tensors are made of kept inputs.
    """

    def __init__(
        self,
        inputs: Examples,
        augment: Augment,
        numbers: np.ndarray,
        views: np.ndarray,
        drawn: dict[str, np.ndarray],
        shape: list[int],
        stored: int = 0,
        partners: np.ndarray | None = None,
    ) -> None:
        self.inputs, self.augment, self.shape, self.stored = inputs, augment, shape, stored
        self.partners = partners
        self.numbers, self.views, self.drawn = numbers, views, drawn
        self.source, self.preprocess = inputs.source, inputs.preprocess
        self.positions = inputs.positions[numbers]
        if augment.mixing is not None:
            check_mixed(drawn)
        self.cropping = None
        if augment.crop is not None:
            if inputs.source.kind != "image":
                raise SourceError(
                    f"the views are cut by {augment.crop} from encoded pictures, and the inputs of "
                    f"{inputs.source.data!r} are none: they are not what the teacher saw"
                )
            self.cropping = Cropping(inputs.preprocess, augment.crop, stored)
            inputs.decode_when_asked()

    def __reduce__(self) -> tuple:
        of_rows = self.numbers, self.views, self.drawn
        others = self.shape, self.stored, self.partners
        return ViewedInputs, (self.inputs, self.augment, *of_rows, *others)

    def keep_on(self, device: torch.device) -> None:
        if self.cropping is None:
            self.inputs.keep_on(device)

    def remember_in(self, cache: LocalCache, progress: Progress = SILENT) -> None:
        if self.cropping is None:
            self.inputs.remember_in(cache, progress)

    @cached_property
    def decoded_bytes(self) -> int:
        return self.inputs.decoded_bytes

    def gather(self, rows: np.ndarray) -> Tensor:
        return self._shown(rows, self.inputs.gather)

    def gather_uncached(self, rows: np.ndarray) -> Tensor:
        return self._shown(rows, self.inputs.gather_uncached)

    def prepare(self) -> None:
        _ = self.sample(1)
        self.inputs.prepare()

    def keep_all(self) -> None:
        if self.cropping is None:
            self.inputs.keep_all()

    def only(self, rows: np.ndarray) -> None:
        self.inputs.only(self.numbers[rows])

    @property
    def kept(self) -> bool:
        return self.cropping is None and self.inputs.kept

    def on_pictures(self, rows: np.ndarray, view: int) -> Tensor:
        """What the steps on pictures make of these rows, all of one view, read again: before those
        on tensors."""
        if view == CLEAN or self.cropping is None:
            return self.inputs.gather_uncached(self.numbers[rows])
        return self._cut(rows, self.cropping)

    def _shown(self, rows: np.ndarray, gather: Callable[[np.ndarray], Tensor]) -> Tensor:
        """These rows as the teacher saw them."""
        alone = self._alone(rows, gather)
        if self.partners is None:
            return alone
        places = np.flatnonzero(self.partners[rows] != rows)
        if not len(places):
            return alone
        drawn = {name: values[rows[places]] for name, values in self.drawn.items()}
        others = self._alone(self.partners[rows[places]], gather)
        index = torch.as_tensor(places, device=alone.device)
        return alone.index_copy(0, index, mixed(alone[index], others, drawn))

    def _alone(self, rows: np.ndarray, gather: Callable[[np.ndarray], Tensor]) -> Tensor:
        drawn = {name: values[rows] for name, values in self.drawn.items()}
        if self.cropping is None:
            inputs = self._checked(gather(self.numbers[rows]))
            return self.augment.show(inputs, self.views[rows], drawn)
        is_clean = self.views[rows] == CLEAN
        clean, cut = np.flatnonzero(is_clean), np.flatnonzero(~is_clean)
        if not len(cut):
            return self._checked(gather(self.numbers[rows]))
        of_cut = {name: values[cut] for name, values in drawn.items()}
        pictures = self._cut(rows[cut], self.cropping)
        shown = self._checked(self.augment.show(pictures, self.views[rows[cut]], of_cut))
        if not len(clean):
            return shown
        as_they_are = self._checked(gather(self.numbers[rows[clean]]))
        back = np.argsort(np.concatenate([clean, cut]))
        return torch.cat([as_they_are, shown])[torch.from_numpy(back)]

    def _checked(self, inputs: Tensor) -> Tensor:
        """Raises SourceError where they are no pictures of the shape that the teacher saw."""
        if list(inputs.shape[1:]) != self.shape:
            raise SourceError(
                f"views are of pictures {self.shape}, by the plan, and these inputs are "
                f"{list(inputs.shape[1:])}: they are not what the teacher saw"
            )
        return inputs

    def _cut(self, rows: np.ndarray, cropping: Cropping) -> Tensor:
        boxes = zip(*(self.drawn[name][rows].tolist() for name in BOX), strict=True)
        ways: list[OnPicture] = [StoredCrop(cropping, box) for box in boxes]
        return self.inputs.gather_pictures(self.numbers[rows], ways)
