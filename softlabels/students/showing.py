"""Which views of a dump's inputs an epoch shows, and in which order. V views, N inputs."""

from dataclasses import dataclass

import numpy as np

from softlabels.errors import UsageError
from softlabels.store.fields import CLEAN
from softlabels.system.humanize import counted, few
from softlabels.targets.orders import permutation
from softlabels.targets.soft_dataset import Dump, SoftDataset

ALL = "all"


@dataclass(frozen=True)
class Showing:
    """The rows of a dump that a student is shown.

    numbers: of the views that it is shown, ascending; the dump's lowest is among them
    rows: the row of each of these views of each input, int64 [V, N]
    at_once: whether each epoch shows all of them; else it shows one, and the next epoch another
    """

    dataset: Dump
    numbers: list[int]
    rows: np.ndarray
    at_once: bool

    @property
    def inputs(self) -> np.ndarray:
        """The row that stands for each input when it is held out, of its lowest view, int64 [N]."""
        return self.rows[0]

    @property
    def each(self) -> np.ndarray:
        """The rows that stand for each input in the epochs, int64 [rows an epoch, N]."""
        return self.rows if self.at_once else self.rows[:1]

    @property
    def remark(self) -> str | None:
        """What is shown, for the user; None where there is one view alone."""
        plan, count = self.dataset.reader.plan, len(self.numbers)
        if not plan.has_views:
            return None
        views = counted(count, "view")
        if count < len(plan.views):
            views = f"{views} ({few(list(map(str, self.numbers)))}) of {len(plan.views)}"
        shown = f"epoch e sees the one in place e mod {count}, from 0 on"
        if count == 1:
            shown = "each epoch sees it"
        elif self.at_once:
            shown = "each epoch sees them all"
        return f"{views} of each input: {shown}; held-out inputs are scored on view {plan.views[0]}"

    def order(self, rows: np.ndarray, shuffle: str, seed: int, epoch: int) -> np.ndarray:
        """The rows of this epoch, 1 or more, in its order. rows: some of `each`, int64."""
        seen: SoftDataset = self.dataset
        every = np.arange(len(seen))
        if self.dataset.reader.plan.has_views and not self.at_once:
            place = epoch % len(self.numbers)
            seen, every = seen.view(self.numbers[place]), self.rows[place]
            rows = every[np.searchsorted(self.inputs, rows)]
        whole = seen.order(shuffle, seed, epoch)
        if whole.text == "full":
            return mixed(rows, seed, epoch)
        chosen = np.zeros(len(self.dataset), bool)
        chosen[rows] = True
        every = every[whole.part(0, len(seen))]
        return every[chosen[every]]


def showing(dataset: Dump, views: int | str | None) -> Showing:
    """What `--views` asks for: that many drawn views, and the clean one where the dump has it, as
    if it had been made with so many; all of them in each epoch; or None, for all of them in turn.

    Raises UsageError where the dump has fewer.
    """
    plan, rows = dataset.reader.plan, dataset.reader.view_rows
    if views is None:
        return Showing(dataset, plan.views, rows, at_once=False)
    if not plan.has_views:
        raise UsageError(
            f"--views is {views}, and {dataset.reader.folder} has each input as it is, without "
            f"views. Leave it out, or let the teacher answer some, such as with dump --views 4 "
            f"--augment 'random_resized_crop(224)|flip'"
        )
    if views == ALL:
        return Showing(dataset, plan.views, rows, at_once=True)
    drawn = [view for view in plan.views if view != CLEAN]
    if not isinstance(views, int) or views > len(drawn):
        raise UsageError(
            f"--views is {views}, and {dataset.reader.folder} has "
            f"{counted(len(drawn), 'drawn view')} of each input: use {len(drawn)} or less, or all"
        )
    last = drawn[views - 1]
    places = [place for place, view in enumerate(plan.views) if view <= last]
    return Showing(dataset, plan.views[: len(places)], rows[: len(places)], at_once=False)


def mixed(rows: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """These rows in the order of this epoch."""
    return rows[permutation(len(rows), seed, epoch)]
