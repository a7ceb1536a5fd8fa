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
from softlabels.targets.orders import HELD_GROUPS, Order, permutation
from softlabels.targets.soft_dataset import Dump
from softlabels.targets.streamed_rows import KEPT, WINDOWS, StreamedRows

MOST_KEPT = 4 * KEPT  # row groups of a dump: of about 2 MiB each, so at most 500 MB
LARGE = 2  # blocks may have so many times the rows of the largest row group
OFTEN = 3  # times that an epoch may read a dump before something is said
BATCH = 256  # rows, of a batch whose reads are counted
BATCHES = 64


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
        if not all(reading.fits for reading in readings):
            bounds = own_bounds
            readings = [Reading.of(group, bounds) for *_, group in groups]
        for (_, rows, _), reading in zip(groups, readings, strict=True):
            rows.keep(reading.kept)
        pairs = zip([dump for dump, *_ in groups], readings, strict=True)
        return cls(bounds, base, list(pairs))

    @property
    def is_stored_often(self) -> bool:
        """Whether an epoch in the order of the rows reads one of them again and again."""
        return any(reading.stored > OFTEN * reading.groups for _, reading in self.readings)

    def remarks(self, title: Callable[[Dump], str]) -> list[str]:
        """A warning for each dump that is read again and again. title: what a dump is called."""
        blocks = min(HELD_GROUPS, len(self.bounds) - 1)
        return [
            f"warning: the rows of {title(dump)} stand in another order, or in other row groups, "
            f"than those of {title(self.base)}: of {counted(blocks, 'block')} that are mixed at a "
            f"time, rows lie in {reading.at_once:,} of its {counted(reading.groups, 'row group')}, "
            f"and {reading.kept:,} are kept. A shuffled epoch in batches of {BATCH} fetches each "
            f"about {reading.shuffled_times:,.0f} times, one as stored "
            f"{reading.stored_times:,.0f}: load without streaming, from a local copy"
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
    window. fits: whether those of a few windows can be kept. kept: how many are. stored, shuffled:
    how many an epoch reads, as stored and in blocks.
    """

    groups: int
    at_once: int
    fits: bool
    kept: int
    stored: int
    shuffled: int

    @classmethod
    def of(cls, group_R: np.ndarray, bounds: np.ndarray) -> "Reading":
        """group: the row group of each row; bounds: where blocks begin, and the end."""
        groups = len(np.unique(group_R))
        group, block = _pairs(group_R, np.repeat(np.arange(len(bounds) - 1), np.diff(bounds)))
        place = np.empty(len(bounds) - 1, np.int64)  # of each block, in an epoch like any other
        place[permutation(len(place), 0, 0)] = np.arange(len(place))
        shuffled, stored = place[block] // HELD_GROUPS, block // HELD_GROUPS
        at_once = _most(group, shuffled)
        needed = min(groups, WINDOWS * at_once)
        fits = needed <= MOST_KEPT
        kept = max(KEPT, needed) if fits else KEPT

        def reads(window: np.ndarray, order: str) -> int:
            if min(groups, WINDOWS * _most(group, window)) <= kept:
                return _reads(group, window)
            return _reads_of_batches(group_R, Order(order, bounds), 1 - kept / groups)

        return cls(groups, at_once, fits, kept, reads(stored, "none"), reads(shuffled, "blocks"))

    @property
    def is_often(self) -> bool:
        """Whether a shuffled epoch reads it so often that something has to be said."""
        return self.shuffled > OFTEN * self.groups

    @property
    def shuffled_times(self) -> float:
        return self.shuffled / max(1, self.groups)

    @property
    def stored_times(self) -> float:
        return self.stored / max(1, self.groups)


def _most(group: np.ndarray, window: np.ndarray) -> int:
    """The most row groups of a window."""
    return int(np.bincount(_pairs(group, window)[1]).max(initial=0))


def _reads(group: np.ndarray, window: np.ndarray) -> int:
    """How many row groups are read, where those of the window before are still there. group,
    window: pairs of which a window has rows of a group."""
    group, window = _pairs(group, window)
    again = (np.diff(group) == 0) & (np.diff(window) == 1)
    return len(group) - int(again.sum())


def _reads_of_batches(group_R: np.ndarray, order: Order, missed: float) -> int:
    """How many row groups are read where each batch finds but few of its own, as the first batches
    tell. missed: the share that it does not find."""
    rows = order.part(0, min(len(order), BATCHES * BATCH))
    pairs, _ = _pairs(np.arange(len(rows)) // BATCH, group_R[rows])
    return int(len(pairs) * missed * len(order) / len(rows))


def _pairs(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each pair of numbers once, ascending."""
    count = int(other.max(initial=0)) + 1
    first, second = np.divmod(np.unique(one * count + other), count)
    return first, second
