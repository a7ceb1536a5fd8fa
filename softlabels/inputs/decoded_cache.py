"""Decoded inputs, made once and mapped from a file of the local cache: pictures, and numbers.

    PLACE/decoded/KEY/about.json     of which data
    PLACE/decoded/KEY/inputs         the inputs, [rows, …], one after the other
    PLACE/decoded/KEY/checks.npy     CRC-32s, uint32: of each picture, of numbers one of many rows;
                                     written last

KEY tells the input hashes of the rows, in their order, what makes pixels of them (the steps on
pictures, what decodes and resizes them; nothing for numbers) and the type, so that the files that
held the inputs don't matter. One process fills a file while it trains, others decode for themselves
until it is whole. A whole file is only read, but where a damaged row is mended, so that it serves
from a cache without write permission. Shapes: N rows asked for.
"""

import hashlib
import json
import mmap
import os
import shutil
import time
import warnings
import weakref
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import IO

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from softlabels.errors import DiskFull
from softlabels.inputs.preprocess import Preprocess
from softlabels.inputs.rendering import DECODER
from softlabels.models.named import row_bytes
from softlabels.system.cache import LocalCache, hold
from softlabels.system.humanize import size_words
from softlabels.system.local_files import appearing, is_full, sync_directory
from softlabels.system.memory import shared
from softlabels.system.progress import Progress

VERSION = 2  # of the files; another number is another key
FILE, CHECKS, ABOUT, PARTIAL = "inputs", "checks.npy", "about.json", ".inputs.partial"
LIBRARIES = "torch", "pillow", "simplejpeg"  # which decide pixels
WRITTEN_BYTES = 4 << 20
CHECKED_BYTES = 1 << 20  # of numbers at a time: a check a row would cost as much as a hash


