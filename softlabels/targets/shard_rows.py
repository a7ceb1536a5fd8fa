"""One shard's logits on their way into memory of ours, row group by row group.

`fill(group)` puts a row group (counted from the shard's first) in its place and gives the region
and the addresses of the row groups that are there now: that one, or all of them.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

import numpy as np

from softlabels.errors import DamagedDump
from softlabels.store.audit import sha256_of
from softlabels.store.decoding import ShardDecoder
from softlabels.store.gathering import Region, bytes_at
from softlabels.store.mapping import map_file
from softlabels.store.reader import DumpReader
from softlabels.store.remedies import remedy
from softlabels.targets.cache import About, LocalCache, Making

HUGE_BYTES = 2 << 20
MOST_PADDED = 1.05
BACKLOG = 8  # shards that wait to be hashed
LOOK_SECONDS = 0.02

_thread = threading.local()

Placed = tuple[slice, Region, np.ndarray]


class ShardRows:
    """`write(group, out)` puts a row group's bytes into `out`, uint8 [rows · row_bytes], which is
    part of new memory."""

    def __init__(
        self, rows: int, group_rows: int, row_bytes: int, write: Callable[[int, np.ndarray], object]
    ) -> None:
        self.rows, self.row_bytes, self.write = rows, row_bytes, write
        self.stride = _stride(group_rows * row_bytes)
        self.group_bytes = group_rows * row_bytes
        self.starts = np.arange(-(-rows // group_rows), dtype=np.int64) * self.stride
        self.target: Making | Region | None = None
        self.problem: DamagedDump | None = None
        self._done: set[int] = set()
        self.renew(Publisher(lambda: True))

    def renew(self, publisher: "Publisher") -> None:
        """In a forked child: a lock that nobody holds, and a publisher whose thread is there."""
        self._lock, self.publisher = threading.Lock(), publisher

    @property
    def bytes(self) -> int:
        """Of all row groups, and of what lies between them."""
        before = max(0, len(self.starts) - 1)
        return self.rows * self.row_bytes + before * (self.stride - self.group_bytes)

    def fill(self, group: int) -> Placed:
        """Raises DamagedDump."""
        with self._lock:
            target = self.target = self.target or self.open()
        if target is None or (isinstance(target, Making) and target.published):
            return self.whole(group)
        start = int(self.starts[group])
        room = min(self.stride, self.bytes - start)
        size = min(self.group_bytes, room)
        if isinstance(target, Making):
            region, out = target.region, self._scratch(room)
            self.write(group, out[:size])
            target.write(start, out)
            region.populate(start, room)
        else:
            region = target
            self.write(group, bytes_at(region.address + start, size))
        with self._lock:
            self._done.add(group)
            last = len(self._done) == len(self.starts)
        if last:
            self.close()
        return slice(group, group + 1), region, region.address + self.starts[group : group + 1]

    def _scratch(self, size: int) -> np.ndarray:
        """Memory of this thread, used again: fresh memory costs more than decoding into it."""
        if getattr(_thread, "scratch", None) is None or len(_thread.scratch) < size:
            _thread.scratch = np.empty(size, np.uint8)
        found: np.ndarray = _thread.scratch[:size]
        return found

    def open(self) -> Making | Region | None:
        return Region.of(np.empty(self.bytes, np.uint8))

    def close(self) -> None:
        """All row groups are there."""

    def abandon(self) -> None:
        """They never will be."""

    def whole(self, group: int) -> Placed:
        raise AssertionError("memory of this process is not filled by others")


class Publisher:
    """One thread that does what `add` is given, one after the other: not before `quiet()`, since
    hashing takes the cores that decoding needs, unless BACKLOG wait."""

    def __init__(self, quiet: Callable[[], bool]) -> None:
        self.quiet = quiet
        self._waiting: deque[Callable[[], None]] = deque()
        self._lock = threading.Lock()
        self._runs = False

    def add(self, publish: Callable[[], None]) -> None:
        with self._lock:
            self._waiting.append(publish)
            starts, self._runs = not self._runs, True
        if starts:
            threading.Thread(target=self._run, name="softlabels-publish").start()

    def _run(self) -> None:
        main = threading.main_thread()
        while True:
            while not self.quiet() and len(self._waiting) < BACKLOG and main.is_alive():
                time.sleep(LOOK_SECONDS)
            with self._lock:
                if not self._waiting:
                    self._runs = False
                    return
                publish = self._waiting.popleft()
            with suppress(Exception):  # the next ones go on; this shard is decoded again next time
                publish()


def _stride(size: int) -> int:
    """From one row group to the next: in whole huge pages where little is lost by it, so that each
    is written into the page cache, and lies there, as one piece."""
    whole = -(-size // HUGE_BYTES) * HUGE_BYTES
    return whole if whole <= MOST_PADDED * size else size


class DecodedShard(ShardRows):
    """A shard that is decoded once, into the cache where there is one, else into memory."""

    def __init__(self, reader: DumpReader, shard: int, cache: LocalCache | None) -> None:
        record, plan = reader.records[shard], reader.plan
        number = reader.numbers[shard]
        self.decoder = ShardDecoder(reader.folder, plan, number, record["rows"])
        super().__init__(record["rows"], plan.group_rows, reader.codec.row_bytes, self._decode)
        self.record, self.cache = record, cache
        self.path = reader.folder.path(record["file"])
        self.dump = str(reader.folder)
        self.kept = [one["sha256"] for one in reader.records]

    def _decode(self, group: int, out: np.ndarray) -> None:
        codec = self.decoder.codec
        self.decoder.decode(group, out.view(codec.dtype).reshape(-1, codec.classes))

    def find(self) -> Placed | None:
        """The shard's rows where they are in the cache."""
        path = self.cache and self.cache.find(self.record["sha256"], self.bytes)
        if not path:
            return None
        try:
            region = map_file(path)
        except (OSError, ValueError):  # removed at this moment
            return None
        return slice(0, len(self.starts)), region, region.address + self.starts

    def open(self) -> Making | Region | None:
        """None where another process has made it by now. Where another is at it, or the cache can't
        be written to, the rows go into memory: who waited for each other would wait for ever."""
        if self.cache is None:
            return super().open()
        if self.find() is not None:
            return None
        about = About(self.dump, self.record["file"], self.rows, self.bytes)
        return self.cache.make(self.record["sha256"], about, self.kept) or super().open()

    def whole(self, group: int) -> Placed:
        found = self.find()
        if found is None:  # it was there, and was removed: begin again
            with self._lock:
                self.target, self._done = None, set()
            return self.fill(group)
        return found

    def close(self) -> None:
        """All pages were sound. Let others have the shard once its file was hashed and the disk has
        what was decoded; nobody waits for that."""
        self.publisher.add(self._publish)

    def _publish(self) -> None:
        try:
            if sha256_of(self.path) != self.record["sha256"]:
                self.problem = DamagedDump(
                    f"{self.path} has other bytes than were written (SHA-256 differs), though its "
                    f"pages are sound; {remedy(self.decoder.folder)}"
                )
            elif isinstance(self.target, Making) and self.target.process == os.getpid():
                self.target.publish()
        except (OSError, ValueError):
            pass  # removed, abandoned, or the cache's disk fails: next time it is decoded again
        self.abandon()

    def abandon(self) -> None:
        """Let others begin it anew."""
        if isinstance(self.target, Making) and self.target.process == os.getpid():
            self.target.abandon()
