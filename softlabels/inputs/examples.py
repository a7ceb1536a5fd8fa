"""Decoded inputs by position, as a student or a teacher is fed them, checked against stored hashes.

Shapes: N rows asked for; inputs are [N, C, H, W] images (uint8), [N, …] numbers, or several columns
of numbers.
"""

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from softlabels.errors import SourceError, UnreadableInput, UsageError
from softlabels.inputs.checked import Checked
from softlabels.inputs.chosen_rows import ChosenRows
from softlabels.inputs.cropping import OnPicture
from softlabels.inputs.decoded_cache import DecodedCache
from softlabels.inputs.decoding import decode, stack
from softlabels.inputs.hashing import Fingerprint
from softlabels.inputs.kept import FEW_ROWS, Kept
from softlabels.inputs.preprocess import Preprocess
from softlabels.inputs.rows import Rows
from softlabels.inputs.sources import BLOCK_ROWS, Source
from softlabels.inputs.texts import Texts
from softlabels.models.named import NumberColumns
from softlabels.models.tokens import Tokens
from softlabels.system.background import cores
from softlabels.system.cache import LocalCache
from softlabels.system.memory import free_memory
from softlabels.system.progress import SILENT, Progress

CACHE_BYTES = 4 << 30  # at most; and at most a quarter of the free memory
SAVED_BYTES = 16 << 20  # of numbers at least: fewer are read in less time than an epoch takes
LOOK_SECONDS = 5.0  # between two looks at what another process decodes


def as_tensor(values: np.ndarray) -> Tensor:
    """A tensor that owns its memory, since Arrow's memory must not be written to."""
    return torch.from_numpy(np.array(values, order="C"))


def numbers_of(
    values: np.ndarray | Texts | Tokens, preprocess: Preprocess, ids: np.ndarray
) -> Tensor | NumberColumns:
    """Inputs that are numbers, [N, …], as they are cached: what a function makes of each, of a
    text, or of the columns of a row by name, else as they are stored."""
    if not preprocess.is_opaque:
        assert isinstance(values, np.ndarray), "texts and tokens need a function"
        if values.dtype.names is not None:
            return NumberColumns.of(values)
        return as_tensor(values)
    made = []
    for value, id in zip(values, ids, strict=True):
        try:
            made.append(preprocess.on_cell(_as_dict(value)))
        except SourceError as error:
            raise SourceError(f"the row with id {id!s}: {error}") from error
    return stack(made, ids)


def _as_dict(value: Any) -> Any:
    """A row of several columns by their names; others as they are."""
    if not isinstance(value, np.void):
        return value
    return {name: value[name] for name in value.dtype.names or ()}


