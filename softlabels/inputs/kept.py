"""The inputs of all rows, kept in memory: read once, in the background or when they are asked for.
Those that don't fit there are kept in a mapped file of the cache; numbers that an earlier run has
written to one are mapped from it.

Numbers are read in bulk, in the order of the source, where a row costs little more than its digest.
A shuffled batch waits for that: its rows, gathered from a file on their own, would take longer.
Pictures are decoded for each batch, beside the threads that decode all.

Shapes: N rows asked for; inputs are [N, C, H, W] images (uint8) or [N, …] numbers. Several columns
are rows of a structured array, and given as their bytes.
"""

import threading
from collections.abc import Callable, Iterator
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from softlabels.inputs.checked import Checked
from softlabels.inputs.chosen_rows import ChosenRows
from softlabels.inputs.decoded_cache import DecodedFile
from softlabels.inputs.hashing import hash_arrays
from softlabels.models.named import row_bytes
from softlabels.system.background import Filler
from softlabels.system.memory import shared

DECODED_ROWS = 256  # in the background at a time
READ_BYTES = 8 << 20  # of numbers, in bulk at a time
FEW_ROWS = 8  # are read on their own, so that `dataset[0]` waits for no others
FEW_BLOCKS = 2  # that a batch in order lies in
THREADS = 2  # digests of short rows hold the interpreter's lock; the other one reads meanwhile


