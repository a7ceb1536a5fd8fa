"""Decoded pictures that don't fit into memory, made once and mapped from a file of the local cache.

    PLACE/pictures/KEY/about.json     of which data
    PLACE/pictures/KEY/pictures.u8    the pictures, uint8 [rows, C, H, W], one after the other
    PLACE/pictures/KEY/checks.npy     the CRC-32 of each, uint32 [rows]; written last

KEY tells the input hashes of the rows, in their order, the steps on pictures and what decodes and
resizes them, so that the files that held the pictures don't matter. One process makes them while it
trains, others decode for themselves until they are whole. Shapes: N rows asked for.
"""

import hashlib
import json
import mmap
import os
import shutil
import time
import weakref
import zlib
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from softlabels.errors import DiskFull
from softlabels.inputs.preprocess import Preprocess
from softlabels.inputs.rendering import DECODER
from softlabels.system.cache import LocalCache, hold
from softlabels.system.humanize import size_words
from softlabels.system.local_files import appearing, is_full, sync_directory
from softlabels.system.progress import Progress

LAYOUT = 1  # of the files; another number is another key
FILE, CHECKS, ABOUT, PARTIAL = "pictures.u8", "checks.npy", "about.json", ".pictures.u8.partial"
LIBRARIES = "torch", "pillow", "simplejpeg"  # which decide pixels


class PictureFile:
    """Pictures in a mapped file, which processes share.

    memory: the pictures, uint8 [rows, C, H, W]. checks: the CRC-32 of each, uint32 [rows]. lock:
    this process's right to fill the file; None where it is whole
    """

    def __init__(
        self,
        place: Path,
        area: mmap.mmap,
        shape: tuple[int, ...],
        checks: np.ndarray,
        lock: FileLock | None = None,
    ) -> None:
        self.place, self.area, self.checks, self.lock = place, area, checks, lock
        self.memory = np.frombuffer(area, np.uint8).reshape(shape)
        hold(place, self)
        self._leave = weakref.finalize(self, _leave, place, lock, os.getpid())

    @property
    def is_whole(self) -> bool:
        """Whether all pictures were there when it was opened."""
        return self.lock is None

    def wrong(self, rows: np.ndarray) -> np.ndarray:
        """Those of these rows that are not what was written."""
        return np.array([row for row in rows.tolist() if self._check(row) != self.checks[row]], int)

    def write(self, rows: np.ndarray, values: np.ndarray) -> None:
        self.memory[rows] = values
        for row in rows.tolist():
            self.checks[row] = self._check(row)

    def _check(self, row: int) -> int:
        return zlib.crc32(self.memory[row].reshape(-1).data)

    def read_ahead(self, rows: np.ndarray) -> None:
        """Ask the system for the pages of these rows all at once: one fault after the other would
        wait for the disk as often."""
        if hasattr(mmap, "MADV_WILLNEED"):
            size = self.memory[:1].nbytes
            for row in rows.tolist():
                start = row * size // mmap.PAGESIZE * mmap.PAGESIZE
                self.area.madvise(mmap.MADV_WILLNEED, start, (row + 1) * size - start)

    def finish(self) -> None:
        """All rows have been written. The checks take their name last, once the pictures are on the
        disk: their existence means that both are whole."""
        if self.lock is None:
            return
        with suppress(OSError):  # the memory serves on, and the next run begins anew
            self.area.flush()
            os.replace(self.place / PARTIAL, self.place / FILE)
            sync_directory(str(self.place))
            with appearing(self.place / CHECKS) as file:
                np.save(file, self.checks)
        self.lock.release()
        self._leave.detach()

    def leave(self) -> None:
        """Give up filling it: others may."""
        self._leave()


def _leave(place: Path, lock: FileLock | None, process: int) -> None:
    """Remove what was not finished, for its room on the disk."""
    if lock is not None and process == os.getpid():
        with suppress(OSError):
            os.unlink(place / PARTIAL)
        lock.release()


class PictureCache:
    """The pictures of certain rows, as the cache has them or could have them.

    hashes: the input hashes of the rows, uint64 [rows]; shape: [C, H, W] of a picture
    """

    def __init__(
        self,
        cache: LocalCache,
        name: str,
        preprocess: Preprocess,
        hashes: np.ndarray,
        shape: tuple[int, ...],
        progress: Progress,
    ) -> None:
        self.cache, self.name, self.progress = cache, name, progress
        self.shape = len(hashes), *shape
        steps = "|".join(map(str, preprocess.left))
        known = [LAYOUT, steps, DECODER, list(map(version, LIBRARIES)), self.shape]
        digest = hashlib.sha256(json.dumps(known).encode())
        digest.update(hashes.astype("<u8").tobytes())
        self.place = cache.place / "pictures" / digest.hexdigest()[:32]

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    def open(self, checks: np.ndarray) -> PictureFile | None:
        """What is there, else a file to be filled by this process alone; None while another process
        fills it, and with a warning where there is no room.

        checks: where the checks are to be kept, uint32 [rows], in memory that forks share
        """
        whole = self.whole(checks)
        if whole is not None or not hasattr(os, "posix_fallocate"):
            return whole
        lock = FileLock(f"{self.place}.lock", timeout=0, thread_local=False)
        try:
            os.makedirs(self.place, exist_ok=True)
            lock.acquire()
            hold(self.place, lock)  # before it is an entry, which another process might remove
            return self.whole(checks) or self._begin(checks, lock)
        except Timeout:
            return None
        except (DiskFull, OSError) as error:
            if lock.is_locked:  # else another process may have its pictures there
                shutil.rmtree(self.place, ignore_errors=True)
            lock.release()
            why = "the disk is full" if is_full(error) else error
            self.progress.say(
                f"warning: the {self.shape[0]:,} pictures are decoded again in each epoch: decoded "
                f"they take {size_words(self.size)}, which fit neither the memory nor the cache: "
                f"{why}"
            )
            return None

    def whole(self, checks: np.ndarray) -> PictureFile | None:
        """What is there already; None where it is not whole."""
        try:
            checks[:] = np.load(self.place / CHECKS, allow_pickle=False)
            with open(self.place / FILE, "r+b") as file:  # a damaged row is mended in it
                if os.fstat(file.fileno()).st_size != self.size:
                    return None
                area = mmap.mmap(file.fileno(), self.size)
            os.utime(self.place / ABOUT, (time.time(),) * 2)
        except (OSError, ValueError, EOFError):
            return None
        return PictureFile(self.place, area, self.shape, checks)

    def _begin(self, checks: np.ndarray, lock: FileLock) -> PictureFile:
        for name in (CHECKS, FILE, PARTIAL):  # of a process that was killed
            with suppress(FileNotFoundError):
                os.unlink(self.place / name)
        self.cache.make_room(self.size, f"decoded pictures of {self.name}", [str(self.place)])
        with appearing(self.place / ABOUT) as about:
            about.write(json.dumps({"pictures": self.name, "shape": self.shape}).encode())
        with open(self.place / PARTIAL, "w+b") as file:
            # a page without room on the disk would kill whoever writes to it
            os.posix_fallocate(file.fileno(), 0, self.size)
            area = mmap.mmap(file.fileno(), self.size)
        self.progress.say(
            f"decoded pictures take {size_words(self.size)}, more than the memory has for them: "
            f"they are kept in {self.place}"
        )
        return PictureFile(self.place, area, self.shape, checks, lock)
