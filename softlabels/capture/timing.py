"""What bounds a dump: for what its answering thread waited, and how long it answered.

Batches are read, answered and written at the same time, so the three don't add up to the time of
the dump, but the time of the answering thread does: it waits for a batch that is read, it answers,
or it waits for batches that are written. What takes most of it is the part to make faster.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TypeVar

Item = TypeVar("Item")

READING, TEACHER, WRITING = "reading", "teacher", "writing"
PARTS = (READING, TEACHER, WRITING)


@dataclass
class Timing:
    """Seconds of the answering thread by what they went to, from the first answer on: before it,
    pipelines fill, kernels are chosen and programs compiled.

    rows: the source rows done; elapsed: seconds in all, those before the first answer among them
    answering: seconds in all in which the answering thread answered
    computing: seconds for which the writing thread waited for a device that computed answers
    storing: seconds that the writing thread took for all else
    """

    rows: int = 0
    elapsed: float = 0.0
    answering: float = 0.0
    computing: float = 0.0
    storing: float = 0.0
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    began: bool = False

    def __add__(self, other: "Timing") -> "Timing":
        """Of two processes."""
        return Timing(
            rows=self.rows + other.rows,
            elapsed=max(self.elapsed, other.elapsed),
            answering=self.answering + other.answering,
            computing=self.computing + other.computing,
            storing=self.storing + other.storing,
            seconds={part: self.seconds[part] + other.seconds[part] for part in PARTS},
        )

    def followed_by(self, other: "Timing") -> "Timing":
        """Of this process, and of what it did afterwards."""
        return replace(self + other, elapsed=self.elapsed + other.elapsed)

    @contextmanager
    def of(self, part: str) -> Iterator[None]:
        """The time of this block goes to `part`. Where it waits for the writing thread, and that
        one for the device, it goes to the teacher."""
        start, before = time.perf_counter(), self.computing
        try:
            yield
        finally:
            took = time.perf_counter() - start
            device = min(took, self.computing - before) if part == WRITING else 0.0
            if self.began:
                self.seconds[part] += took - device
                self.seconds[TEACHER] += device
            if part == TEACHER:
                self.answering += took
                self.began = True

    def awaited(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items; the time until each is there goes to reading."""
        stream = iter(items)
        while True:
            with self.of(READING):
                try:
                    item = next(stream)
                except StopIteration:
                    return
            yield item

    @contextmanager
    def dump(self) -> Iterator[None]:
        """The block of a dump, from its first batch to its last."""
        start = time.perf_counter()
        self.began = False
        try:
            yield
        finally:
            self.elapsed += time.perf_counter() - start

    @property
    def shares(self) -> dict[str, float]:
        """The parts of the answering thread's time, which add up to 1; empty of a dump of one
        batch, of which nothing is known."""
        total = sum(self.seconds.values())
        return {part: self.seconds[part] / total for part in PARTS} if total else {}

    @property
    def bound(self) -> str | None:
        """What took most of it."""
        shares = self.shares
        return max(shares, key=lambda part: shares[part]) if shares else None

    @contextmanager
    def writing(self) -> Iterator[None]:
        """A block of the writing thread."""
        start, before = time.perf_counter(), self.computing
        try:
            yield
        finally:
            self.storing += time.perf_counter() - start - (self.computing - before)

    @contextmanager
    def device(self) -> Iterator[None]:
        """A block in which the writing thread waits for the device."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.computing += time.perf_counter() - start

    @property
    def rows_per_second(self) -> float:
        return self.rows / self.elapsed if self.elapsed else 0.0

    @property
    def note(self) -> str:
        """For a progress bar."""
        bound = self.bound
        return f"bound by {bound} {self.shares[bound]:.0%}" if bound else ""


THE = {READING: "reading", TEACHER: "the teacher", WRITING: "writing"}