class Examples(ChosenRows):
    """Inputs and labels of chosen source rows, decoded once where they fit into memory.

    Decoded inputs are kept in memory that forked processes share. They are decoded in the
    background, or earlier where they are asked for.
    """

    decodes_ahead = True

    def __init__(
        self,
        source: Source,
        preprocess: Preprocess,
        positions: np.ndarray | None = None,
        hashes: np.ndarray | None = None,
    ) -> None:
        shaping = preprocess.picture[preprocess.is_upright :]  # numbers have no orientation
        if source.kind == "array" and shaping and not preprocess.is_opaque:
            raise UsageError(
                f"--preprocess: {shaping[0]} is for pictures; the inputs of {source.data!r} are "
                f"numbers. Take it out of {str(preprocess)!r}"
            )
        if not preprocess.is_opaque:
            preprocess.check_columns(source.layout if source.kind == "columns" else None)
        if source.kind in ("text", "tokens") and not preprocess.is_opaque:
            texts = source.kind == "text"
            what = "texts" if texts else "tokens"
            road = "a model that reads tokens needs --tokenizer FOLDER; else " if texts else ""
            raise UsageError(
                f"the inputs of {source.data!r} are {what}, in {', '.join(source.columns.inputs)}, "
                f"and numbers are needed here: {road}name columns of numbers with --input-column, "
                f"or give a function in Python, preprocess=FUNCTION, from one to its numbers"
            )
        super().__init__(source, preprocess, positions, hashes)
        self.device: torch.device | None = None  # where decoded inputs are kept, if not here
        self.cache: LocalCache | None = None
        self.progress = SILENT
        self._part: Examples | None = None  # if no other rows will be asked for
        self._looked = time.monotonic()
        self._tried, self._beginning = False, threading.Lock()

    @cached_property
    def _samples(self) -> dict[int, Tensor]:
        """By how many rows were asked for."""
        return {}

    @cached_property
    def input_shape(self) -> list[int]:
        """The shape of one input as the model gets it."""
        return list(self.finish(self.sample(1)).shape[1:])

    def sample(self, rows: int = 2) -> Tensor:
        """The first inputs that can be read, to try a model on. If none can, raises
        UnreadableInput for the first."""
        if rows not in self._samples:
            self._samples[rows] = self._first_readable(rows)[1]
        sample: Any = self._samples[rows]  # columns, and of streamed rows texts or tokens, too
        return sample.clone() if isinstance(sample, Tensor) else sample

    def first_readable(self, count: int) -> tuple[np.ndarray, Tensor]:
        """The first `count` source rows that can be read (fewer where the first thousands have no
        more), and their inputs, [N, …]. Raises UnreadableInput if there are none."""
        rows, inputs = self._first_readable(count)
        return self.positions[rows], inputs

    def _first_readable(self, count: int) -> tuple[np.ndarray, Tensor]:
        rows = np.arange(min(count, len(self)))
        with suppress(UnreadableInput):
            return rows, self.gather_uncached(rows)
        kept: list[int] = []
        for row in range(min(len(self), max(count, BLOCK_ROWS))):
            with suppress(UnreadableInput):
                self.gather_uncached(np.array([row]))
                kept.append(row)
            if len(kept) == count:
                break
        if not kept:
            self.gather_uncached(rows[:1])
        return np.array(kept), self.gather_uncached(np.array(kept))

    @cached_property
    def decoded_bytes(self) -> int:
        """The memory that all decoded inputs would take, in bytes."""
        first: Any = self.sample(1)
        first = first.values if isinstance(first, NumberColumns) else first
        size: int = first.numel() * first.element_size() * len(self)
        return size

    def gather(self, rows: np.ndarray) -> Any:
        """The inputs of these rows as stored: uint8 images or raw numbers, [N, …], a tensor; or
        `NumberColumns`."""
        if self._part is not None:
            places = self._places[rows]
            return self._part.gather(places) if (places >= 0).all() else self.gather_uncached(rows)
        if self._kept is None and self.cache is not None:
            if len(rows) > FEW_ROWS:  # a look at some is no reason to keep all
                self.keep_all()
            self._look_again()
        kept = self._kept
        if kept is None:
            return self.gather_uncached(rows)
        values = kept.gather(rows, self.decodes_ahead and not self.source.runs_code)
        layout = kept.memory.dtype
        return values if layout.names is None else NumberColumns(values, layout)

    @cached_property
    def fingerprint(self) -> str:
        """That of all rows of the source, which these are. Numbers are read for it, and kept: each
        row once."""
        kept = self._kept
        if kept is None or not kept.in_bulk:
            return self.source.fingerprint
        whole = Fingerprint()
        for block in self.source.blocks():
            whole.update(block.ids, block.hashes, block.labels)
            assert isinstance(block.cells, np.ndarray), "they are numbers"
            kept.put(block.numbers, block.cells)
        return str(whole)

    def keep_on(self, device: torch.device) -> None:
        """Give rows in this device's memory, where all are kept once they are decoded."""
        self.device = device
        if self._kept is not None:
            self._kept.device = device

    def remember_in(self, cache: LocalCache, progress: Progress = SILENT) -> None:
        """Before they are prepared: note in this cache when all inputs have had their hashes, and
        trust such a note; keep inputs in it that don't fit into memory, and numbers for later
        runs."""
        self.cache, self.progress = cache, progress

    def decode_when_asked(self) -> None:
        """Decode and keep rows when they are asked for, none ahead, and in this machine's memory:
        most of them will never be."""
        self.decodes_ahead, self.device, self.cache = False, None, None
        if "_kept" in self.__dict__ and self._kept is not None:
            self._kept.device = None
            if self._kept.file is not None and not self._kept.is_made:
                self._kept.file.leave()
                self.__dict__["_kept"] = None

    def only(self, rows: np.ndarray) -> None:
        """Before they are read: no other rows will be asked for, so that these alone are read ahead
        and kept."""
        every = len(np.unique(rows)) == len(self)
        if every or not self.decodes_ahead or (self._kept is not None and self._kept.is_made):
            return
        rows = np.unique(rows)
        hashes = None if self.hashes is None else self.hashes[rows]
        part = Examples(self.source, self.preprocess, self.positions[rows], hashes)
        part.device, part.cache, part.progress = self.device, self.cache, self.progress
        part.__dict__["_samples"] = self._samples
        part.prepare()
        self._places = np.full(len(self), -1)
        self._places[rows] = np.arange(len(rows))
        self._part = part

    def finish(self, batch: Any) -> Any:
        """A batch from `gather` → float32 model inputs, on the batch's device; columns stay
        columns."""
        return self.preprocess.on_numbers(batch)

    def gather_uncached(self, rows: np.ndarray) -> Any:
        """As `gather`, read again."""
        block = self._block(rows)
        if not isinstance(block.cells, list):
            return numbers_of(block.cells, self.preprocess, block.ids)
        return _decoded(block, [self.preprocess] * len(block))

    def gather_pictures(self, rows: np.ndarray, preprocesses: Sequence[OnPicture]) -> Tensor:
        """Pictures read again and decoded, each by a preprocessing of its own, uint8 [N, C, H, W].
        Raises UnreadableInput and what `gather` raises."""
        return _decoded(self._block(rows), preprocesses)

    def prepare(self) -> None:
        """Refuse a wrong source now rather than in the first epoch, and allocate the memory that
        forked processes share."""
        self.sample()
        _ = self.kept

    @property
    def kept(self) -> bool:
        """Whether decoded inputs stay, in memory or in a mapped file."""
        return (self._part or self)._kept is not None

    @property
    def reads_ahead(self) -> bool:
        """Whether a batch is worth reading while another one is trained on: it is decoded when it
        is asked for, and no code of the user's is run for it, which might be in use just then."""
        return not self.kept and not self.source.runs_code

    @property
    def _in_bulk(self) -> bool:
        """Whether they are numbers as the source has them."""
        return self.source.kind in ("array", "columns") and not self.preprocess.is_opaque

    @cached_property
    def _compared(self) -> Checked | None:
        """What earlier runs have checked of these numbers."""
        if not self._in_bulk or self.cache is None or self.hashes is None:
            return None
        return Checked(self.cache, self.source, self.positions, self.hashes)

    @cached_property
    def _kept(self) -> Kept | None:
        if self.decoded_bytes > min(CACHE_BYTES, free_memory() // 4):
            return self._kept_in_file(begin=False)
        checked, save = self._compared, None
        if checked is not None and self.decoded_bytes >= SAVED_BYTES:
            kept = self._kept_in_file(begin=False)
            if kept is not None:
                return kept
            save = self._decoded_cache().save
        return Kept(
            self, self.sample(1), self._decode_alike, self._in_bulk, self.device, checked, save=save
        )

    def keep_all(self) -> None:
        """All rows will be asked for, epoch after epoch: inputs too many for the memory get a file
        of the cache, unless another process fills one or there is no room."""
        if self._part is not None:
            self._part.keep_all()
        elif self._kept is None and self.decodes_ahead and get_worker_info() is None:
            with self._beginning:
                if not self._tried:
                    self._tried = True
                    self.__dict__["_kept"] = self._kept_in_file(begin=True)

    def _look_again(self) -> Kept | None:
        """The file of the cache, if another process has filled it by now; asked now and then."""
        if self._kept is None and time.monotonic() - self._looked > LOOK_SECONDS:
            self._looked = time.monotonic()
            self.__dict__.pop("_compared", None)  # it may have checked them, too
            self.__dict__["_kept"] = self._kept_in_file(begin=False)
        return self._kept

    def _kept_in_file(self, begin: bool) -> Kept | None:
        """Pictures or numbers with known hashes, in a file of the cache. None where there is none;
        begin: unless one can be filled here.

        Numbers of a file stand for the source's only as long as this is known to hold them.
        """
        if self.cache is None or self.hashes is None or self.source.runs_code:
            return None
        if self.preprocess.is_opaque or not (self._in_bulk or self.source.kind == "image"):
            return None
        checked, decoded = self._compared, self._decoded_cache()
        unknown = checked is not None and not checked.are_known
        if unknown and not begin:
            return None
        file = decoded.open(anew=unknown) if begin else decoded.whole()
        if file is None:
            return None
        first = self.sample(1)
        return Kept(self, first, self._decode_alike, self._in_bulk, self.device, checked, file=file)

    def _decoded_cache(self) -> DecodedCache:
        assert self.cache is not None, "where they are kept"
        assert self.hashes is not None, "by which they are known"
        how = None if self._in_bulk else self.preprocess
        first = self.sample(1).numpy()
        return DecodedCache(self.cache, self.source.name, how, self.hashes, first, self.progress)

    def _decode_alike(self, rows: np.ndarray) -> Tensor:
        """As `gather_uncached`. Raises SourceError where a row has another shape than the first."""
        values = self.gather_uncached(rows)
        assert self._kept is not None, "it asks"
        if values.shape[1:] != self._kept.memory.shape[1:]:
            ids = self.source.ids[self.positions[[0, rows[0]]]]
            stack([self._kept.memory[0], values[0].numpy()], ids)
        return values


def _decoded(block: Rows, preprocesses: Sequence[OnPicture]) -> Tensor:
    """The pictures of a block. Raises UnreadableInput for the first that can't be read."""
    assert isinstance(block.cells, list), "pictures are encoded"
    threads = 1 if get_worker_info() is not None else cores()  # workers share the cores
    decoded = decode(block.cells, preprocesses, block.ids, threads)
    for _, error in decoded.unreadable:
        raise error
    assert decoded.inputs is not None, "a block has rows"
    return decoded.inputs
