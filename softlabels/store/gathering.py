"""Rows of equal width, gathered at once from wherever their row groups lie in memory.

Row groups lie in mapped files and in arrays, at whatever addresses, odd ones too. All of it is
seen as one tensor of bytes that begins at the lowest address, in which a row is a start and a
length: one `index_select` then copies the rows of a batch, as it would from a single array.
N rows asked for.
"""

import ctypes
import mmap
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from softlabels.store.bands import group_sizes


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
    """The bytes from the lowest address on, as overlapping rows, and for each row group where the
    dump's first row would lie, did all rows before the group's own lie in front of it."""

    bytes: Tensor
    origins: np.ndarray
    base: int


@dataclass
class RowGroups:
    """The row groups of a dump in their order, and the address of each, once it was placed.

    shard_rows: rows in each shard; a shard's row groups have `group_rows` rows, but for its last
    ones, one for each of so many `views`.
    row_bounds: the row at which each row group begins, and the end, int64 [groups + 1].
    """

    shard_rows: Sequence[int]
    group_rows: int
    row_bytes: int
    views: int = 1
    regions: list[Region] = field(default_factory=list)

    def __post_init__(self) -> None:
        rows = np.asarray(self.shard_rows, np.int64)
        sizes = [group_sizes(count, self.group_rows, self.views) for count in self.shard_rows]
        groups = [len(some) for some in sizes]
        self.first_rows = np.concatenate([[0], np.cumsum(rows)])
        self.first_groups = np.concatenate([[0], np.cumsum(groups)])
        self.addresses = np.zeros(self.first_groups[-1], np.int64)
        self.row_bounds = np.cumsum(np.concatenate([np.zeros(1, np.int64), *sizes]))
        # where all groups but the last are full, a row's group is one division away
        self._is_even = bool((np.diff(self.row_bounds[:-1]) == self.group_rows).all())
        self._view: _View | None = None

    def __len__(self) -> int:
        return len(self.addresses)

    def of_shard(self, shard: int) -> range:
        return range(self.first_groups[shard], self.first_groups[shard + 1])

    def shard_of(self, group: int) -> int:
        return int(np.searchsorted(self.first_groups, group, side="right")) - 1

    def place(self, shard: int, addresses: np.ndarray, region: Region) -> None:
        """Say where a shard's row groups lie; before any row is gathered."""
        self.regions.append(region)
        self.addresses[self.first_groups[shard] : self.first_groups[shard + 1]] = addresses

    def gather(self, rows: np.ndarray) -> Tensor:
        """The bytes of these rows, uint8 [N, row_bytes]."""
        view = self._view or self._look()
        starts = view.origins[self._groups_of(rows)]
        starts += rows * self.row_bytes
        return view.bytes.index_select(0, torch.from_numpy(starts))

    def advise(self, rows: np.ndarray) -> None:
        """Ask the system to read what is mapped of these rows, ascending, into memory. Does not
        wait."""
        view = self._view or self._look()
        starts = view.base + view.origins[self._groups_of(rows)] + rows * self.row_bytes
        ends = starts + self.row_bytes
        breaks = np.flatnonzero(starts[1:] != ends[:-1])
        runs = zip(starts[np.append(0, breaks + 1)], ends[np.append(breaks, -1)], strict=True)
        for start, end in runs:
            for region in self.regions:
                if region.address <= start < region.address + region.size:
                    region.advise(int(start) - region.address, int(end - start))

    def _groups_of(self, rows: np.ndarray) -> np.ndarray:
        """The row group in which each row lies."""
        if self._is_even:
            return rows // self.group_rows
        return np.searchsorted(self.row_bounds, rows, side="right") - 1

    def _look(self) -> _View:
        assert self.addresses.all(), "every shard was placed"
        base = min(region.address for region in self.regions)
        span = max(region.address + region.size for region in self.regions) - base
        rows = torch.from_numpy(bytes_at(base, span)).as_strided(
            (span - self.row_bytes + 1, self.row_bytes), (1, 1)
        )
        before = self.row_bounds[:-1] * self.row_bytes
        self._view = _View(rows, self.addresses - base - before, base)
        return self._view
