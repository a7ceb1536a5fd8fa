"""Memory for large tensors that come and go, used again."""

import math
import weakref
from collections import deque
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Empty = Callable[[Sequence[int], torch.dtype], Tensor]
"""What gives a tensor of a shape and a dtype, whose values are whatever they are."""


def fresh(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    return torch.empty(tuple(shape), dtype=dtype)


def pinned(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """In memory that a GPU reads without another copy. torch itself uses such memory again, once
    the copies from it are done."""
    return torch.empty(tuple(shape), dtype=dtype, pin_memory=True)


class ReusedMemory:
    """Gives tensors in the memory of earlier ones, since the system takes longer to give fresh
    memory than arithmetic takes to fill it.

    A tensor's memory comes back by itself, when nothing holds on to it any more: no view of it
    either, in no thread. Who keeps a tensor keeps its values.

    kept: how many pieces of memory wait for the next tensor, at most
    """

    def __init__(self, kept: int = 1) -> None:
        self._free: deque[Tensor] = deque(maxlen=kept)  # whose calls are atomic: no lock is needed

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        size = math.prod(shape) * dtype.itemsize
        piece = self._piece(size)
        # torch holds on to this array as long as a tensor is in its memory
        array = piece.numpy()[:size]
        weakref.finalize(array, self._free.append, piece).atexit = False
        return torch.from_numpy(array).view(dtype).view(tuple(shape))

    def _piece(self, size: int) -> Tensor:
        """uint8 [size or more]."""
        while True:
            try:
                piece = self._free.popleft()
            except IndexError:
                return torch.empty(size, dtype=torch.uint8)
            if len(piece) >= size:  # else it is of smaller batches, which are over
                return piece
