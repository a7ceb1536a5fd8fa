"""Rows of a dump with their inputs, tempered when they are asked for.

Shapes: N rows of a batch, C classes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from softlabels.inputs.examples import Examples
from softlabels.logits import check_temperature
from softlabels.store.reader import DumpReader


@dataclass(frozen=True, eq=False)
class SoftDataset(Dataset):
    """A torch map-style dataset over a dump. Made by `softlabels.load`.

    A row is a dict: id (int or str), view (int), input (float32 tensor, preprocessed), label (int,
    −1 for none), logits (stored dtype [C]) and soft_target (float32 [C], summing to 1 at T).
    """

    reader: DumpReader
    examples: Examples
    T: float

    def __len__(self) -> int:
        return len(self.reader)

    @property
    def class_names(self) -> list[str] | None:
        names: list[str] | None = self.reader.plan.source["class_names"]
        return names

    @property
    def labelled(self) -> bool:
        return self.reader.labels is not None

    def with_temperature(self, T: float) -> "SoftDataset":
        """The same rows at another temperature, in O(1), sharing everything."""
        return replace(self, T=check_temperature(T))

    def __getitem__(self, row: int) -> dict[str, Any]:
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of a dump with {len(self)} rows")
        return self.__getitems__([row % len(self)])[0]

    def __getitems__(self, rows: list[int]) -> list[dict[str, Any]]:
        """Many rows at once: a DataLoader asks for its batches this way."""
        batch = self.take(np.asarray(rows))
        ids, labels = batch["id"], batch["label"]
        return [
            {name: values[i] for name, values in batch.items()}
            | {"id": _plain(ids[i]), "view": 0, "label": int(labels[i])}
            for i in range(len(rows))
        ]

    def batches(
        self, batch_size: int, *, shuffle: bool = False, seed: int = 0, epoch: int = 0
    ) -> Iterator[dict[str, Any]]:
        """Batches with the keys of a row, stacked; the last may be short.

        The order is a function of (seed, epoch) alone. Ids that are text stay a list of str.
        """
        order = permutation(len(self), seed, epoch) if shuffle else np.arange(len(self))
        for start in range(0, len(order), batch_size):
            yield self.take(order[start : start + batch_size])

    def take(self, rows: np.ndarray) -> dict[str, Any]:
        """These rows as one batch."""
        batch = self.take_raw(rows)
        logits = self.reader.codec.wrap(batch["logits"])
        return batch | {
            "input": self.examples.finish(batch["input"]),
            "soft_target": logits.temper(self.T).probs(),
        }

    def take_raw(self, rows: np.ndarray) -> dict[str, Any]:
        """These rows as one batch without the work that belongs on the training device: inputs
        before the numeric part of the preprocessing, no soft targets."""
        reader = self.reader
        ids = reader.ids[rows]
        labels = np.full(len(rows), -1) if reader.labels is None else reader.labels[rows]
        return {
            "id": torch.from_numpy(ids) if ids.dtype.kind == "i" else ids.tolist(),
            "view": torch.zeros(len(rows), dtype=torch.int32),
            "input": self.examples.gather(rows),
            "label": torch.from_numpy(labels),
            "logits": torch.from_numpy(reader.logits).index_select(0, torch.from_numpy(rows)),
        }


def permutation(rows: int, seed: int, epoch: int) -> np.ndarray:
    """The order of an epoch, int64 [rows]: a function of its arguments alone."""
    return np.random.default_rng([seed, epoch]).permutation(rows)


def _plain(value: Any) -> int | str:
    return value if isinstance(value, str) else int(value)
