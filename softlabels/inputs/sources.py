"""A source: rows of (id, label, input) with the hash of each input, read in blocks.

Shapes: N rows of a block.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from softlabels.config import SourceOptions
from softlabels.errors import SourceError, UsageError
from softlabels.inputs.columns import Columns, find_columns
from softlabels.inputs.hashing import dataset_fingerprint, hash_arrays, hash_images
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
        if column.null_count:
            raise SourceError(f"the id column {self.columns.id!r} has empty cells")
        counts = pc.value_counts(column.combine_chunks())
        twice = counts.filter(pc.greater(counts.field("counts"), 1))
        if len(twice):
            value = twice[0]["values"].as_py()
            raise SourceError(f"the id {value!r} comes {twice[0]['counts']} times; ids are unique")
        return _ids(column, self.columns.id)

    @cached_property
    def fingerprint(self) -> str:
        """The dataset fingerprint; reads every row once."""
        return dataset_fingerprint((r.ids, r.hashes, r.labels) for r in self.blocks())

    @property
    def input_feature(self) -> Any:
        """The `datasets` feature of the input as a dump stores it."""
        if len(self.columns.inputs) > 1 or isinstance(self._input_features[0], datasets.Value):
            return datasets.List(datasets.Value("float32"), length=len(self.columns.inputs))
        feature = self._input_features[0]
        if isinstance(feature, datasets.List) and feature.length == -1:
            return datasets.List(feature.feature, length=len(self.read(0, 1).cells[0]))
        return feature

    def blocks(self, rows: int = BLOCK_ROWS) -> Iterator[Rows]:
        for start in range(0, len(self), rows):
            yield self.read(start, min(start + rows, len(self)))

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
            else _ids(table[self.columns.id], self.columns.id)
        )
        if self.kind == "image":
            cells: Any = _encoded_images(table[self.columns.inputs[0]], ids)
            hashes = hash_images(cells)
        else:
            cells = _numbers([table[name] for name in self.columns.inputs], ids)
            hashes = hash_arrays(cells)
        return Rows(ids, self._labels(table), hashes, cells)

    def _class_numbers(self, texts: pa.Array) -> pa.Array:
        names = self.class_names or []
        numbers = pc.index_in(texts, pa.array(names, texts.type))
        strange = texts.filter(pc.and_(numbers.is_null(), texts.is_valid()))
        if len(strange):
            raise SourceError(
                f"the label {strange[0].as_py()!r} in the column {self.columns.label!r} is none of "
                f"the model's {len(names)} classes: {', '.join(names[:5])}"
            )
        return numbers

    def _labels(self, table: pa.Table) -> np.ndarray:
        if self.columns.label is None:
            return np.full(len(table), -1, dtype=np.int64)
        column = table[self.columns.label].combine_chunks()
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
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


def _ids(column: pa.ChunkedArray, name: str) -> np.ndarray:
    if pa.types.is_integer(column.type):
        return column.cast(pa.int64()).to_numpy()
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return np.array(column.to_pylist(), dtype=np.str_)
    raise SourceError(f"the id column {name!r} is {column.type}; ids are whole numbers or text")


def _encoded_images(column: pa.ChunkedArray, ids: np.ndarray) -> list[bytes]:
    cells = []
    for row, cell in enumerate(column.to_pylist()):
        if cell is None or (cell["bytes"] is None and not cell["path"]):
            raise SourceError(f"the row with id {ids[row]!s} has no image")
        content = cell["bytes"]
        if content is None:
            try:
                content = Path(cell["path"]).read_bytes()
            except OSError as error:
                raise SourceError(f"the image of the row with id {ids[row]!s}: {error}") from error
        cells.append(content)
    return cells


def _numbers(columns: Sequence[pa.ChunkedArray], ids: np.ndarray) -> np.ndarray:
    for column in columns:
        if column.null_count:
            row = pc.index(column.is_null(), True).as_py()
            raise SourceError(f"the row with id {ids[row]!s} has an empty input cell")
    if len(columns) > 1 or not _is_list(columns[0].type):
        return np.stack([c.to_numpy().astype(np.float32) for c in columns], axis=1)
    return _nested(columns[0].combine_chunks(), ids)


def _is_list(type: pa.DataType) -> bool:
    return isinstance(type, pa.BaseExtensionType) or pa.types.is_nested(type)


def _nested(array: pa.Array, ids: np.ndarray) -> np.ndarray:
    """A column of equally long (nested) lists → [N, …] without passing through Python objects."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    shape = [len(array)]
    while pa.types.is_nested(array.type):
        lengths = pc.list_value_length(array)
        if lengths.null_count or len(pc.unique(lengths)) > 1:
            row = 0 if lengths[0].as_py() is None else _first_other(lengths)
            row = row * len(ids) // max(1, len(array))
            raise SourceError(
                f"the row with id {ids[row]!s} has another number of values than the rows before "
                f"it; inputs must be equally long"
            )
        shape.append(lengths[0].as_py() if len(lengths) else 0)
        array = array.flatten()
    if array.null_count:
        row = pc.index(array.is_null(), True).as_py() * len(ids) // len(array)
        raise SourceError(f"the row with id {ids[row]!s} has an empty number in its input")
    return array.to_numpy(zero_copy_only=False).reshape(shape)


def _first_other(lengths: pa.Array) -> int:
    return pc.index(pc.fill_null(pc.not_equal(lengths, lengths[0]), True), True).as_py()
