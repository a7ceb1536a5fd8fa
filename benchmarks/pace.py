"""How fast a way gives its rows: alone, and in turns with another."""

import itertools
import time
from dataclasses import dataclass
from typing import Any

from benchmarks.rivals import Way

TURN_SECONDS = 0.004


@dataclass(frozen=True)
class Pace:
    """A measure lasts `least` seconds; an epoch that takes more than `most` is broken off."""

    least: float
    most: float

    def rate(self, way: Way, store: Any, shuffle: bool, epoch: int, once: bool = False) -> float:
        """Thousand rows/s: whole epochs for some time (or once), or a part of one that lasts too
        long."""
        rows, elapsed, began = 0, 0.0, time.perf_counter()
        while elapsed < (0 if once and rows else self.least):
            for batch in way.batches(store, shuffle, epoch):
                rows += len(batch)
                if (elapsed := time.perf_counter() - began) > self.most:
                    break
            elapsed = time.perf_counter() - began
        return rows / elapsed / 1000

    def beside(
        self, limit: Way, map_: Any, way: Way, store: Any, epoch: int
    ) -> tuple[float, float]:
        """Thousand rows/s, shuffled, of a way and of the limit, which take turns of some
        milliseconds: what else the machine does then falls on both alike."""
        if way.alone:
            return self.rate(way, store, True, epoch), self.rate(limit, map_, True, epoch)
        ours, other = Turns(way, store, epoch), Turns(limit, map_, epoch)
        while ours.seconds < self.least:
            ours.take()
            other.take()
        return ours.rows / ours.seconds / 1000, other.rows / other.seconds / 1000


class Turns:
    """Shuffled epochs of a way, one after the other, a turn at a time."""

    def __init__(self, way: Way, store: Any, epoch: int) -> None:
        epochs = itertools.count(epoch * 1000)
        batches = (way.batches(store, True, one) for one in epochs)
        self.batches = itertools.chain.from_iterable(batches)
        self.rows, self.seconds = 0, 0.0

    def take(self) -> None:
        began, taken = time.perf_counter(), 0.0
        while taken < TURN_SECONDS:
            batch = next(self.batches)
            self.rows += len(batch)
            taken = time.perf_counter() - began
        self.seconds += taken
