"""Pictures of a batch, decoded by threads into one tensor. N rows of a batch.

Decoders and resizers let go of the interpreter's lock, so threads decode as fast as processes
would, and nothing is copied between them.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from softlabels.errors import SourceError, UnreadableInput
from softlabels.inputs.cropping import OnPicture
from softlabels.inputs.pointers import is_pointer
from softlabels.inputs.rendering import Picture
from softlabels.system import background
from softlabels.system.reused_memory import Empty, fresh

PARALLEL_BYTES = 1 << 20  # of encoded pictures; for fewer, threads cost more than they save
PARTS = 4  # of a batch for each thread, so that all end at about the same time
_crews: dict[tuple[int, int], ThreadPoolExecutor] = {}


def decode_image(
    cell: bytes, preprocess: OnPicture, id: Any, turns: list[int] | None = None
) -> np.ndarray | list[np.ndarray]:
    """An encoded image → uint8 [C, H, W], or several of them by `Shots`. Raises UnreadableInput
    that names the id, and SourceError for what is wrong beside the image.

    turns: a list to which the EXIF orientation is appended, if the image could be read
    """
    picture = Picture(cell)
    try:
        values = preprocess.on_picture(picture)
        if turns is not None:
            turns.append(picture.orientation)
        return values
    except SourceError as error:  # of a function of the user's, or of a view's columns
        raise type(error)(f"the row with id {id!s}: {error}") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        unknown = isinstance(error, UnidentifiedImageError)  # whose text has an address in memory
        cause = _no_image(cell) if unknown else error
        raise UnreadableInput(
            f"the image of the row with id {id!s} can't be read: {cause}"
        ) from error
    finally:
        picture.close()


def _no_image(cell: bytes) -> str:
    if not cell:
        return "it has no bytes"
    if is_pointer(cell):
        return "it is a pointer of Git LFS; run `git lfs pull` in its clone"
    return "its bytes are no image of a known format"


def stack(values: Sequence[np.ndarray], ids: np.ndarray) -> Tensor:
    """Equally shaped inputs → one tensor. Raises SourceError naming a row of another shape."""
    check_same([(value.shape, value.dtype) for value in values], ids)
    return torch.from_numpy(np.stack(values))


def check_same(kinds: Sequence[tuple[tuple[int, ...], np.dtype]], ids: np.ndarray) -> None:
    """Raises SourceError naming a row of another shape or type than the first."""
    for (shape, dtype), id in zip(kinds, ids, strict=True):
        first_shape, first_dtype = kinds[0]
        if shape != first_shape:
            raise SourceError(
                f"the input of the row with id {id!s} has the shape {list(shape)}, that of "
                f"id {ids[0]!s} {list(first_shape)}; bring inputs to one size and colour with "
                f"--preprocess, such as 'rgb|resize(256)|center_crop(224)|scale(255)', or in the "
                f"function that preprocesses them"
            )
        if dtype != first_dtype:
            raise SourceError(
                f"the preprocessing function gives numbers of type {dtype} for the row with id "
                f"{id!s}, and {first_dtype} for id {ids[0]!s}; give one type for all"
            )


@dataclass(frozen=True)
class Decoded:
    """The pictures of a batch.

    shots: those that could be read, [M, …]; a tensor for each way of `Shots`, none where no picture
    could
    unreadable: the places of the others, ascending, and why
    turns: the EXIF orientations of those that could be read, if they were asked for
    """

    shots: list[Tensor]
    unreadable: list[tuple[int, UnreadableInput]]
    turns: list[int]

    @property
    def inputs(self) -> Tensor | None:
        """Those of the first way, which is the only one but for `Shots`."""
        return self.shots[0] if self.shots else None


def decode(
    cells: Sequence[bytes],
    preprocesses: Sequence[OnPicture],
    ids: np.ndarray,
    threads: int,
    empty: Empty = fresh,
    turns: bool = False,
) -> Decoded:
    """Encoded pictures, each with its preprocessing: all by `Shots` of as many ways, or none.

    empty: makes the tensors that they are decoded into; turns: whether EXIF orientations are looked
    for. Raises SourceError for pictures of unequal shapes, and where a function of the user's
    fails.
    """
    batch = _Batch(cells, preprocesses, ids.tolist(), empty, [] if turns else None)
    places = range(len(cells))
    if threads == 1 or sum(map(len, cells)) < PARALLEL_BYTES:
        batch.decode(places)
    else:
        size = -(-len(cells) // (threads * PARTS))
        parts = [places[start : start + size] for start in range(0, len(cells), size)]
        for _ in list(_crew(threads).map(batch.decode, parts)):
            pass
    return batch.decoded(ids)


class _Batch:
    """Pictures that are being decoded, and the tensors that they are decoded into, which are made
    when the shapes of one picture's shots are known."""

    def __init__(
        self,
        cells: Sequence[bytes],
        preprocesses: Sequence[OnPicture],
        ids: list[Any],
        empty: Empty,
        turns: list[int] | None,
    ) -> None:
        self.columns = cells, preprocesses, ids
        self.empty, self.turns = empty, turns
        self.kinds: dict[int, list[tuple[tuple[int, ...], np.dtype]]] = {}
        self.unreadable: dict[int, UnreadableInput] = {}
        self.shots: list[Tensor] = []
        self.lock = Lock()

    def decode(self, places: range) -> None:
        cells, preprocesses, ids = self.columns
        for place in places:
            extra = () if self.turns is None else (self.turns,)
            try:
                values = decode_image(cells[place], preprocesses[place], ids[place], *extra)
            except UnreadableInput as error:
                self.unreadable[place] = error
                continue
            shots = values if isinstance(values, list) else [values]
            self.kinds[place] = [(shot.shape, shot.dtype) for shot in shots]
            for shot, into in zip(shots, self._into(shots), strict=True):
                if (shot.shape, shot.dtype) == (into.shape[1:], into.dtype):  # else refused later
                    np.copyto(into[place], shot)  # which torch would start threads for

    def _into(self, shots: list[np.ndarray]) -> list[np.ndarray]:
        with self.lock:
            if not self.shots:
                for shot in shots:
                    dtype = torch.from_numpy(np.empty(0, shot.dtype)).dtype
                    self.shots.append(self.empty((len(self.columns[0]), *shot.shape), dtype))
            return [shot.numpy() for shot in self.shots]

    def decoded(self, ids: np.ndarray) -> Decoded:
        read = sorted(self.kinds)
        for kinds in zip(*(self.kinds[place] for place in read), strict=True):
            check_same(kinds, ids[read])
        shots = self.shots
        if len(read) < len(self.columns[0]):
            shots = [shot[torch.tensor(read)] for shot in shots]
        unreadable = [(place, self.unreadable[place]) for place in sorted(self.unreadable)]
        return Decoded(shots, unreadable, self.turns or [])


def _crew(threads: int) -> ThreadPoolExecutor:
    """Threads that decode, the same ones for all batches; a forked child gets its own."""
    with background.opening:
        key = os.getpid(), threads
        if key not in _crews:
            _crews[key] = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        return _crews[key]
