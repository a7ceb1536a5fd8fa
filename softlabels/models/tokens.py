"""Tokens: rows of several lengths, which are padded a batch at a time.

Shapes: N rows, L positions of the longest of a batch.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from softlabels.models.named import NamedInputs
from softlabels.system.devices import moved

IDS, MASK = "input_ids", "attention_mask"
KINDS = "token_type_ids"  # which text of a pair a token is of
BESIDE = (KINDS, "position_ids")  # that tokenizers make for a model
CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class Tokens(NamedInputs):
    """columns: `input_ids` and those beside it, such as `token_type_ids`, all rows one after the
    other, whole numbers [sum of lengths]
    lengths: of each row, int64 [N]
    device: where `padded` puts them
    """

    columns: dict[str, np.ndarray]
    lengths: np.ndarray
    device: torch.device = CPU

    @classmethod
    def of(cls, columns: Mapping[str, Sequence[Sequence[int]]]) -> "Tokens":
        """From a list of rows for each column."""
        lengths = np.array([len(row) for row in columns[IDS]], np.int64)
        flat = {
            name: np.fromiter(chain.from_iterable(rows), np.int64, lengths.sum())
            for name, rows in columns.items()
        }
        return cls(flat, lengths)

    @classmethod
    def joined(cls, parts: Sequence["Tokens"]) -> "Tokens":
        """The rows of several, one after the other; all have the same columns."""
        names, lengths = parts[0].columns, np.concatenate([part.lengths for part in parts])
        columns = {name: np.concatenate([part.columns[name] for part in parts]) for name in names}
        return replace(parts[0], columns=columns, lengths=lengths)

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        """Of each row its columns, unpadded."""
        stops = np.cumsum(self.lengths).tolist()
        for start, stop in zip([0, *stops[:-1]], stops, strict=True):
            yield {name: values[start:stop] for name, values in self.columns.items()}

    @property
    def shape(self) -> tuple[int, int]:
        """[N, L]"""
        return len(self), int(self.lengths.max(initial=0))

    @property
    def nbytes(self) -> int:
        """As a dump stores them, 4 bytes a number."""
        return 4 * len(self.columns) * int(self.lengths.sum())

    def __getitem__(self, rows: Any) -> "Tokens":
        """These rows, by a slice or their numbers."""
        if isinstance(rows, Tensor):
            rows = rows.cpu().numpy()
        lengths = self.lengths[rows]
        places = places_of(np.cumsum(self.lengths)[rows] - lengths, lengths)
        columns = {name: values[places] for name, values in self.columns.items()}
        return replace(self, columns=columns, lengths=lengths)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Tokens":
        return replace(self, device=torch.device(device))

    def pin_memory(self) -> "Tokens":
        """Itself: what is padded is a new tensor."""
        return self

    def row(self, number: int) -> dict[str, Tensor]:
        """One row, unpadded, with its mask of ones: int64 [its length] each."""
        return {name: values[0] for name, values in self[[number]].padded("right", 0).items()}

    def by_name(self, side: str = "right", pad: int = 0, least: int = 0) -> dict[str, Tensor]:
        return self.padded(side, pad, least)

    def padded(self, side: str, pad: int, least: int = 0) -> dict[str, Tensor]:
        """The columns as int64 [N, L], and the mask of what is no padding.

        side: where rows are filled up, right or left; pad: with which token; least: L at least
        """
        rows, longest = len(self), max(self.shape[1], least)
        places = np.arange(longest)
        if side == "left":
            mask = places >= (longest - self.lengths)[:, None]
        else:
            mask = places < self.lengths[:, None]
        made = {}
        for name, values in self.columns.items():
            filled = np.full((rows, longest), pad if name == IDS else 0, np.int64)
            filled[mask] = values  # row for row, as they lie
            made[name] = moved(torch.from_numpy(filled), self.device)
        return made | {MASK: moved(torch.from_numpy(mask.astype(np.int64)), self.device)}


def places_of(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Where the values of rows lie that begin at `starts`, one row after the other."""
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(lengths.sum())


def alike(lengths: np.ndarray, size: int) -> list[np.ndarray]:
    """The numbers of all rows, `size` of like lengths at a time, so that little is padded."""
    order = np.argsort(lengths, kind="stable")
    return [order[start : start + size] for start in range(0, len(order), size)]


def padding(lengths: np.ndarray, size: int) -> int:
    """How many positions of those batches are padding."""
    batches = alike(lengths, size)
    return sum(int(lengths[rows[-1]]) * len(rows) for rows in batches) - int(lengths.sum())
