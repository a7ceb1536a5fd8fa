"""Rows of equal width, gathered by one call from row groups that lie anywhere in memory.

Row groups lie in mapped files and in arrays, at any address, aligned or not. We view all of it as
one tensor of bytes that begins at the lowest address, with a row at every byte. One `index_select`
then copies the rows of a batch, as from a single array. N rows asked for.
"""

import ctypes
import mmap
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from softlabels.store.bands import group_count, group_sizes

TABLE_ROWS = 1 << 20  # 8 MB of starts


@dataclass(frozen=True, eq=False)
class Region:
    """Memory that may be read, kept alive by `owner`."""

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
    """Memory as uint8 [size], not copied. The caller keeps alive what it reads of it."""
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))


@dataclass(frozen=True)
class _View:
    """The bytes from the lowest address on, as overlapping rows, and for each row group where the
    dump's first row would lie, did all rows before the group's own lie in front of it.

    bounds: `row_bounds`; is_even: whether all row groups but the last are full, so that a row's
    group is one division away; starts: where each row begins, unless there are too many
    """

    bytes: Tensor
    origins: np.ndarray
    base: int
    bounds: np.ndarray
    is_even: bool
    starts: np.ndarray | None


@dataclass
class RowGroups:
    """The row groups of a dump in their order, and the address of each, once it was placed.

    shard_rows: rows in each shard; a shard's row groups have `group_rows` rows, but for its last
    ones, one for each of so many `views`.
    """

    shard_rows: Sequence[int]
    group_rows: int
    row_bytes: int
    views: int = 1
    regions: list[Region] = field(default_factory=list)

    def __post_init__(self) -> None:
        rows = np.asarray(self.shard_rows, np.int64)
        groups = [group_count(count, self.group_rows, self.views) for count in self.shard_rows]
        self.first_rows = np.concatenate([[0], np.cumsum(rows)])
        self.first_groups = np.concatenate([[0], np.cumsum(groups)])
        self.addresses = np.zeros(self.first_groups[-1], np.int64)
        self._view: _View | None = None

    def __len__(self) -> int:
        return len(self.addresses)

    @property
    def row_bounds(self) -> np.ndarray:
        """The row at which each row group begins, and the end, int64 [groups + 1].

        Computed when it is needed: a hostile manifest may promise any number of rows.
        """
        sizes = [group_sizes(count, self.group_rows, self.views) for count in self.shard_rows]
        return np.cumsum(np.concatenate([np.zeros(1, np.int64), *sizes]))

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
        starts = view.starts[rows] if view.starts is not None else self._starts(rows, view)
        return view.bytes.index_select(0, torch.from_numpy(starts))

    def advise(self, rows: np.ndarray) -> None:
        """Ask the system to read these rows (ascending) from mapped files into memory. Does not
        wait."""
        view = self._view or self._look()
        starts = view.base + self._starts(rows, view)
        ends = starts + self.row_bytes
        breaks = np.flatnonzero(starts[1:] != ends[:-1])
        runs = zip(starts[np.append(0, breaks + 1)], ends[np.append(breaks, -1)], strict=True)
        for start, end in runs:
            for region in self.regions:
                if region.address <= start < region.address + region.size:
                    region.advise(int(start) - region.address, int(end - start))

    def _starts(self, rows: np.ndarray, view: _View) -> np.ndarray:
        """Where each of these rows begins, from the lowest address on."""
        if view.is_even:
            groups = rows // self.group_rows
        else:
            groups = np.searchsorted(view.bounds, rows, side="right") - 1
        starts: np.ndarray = view.origins[groups]
        starts += rows * self.row_bytes
        return starts

    def _look(self) -> _View:
        assert self.addresses.all(), "every shard was placed"
        base = min(region.address for region in self.regions)
        span = max(region.address + region.size for region in self.regions) - base
        rows = torch.from_numpy(bytes_at(base, span)).as_strided(
            (span - self.row_bytes + 1, self.row_bytes), (1, 1)
        )
        bounds = self.row_bounds
        # a row then begins at origins[its group] + row · row_bytes: no subtraction for each batch
        origins = self.addresses - base - bounds[:-1] * self.row_bytes
        is_even = bool((np.diff(bounds[:-1]) == self.group_rows).all())
        view = _View(rows, origins, base, bounds, is_even, None)
        if bounds[-1] <= TABLE_ROWS:  # a look-up is a fifth of the arithmetic
            view = replace(view, starts=self._starts(np.arange(bounds[-1]), view))
        self._view = view
        return view
