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

from softlabels.errors import SourceError
from softlabels.inputs import label_lists, labels, listed_labels
from softlabels.inputs.cells import encoded_images, numbers, read_ids, text_columns, texts
from softlabels.inputs.columns import Columns, is_text_feature, is_text_struct
from softlabels.inputs.hashing import (
    Fingerprint,
    ascending,
    hash_arrays,
    hash_images,
    hash_texts,
    hash_tokens,
)
from softlabels.inputs.label_lists import Labels
from softlabels.inputs.number_cells import number_columns
from softlabels.inputs.plain import is_text
from softlabels.inputs.reading_errors import as_source_error
from softlabels.inputs.rows import Rows
from softlabels.inputs.tables.live import MapTable
from softlabels.inputs.tables.opening import dataset_name
from softlabels.inputs.tables.table import DatasetTable, Table
from softlabels.inputs.token_cells import tokens
from softlabels.inputs.token_columns import is_tokens
from softlabels.inputs.token_span import TokenSpan
from softlabels.inputs.whereabouts import origin, public_name
from softlabels.models.tokens import IDS, Tokens

BLOCK_ROWS = 4096
COLUMN_ROWS = 65_536  # of a single column
SPAN_ROWS = 16_384  # of tokens
SAMPLED = 64  # rows


