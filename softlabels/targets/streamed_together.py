"""Row groups of several streamed dumps that hold the same rows, and how often each is read.

An epoch is drawn from windows of 16 blocks of rows, and a streamed dump keeps its last row groups.
Where its rows stand in the order of the others, each is read once or twice an epoch; in another
order, a window has rows of nearly all of its row groups, which are then read again and again.

R rows, of any one dump's order.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from softlabels.system.humanize import counted
from softlabels.targets.orders import HELD_GROUPS, permutation
from softlabels.targets.soft_dataset import Dump
from softlabels.targets.streamed_rows import KEPT, WINDOWS, StreamedRows

MOST_KEPT = 4 * KEPT  # row groups of a dump: of about 2 MiB each, so at most 500 MB
LARGE = 2  # blocks may have so many times the rows of the largest row group
OFTEN = 3  # times that an epoch may read a dump before something is said


@dataclass(frozen=True)
class Streams:
    """Those of several dumps that are streamed.

    bounds: where the blocks of an epoch begin, and the end, int64; base: the dump whose rows are
    counted; readings: of each streamed dump how often it is read.
    """

    bounds: np.ndarray
    base: Dump
    readings: list[tuple[Dump, "Reading"]]

    @classmethod
    def of(
        cls, base: Dump, others: Mapping[str, Dump], places: Mapping[str, np.ndarray | None]
    ) -> "Streams":
        """Has each dump hold as many row groups as it takes. places: of the rows of `base` in each
        other dump, None where they begin it."""
        placed: list[tuple[Dump, np.ndarray | None]] = [(base, None)]
        placed += [(dump, places[name]) for name, dump in others.items()]
        streamed = [(dump, dump.rows, where) for dump, where in placed]
        groups = [
            (dump, rows, groups_of(rows, where, len(base)))
            for dump, rows, where in streamed if isinstance(rows, StreamedRows)
        ]  # fmt: skip
        if not groups:
            return cls(base.rows.row_bounds, base, [])
        plans = [dump.reader.plan for dump, _, _ in groups]
        largest = LARGE * max(plan.group_rows * len(plan.views) for plan in plans)
        own_bounds = base.rows.row_bounds
        bounds = shared_bounds([group for *_, group in groups], own_bounds, largest)
        readings = [Reading.of(group, bounds) for *_, group in groups]
        if any(reading.is_too_much for reading in readings):
            bounds = own_bounds
            readings = [Reading.of(group, bounds) for *_, group in groups]
        for (_, rows, _), reading in zip(groups, readings, strict=True):
            rows.keep(reading.kept)
        pairs = zip([dump for dump, *_ in groups], readings, strict=True)
        return cls(bounds, base, list(pairs))

    @property
    def is_stored_often(self) -> bool:
        """Whether an epoch in the order of the rows reads one of them again and again."""
        return any(one.groups > one.kept and one.stored > OFTEN * one.groups
                   for _, one in self.readings)  # fmt: skip

    def remarks(self, title: Callable[[Dump], str]) -> list[str]:
        """A warning for each dump that is read again and again. title: what a dump is called."""
        blocks = min(HELD_GROUPS, len(self.bounds) - 1)
        return [
            f"warning: the rows of {title(dump)} stand in another order than those of "
            f"{title(self.base)}: of {counted(blocks, 'block')} that are mixed at a time, rows lie "
            f"in {reading.at_once:,} of its {counted(reading.groups, 'row group')}, and "
            f"{reading.kept:,} are kept. A shuffled epoch fetches it {reading.shuffled_times:.1f} "
            f"times or more, one as stored {reading.stored_times:.1f}: load without streaming, "
            f"from a local copy"
            for dump, reading in self.readings
            if reading.is_often
        ]


def groups_of(rows: StreamedRows, where: np.ndarray | None, count: int) -> np.ndarray:
    """The row group of each of so many rows, int64 [R]. where: their places among the dump's, None
    for its first ones."""
    places = np.arange(count) if where is None else where
    return np.searchsorted(rows.row_bounds, places, side="right") - 1


def shared_bounds(groups: Sequence[np.ndarray], own_bounds: np.ndarray, largest: int) -> np.ndarray:
    """Where blocks begin of which each row group lies in one, and the end: the smallest there are,
    so that a shuffled epoch reads each row group once. Where these would be large, as in different
    orders, `own_bounds`. int64.

    groups: of each streamed dump the row group of each row, [R]. own_bounds: those of the rows'
    own row groups. largest: the rows that a block may have.
    """
    rows = int(own_bounds[-1])
    inside = np.zeros(rows + 1, np.int64)  # of how many row groups more there are rows before it
    for group_R in groups:
        first = np.unique(group_R, return_index=True)[1]
        last = rows - 1 - np.unique(group_R[::-1], return_index=True)[1]
        inside[first + 1] += 1
        inside[last + 1] -= 1
    bounds = np.flatnonzero(np.cumsum(inside) == 0)
    return bounds if np.diff(bounds).max(initial=0) <= largest else own_bounds


@dataclass(frozen=True)
class Reading:
    """How often an epoch of blocks of rows reads a streamed dump.

    groups: its row groups that hold some of the rows. at_once: the most of them that hold rows of a
    window. stored, shuffled: how many an epoch reads at least, as stored and in blocks.
    """

    groups: int
    at_once: int
    stored: int
    shuffled: int

    @classmethod
    def of(cls, group_R: np.ndarray, bounds: np.ndarray) -> "Reading":
        """group: the row group of each row; bounds: where blocks begin, and the end."""
        block_R = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))
        group, block = _pairs(group_R, block_R)
        order = permutation(len(bounds) - 1, 0, 0)  # any epoch is like another
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        shuffled, at_once = _reads(group, place[block] // HELD_GROUPS)
        stored, _ = _reads(group, block // HELD_GROUPS)
        return cls(len(np.unique(group)), at_once, stored, shuffled)

    @property
    def _needed(self) -> int:
        return min(self.groups, WINDOWS * self.at_once)

    @property
    def is_too_much(self) -> bool:
        """Whether more row groups would have to be kept than can be."""
        return self._needed > MOST_KEPT

    @property
    def kept(self) -> int:
        """How many row groups are kept."""
        return KEPT if self.is_too_much else max(KEPT, self._needed)

    @property
    def is_often(self) -> bool:
        """Whether it would be read so often that something has to be said."""
        again = self.groups > self.kept and self.shuffled > OFTEN * self.groups
        return self.is_too_much or again

    @property
    def shuffled_times(self) -> float:
        return self.shuffled / max(1, self.groups)

    @property
    def stored_times(self) -> float:
        return self.stored / max(1, self.groups)


def _reads(group: np.ndarray, window: np.ndarray) -> tuple[int, int]:
    """How many row groups are read, where those of the window before are still there; and the most
    that a window has. group, window: pairs of which a window has rows of a group."""
    group, window = _pairs(group, window)
    again = (np.diff(group) == 0) & (np.diff(window) == 1)
    return len(group) - int(again.sum()), int(np.bincount(window).max(initial=0))


def _pairs(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each pair of numbers once, ascending."""
    count = int(other.max(initial=0)) + 1
    first, second = np.divmod(np.unique(one * count + other), count)
    return first, second
