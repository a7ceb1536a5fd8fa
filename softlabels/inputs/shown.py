"""Inputs in some of their views, as a teacher is given them. N inputs, V views."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from softlabels.inputs.views.augment import Augment
from softlabels.inputs.views.augmentations import Drawn
from softlabels.inputs.views.mixing import mixed


@dataclass(frozen=True)
class Shown:
    """V · N rows: those of one view after those of another.

    pictures: of each view, [N, C, H, W], as the steps on pictures leave them; one tensor in all
    places where no view has pictures of its own
    drawn: the columns of each view by name, [N] each
    partners: of each view, the pictures that these are mixed with, as `pictures` has them, and the
    columns of their own rows; None for a view of which nothing is mixed
    """

    augment: Augment
    views: list[int]
    pictures: list[Tensor]
    drawn: list[Drawn]
    partners: "list[Partners | None]" = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.views) * self.inputs

    @property
    def inputs(self) -> int:
        return len(self.pictures[0])

    def of(self, part: slice, to_device: Callable[[Tensor], Tensor]) -> Iterator[Tensor]:
        """These inputs, on a device, as one view after the other shows them. Who takes them doesn't
        write to them: views may share memory."""
        there: Tensor | None = None
        for index, (view, drawn) in enumerate(zip(self.views, self.drawn, strict=True)):
            if there is None or self.pictures[index] is not self.pictures[index - 1]:
                there = to_device(self.pictures[index][part])
            of_part = _part(drawn, part)
            shown = self.augment.show(there, np.full(len(there), view), of_part)
            partners = self.partners[index] if self.partners else None
            if partners is not None:
                others = self.augment.apply(
                    to_device(partners.pictures[part]), _part(partners.drawn, part)
                )
                shown = mixed(shown, others, of_part)
            yield shown


@dataclass(frozen=True)
class Partners:
    """The pictures [N, C, H, W] that N inputs are mixed with in a view, and the columns of these
    pictures' own rows, [N] each. What can't be read is any picture, and is not mixed."""

    pictures: Tensor
    drawn: Drawn


def _part(drawn: Drawn, part: slice) -> Drawn:
    return {name: values[part] for name, values in drawn.items()}


def joined(views: list[Drawn]) -> Drawn:
    """The parameters of one view after the other, [V·N] each."""
    names = views[0] if views else {}
    return {name: np.concatenate([drawn[name] for drawn in views]) for name in names}
