"""Which views of each input a dump has. N inputs."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from softlabels.inputs.augmentations import Drawn
from softlabels.inputs.views import check_pictures, parse_views
from softlabels.store.fields import CLEAN
from softlabels.store.plan import Plan


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
            "augment": str(parse_views(self.augment)),
            "data_seed": self.data_seed or 0,
        }

    def check_shape(self, shape: list[int]) -> None:
        """Raises UsageError for inputs of this shape, without a batch, that have no such views."""
        if self.augment is not None:
            step = parse_views(self.augment)
            check_pictures(shape, str(step), "--augment")
            step.on(shape, "--augment")


def one_view_each(plan: Plan, ids_N: np.ndarray, rows_N: np.ndarray) -> list[Drawn]:
    """One view of each of these inputs, in turn by its row's number in the source, so that a pilot
    is like the rows that are stored; nothing where there is but the input as it is."""
    if not plan.has_views:
        return []
    drawn = {name: np.zeros(len(ids_N), kind) for name, kind in plan.parameters.items()}
    for index, view in enumerate(plan.views):
        chosen = rows_N % len(plan.views) == index
        for name, values in plan.draw(ids_N[chosen], view).items():
            drawn[name][chosen] = values
    return [drawn]