@dataclass(frozen=True)
class Layout:
    """What a file holds: how many rows, of which shape and type, and how many of them have one
    check."""

    count: int
    shape: tuple[int, ...]
    dtype: np.dtype
    per_check: int

    @property
    def row_bytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    @property
    def size(self) -> int:
        return self.count * self.row_bytes

    @property
    def checks(self) -> int:
        return -(-self.count // self.per_check)


class DecodedFile:
    """Inputs in a mapped file, which processes share.

    memory: the inputs, [rows, …]; read-only where the file is whole. checks: CRC-32s, uint32, in
    memory that forks share. lock: this process's right to fill the file; None where it is whole
    """

    def __init__(
        self, place: Path, area: mmap.mmap, rows: Layout, checks: np.ndarray, lock: FileLock | None
    ) -> None:
        self.place, self.area, self.rows, self.checks, self.lock = place, area, rows, checks, lock
        self.memory = np.frombuffer(area, rows.dtype).reshape(rows.count, *rows.shape)
        hold(place, self)
        self._leave = weakref.finalize(self, _leave, place, lock, os.getpid())

    @property
    def is_whole(self) -> bool:
        """Whether all inputs were there when it was opened."""
        return self.lock is None

    @property
    def values(self) -> Tensor:
        """The memory as a tensor, rows of several columns as their bytes."""
        with warnings.catch_warnings():  # of memory that must not be written to: nothing does
            warnings.simplefilter("ignore", UserWarning)
            return torch.from_numpy(row_bytes(self.memory))

    def wrong(self, rows: np.ndarray) -> np.ndarray:
        """Those of these rows whose check is not that of what was written."""
        runs = rows // self.rows.per_check
        bad = [run for run in np.unique(runs).tolist() if self._check(run) != self.checks[run]]
        return rows[np.isin(runs, bad)] if bad else rows[:0]

    def run_of(self, rows: np.ndarray) -> np.ndarray:
        """All rows that have a check in common with one of these."""
        each = self.rows.per_check
        starts = np.unique(rows // each) * each
        whole = (starts[:, None] + np.arange(each)).reshape(-1)
        return whole[whole < self.rows.count]

    def write(self, rows: np.ndarray, values: np.ndarray) -> None:
        """Fill in these rows."""
        self.memory[rows] = values
        if self.rows.per_check == 1:
            for row in rows.tolist():
                self.checks[row] = self._check(row)

    def mend(self, rows: np.ndarray, values: np.ndarray) -> bool:
        """Write rows of a whole file again; whether all of them could be, and are what was written
        first or have a check of their own."""
        if self.rows.per_check > 1:
            return self._mend(rows, values) and not len(self.wrong(rows))
        if not self._mend(rows, values):
            return False
        for row in rows.tolist():  # where the check was what was damaged
            self.checks[row] = self._check(row)
        return True

    def _mend(self, rows: np.ndarray, values: np.ndarray) -> bool:
        try:
            with open(self.place / FILE, "r+b", 0) as file:
                for row, value in zip(rows.tolist(), np.ascontiguousarray(values), strict=True):
                    file.seek(row * self.rows.row_bytes)
                    file.write(value.tobytes())
        except OSError:  # a cache that may only be read
            return False
        return True

    def _check(self, run: int) -> int:
        each = self.rows.per_check
        return zlib.crc32(row_bytes(self.memory[run * each : (run + 1) * each]).reshape(-1).data)

    def read_ahead(self, rows: np.ndarray) -> None:
        """Ask the system for the pages of these rows all at once: one fault after the other would
        wait for the disk as often."""
        size = self.rows.row_bytes
        if hasattr(mmap, "MADV_WILLNEED") and size >= mmap.PAGESIZE:
            for row in rows.tolist():
                start = row * size // mmap.PAGESIZE * mmap.PAGESIZE
                self.area.madvise(mmap.MADV_WILLNEED, start, (row + 1) * size - start)

    def finish(self) -> None:
        """All rows have been written. The checks take their name last, once the inputs are on the
        disk: their existence means that both are whole."""
        if self.lock is None:
            return
        with suppress(OSError):  # the memory serves on, and the next run begins anew
            if self.rows.per_check > 1:
                self.checks[:] = [self._check(run) for run in range(self.rows.checks)]
            self.area.flush()
            _name(self.place, self.checks)
        self.lock.release()
        self._leave.detach()

    def leave(self) -> None:
        """Give up filling it: others may."""
        self._leave()


def _name(place: Path, checks: np.ndarray) -> None:
    """Of a file that is written and flushed."""
    os.replace(place / PARTIAL, place / FILE)
    sync_directory(str(place))
    with appearing(place / CHECKS) as file:
        np.save(file, checks)


def _leave(place: Path, lock: FileLock | None, process: int) -> None:
    """Remove what was not finished, for its room on the disk."""
    if lock is not None and process == os.getpid():
        with suppress(OSError):
            os.unlink(place / PARTIAL)
        lock.release()


class DecodedCache:
    """The decoded inputs of certain rows, as the cache has them or could have them.

    hashes: the input hashes of the rows, uint64 [rows]; first: one decoded input, [1, …];
    preprocess: what makes pixels of pictures; None for numbers, which are what was hashed
    """

    def __init__(
        self,
        cache: LocalCache,
        name: str,
        preprocess: Preprocess | None,
        hashes: np.ndarray,
        first: np.ndarray,
        progress: Progress,
    ) -> None:
        self.cache, self.name, self.progress = cache, name, progress
        self.what = "numbers" if preprocess is None else "pictures"
        each = 1 if preprocess is not None else max(1, CHECKED_BYTES // max(1, first.nbytes))
        self.rows = Layout(len(hashes), first.shape[1:], first.dtype, each)
        how = None if preprocess is None else [
            "|".join(map(str, preprocess.left)), DECODER, list(map(version, LIBRARIES)),
        ]  # fmt: skip
        kind = [self.rows.count, self.rows.shape, str(first.dtype.descr), each]
        digest = hashlib.sha256(json.dumps([VERSION, how, kind]).encode())
        digest.update(hashes.astype("<u8").tobytes())
        self.place = cache.place / "decoded" / digest.hexdigest()[:32]

    def open(self, anew: bool = False) -> DecodedFile | None:
        """What is there, else a file to be filled by this process alone; None while another process
        fills it, and with a warning where there is no room.

        anew: whether what is there may not be used
        """
        whole = None if anew else self.whole()
        if whole is not None or not hasattr(os, "posix_fallocate"):
            return whole
        return self._locked(self._begin, self._warn, anew)

    def save(self, memory: np.ndarray, goes_on: Callable[[], bool]) -> None:
        """Write inputs that lie in memory, all of them and right, to the file, unless another
        process does or did, or there is no room.

        goes_on: asked between parts; where not, the rest is left out
        """
        if self.whole() is None:
            self._locked(lambda lock: self._save(memory, goes_on, lock), lambda why: None)

    def whole(self) -> DecodedFile | None:
        """What is there already; None where it is not whole."""
        checks = shared(self.rows.checks, np.dtype(np.uint32), ())
        try:
            checks[:] = np.load(self.place / CHECKS, allow_pickle=False)
            with open(self.place / FILE, "rb") as file:
                if os.fstat(file.fileno()).st_size != self.rows.size:
                    return None
                area = mmap.mmap(file.fileno(), self.rows.size, access=mmap.ACCESS_READ)
        except (OSError, ValueError, EOFError):
            return None
        with suppress(OSError):  # of a cache that may only be read
            os.utime(self.place / ABOUT, (time.time(),) * 2)
        return DecodedFile(self.place, area, self.rows, checks, None)

    def _locked(
        self,
        work: Callable[[FileLock], DecodedFile | None],
        fail: Callable[[object], None],
        anew: bool = False,
    ) -> DecodedFile | None:
        """Do this as the only process that does, unless it was done by then. What it returns keeps
        the lock."""
        lock = FileLock(f"{self.place}.lock", timeout=0, thread_local=False)
        try:
            os.makedirs(self.place, exist_ok=True)
            lock.acquire()
            hold(self.place, lock)  # before it is an entry, which another process might remove
            return (None if anew else self.whole()) or work(lock)
        except Timeout:
            return None
        except (DiskFull, OSError) as error:
            if lock.is_locked:  # else another process may have its inputs there
                shutil.rmtree(self.place, ignore_errors=True)
            lock.release()
            fail("the disk is full" if is_full(error) else error)
            return None

    def _warn(self, why: object) -> None:
        self.progress.say(
            f"warning: the {self.rows.count:,} {self.what} are decoded again in each epoch: "
            f"decoded they take {size_words(self.rows.size)}, which fit neither the memory nor the "
            f"cache: {why}"
        )

    def _begin(self, lock: FileLock) -> DecodedFile:
        with self._new() as file:
            # a page without room on the disk would kill whoever writes to it
            os.posix_fallocate(file.fileno(), 0, self.rows.size)
            area = mmap.mmap(file.fileno(), self.rows.size)
        self.progress.say(
            f"decoded {self.what} take {size_words(self.rows.size)}, more than the memory has for "
            f"them: they are kept in {self.place}"
        )
        checks = shared(self.rows.checks, np.dtype(np.uint32), ())
        return DecodedFile(self.place, area, self.rows, checks, lock)

    def _save(self, memory: np.ndarray, goes_on: Callable[[], bool], lock: FileLock) -> None:
        content = row_bytes(memory).reshape(-1).view(np.uint8).data
        size = self.rows.per_check * self.rows.row_bytes
        runs = (content[start : start + size] for start in range(0, len(content), size))
        try:
            checks = np.fromiter(map(zlib.crc32, runs), np.uint32, self.rows.checks)
            with self._new() as file:
                # in large parts, which the page cache then holds in large pages
                for start in range(0, len(content), WRITTEN_BYTES):
                    if not goes_on():
                        return
                    file.write(content[start : start + WRITTEN_BYTES])
                file.flush()
                os.fsync(file.fileno())
            _name(self.place, checks)
        finally:
            _leave(self.place, lock, os.getpid())

    def _new(self) -> IO[bytes]:
        for name in (CHECKS, FILE, PARTIAL):  # of a process that was killed
            with suppress(FileNotFoundError):
                os.unlink(self.place / name)
        what = f"decoded {self.what} of {self.name}"
        self.cache.make_room(self.rows.size, what, [str(self.place)])
        with appearing(self.place / ABOUT) as about:
            about.write(
                json.dumps({"decoded": what, "shape": [self.rows.count, *self.rows.shape]}).encode()
            )
        return open(self.place / PARTIAL, "w+b")