@dataclass(frozen=True)
class Source:
    """One split of one dataset, seen through its columns. Made by `open_source`.

    own_labels: whether the labels are of other classes than the model's. `notes` are what opening
    has to say of files that were left out. `live`: an object in memory, and `data` is its name.
    spelling: how a label column of lists says which labels a row has; None for one label a row.
    """

    table: Table
    columns: Columns
    data: str
    split: str
    revision: str | None = None
    known_classes: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    id_is_path: bool = False
    live: bool = False
    own_labels: bool = False
    spelling: listed_labels.Spelling | None = None

    def __len__(self) -> int:
        return len(self.table)

    @property
    def name(self) -> str:
        return self.data if self.live else dataset_name(self.data)

    @property
    def origin(self) -> str:
        """Where it is from: `embedded`, `hub`, `local`, or `live`, an object in memory."""
        return "live" if self.live else origin(self.data)

    @property
    def public_name(self) -> str:
        """Its name in records, without the path of a file."""
        return self.data if self.live else public_name(self.data)

    @cached_property
    def sample(self) -> str | None:
        """The fingerprint of some rows of a data set in memory, spread evenly over it: nothing else
        tells its inputs from others without reading all of them. None for other sources."""
        if not self.live:
            return None
        rows = self.take(np.unique(np.linspace(0, len(self) - 1, SAMPLED).astype(int)))
        some = Fingerprint()
        some.update(rows.ids, rows.hashes, rows.labels)
        return str(some)

    @property
    def dataset(self) -> datasets.Dataset:
        """The rows as a `datasets` dataset; read into memory for it."""
        if isinstance(self.table, DatasetTable):
            return self.table.dataset
        rows = self.table.read(list(self.table.features), 0, len(self))
        info = datasets.DatasetInfo(features=datasets.Features(self.table.features))
        return datasets.Dataset(datasets.table.InMemoryTable(rows), info=info)

    @property
    def kind(self) -> str:
        """`image`, `text`, `tokens`, `columns` (of numbers, apart) or `array`."""
        if self.columns.apart:
            return "columns"
        first = self._input_features[0]
        if self.columns.inputs[0] == IDS and is_tokens(first):
            return "tokens"
        if isinstance(first, datasets.Image):
            return "image"
        return "text" if is_text_feature(first) or is_text_struct(first) else "array"

    @property
    def is_by_name(self) -> bool:
        """Whether a model takes the columns of the input by name."""
        return self.kind in ("tokens", "columns")

    @cached_property
    def layout(self) -> np.dtype:
        """The columns of numbers of a row: that of the first, which the others share."""
        with as_source_error(f"{self.data!r}, split {self.split!r}"):
            table = self.table.read(self._names, 0, 1)
            ids = self._ids(table, np.arange(1))
            return number_columns(self._columns_of(table), ids).dtype

    def text_blocks(self) -> Iterator[dict[str, pa.ChunkedArray]]:
        """The columns of texts, many rows at a time; a text may be missing."""
        inputs = list(self.columns.inputs)
        with as_source_error(f"{self.data!r}, split {self.split!r}"):
            for start in range(0, len(self), COLUMN_ROWS):
                table = self.table.read(inputs, start, min(start + COLUMN_ROWS, len(self)))
                yield text_columns(self._columns_of(table))

    @cached_property
    def token_span(self) -> TokenSpan:
        """What the rows of tokens span; reads all of them once. Raises SourceError for rows that
        are none."""
        span = TokenSpan()
        for start in range(0, len(self), SPAN_ROWS):
            with as_source_error(f"{self.data!r}, split {self.split!r}"):
                stop = min(start + SPAN_ROWS, len(self))
                table = self.table.read(self._names, start, stop)
                ids = self._ids(table, np.arange(start, stop))
                span.add(self._tokens(table, ids), ids)
        return span

    @property
    def is_even(self) -> bool:
        """Whether the rows are tokens, all of one length; of tokens it reads all rows once."""
        return self.kind == "tokens" and self.token_span.is_even

    @property
    def runs_code(self) -> bool:
        """Whether reading a row runs code of the user's, which may share what it uses with the
        user's other code: it is not called while that may run."""
        return isinstance(self.table, MapTable)

    @property
    def labelled(self) -> bool:
        return self.columns.label is not None

    @cached_property
    def class_names(self) -> list[str] | None:
        """From the ClassLabel; of a text column the known classes, else its distinct texts, whole
        numbers by value; None for numbers."""
        if self.columns.label is None:
            return None
        feature = self.table.features[self.columns.label]
        if isinstance(feature, datasets.ClassLabel):
            return list(feature.names)
        if self.spelling is not None:
            return self._names_in_lists(feature)
        if not is_text(self.table.read([self.columns.label], 0, 0)[self.columns.label].type):
            return None
        if self.known_classes is not None:
            return list(self.known_classes)
        return labels.names_of_texts(self._column_blocks(self.columns.label))

    def _names_in_lists(self, feature: Any) -> list[str] | None:
        assert self.columns.label is not None
        if self.spelling != "names":
            return listed_labels.class_names(feature)
        if self.known_classes is not None:
            return list(self.known_classes)
        return listed_labels.names_of_lists(self._column_blocks(self.columns.label))

    @cached_property
    def flags(self) -> int | None:
        """How many flags each row's list of labels has; None where it is no list of flags."""
        if self.columns.label is None or self.spelling != "flags":
            return None
        blocks = self._column_blocks(self.columns.label)
        counts = map(listed_labels.flag_count, blocks)
        return next((count for count in counts if count is not None), None)

    @cached_property
    def labels(self) -> Labels:
        """Those of all rows, int64 [rows], −1 for none; or lists of them."""
        if self.columns.label is None:
            return label_lists.none_of(len(self), several=False)
        return label_lists.joined(list(self.label_blocks()))

    def label_blocks(self) -> Iterator[Labels]:
        """The labels of some thousands of rows at a time, without the inputs."""
        if (name := self.columns.label) is not None:
            for column in self._column_blocks(name):
                yield self._labels_in(column)

    @cached_property
    def ids(self) -> np.ndarray:
        """All ids, int64 or str [rows]. Raises SourceError where one comes twice."""
        if self.columns.id is None:
            return np.arange(len(self), dtype=np.int64)
        column = self._whole(self.columns.id)
        ids = read_ids(column, self.columns.id)
        if ascending([ids]):
            return ids
        counts = pc.value_counts(column.combine_chunks())
        twice = counts.filter(pc.greater(counts.field("counts"), 1))
        if len(twice):
            value = (
                str(twice[0]["values"].as_py())[:80]
                if ids.dtype.kind == "U"
                else twice[0]["values"].as_py()
            )
            raise SourceError(f"the id {value!r} comes {twice[0]['counts']} times; ids are unique")
        return ids

    @property
    def ids_are_text(self) -> bool:
        if self.columns.id is None:
            return False
        return is_text(self.table.read([self.columns.id], 0, 0)[self.columns.id].type)

    def check_ids(self) -> None:
        """Raises SourceError where an id comes twice. Ids that ascend need no memory for it."""
        name = self.columns.id
        if name is None:
            return
        if not ascending(read_ids(block, name) for block in self._column_blocks(name)):
            _ = replace(self).ids  # of a copy: they are not kept

    @cached_property
    def fingerprint(self) -> str:
        """The fingerprint of all rows; reads each once."""
        whole = Fingerprint()
        for rows in self.blocks():
            whole.update(rows.ids, rows.hashes, rows.labels)
        return str(whole)

    def key_fingerprints(self, shard_rows: int) -> tuple[str, list[str]]:
        """The fingerprint of the keys of all rows, and the short ones of each `shard_rows` of
        them. Ids and labels are read, and no inputs."""
        whole, shorts = Fingerprint(), []
        for start in range(0, len(self), shard_rows):
            part = Fingerprint()
            for keys in self._key_blocks(start, min(start + shard_rows, len(self))):
                part.update(*keys)
                whole.update(*keys)
            shorts.append(part.short)
        return str(whole), shorts

    def key_fingerprint(self, start: int, stop: int) -> str:
        """The short fingerprint of the keys of the rows from `start` up to `stop`."""
        part = Fingerprint()
        for keys in self._key_blocks(start, stop):
            part.update(*keys)
        return part.short

    def _key_blocks(self, start: int, stop: int) -> Iterator[tuple[np.ndarray, Labels]]:
        for first in range(start, stop, COLUMN_ROWS):
            yield self.keys(first, min(first + COLUMN_ROWS, stop))

    def keys(self, start: int, stop: int) -> tuple[np.ndarray, Labels]:
        """Ids and labels of the rows from `start` up to `stop`."""
        names = [name for name in (self.columns.id, self.columns.label) if name is not None]
        with as_source_error(f"{self.data!r}, split {self.split!r}"):
            if not names:  # some tables can't say how many rows no columns have
                return np.arange(start, stop), label_lists.none_of(stop - start, several=False)
            table = self.table.read(list(dict.fromkeys(names)), start, stop)
            return self._ids(table, np.arange(start, stop)), self._labels(table)

    @property
    def input_features(self) -> dict[str, Any]:
        """The `datasets` features of the input as a dump stores it, by the names of its columns."""
        if self.kind == "tokens":
            return dict.fromkeys(self.columns.inputs, datasets.List(datasets.Value("int32")))
        if self.kind == "columns":
            return {name: _feature(self.layout[name]) for name in self.columns.inputs}
        return {"input": self._input_feature}

    @property
    def _input_feature(self) -> Any:
        if self.kind == "text":
            names = list(text_columns(self._columns_of(self.table.read(self._names, 0, 0))))
            text = datasets.Value("string")
            return text if len(names) == 1 else dict.fromkeys(names, text)
        if len(self.columns.inputs) > 1 or isinstance(self._input_features[0], datasets.Value):
            return datasets.List(datasets.Value("float32"), length=len(self.columns.inputs))
        feature = self._input_features[0]
        if isinstance(feature, datasets.List) and feature.length == -1:
            cells = self.read(0, 1).cells
            assert isinstance(cells, np.ndarray), "lists hold numbers"
            return datasets.List(feature.feature, length=len(cells[0]))
        return feature

    def blocks(self, start: int = 0, stop: int | None = None) -> Iterator[Rows]:
        """The rows from `start` up to `stop`, or all, some thousands at a time."""
        stop = len(self) if stop is None else stop
        for first in range(start, stop, BLOCK_ROWS):
            yield self.read(first, min(first + BLOCK_ROWS, stop))

    def read(self, start: int, stop: int) -> Rows:
        """The rows from `start` up to `stop`, in the source's order."""
        with as_source_error(f"{self.data!r}, split {self.split!r}"):
            table = self.table.read(self._names, start, stop)
            return self._parsed(table, np.arange(start, stop))

    def take(self, positions: np.ndarray) -> Rows:
        """The rows at these positions, in this order."""
        with as_source_error(f"{self.data!r}, split {self.split!r}"):
            return self._parsed(self.table.take(self._names, positions), positions)

    def numbers(self, positions: np.ndarray) -> np.ndarray:
        """The inputs of these rows of numbers as `read` gives them, and nothing else of them. Rows
        that follow each other are read at once."""
        inputs, start, stop = list(self.columns.inputs), int(positions[0]), int(positions[-1]) + 1
        follow = stop - start == len(positions) and (positions[1:] > positions[:-1]).all()
        try:
            with as_source_error(f"{self.data!r}, split {self.split!r}"):
                if follow:
                    table = self.table.read(inputs, start, stop)
                else:
                    table = self.table.take(inputs, positions)
                return self._numbers(table, positions)
        except SourceError:
            self.take(positions)  # whose errors name the row by its id
            raise

    @property
    def _names(self) -> list[str]:
        """The columns that are read, each once."""
        others = (self.columns.mask, self.columns.label, self.columns.id)
        return list(dict.fromkeys([*self.columns.inputs, *(n for n in others if n is not None)]))

    @property
    def _input_features(self) -> list[Any]:
        return [self.table.features[name] for name in self.columns.inputs]

    def _column_blocks(self, name: str) -> Iterator[pa.ChunkedArray]:
        with as_source_error(f"the column {name!r} of {self.data!r}"):
            for start in range(0, len(self), COLUMN_ROWS):
                yield self.table.read([name], start, min(start + COLUMN_ROWS, len(self)))[name]

    def _whole(self, name: str) -> pa.ChunkedArray:
        with as_source_error(f"the column {name!r} of {self.data!r}"):
            return self.table.read([name], 0, len(self))[name]

    def _parsed(self, table: pa.Table, positions: np.ndarray) -> Rows:
        ids = self._ids(table, positions)
        if self.kind == "image":
            cells: Any = encoded_images(table[self.columns.inputs[0]], ids)
            hashes = hash_images(cells)
        elif self.kind == "text":
            cells = texts(self._columns_of(table), ids)
            hashes = hash_texts(list(cells.columns.values()))
        elif self.kind == "tokens":
            cells = self._tokens(table, ids)
            hashes = hash_tokens(cells.columns, cells.lengths)
        else:
            cells = self._numbers(table, ids)
            hashes = hash_arrays(cells)
        return Rows(positions, ids, self._labels(table), hashes, cells)

    def _numbers(self, table: pa.Table, ids: np.ndarray) -> np.ndarray:
        if self.kind == "columns":
            return number_columns(self._columns_of(table), ids, self.layout)
        return numbers(self._columns_of(table), ids)

    def _tokens(self, table: pa.Table, ids: np.ndarray) -> Tokens:
        mask = self.columns.mask
        return tokens(self._columns_of(table), None if mask is None else table[mask], ids)

    def _columns_of(self, table: pa.Table) -> dict[str, pa.ChunkedArray]:
        return {name: table[name] for name in self.columns.inputs}

    def _ids(self, table: pa.Table, positions: np.ndarray) -> np.ndarray:
        if self.columns.id is None:
            return positions.astype(np.int64)
        return read_ids(table[self.columns.id], self.columns.id)

    def _labels(self, table: pa.Table) -> Labels:
        if self.columns.label is None:
            return label_lists.none_of(len(table), several=False)
        return self._labels_in(table[self.columns.label])

    def _labels_in(self, column: pa.ChunkedArray) -> Labels:
        name = self.columns.label
        assert name is not None, "it is that column"
        if self.spelling is None:
            return labels.numbers_of(column, name, self.class_names)
        return listed_labels.lists_of(column, name, self.spelling, self.class_names, self.flags)


def _feature(column: np.dtype) -> Any:
    """The `datasets` feature of a column of numbers."""
    feature: Any = datasets.Value(column.base.name)
    for length in reversed(column.shape):
        feature = datasets.List(feature, length=length)
    return feature
