"""Inputs that a model takes by name: rows of tokens (see `tokens`), or several columns of numbers.

Shapes: N rows, B bytes of a row.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from softlabels.errors import TeacherError

TORCH = {"<f4": torch.float32, "<i8": torch.int64}  # of the numbers of columns


class NamedInputs(ABC):
    """Rows whose columns a model is given by name; indexed and moved like a tensor."""

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where what a model is given lies."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """N, and what all rows and columns share beside it."""

    @abstractmethod
    def __getitem__(self, rows: Any) -> Self:
        """These rows, by a slice or their numbers."""

    @abstractmethod
    def to(self, device: Any, non_blocking: bool = False) -> Self: ...

    @abstractmethod
    def pin_memory(self) -> Self: ...

    @classmethod
    @abstractmethod
    def joined(cls, parts: Sequence[Any]) -> Self:
        """The rows of several, one after the other; all have the same columns."""

    @abstractmethod
    def by_name(self, side: str = "right", pad: int = 0, least: int = 0) -> dict[str, Tensor]:
        """What a model is given, in new memory: it may work in place. side, pad, least: how rows of
        several lengths are filled up, see `Tokens.padded`."""


@dataclass(frozen=True, eq=False)
class NumberColumns(NamedInputs):
    """Columns of numbers, each of one shape for all rows, float32 or int64.

    They are kept and moved as the bytes of their rows, in one tensor, and taken apart for the
    model.

    values: uint8 [N, B]
    layout: what the bytes of a row are: the columns in the order of their names, without gaps
    floats: whole numbers that are given as float32
    dtype: what floating numbers are given as
    """

    values: Tensor
    layout: np.dtype
    floats: frozenset[str] = frozenset()
    dtype: torch.dtype = torch.float32

    @classmethod
    def of(cls, rows: np.ndarray) -> "NumberColumns":
        """Of a structured array, [N], whose memory is copied."""
        return cls(torch.from_numpy(np.array(row_bytes(rows))), rows.dtype)

    @classmethod
    def joined(cls, parts: Sequence["NumberColumns"]) -> "NumberColumns":
        return replace(parts[0], values=torch.cat([part.values for part in parts]))

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: Any) -> "NumberColumns":
        if isinstance(rows, np.ndarray):
            rows = torch.from_numpy(rows)
        if isinstance(rows, Tensor):
            rows = rows.to(self.device)
        return replace(self, values=self.values[rows])

    def numpy(self) -> np.ndarray:
        """As a structured array, [N], of the same memory."""
        array: np.ndarray = self.values.numpy().view(self.layout)[:, 0]
        return array

    def to(self, device: Any, non_blocking: bool = False) -> "NumberColumns":
        """On a device; or with floating numbers in another dtype, as a tensor has it."""
        if isinstance(device, torch.dtype):
            return replace(self, dtype=device)
        return replace(self, values=self.values.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "NumberColumns":
        return replace(self, values=self.values.pin_memory())

    @property
    def nbytes(self) -> int:
        return self.values.nbytes

    def record_stream(self, stream: Any) -> None:
        """As a tensor on CUDA has it: this stream reads the memory, too."""
        self.values.record_stream(stream)

    @property
    def device(self) -> torch.device:
        return self.values.device

    @property
    def shape(self) -> tuple[int, ...]:
        """[N]"""
        return (len(self),)

    def is_floating_point(self) -> bool:
        """Whether some numbers are given in `dtype`."""
        return len(self.whole) < len(self.layout.names or ())

    @property
    def whole(self) -> list[str]:
        """The columns that are given as whole numbers."""
        named = [n for n, one in columns_of(self.layout).items() if one.dtype == torch.int64]
        return [name for name in named if name not in self.floats]

    def by_name(self, side: str = "right", pad: int = 0, least: int = 0) -> dict[str, Tensor]:
        made, start = {}, 0
        for name, column in columns_of(self.layout).items():
            stop = start + column.nbytes
            part = self.values[:, start:stop].clone(memory_format=torch.contiguous_format)
            values = part.view(column.dtype).reshape(len(self), *column.shape)
            made[name] = values if name in self.whole else values.to(self.dtype)
            start = stop
        return made

    def __str__(self) -> str:
        """`a float32 [8], b int64 []`: what a model is given of a row."""
        kind = str(self.dtype).removeprefix("torch.")
        whole = self.whole
        return ", ".join(
            f"{name} {'int64' if name in whole else kind} {list(column.shape)}"
            for name, column in columns_of(self.layout).items()
        )


@dataclass(frozen=True)
class Column:
    """A column of a layout, of one row: its dtype and shape, and how many bytes it takes."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    nbytes: int


def columns_of(layout: np.dtype) -> dict[str, Column]:
    """The columns by their names, in their order."""
    columns = {}
    for name in layout.names or ():
        whole = layout[name]
        columns[name] = Column(TORCH[whole.base.str], whole.shape, whole.itemsize)
    return columns


def exactly(values: Tensor, dtype: torch.dtype, name: str) -> Tensor:
    """A column in a program's dtype. Raises TeacherError where whole numbers would become
    others."""
    made = values.to(dtype)
    if dtype.is_floating_point or values.dtype == dtype:
        return made
    if bool((changed := made.to(values.dtype) != values).any()):
        kind = str(dtype).removeprefix("torch.")
        raise TeacherError(
            f"the program takes {name} as {kind}, and the data have "
            f"{values[changed][0].item():.6g} in it, which {kind} can't hold: bring the column to "
            f"whole numbers of that size"
        )
    return made


def row_bytes(rows: np.ndarray) -> np.ndarray:
    """The bytes of the rows of a structured array, uint8 [N, B], of the same memory; others as they
    are."""
    if rows.dtype.names is None:
        return rows
    return np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), rows.dtype.itemsize)
