"""A table: named Arrow columns, read by rows, in memory or in files."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import datasets
import numpy as np
import pyarrow as pa

from softlabels.inputs.plain import features_of, is_text, plain, plain_feature, plain_type
from softlabels.inputs.tables.identity import Contents, Files, Identity


class Table(Protocol):
    """Rows of named columns. Images are read encoded; `features` says what each column holds."""

    features: dict[str, Any]

    def __len__(self) -> int: ...

    def read(self, names: Sequence[str], start: int, stop: int) -> pa.Table:
        """These columns of the rows from `start` up to `stop`."""

    def take(self, names: Sequence[str], positions: np.ndarray) -> pa.Table:
        """These columns of the rows at these positions, in this order."""

    def categories(self, name: str) -> list[str] | None:
        """The texts of a dictionary column in the order of their codes; None for others."""

    @property
    def identity(self) -> Identity | None:
        """Which files these are; None if only reading all rows would tell."""

    @property
    def files(self) -> Files | None:
        """The files that hold all of it, as they were when it was opened; None for memory, and
        where other files belong to it."""


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

    identity = files = None

    def __len__(self) -> int:
        return len(self.dataset)

    def read(self, names: Sequence[str], start: int, stop: int) -> pa.Table:
        return _plain(self._columns(names)[start:stop])

    def take(self, names: Sequence[str], positions: np.ndarray) -> pa.Table:
        return _plain(self._columns(names)[positions.tolist()])

    def categories(self, name: str) -> list[str] | None:
        return None  # `datasets` has replaced the codes by texts

    def _columns(self, names: Sequence[str]) -> datasets.Dataset:
        """The dataset of these columns, cached: selecting costs more than reading a few rows."""
        key = tuple(names)
        if key not in self._selected:
            self._selected[key] = self._arrow.select_columns(list(names))
        return self._selected[key]


PADDED = b"softlabels:padded"  # of a field, see ArrowTable


def mark_padded(field: pa.Field) -> pa.Field:
    """Mark the field of a column whose texts are whole numbers, some of which begin with zeros."""
    return field.with_metadata({PADDED: b"1"})


def is_padded(field: pa.Field) -> bool:
    return PADDED in (field.metadata or {})


class ArrowTable:
    """Rows in memory. Their features are given, or follow from the table's metadata and types.

    padded: columns of whole numbers that are kept as text since some begin with zeros (`001`). As
    ids and class names, 001 and 1 differ; as inputs they are numbers (`to_numbers`).
    written: reads columns as the texts that stand in the file; None where there are only values
    """

    def __init__(
        self,
        table: pa.Table,
        features: dict[str, Any] | None = None,
        identity: Identity | None = None,
        written: Callable[[Sequence[str]], pa.Table] | None = None,
    ) -> None:
        self.identity, self.written = identity, written
        self.features = features_of(table.schema) | (features or {})
        self.padded = [field.name for field in table.schema if is_padded(field)]
        self._rows = datasets.table.InMemoryTable(table)  # whose slices need no search

    @property
    def files(self) -> Files | None:
        return self.identity.files if isinstance(self.identity, Contents) else None

    def to_numbers(self, names: Sequence[str]) -> None:
        """Make these padded columns numbers."""
        table, columns = self._rows.table, {}
        for name in names:
            try:
                columns[name] = table[name].cast(pa.int64())
            except pa.ArrowInvalid:  # too many digits
                columns[name] = table[name].cast(pa.float64())
        self._replace(columns)

    def to_texts(self, names: Sequence[str]) -> list[str]:
        """Make these columns the texts that stand in the file. Those that it could do so with."""
        names = [] if self.written is None else list(names)
        if names and self.written is not None:
            table = self.written(names)
            self._replace({name: table[name] for name in names})
        return names

    def _replace(self, columns: dict[str, pa.ChunkedArray]) -> None:
        table = self._rows.table
        for name, column in columns.items():
            table = table.set_column(table.schema.get_field_index(name), name, column)
        self.features = self.features | features_of(table.select(list(columns)).schema)
        self.padded = [name for name in self.padded if name not in columns]
        self._rows = datasets.table.InMemoryTable(table)

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, names: Sequence[str], start: int, stop: int) -> pa.Table:
        return _plain(self._rows.fast_slice(start, stop - start).select(list(names)))

    def take(self, names: Sequence[str], positions: np.ndarray) -> pa.Table:
        if not len(positions):
            return self.read(names, 0, 0)
        return _plain(self._rows.fast_gather(positions).select(list(names)))

    def categories(self, name: str) -> list[str] | None:
        return texts_of_codes(self._rows.table[name])


def texts_of_codes(column: pa.ChunkedArray) -> list[str] | None:
    """The texts of a dictionary column, from its first chunk; None for another column."""
    type = column.type
    if not (pa.types.is_dictionary(type) and is_text(plain_type(type)) and column.num_chunks):
        return None
    texts: list[str] = column.chunk(0).dictionary.to_pylist()
    return texts


def _plain(table: pa.Table) -> pa.Table:
    return pa.table({name: plain(table[name]) for name in table.column_names})
