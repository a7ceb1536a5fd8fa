"""Files put out of the page cache, and read into it again. Linux."""

import ctypes
import mmap
import os
from contextlib import suppress
from pathlib import Path

import numpy as np

PIECE_BYTES = 8 << 20
HUGEPAGE, POPULATE_READ = 14, 22  # of madvise


def files_of(place: Path) -> list[Path]:
    return [place] if place.is_file() else sorted(p for p in place.rglob("*") if p.is_file())


def drop(place: Path) -> float:
    """Put these files out of it; the share of their pages that stayed. Mapped pages stay."""
    stayed = total = 0
    for path in files_of(place):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        here = _resident(path)
        stayed, total = stayed + int(here.sum()), total + len(here)
    return stayed / max(1, total)


def read_again(place: Path) -> None:
    """Read from the disk, once through, into huge pages as far as the system has them.

    The kernel keeps a file in larger or smaller pieces, as it was written or read; rows gathered
    from files that were written in small pieces come a fifth more slowly. So all are read alike.
    """
    drop(place)
    for path in files_of(place):
        with path.open("rb", buffering=0) as file:
            if size := path.stat().st_size:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
                with suppress(OSError):  # an older kernel has no such advice
                    mapped.madvise(HUGEPAGE)
                    for start in range(0, size, PIECE_BYTES):
                        mapped.madvise(POPULATE_READ, start, min(PIECE_BYTES, size - start))
            while file.read(PIECE_BYTES):  # where it was no use, and else quick
                pass


def _resident(path: Path) -> np.ndarray:
    """1 for each page of a file that is in memory."""
    size = path.stat().st_size
    pages = np.zeros(-(-size // mmap.PAGESIZE), np.uint8)
    if size:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        start = ctypes.byref((ctypes.c_char * size).from_buffer(mapped))
        where = pages.ctypes.data_as(ctypes.c_void_p)
        assert ctypes.CDLL(None).mincore(start, ctypes.c_size_t(size), where) == 0
    return pages & 1
