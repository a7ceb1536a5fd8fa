"""Rows of equal width, gathered at once from wherever their row groups lie in memory.

Row groups lie in mapped files and in arrays, at whatever addresses, odd ones too. All of it is
seen as one tensor of bytes that begins at the lowest address, in which a row is a start and a
length: one `index_select` then copies the rows of a batch, as it would from a single array.
N rows asked for.
"""

import ctypes
import mmap
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

MADV_POPULATE_READ = 22


@dataclass(frozen=True, eq=False)
class Region:
    """Memory that may be looked into, kept alive by `owner`."""

    owner: Any
    address: int
    size: int

    def advise(self, start: int, size: int) -> None:
        """Ask the system to read this part of a mapped file from the disk."""
        self._madvise(getattr(mmap, "MADV_WILLNEED", None), start, size)

    def expect_random(self) -> None:
        """Read only what is asked for from the disk, nothing around it."""
        self._madvise(getattr(mmap, "MADV_RANDOM", None), 0, self.size)

    def populate(self, start: int, size: int) -> None:
        """Map the pages of this part now, where the system can (Linux 5.14): one call for what
        would be a fault every 64 KiB in the thread that reads."""
        self._madvise(MADV_POPULATE_READ if sys.platform == "linux" else None, start, size)

    def _madvise(self, advice: int | None, start: int, size: int) -> None:
        if isinstance(self.owner, mmap.mmap) and advice is not None:
            first = start // mmap.PAGESIZE * mmap.PAGESIZE
            with suppress(OSError):
                self.owner.madvise(advice, first, start + size - first)

    @classmethod
    def of(cls, owner: np.ndarray | mmap.mmap) -> "Region":
        seen = np.frombuffer(owner, np.uint8)
        return cls(owner, seen.ctypes.data, seen.size)


def bytes_at(address: int, size: int) -> np.ndarray:
    """Memory as uint8 [size]. The caller keeps it alive, and looks at nothing else in between."""
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))


@dataclass(frozen=True)
class _View:
    """The bytes from the lowest address on, as overlapping rows, and for each row group where its
    rows would begin if they were numbered from 0."""

    bytes: Tensor
    origins: np.ndarray
    base: int


@dataclass
class RowGroups:
    """The row groups of a dump in their order, and the address of each, 0 where it is not here.

    shard_rows: rows in each shard; a shard's row groups have `group_rows` rows but for its last.
    """

    shard_rows: Sequence[int]
    group_rows: int
    row_bytes: int
    regions: list[Region] = field(default_factory=list)

    def __post_init__(self) -> None:
        rows = np.asarray(self.shard_rows, np.int64)
        groups = -(-rows // self.group_rows)
        self.first_rows = np.concatenate([[0], np.cumsum(rows)])
        self.first_groups = np.concatenate([[0], np.cumsum(groups)])
        self.addresses = np.zeros(self.first_groups[-1], np.int64)
        # as if each shard began with a full row group: a row's group is then one division away
        padding = self.first_groups[:-1] * self.group_rows - self.first_rows[:-1]
        self._padding = padding if padding.any() else None
        self._view: _View | None = None

    def __len__(self) -> int:
        return len(self.addresses)

    @property
    def row_bounds(self) -> np.ndarray:
        """The row at which each row group begins, and the end, int64 [groups + 1]."""
        starts = [
            np.arange(first, first + rows, self.group_rows)
            for first, rows in zip(self.first_rows, self.shard_rows, strict=False)
        ]
        return np.concatenate([*starts, self.first_rows[-1:]])

    def of_shard(self, shard: int) -> range:
        return range(self.first_groups[shard], self.first_groups[shard + 1])

    def shard_of(self, group: int) -> int:
        return int(np.searchsorted(self.first_groups, group, side="right")) - 1

    def bounds(self, group: int) -> tuple[int, int]:
        """The rows [start, stop) of a row group, counted from the start of its shard."""
        shard = self.shard_of(group)
        start = (group - int(self.first_groups[shard])) * self.group_rows
        return start, min(start + self.group_rows, int(self.shard_rows[shard]))

    def place(self, groups: range, addresses: np.ndarray, region: Region) -> None:
        """Say where these row groups lie, from now on."""
        if region not in self.regions:
            self.regions.append(region)
        self.addresses[groups.start : groups.stop] = addresses
        self._view = None

    @property
    def all_here(self) -> bool:
        return bool(self.addresses.all())

    def bytes_of(self, group: int) -> np.ndarray:
        """A row group's bytes where they lie, uint8 [rows · row_bytes]."""
        start, stop = self.bounds(group)
        return bytes_at(int(self.addresses[group]), (stop - start) * self.row_bytes)

    def absent(self, rows: np.ndarray) -> np.ndarray:
        """The row groups of these rows that are not here."""
        groups = self._padded(rows) // self.group_rows
        return np.unique(groups[self.addresses[groups] == 0])

    def gather(self, rows: np.ndarray) -> Tensor:
        """The bytes of these rows, uint8 [N, row_bytes]; their row groups must be here."""
        view = self._view or self._look()
        padded = self._padded(rows)
        starts = view.origins[padded // self.group_rows]
        starts += padded * self.row_bytes
        return view.bytes.index_select(0, torch.from_numpy(starts))

    def advise(self, rows: np.ndarray) -> None:
        """Ask the system to read what is mapped of these rows, ascending, into memory. Does not
        wait."""
        view = self._view or self._look()
        padded = self._padded(rows)
        starts = view.base + view.origins[padded // self.group_rows] + padded * self.row_bytes
        ends = starts + self.row_bytes
        breaks = np.flatnonzero(starts[1:] != ends[:-1])
        runs = zip(starts[np.append(0, breaks + 1)], ends[np.append(breaks, -1)], strict=True)
        for start, end in runs:
            for region in self.regions:
                if region.address <= start < region.address + region.size:
                    region.advise(int(start) - region.address, int(end - start))

    def _padded(self, rows: np.ndarray) -> np.ndarray:
        if self._padding is None:
            return rows
        return rows + self._padding[np.searchsorted(self.first_rows, rows, side="right") - 1]

    def _look(self) -> _View:
        addresses = self.addresses.copy()  # first: others may add regions, and then place groups
        base = min(region.address for region in self.regions)
        span = max(region.address + region.size for region in self.regions) - base
        rows = torch.from_numpy(bytes_at(base, span)).as_strided(
            (span - self.row_bytes + 1, self.row_bytes), (1, 1)
        )
        before = np.arange(len(self)) * (self.group_rows * self.row_bytes)
        view = _View(rows, addresses - base - before, base)
        if addresses.all():  # else more are to come
            self._view = view
        return view
