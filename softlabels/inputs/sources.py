"""A source: rows of (id, label, input) with the hash of each input, read in blocks.

Shapes: N rows of a block.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from softlabels.config import SourceOptions
from softlabels.errors import SourceError, UsageError
from softlabels.inputs.cells import encoded_images, is_text, numbers, read_ids
from softlabels.inputs.columns import Columns, find_columns
from softlabels.inputs.hashing import Fingerprint, ascending, hash_arrays, hash_images
from softlabels.inputs.opening import dataset_name, open_dataset

BLOCK_ROWS = 4096


@dataclass(frozen=True)
class Rows:
    """A block of source rows, not decoded.

    ids: int64 or str [N]; labels: int64 [N], −1 for none; hashes: uint64 [N];
    cells: encoded images (a list of bytes) or numbers [N, …].
    """

    ids: np.ndarray
    labels: np.ndarray
    hashes: np.ndarray
    cells: list[bytes] | np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, positions: np.ndarray) -> "Rows":
        """The rows at these positions of the block."""
        cells = self.cells
        chosen = [cells[i] for i in positions] if isinstance(cells, list) else cells[positions]
        return Rows(self.ids[positions], self.labels[positions], self.hashes[positions], chosen)


@dataclass(frozen=True)
class Source:
    """One split of one dataset, seen through its columns. Made by `open_source`."""

    dataset: datasets.Dataset
    columns: Columns
    data: str
    split: str
    revision: str | None = None
    known_classes: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def name(self) -> str:
        return dataset_name(self.data)

    @property
    def kind(self) -> str:
        """`image` or `array`."""
        return "image" if isinstance(self._input_features[0], datasets.Image) else "array"

    @property
    def labelled(self) -> bool:
        return self.columns.label is not None

    @cached_property
    def class_names(self) -> list[str] | None:
        """From the ClassLabel; of a text column the known classes, else its sorted distinct texts;
        None for numbers."""
        if self.columns.label is None:
            return None
        feature = self.dataset.features[self.columns.label]
        if isinstance(feature, datasets.ClassLabel):
            return list(feature.names)
        if feature.dtype in ("string", "large_string"):
            if self.known_classes is not None:
                return list(self.known_classes)
            texts = self._table.select_columns(self.columns.label)[:][self.columns.label]
            return sorted(text for text in pc.unique(texts).to_pylist() if text is not None)
        return None

    @cached_property
    def ids(self) -> np.ndarray:
        """All ids, int64 or str [rows]. Raises SourceError where one comes twice."""
        if self.columns.id is None:
            return np.arange(len(self), dtype=np.int64)
        column = self._table.select_columns(self.columns.id)[:][self.columns.id]
        counts = pc.value_counts(column.combine_chunks())
        twice = counts.filter(pc.greater(counts.field("counts"), 1))
        if len(twice):
            value = twice[0]["values"].as_py()
            raise SourceError(f"the id {value!r} comes {twice[0]['counts']} times; ids are unique")
        return read_ids(column, self.columns.id)

    @property
    def ids_are_text(self) -> bool:
        return self.columns.id is not None and is_text(
            self._table.select_columns(self.columns.id)[:0][self.columns.id].type
        )

    def check_ids(self) -> None:
        """Raises SourceError where an id comes twice. Ids that ascend need no memory for it."""
        if self.columns.id is None:
            return
        column = self._table.select_columns(self.columns.id)
        starts = range(0, len(self), BLOCK_ROWS)
        tables = (column[start : start + BLOCK_ROWS][self.columns.id] for start in starts)
        if not ascending(read_ids(table, self.columns.id) for table in tables):
            _ = replace(self).ids  # of a copy: they are not kept

    @cached_property
    def fingerprint(self) -> str:
        """The fingerprint of all rows; reads each once."""
        return self.fingerprints(len(self))[0]

    def fingerprints(self, shard_rows: int) -> tuple[str, list[str]]:
        """The fingerprint of all rows, and the short ones of each `shard_rows` of them."""
        whole, short = Fingerprint(), []
        for start in range(0, len(self), shard_rows):
            short.append(self.short_fingerprint(start, min(start + shard_rows, len(self)), whole))
        return str(whole), short

    def short_fingerprint(self, start: int, stop: int, whole: Fingerprint | None = None) -> str:
        """The short fingerprint of the rows from `start` up to `stop`, which also go to `whole`."""
        found = Fingerprint()
        for rows in self.blocks(start, stop):
            for one in (found, whole):
                if one is not None:
                    one.update(rows.ids, rows.hashes, rows.labels)
        return found.short

    @property
    def input_feature(self) -> Any:
        """The `datasets` feature of the input as a dump stores it."""
        if len(self.columns.inputs) > 1 or isinstance(self._input_features[0], datasets.Value):
            return datasets.List(datasets.Value("float32"), length=len(self.columns.inputs))
        feature = self._input_features[0]
        if isinstance(feature, datasets.List) and feature.length == -1:
            return datasets.List(feature.feature, length=len(self.read(0, 1).cells[0]))
        return feature

    def blocks(self, start: int = 0, stop: int | None = None) -> Iterator[Rows]:
        """The rows from `start` up to `stop`, or all, some thousands at a time."""
        stop = len(self) if stop is None else stop
        for first in range(start, stop, BLOCK_ROWS):
            yield self.read(first, min(first + BLOCK_ROWS, stop))

    def read(self, start: int, stop: int) -> Rows:
        """The rows from `start` up to `stop`, in the source's order."""
        return self._rows(self._table[start:stop], np.arange(start, stop))

    def take(self, positions: np.ndarray) -> Rows:
        """The rows at these positions, in this order."""
        return self._rows(self._table[positions.tolist()], positions)

    @cached_property
    def _table(self) -> datasets.Dataset:
        """The dataset giving Arrow tables, images still encoded."""
        dataset = self.dataset
        if self.kind == "image":
            dataset = dataset.cast_column(self.columns.inputs[0], datasets.Image(decode=False))
        return dataset.with_format("arrow")

    @property
    def _input_features(self) -> list[Any]:
        return [self.dataset.features[name] for name in self.columns.inputs]

    def _rows(self, table: pa.Table, positions: np.ndarray) -> Rows:
        ids = (
            positions.astype(np.int64)
            if self.columns.id is None
            else read_ids(table[self.columns.id], self.columns.id)
        )
        if self.kind == "image":
            cells: Any = encoded_images(table[self.columns.inputs[0]], ids)
            hashes = hash_images(cells)
        else:
            cells = numbers([table[name] for name in self.columns.inputs], ids)
            hashes = hash_arrays(cells)
        return Rows(ids, self._labels(table), hashes, cells)

    def _class_numbers(self, texts: pa.Array) -> pa.Array:
        names = self.class_names or []
        found = pc.index_in(texts, pa.array(names, texts.type))
        strange = texts.filter(pc.and_(found.is_null(), texts.is_valid()))
        if len(strange):
            raise SourceError(
                f"the label {strange[0].as_py()!r} in the column {self.columns.label!r} is none of "
                f"the model's {len(names)} classes: {', '.join(names[:5])}"
            )
        return found

    def _labels(self, table: pa.Table) -> np.ndarray:
        if self.columns.label is None:
            return np.full(len(table), -1, dtype=np.int64)
        column = table[self.columns.label].combine_chunks()
        if is_text(column.type):
            column = self._class_numbers(column)
        try:
            return column.cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False).copy()
        except pa.ArrowInvalid as error:
            raise SourceError(
                f"the label column {self.columns.label!r} holds {column.type} values that are no "
                f"classes ({error}); choose another with --label-column"
            ) from error