class Kept:
    """The inputs of all rows, in memory that forked processes share, and which are there yet.

    rows: which they are. first: the first of them, [1, …]. decode: reads some, [N, …], and checks
    them. in_bulk: whether they are numbers as the source has them. device: where they are wanted,
    if not here: they are copied there once all are read. checked: what earlier runs have checked.
    file: where they are kept instead of memory. save: writes all of them to a file, in the
    background, for later runs; it is asked to stop when the main thread has ended.
    """

    def __init__(
        self,
        rows: ChosenRows,
        first: Tensor,
        decode: Callable[[np.ndarray], Tensor],
        in_bulk: bool,
        device: torch.device | None = None,
        checked: Checked | None = None,
        file: DecodedFile | None = None,
        save: Callable[[np.ndarray, Callable[[], bool]], None] | None = None,
    ) -> None:
        self.rows, self.decode, self.in_bulk = rows, decode, in_bulk
        self.device, self.checked = device, checked
        self.file, self.save = file, save
        self.is_made = file is not None and file.is_whole  # by an earlier run or another process
        like = first.numpy()
        if file is None:
            self.memory = shared(len(rows), like.dtype, like.shape[1:])
            self.values = torch.from_numpy(row_bytes(self.memory))
        else:
            self.memory, self.values = file.memory, file.values
        # of a file that is whole: which rows were held against their checks
        self.done = shared(len(rows), np.dtype(bool), ())
        # rows that are wrong in a file that can't be mended, as this process has decoded them
        self._apart: dict[int, np.ndarray] = {}
        self.complete = False
        self.block_rows = DECODED_ROWS
        if in_bulk:
            self.block_rows = max(DECODED_ROWS, READ_BYTES // max(1, self.memory[:1].nbytes))
        if file is not None and self.is_made and file.rows.per_check > 1:
            self.block_rows = file.rows.per_check
        blocks = -(-len(rows) // self.block_rows)
        self.filler = Filler(self._fill, blocks, THREADS, self._finish)
        self._blocks = iter(range(blocks))
        self._turn: Iterator[int] | None = None  # of a DataLoader's worker
        self._reading = threading.Lock()
        self._copied: Tensor | None = None
        self._copying = threading.Lock()

    def gather(self, rows: np.ndarray, ahead: bool) -> Tensor:
        """The inputs of these rows. ahead: whether to go on with the others in the background.
        Raises what reading, decoding and checking raise, of these rows or of others."""
        worker = get_worker_info() is not None  # it decodes its own batches only
        if not self.complete:
            self.filler.check()
            self._ensure(rows, ahead and not worker)
        if self.device is None or worker:
            if self.file is not None:
                self.file.read_ahead(rows)
            return self._selected(rows)
        if self._copied is None and self.complete:
            self._copy()
        if self._copied is None:
            return self._selected(rows).to(self.device)
        return self._copied.index_select(0, torch.from_numpy(rows).to(self.device))

    def _selected(self, rows: np.ndarray) -> Tensor:
        values = self.values.index_select(0, torch.from_numpy(rows))
        for place, row in enumerate(rows.tolist() if self._apart else ()):
            if row in self._apart:
                values[place] = torch.as_tensor(self._apart[row])
        return values

    def _ensure(self, rows: np.ndarray, ahead: bool) -> None:
        missing = rows[~self.done[rows]]
        if self._apart:
            missing = missing[[row not in self._apart for row in missing.tolist()]]
        if not len(missing):
            self.complete = bool(self.done.all())
            if self.complete and self.file is not None:  # others may have decoded the last of them
                self.file.finish()
        # pictures of a whole file are checked as they are read, but for a device that wants all
        if ahead and not (self.is_made and not self.in_bulk and self.device is None):
            self.filler.start()
        many = self.in_bulk and len(missing) > FEW_ROWS
        if many and ahead and self.filler.is_here:
            self.filler.wait(lambda: bool(self.done[missing].all()))
        elif many and get_worker_info() is not None:
            self._fill_as_worker(missing)
        else:
            self._decode(missing)

    def _fill_as_worker(self, rows: np.ndarray) -> None:
        """The blocks that have these rows, where they are few; else block after block, until the
        rows are there: a shuffled batch has rows of all of them. Each worker begins elsewhere, and
        skips what others have read."""
        worker = get_worker_info()
        assert worker is not None, "others have threads that fill"
        count = len(self.filler.done)
        if self._turn is None:
            start = count * worker.id // worker.num_workers
            self._turn = iter([*range(start, count), *range(start)])
        own = np.unique(self._places[rows] // self.block_rows).tolist()
        turn = iter(own) if len(own) <= FEW_BLOCKS else self._turn
        while not self.done[rows].all() and (block := next(turn, None)) is not None:
            missing = self._missing_of(block)
            if self.is_made:
                self._decode(missing)
            else:
                self._take_over(missing, self._numbers(missing))
        self._decode(rows[~self.done[rows]])

    def _fill(self, number: int) -> None:
        if self.in_bulk and not self.is_made:
            with self._reading:  # some files can only be read forwards
                rows = self._missing_of(next(self._blocks))
                values = self._numbers(rows)
            self._take_over(rows, values)
        else:
            self._decode(self._missing_of(number))

    def _missing_of(self, block: int) -> np.ndarray:
        rows = self._order[block * self.block_rows : (block + 1) * self.block_rows]
        return rows[~self.done[rows]]

    def _numbers(self, rows: np.ndarray) -> np.ndarray:
        if not len(rows):
            return self.memory[:0]
        return self.rows.source.numbers(self.rows.positions[rows])

    def _take_over(self, rows: np.ndarray, values: np.ndarray) -> None:
        """These rows' numbers, if they are right. Raises what is wrong, and of which row."""
        if not len(rows):
            return
        if self._are_right(values, rows):
            follow = rows[-1] - rows[0] + 1 == len(rows) and (rows[1:] > rows[:-1]).all()
            self.memory[slice(rows[0], rows[-1] + 1) if follow else rows] = values
            self.done[rows] = True
        else:  # which says it
            self._decode(rows)

    def put(self, rows: np.ndarray, values: np.ndarray) -> None:
        """Numbers of these rows that were read for something else."""
        fit = values.shape[1:] == self.memory.shape[1:] and values.dtype == self.memory.dtype
        if fit and not self.is_made:
            self.memory[rows] = values
            self.done[rows] = True

    def _are_right(self, values: np.ndarray, rows: np.ndarray) -> bool:
        if values.shape[1:] != self.memory.shape[1:] or values.dtype != self.memory.dtype:
            return False
        hashes = self.rows.hashes
        if hashes is None or (self.checked is not None and self.checked.are_known):
            return True
        return bool((hash_arrays(values) == hashes[rows]).all())

    def _finish(self) -> None:
        if self.file is not None:
            self.file.finish()
        if self.checked is not None and self.checked.remember() and self.save is not None:
            goes_on = threading.main_thread().is_alive
            threading.Thread(
                target=self.save, args=(self.memory, goes_on), name="softlabels-save"
            ).start()
        if self.device is not None:
            self._copy()

    def _copy(self) -> None:
        with self._copying:
            if self._copied is None and self.device is not None:
                self._copied = self.values.to(self.device)
                for row, value in self._apart.items():
                    self._copied[row] = torch.as_tensor(value)

    @cached_property
    def _order(self) -> np.ndarray:
        """All rows; of numbers in the order of the source."""
        positions = self.rows.positions
        if not self.in_bulk or self.is_made or (positions[1:] > positions[:-1]).all():
            return np.arange(len(positions))
        return np.argsort(positions, kind="stable")

    @cached_property
    def _places(self) -> np.ndarray:
        """Of each row its place in that order."""
        places = np.empty(len(self._order), np.int64)
        places[self._order] = np.arange(len(places))
        return places

    def _decode(self, rows: np.ndarray) -> None:
        if not len(rows):
            return
        if self.file is not None and self.is_made:
            self.file.read_ahead(rows)
            rows = self.file.run_of(rows)
            if len(wrong := self.file.wrong(rows)):
                right = row_bytes(self.decode(wrong).numpy())
                if not self.file.mend(wrong, right):
                    self._apart |= zip(wrong.tolist(), right, strict=True)
                    rows = np.setdiff1d(rows, wrong)
        elif self.file is not None:
            self.file.write(rows, self.decode(rows).numpy())
        else:  # a tensor made in inference mode can't be written to, so numpy writes
            self.memory[rows] = self.decode(rows).numpy()
        self.done[rows] = True
