"""The order of an epoch: a function of (seed, epoch) alone, never of machines or workers.

none                 as stored
full                 a permutation of all rows; 8 bytes of memory a row
blocks(64, 512)      blocks of 64 neighbours in random order; the rows of 512 blocks at a time
                     are mixed. For files larger than memory: reads are long, and a batch draws
                     from as many blocks as it has rows
blocks               the same with row groups as blocks, 16 at a time: what streaming does
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from softlabels.errors import UsageError
from softlabels.spec import parse_pipeline

HELD_GROUPS = 16


def permutation(rows: int, seed: int, epoch: int) -> np.ndarray:
    """A random order, int64 [rows]: a function of its arguments alone."""
    return np.random.default_rng([seed, epoch]).permutation(rows)


@dataclass(frozen=True)
class Order:
    """`part(start, stop)` are the rows at these positions of the epoch.

    text: one of the words above. bounds: where each row group begins, and the end, int64.
    """

    text: str
    bounds: np.ndarray
    seed: int = 0
    epoch: int = 0

    def __post_init__(self) -> None:
        parse_order(self.text)

    def __reduce__(self) -> tuple:
        return Order, (self.text, self.bounds, self.seed, self.epoch)

    def __len__(self) -> int:
        return int(self.bounds[-1])

    def part(self, start: int, stop: int) -> np.ndarray:
        """int64 [stop − start]."""
        if self.text == "none":
            return np.arange(start, stop)
        if self.text == "full":
            return self._permutation[start:stop]
        first = int(np.searchsorted(self.window_starts, start, side="right")) - 1
        last = int(np.searchsorted(self.window_starts, stop, side="left"))
        pieces = []
        for window in range(first, last):
            begin = int(self.window_starts[window])
            pieces.append(self._windows(window)[max(0, start - begin) : stop - begin])
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    @cached_property
    def window_starts(self) -> np.ndarray:
        """The position at which each window of mixed blocks begins, and the end."""
        if self.text in ("none", "full"):
            return np.array([0, len(self)])
        sizes = np.diff(self._blocks)[self._block_order]
        starts = np.concatenate([[0], np.cumsum(sizes)])
        return np.append(starts[: -1 : self._held], starts[-1])

    def window(self, index: int) -> np.ndarray:
        """The rows of one window in the order of the file, int64."""
        chosen = np.sort(self._block_order[index * self._held : (index + 1) * self._held])
        ranges = [np.arange(self._blocks[block], self._blocks[block + 1]) for block in chosen]
        return np.concatenate(ranges)

    @cached_property
    def _permutation(self) -> np.ndarray:
        return permutation(len(self), self.seed, self.epoch)

    @cached_property
    def _blocks(self) -> np.ndarray:
        size = parse_order(self.text)[0]
        if size is None:
            return self.bounds
        return np.append(np.arange(0, len(self), size), len(self))

    @cached_property
    def _held(self) -> int:
        return parse_order(self.text)[1]

    @cached_property
    def _block_order(self) -> np.ndarray:
        return permutation(len(self._blocks) - 1, self.seed, self.epoch)

    @cached_property
    def _windows(self):  # type: ignore[no-untyped-def]
        @lru_cache(2)
        def mixed(index: int) -> np.ndarray:
            rows = self.window(index)
            return np.random.default_rng([self.seed, self.epoch, index + 1]).permutation(rows)

        return mixed


def parse_order(text: str) -> tuple[int | None, int]:
    """Rows in a block (None: row groups) and blocks mixed at a time.

    Raises UsageError for a word that is none of the above.
    """
    calls = parse_pipeline(text, "shuffle")
    if len(calls) == 1:
        name, args = calls[0].name, calls[0].args
        if name in ("none", "full", "blocks") and not args:
            return None, HELD_GROUPS
        whole = all(type(arg) is int and arg > 0 for arg in args)
        if name == "blocks" and len(args) == 2 and whole:
            return args[0], args[1]
    raise UsageError(f"shuffle is {text!r}; use none, full, blocks or blocks(64, 512)")


def order_text(shuffle: bool | str) -> str:
    """True is `full`, False `none`."""
    if isinstance(shuffle, str):
        return shuffle
    return "full" if shuffle else "none"