def open_source(
    data: str,
    split: str = "train",
    *,
    revision: str | None = None,
    input_column: str | None = None,
    label_column: str | None = None,
    id_column: str | None = None,
    class_names: list[str] | None = None,
) -> Source:
    """Open `data` (see docs/getting-started.md for what it may be).

    `class_names` are a model's: labels that are text are numbered by them, so that a split in which
    a class is missing gets the same numbers.

    Raises SourceError for data that can't be found, is empty, or whose columns leave a choice.
    """
    dataset = open_dataset(data, split, revision)
    if len(dataset) == 0:
        raise SourceError(f"{data!r}, split {split!r}, has no rows")
    columns = find_columns(dataset.features, input_column, label_column, id_column)
    known = tuple(class_names) if class_names else None
    return Source(dataset, columns, data, split, revision, known)


def open_as_told(
    options: SourceOptions, data: str | None, model: str, remembered: dict[str, Any]
) -> Source:
    """The source that a command's options name, else the one that a model's file remembers.

    Columns that a model remembers go with its own data only. Raises UsageError where neither
    names the data.
    """
    told = {"data": data} if data is not None else remembered
    if "data" not in told:
        raise UsageError(
            f"{model} does not remember its data; say it with --data digits, --data FOLDER or "
            f"--data OWNER/NAME"
        )
    return open_source(
        told["data"],
        options.split,
        revision=options.revision or told.get("revision"),
        input_column=options.input_column or told.get("input_column"),
        label_column=options.label_column or told.get("label_column"),
        id_column=options.id_column or told.get("id_column"),
        class_names=remembered.get("class_names"),
    )
