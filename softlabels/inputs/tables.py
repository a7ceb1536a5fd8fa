"""A table: columns of Arrow values that are read by rows, wherever they lie."""

from collections.abc import Sequence
from typing import Any, Protocol

import datasets
import numpy as np
import pyarrow as pa

from softlabels.inputs.plain import features_of, plain, plain_feature


class Table(Protocol):
    """Rows of named columns. Images are read encoded; `features` tells what a column holds."""

    features: dict[str, Any]

    def __len__(self) -> int: ...

    def read(self, names: Sequence[str], start: int, stop: int) -> pa.Table:
        """These columns of the rows from `start` up to `stop`."""

    def take(self, names: Sequence[str], positions: np.ndarray) -> pa.Table:
        """These columns of the rows at these positions, in this order."""


class DatasetTable:
    """The rows of a `datasets` dataset: in memory, or mapped from Arrow files."""

    def __init__(self, dataset: datasets.Dataset) -> None:
        self.dataset = dataset
        self.features = {name: plain_feature(f) for name, f in dataset.features.items()}
        encoded = dataset
        for name, feature in dataset.features.items():
            if isinstance(feature, datasets.Image) and feature.decode:
                encoded = encoded.cast_column(name, datasets.Image(decode=False))
        self._arrow = encoded.with_format("arrow")
        self._selected: dict[tuple[str, ...], datasets.Dataset] = {}

    def __len__(self) -> int:
        return len(self.dataset)

    def read(self, names: Sequence[str], start: int, stop: int) -> pa.Table:
        return _plain(self._columns(names)[start:stop])

    def take(self, names: Sequence[str], positions: np.ndarray) -> pa.Table:
        return _plain(self._columns(names)[positions.tolist()])

    def _columns(self, names: Sequence[str]) -> datasets.Dataset:
        """The dataset of these columns. Selecting costs more than reading some rows."""
        key = tuple(names)
        if key not in self._selected:
            self._selected[key] = self._arrow.select_columns(list(names))
        return self._selected[key]


class ArrowTable:
    """Rows in memory. Their features are told by the table's metadata and types, or given."""

    def __init__(self, table: pa.Table, features: dict[str, Any] | None = None) -> None:
        self.features = features_of(table.schema) | (features or {})
        self._rows = datasets.table.InMemoryTable(table)  # whose slices need no search

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, names: Sequence[str], start: int, stop: int) -> pa.Table:
        return _plain(self._rows.fast_slice(start, stop - start).select(list(names)))

    def take(self, names: Sequence[str], positions: np.ndarray) -> pa.Table:
        if not len(positions):
            return self.read(names, 0, 0)
        return _plain(self._rows.fast_gather(positions).select(list(names)))


def _plain(table: pa.Table) -> pa.Table:
    return pa.table({name: plain(table[name]) for name in table.column_names})
