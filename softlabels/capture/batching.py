"""How many rows go through a teacher at once: a number that was given, or as many as fit and gain.

Answers don't depend on it (a teacher whose answers do has its batch size in the plan), so it may
change from shard to shard, and within one.
"""

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from softlabels.errors import OutOfMemory
from softlabels.models.tokens import Tokens
from softlabels.system.devices import free_device_memory
from softlabels.system.humanize import counted
from softlabels.system.memory import free_memory

Result = TypeVar("Result")

TRIED = 256  # rows that a teacher is tried on, before a size is found
LEAST, MOST = 32, 8192
GAIN = 1.05  # what twice as many rows have to bring
RUNS, LONG_ENOUGH = 3, 0.3  # of each size: the best of so many, or fewer that take so many seconds
SECONDS = {"cuda": 20.0, "cpu": 3.0}  # for all sizes together


@dataclass
class Batching:
    """rows: at once; adapts: whether they become fewer where memory runs out; least: never fewer
    than these, such as those that a program was traced for; say: shows a line to the user"""

    rows: int
    adapts: bool = False
    least: int = 1
    say: Callable[[str], None] = lambda text: None

    def can_shrink(self, given: int) -> bool:
        """Where the device had no memory for so many of the rows that were given."""
        return min(self.rows, given) > self.least

    def shrink(self, device: torch.device, given: int) -> None:
        """After the device had no memory for so many of the rows that were given."""
        before = min(self.rows, given)
        self.rows = max(self.least, before // 2)
        release(device)
        self.say(f"out of memory with {counted(before, 'row')} at once: {self.rows:,} from now on")


def release(device: torch.device) -> None:
    """Give memory back that nothing uses: of the objects of a failed run, and of torch's cache."""
    gc.collect()
    free_device_memory(device)


def as_many_as_fit(attempt: Callable[[int], Result], device: torch.device) -> tuple[int, Result]:
    """What an attempt gives with `TRIED` rows at once, or with half as many, and so on, where
    memory runs out; and with how many it was. Raises OutOfMemory where a single row does not
    fit."""
    rows = TRIED
    while True:
        try:
            return rows, attempt(rows)
        except OutOfMemory:
            if rows == 1:
                raise
        rows //= 2  # not above: the error holds what the failed attempt took
        release(device)


@dataclass(frozen=True)
class Found:
    """A batch size and its speed; why: why it is no larger, in words."""

    rows: int
    per_second: float
    why: str

    def __str__(self) -> str:
        size = counted(self.rows, "row")
        return f"batches of {size}, {self.per_second:,.0f} rows/s alone: {self.why}"


@dataclass(frozen=True)
class Most:
    """The most rows that are tried, and why no more."""

    rows: int
    why: str

    @classmethod
    def of(cls, rows: int, row_bytes: int, waiting: int, shard_rows: int | None = None) -> "Most":
        """rows: of the data; row_bytes: of one in memory; waiting: batches that are read or written
        at the same time, which may take a quarter of the free memory; shard_rows: those of a shard,
        which end a batch."""
        fit = free_memory() // 4 // (waiting * max(1, row_bytes))
        bounds = [
            cls(rows, f"there are {counted(rows, 'row')}"),
            cls(max(1, fit), "twice as many would take too much memory while they wait"),
            cls(MOST, "more are not tried"),
        ]
        if shard_rows is not None:
            bounds.append(cls(shard_rows, f"--shard-rows is {shard_rows:,}, and ends a batch"))
        return min(bounds, key=lambda bound: bound.rows)


def find(
    run: Callable[[Tensor | Tokens], Any],
    inputs: Tensor | Tokens,
    device: torch.device,
    most: Most,
    least: int = 1,
) -> Found:
    """The largest batch that fits and gains: twice as many rows as before, from 32 on, until that
    brings less than 5% or memory runs out. Where 32 don't fit, half as many, and so on; but never
    fewer than `least`.

    run: answers such inputs and waits for the answers; inputs: rows that can be answered, repeated
    where more are needed

    Raises OutOfMemory where a single row does not fit.
    """
    began, best, size = time.perf_counter(), None, max(LEAST, least)
    patience = SECONDS.get(device.type, SECONDS["cuda"])
    while size > max(most.rows, least):
        size //= 2
    while True:
        try:
            speed = _speed(run, repeated(inputs, size), warm=best is None or device.type != "cpu")
        except OutOfMemory:
            if size <= least:
                raise
            speed = None
        if speed is None:
            release(device)
            most = Most(size // 2, f"{size:,} don't fit into memory")
            if best is None:
                size = max(least, size // 2)
                continue
        elif best is not None and speed < GAIN * best.per_second:
            return replace(best, why=f"{size:,} gain less than {GAIN - 1:.0%}")
        else:
            best = Found(size, speed, "")
        if 2 * best.rows > most.rows:
            return replace(best, why=most.why)
        took = time.perf_counter() - began
        if 2 * took > patience:  # the next size takes as long again
            return replace(best, why="to try more would take too long")
        size = 2 * best.rows


def _speed(run: Callable[[Any], Any], inputs: Tensor | Tokens, warm: bool) -> float:
    """Rows a second, of the fastest run. warm: run once before, as long as kernels are chosen and
    memory is taken."""
    if warm:
        run(inputs)
    runs: list[float] = []
    while len(runs) < RUNS and sum(runs) < LONG_ENOUGH:
        start = time.perf_counter()
        run(inputs)
        runs.append(time.perf_counter() - start)
    return len(inputs) / max(min(runs), 1e-9)


def repeated(inputs: Tensor | Tokens, rows: int) -> Tensor | Tokens:
    """So many of these rows, one after the other and over again."""
    places = np.arange(rows) % len(inputs)
    return inputs[places] if isinstance(inputs, Tokens) else inputs[torch.from_numpy(places)]
