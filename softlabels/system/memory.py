"""How much memory this process may still take, and memory that processes share."""

import mmap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import torch

V2 = "memory.max", "memory.current", ("inactive_file", "active_file")
V1 = (
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    ("total_inactive_file", "total_active_file"),
)

# what errors say; the last is of CUDA's libraries
FULL = (
    "out of memory", "can't allocate memory", "not enough memory", "Cannot allocate memory",
    "bad_alloc", "STATUS_ALLOC_FAILED",
)  # fmt: skip


def is_known_out_of_memory(error: BaseException) -> bool:
    """Whether it is the error that Python or torch has for memory that is full."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of Python's, of torch's or of another library says that memory is full."""
    return is_known_out_of_memory(error) or any(sign in str(error) for sign in FULL)


def free_memory() -> int:
    """Free bytes of the machine or of this process's control group (a container, a cluster job),
    whichever is less. The page cache counts as free."""
    return min([psutil.virtual_memory().available, *group_memory()])


def group_memory(root: Path = Path("/")) -> Iterator[int]:
    """Free bytes of each control group that limits this process: Linux, cgroup v1 and v2."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, place = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top, names = (
            (root / "sys/fs/cgroup/memory", V1) if controllers else (root / "sys/fs/cgroup", V2)
        )
        group = top / place.lstrip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(top):
                yield from _free(folder, *names)


def _free(folder: Path, limit: str, usage: str, cache: tuple[str, ...]) -> Iterator[int]:
    try:
        most = int((folder / limit).read_text())  # "max" is none
        used = int((folder / usage).read_text())
        counts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return
    yield max(0, most - used + sum(int(counts.get(name, 0)) for name in cache))


def shared(rows: int, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """Zeros that this process shares with those that it forks."""
    size = rows * int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    return np.frombuffer(mmap.mmap(-1, max(1, size)), dtype)[: size // dtype.itemsize].reshape(
        rows, *shape
    )
