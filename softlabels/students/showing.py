"""Which views of a dump's inputs a student is shown, and in which order. V views, N inputs."""

from dataclasses import dataclass

import numpy as np

from softlabels.system.humanize import counted, few
from softlabels.targets.mixed import Trainable
from softlabels.targets.orders import permutation
from softlabels.targets.turns import TURN, Choice, choose_views, no_views


@dataclass(frozen=True)
class Showing:
    """The rows of a dump that a student is shown.

    rows: the row of each of the chosen views of each input, int64 [V, N]; the dump's lowest view is
    the first of them
    """

    dataset: Trainable
    choice: Choice
    rows: np.ndarray

    @property
    def inputs(self) -> np.ndarray:
        """The row that stands for each input when it is held out, of its lowest view, int64 [N]."""
        return self.rows[0]

    @property
    def each(self) -> np.ndarray:
        """The rows that stand for each input in the epochs, int64 [rows an epoch, N]."""
        return self.rows if self.choice.at_once else self.rows[:1]

    def in_epoch(self, epoch: int) -> list[int]:
        """The views that an epoch shows; the first is epoch 1."""
        numbers = self.choice.numbers
        return list(numbers) if self.choice.at_once else [numbers[self.choice.place(epoch)]]

    def remarks(self, epochs: int) -> list[str]:
        """What is shown in so many epochs, for the user; nothing of a dump without views."""
        plan, numbers = self.dataset.base.reader.plan, self.choice.numbers
        if not plan.has_views:
            return []
        views = counted(len(numbers), "view")
        if len(numbers) < len(plan.views):
            views = f"{views} ({_listed(list(numbers))}) of {len(plan.views)}"
        turns = [self.in_epoch(epoch)[0] for epoch in range(1, len(numbers) + 1)]
        shown = f"an epoch sees one, in the order {_listed(turns)}"
        if len(numbers) == 1:
            shown = "each epoch sees it"
        elif self.choice.at_once:
            shown = "each epoch sees them all"
        remark = f"{views} of each input: {shown}; held-out inputs are scored on view"
        remarks = [f"{remark} {plan.views[0]}"]
        if not self.choice.at_once and epochs < len(numbers):
            remarks.append(
                f"warning: {counted(epochs, 'epoch')} {'shows' if epochs == 1 else 'show'} only "
                f"{_listed(turns[:epochs])} of {counted(len(numbers), 'view')}; --epochs "
                f"{len(numbers)} shows each once, and --views all each in every epoch"
            )
        return remarks

    def order(self, rows: np.ndarray, shuffle: str, seed: int, epoch: int) -> np.ndarray:
        """The rows of this epoch, 1 or more, in its order. rows: some of `each`, int64."""
        if not self.choice.at_once:
            rows = self.rows[self.choice.place(epoch)][np.searchsorted(self.inputs, rows)]
        whole = self.dataset.shown(self.choice, shuffle, seed, epoch)
        if whole.text == "full":
            return mixed(rows, seed, epoch)
        chosen = np.zeros(len(self.dataset), bool)
        chosen[rows] = True
        every = whole.part(0, len(whole))
        return every[chosen[every]]


def showing(dataset: Trainable, views: int | str | None) -> Showing:
    """What `--views` asks for; None: all views in turn. Raises UsageError for views that the dump
    doesn't have."""
    plan, folder = dataset.base.reader.plan, str(dataset.base.reader.folder)
    if views is not None and not plan.has_views:
        raise no_views(views, folder, "--views")
    choice = choose_views(plan.views, TURN if views is None else views, folder, "--views")
    return Showing(dataset, choice, dataset.base.reader.view_rows[: len(choice.numbers)])


def _listed(numbers: list[int]) -> str:
    return few(list(map(str, numbers)), most=8)


def mixed(rows: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """These rows in the order of this epoch."""
    return rows[permutation(len(rows), seed, epoch)]
