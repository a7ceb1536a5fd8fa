"""Which views of each input an epoch shows: all of them, or one, and the next epoch the next.

V views, N inputs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from softlabels.errors import UsageError
from softlabels.system.humanize import counted
from softlabels.targets.orders import Order

ALL, TURN = "all", "turn"


@dataclass(frozen=True)
class Choice:
    """numbers: of the views, ascending. at_once: whether each epoch shows all of them; else epoch e
    shows the one in place e mod V, from 0 on."""

    numbers: tuple[int, ...]
    at_once: bool

    def place(self, epoch: int) -> int:
        """The place of the view whose turn it is."""
        return epoch % len(self.numbers)

    def __str__(self) -> str:
        return f"views {', '.join(map(str, self.numbers))}{' in turn' * (not self.at_once)}"


def choose_views(
    present: Sequence[int], views: int | str, dump: str, option: str = "views"
) -> Choice:
    """The views to show of those that are there. views: all, turn, or so many drawn ones, and the
    clean one where it is there, in turn: those that a dump made with so many would have.

    option: its name, for messages. Raises UsageError for other words, and for more than there are.
    """
    if views in (ALL, TURN):
        return Choice(tuple(present), views == ALL)
    drawn = [view for view in present if view > 0]  # view 0 is the clean one
    if isinstance(views, bool) or not isinstance(views, int) or views < 1:
        raise UsageError(
            f"{option} is {views!r}; use all, turn, or how many drawn views, 1 or more"
        )
    if not drawn:
        raise no_views(views, dump, option)
    if views > len(drawn):
        raise UsageError(
            f"{option} is {views}, and {dump} has {counted(len(drawn), 'drawn view')} of each "
            f"input: use {len(drawn)} or less, or all"
        )
    return Choice(tuple(view for view in present if view <= drawn[views - 1]), at_once=False)


def no_views(views: int | str, dump: str, option: str) -> UsageError:
    """The error for views of a dump that has none."""
    return UsageError(
        f"{option} is {views}, and {dump} has each input as it is, without views. Leave it out, or "
        f"let the teacher answer some, such as with dump --views 4 --augment "
        f"'random_resized_crop(224)|flip'"
    )


@dataclass(frozen=True)
class Turns:
    """An order as `Order` is one, in which an epoch has the rows of one view.

    rows: those of each view, int64 [V, N]. bounds: of each view where its row groups begin, and the
    end, as places among its rows.
    """

    text: str
    rows: np.ndarray
    bounds: tuple[np.ndarray, ...]
    seed: int = 0
    epoch: int = 0

    def __reduce__(self) -> tuple:
        return Turns, (self.text, self.rows, self.bounds, self.seed, self.epoch)

    def __len__(self) -> int:
        return self.rows.shape[1]

    @cached_property
    def _rows(self) -> np.ndarray:
        return self.rows[self.epoch % len(self.rows)]

    @cached_property
    def _order(self) -> Order:
        """Of places among the rows of this epoch's view."""
        return Order(self.text, self.bounds[self.epoch % len(self.rows)], self.seed, self.epoch)

    def part(self, start: int, stop: int) -> np.ndarray:
        return self._rows[self._order.part(start, stop)]

    @property
    def window_starts(self) -> np.ndarray:
        return self._order.window_starts

    def window(self, index: int) -> np.ndarray:
        return self._rows[self._order.window(index)]
