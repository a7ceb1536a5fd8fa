"""Decoded inputs by position: what a student or a teacher is fed, checked against stored hashes.

Shapes: N rows asked for; inputs are [N, C, H, W] images (uint8) or [N, …] numbers.
"""

import io
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from softlabels.errors import AlignmentError, SourceError, UnreadableInput
from softlabels.inputs.preprocess import DEFAULTS, Preprocess
from softlabels.inputs.sources import BLOCK_ROWS, Rows, Source

CACHE_BYTES = 4 << 30


def decode_image(cell: bytes, preprocess: Preprocess, id: Any) -> np.ndarray:
    """An encoded image → uint8 [C, H, W]. Raises UnreadableInput that names the id."""
    try:
        with Image.open(io.BytesIO(cell)) as image:
            return preprocess.on_picture(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UnreadableInput(
            f"the image of the row with id {id!s} can't be read: {error}"
        ) from error


def as_tensor(values: np.ndarray) -> Tensor:
    """A tensor that owns its memory: what Arrow gives is not to be written to."""
    return torch.from_numpy(np.array(values, order="C"))


def stack(values: list[np.ndarray], ids: np.ndarray) -> Tensor:
    """Equally shaped inputs → one tensor. Raises SourceError naming a row of another shape."""
    for value, id in zip(values, ids, strict=True):
        if value.shape != values[0].shape:
            raise SourceError(
                f"the input of the row with id {id!s} has the shape {list(value.shape)}, that of "
                f"id {ids[0]!s} {list(values[0].shape)}; bring images to one size and colour with "
                f"--preprocess, such as 'rgb|resize(224)|scale(255)'"
            )
    return torch.from_numpy(np.stack(values))


def default_preprocess(source: Source) -> Preprocess:
    return Preprocess.parse(DEFAULTS[source.kind])


class Examples:
    """Inputs and labels of chosen source rows, decoded once where they fit into memory.

    `positions` [rows] are the source rows in question; with `hashes` [rows], an input is refused
    unless it hashes to the same value.
    """

    def __init__(
        self,
        source: Source,
        preprocess: Preprocess,
        positions: np.ndarray | None = None,
        hashes: np.ndarray | None = None,
    ) -> None:
        self.source = source
        self.preprocess = preprocess
        self.positions = np.arange(len(source)) if positions is None else positions
        self.hashes = hashes

    def __len__(self) -> int:
        return len(self.positions)

    @cached_property
    def input_shape(self) -> list[int]:
        """The shape of one input as the model gets it."""
        return list(self.finish(self.sample(1)).shape[1:])

    @cached_property
    def labels(self) -> Tensor:
        """int64 [rows], −1 for none."""
        labels = np.concatenate([r.labels for r in self.source.blocks()])
        return torch.from_numpy(labels[self.positions])

    def sample(self, rows: int = 2) -> Tensor:
        """The first inputs that can be read, to try a model on. Raises UnreadableInput if none."""
        for start in range(len(self)):
            try:
                return self.gather_uncached(np.arange(start, min(start + rows, len(self))))
            except UnreadableInput:
                if start == min(len(self), BLOCK_ROWS) - 1:
                    raise
        raise AssertionError("a source has at least one row")

    def gather(self, rows: np.ndarray) -> Tensor:
        """The inputs of these rows as stored: uint8 images or raw numbers, [N, …]."""
        if self._cache is None:
            return self.gather_uncached(rows)
        return self._cache.index_select(0, torch.from_numpy(rows))

    def finish(self, batch: Tensor) -> Tensor:
        """What `gather` gave → float32 model inputs, on the batch's device."""
        return self.preprocess.on_numbers(batch)

    def gather_uncached(self, rows: np.ndarray) -> Tensor:
        block = self.source.take(self.positions[rows])
        self._check(block, rows)
        if isinstance(block.cells, np.ndarray):
            return as_tensor(block.cells)
        pairs = zip(block.cells, block.ids, strict=True)
        return stack([decode_image(cell, self.preprocess, id) for cell, id in pairs], block.ids)

    @cached_property
    def _cache(self) -> Tensor | None:
        first = self.sample(1)
        if first.numel() * first.element_size() * len(self) > CACHE_BYTES:
            return None
        blocks = [
            np.arange(start, min(start + BLOCK_ROWS, len(self)))
            for start in range(0, len(self), BLOCK_ROWS)
        ]
        cache = torch.empty((len(self), *first.shape[1:]), dtype=first.dtype)
        with ThreadPoolExecutor(2) as pool:  # decoding images releases the interpreter's lock
            for rows, values in zip(blocks, pool.map(self.gather_uncached, blocks), strict=True):
                if values.shape[1:] != first.shape[1:]:
                    stack([first[0].numpy(), values[0].numpy()], self.source.ids[[0, rows[0]]])
                cache[rows[0] : rows[-1] + 1] = values
        return cache

    def _check(self, block: Rows, rows: np.ndarray) -> None:
        if self.hashes is None:
            return
        wrong = np.flatnonzero(block.hashes != self.hashes[rows])
        if len(wrong):
            shown = ", ".join(str(block.ids[i]) for i in wrong[:5])
            raise AlignmentError(
                f"{len(wrong)} of {len(rows)} inputs are not what the teacher saw, first the rows "
                f"with id {shown}. Point --source at the data that was dumped: "
                f"{self.source.data!r} has changed or is another dataset"
            )
