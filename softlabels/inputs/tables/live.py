"""Data sets in memory: torch's map-style ones, whose rows become Arrow columns as they are read.

A row of a `datasets` data set lies in Arrow already; a map-style one may compute its rows, so some
are read several times at opening, and a row that is read again must be the same.
"""

import os
import threading
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import torch

from softlabels.errors import SoftlabelsError, SourceError
from softlabels.inputs.plain import OtherType
from softlabels.inputs.tables.live_cells import (
    Picture,
    as_cell,
    as_list,
    bytes_of,
    list_type,
)
from softlabels.inputs.texts import half_pair
from softlabels.models.causes import cause
from softlabels.models.tokens import BESIDE, IDS, MASK
from softlabels.system.humanize import short

TRIED, READS = 8, 3  # rows, and how often each: a coin that decides may fall alike twice
TOKENS = {IDS, MASK, *BESIDE}
INPUT, LABEL = "input", "label"  # the columns of a row (input, label)
PICTURE = datasets.Image().pa_type
SCALARS: dict[type, tuple[pa.DataType, str]] = {
    bool: (pa.bool_(), "bool"),
    int: (pa.int64(), "int64"),
    float: (pa.float64(), "float64"),
    str: (pa.string(), "string"),
    bytes: (pa.binary(), "binary"),
}


def name_of(data: object) -> str:
    """What records call a data set: the name that `datasets` has for it, else its class's."""
    if isinstance(data, datasets.DatasetDict):
        return name_of(next(iter(data.values()))) if len(data) else "DatasetDict"
    if isinstance(data, datasets.Dataset):
        name, reader = data.info.dataset_name, data.info.builder_name
        return short(name) if name and name != reader else "Dataset"  # such as parquet
    if isinstance(data, torch.utils.data.Subset):
        return f"{name_of(data.dataset)}-subset"
    return type(data).__name__


# One thread at a time, of all data sets: a file or a generator of random numbers may belong to
# several. A data set may read another one through softlabels, so the same thread enters twice.
_lock = threading.RLock()


class Unread:
    """Stands for a cell that was not read yet."""


class MapTable:
    """The rows of a map-style data set. A row is a dict, a pair (input, label), or an input alone;
    cells are pictures, tensors, arrays, numbers or texts.

    Cells that are one number or text are kept once they were read, since a label costs a whole row.
    The labels of a data set that has them beside its rows, as `targets`, are taken from there, and
    held against those of each row that is read.

    One thread reads at a time, and none in the background: a data set need not be made for several.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self.name = name_of(dataset)
        self.features: dict[str, Any] = {}
        self._shapes: dict[str, tuple[tuple[int, ...], np.dtype]] = {}
        self._lists: dict[str, type] = {}  # columns of lists, and what these hold
        self._sums = np.full(len(dataset), -1, np.int64)  # CRC-32 of each row that was read
        self._kept: dict[str, list[Any]] = {}
        self._beside = False  # whether labels are kept that no row has given
        if len(dataset):
            self._look()

    identity = files = None

    def __len__(self) -> int:
        return len(self._sums)

    def read(self, names: Sequence[str], start: int, stop: int) -> pa.Table:
        return self._table(names, range(start, stop))

    def take(self, names: Sequence[str], positions: np.ndarray) -> pa.Table:
        return self._table(names, positions.tolist())

    def categories(self, name: str) -> list[str] | None:
        return None

    def _look(self) -> None:
        """Learn the columns from a few rows, each of which is read several times."""
        chosen = np.unique(np.linspace(0, len(self) - 1, TRIED).astype(int)).tolist()
        rows = [self._row(position) for position in chosen]
        for name in rows[0]:
            cells = [row.get(name) for row in rows]
            there = [cell for cell in cells if cell is not None]
            # an empty list does not say what lists hold
            cell = next((one for one in there if type(one) is not list or one), (there or [""])[0])
            self.features[name] = self._feature(name, cell)
            if type(cell) in SCALARS and not isinstance(cell, bytes):
                self._kept[name] = [Unread] * len(self)
        labels = _labels_beside(self.dataset) if LABEL in self._kept else None
        if labels and [labels[i] for i in chosen] == [row[LABEL] for row in rows]:
            self._kept[LABEL], self._beside = labels, True
        names = _classes(self.dataset)
        if names and getattr(self.features.get(LABEL), "dtype", "") == "int64":
            self.features[LABEL] = datasets.ClassLabel(names=names)
        if names and self._lists.get(LABEL) is int:
            self.features[LABEL] = datasets.List(datasets.ClassLabel(names=names))
        for _ in range(READS):
            self._table(list(self.features), chosen)

    def _feature(self, name: str, cell: Any) -> Any:
        if isinstance(cell, Picture):
            return datasets.Image()
        if isinstance(cell, np.ndarray):
            self._shapes[name] = cell.shape, cell.dtype
            feature: Any = datasets.Value(cell.dtype.name)
            for length in reversed(cell.shape):
                feature = datasets.List(feature, length=length)
            return feature
        if type(cell) in SCALARS:
            return datasets.Value(SCALARS[type(cell)][1])
        if type(cell) is list and (kind := list_type(cell)) is not None:
            self._lists[name] = kind
            return datasets.List(datasets.Value(SCALARS[kind][1]))
        return OtherType(type(cell).__name__)

    def _table(self, names: Sequence[str], positions: Sequence[int]) -> pa.Table:
        columns: dict[str, list[Any]] = {name: [] for name in names}
        cached = [self._kept[name] for name in names if name in self._kept]
        for position in positions:
            if len(cached) == len(names) and all(c[position] is not Unread for c in cached):
                row = {name: self._kept[name][position] for name in names}
            else:
                row = self._checked(position)
            for name in names:
                columns[name].append(row[name])
        try:
            return pa.table({name: self._column(name, cells) for name, cells in columns.items()})
        except UnicodeEncodeError:
            self._refuse_halves(columns, positions)
            raise

    def _refuse_halves(self, columns: dict[str, list[Any]], positions: Sequence[int]) -> None:
        """Raises SourceError for the first row with a text that can't be UTF-8."""
        for place, position in enumerate(positions):
            for name, cells in columns.items():
                parts = cells[place] if isinstance(cells[place], list) else [cells[place]]
                for half in filter(None, (half_pair(name, part) for part in parts)):
                    raise SourceError(f"row {position:,} of {self.name}: {half}")

    def _checked(self, position: int) -> dict[str, Any]:
        """A row, the same as when it was read before."""
        row = self._row(position)
        if set(row) != set(self.features):
            raise SourceError(
                f"row {position:,} of {self.name} has {', '.join(row)}, the first has "
                f"{', '.join(self.features)}; rows have the same entries"
            )
        total = 0
        for name, feature in self.features.items():
            if not isinstance(feature, OtherType):
                total = zlib.crc32(bytes_of(row[name]), total)
        if self._sums[position] not in (-1, total):
            raise SourceError(
                f"row {position:,} of {self.name} is not what it was when it was read before: is "
                f"it augmented at random? A dump stores the answers to inputs that can be read "
                f"again: give the data set without random transforms; softlabels draws views of "
                f"pictures itself (augment='jitter(2)', views=3)"
            )
        self._sums[position] = total
        if self._beside and self._kept[LABEL][position] != row[LABEL]:
            raise SourceError(
                f"row {position:,} of {self.name} has the label {short(repr(row[LABEL]))}, and its "
                f"`targets` say {self._kept[LABEL][position]}; mend the data set"
            )
        for name, kept in self._kept.items():
            kept[position] = row[name]
        return row

    def _row(self, position: int) -> dict[str, Any]:
        try:
            with _lock:
                row = self.dataset[position]
        except SoftlabelsError:
            raise
        except Exception as error:  # of code that is not ours
            raise SourceError(
                f"row {position:,} of {self.name} can't be read: {cause(error)}"
            ) from error
        cells = {name: as_cell(value) for name, value in self._entries(row).items()}
        for name in TOKENS & cells.keys():  # which may be more in one row than in another
            cells[name] = as_list(cells[name])
        return cells

    def _entries(self, row: Any) -> dict[str, Any]:
        if isinstance(row, Mapping):
            return {str(name): value for name, value in row.items()}
        if hasattr(row, "_fields"):  # a named tuple
            return dict(row._asdict())
        if not isinstance(row, tuple | list):
            return {INPUT: row}
        if len(row) > 2 or not row:
            raise SourceError(
                f"a row of {self.name} is a {type(row).__name__} of {len(row)}; expected an input, "
                f"(input, label), or a dict, whose keys say what each entry is"
            )
        return dict(zip((INPUT, LABEL), row, strict=False))

    def _column(self, name: str, cells: list[Any]) -> pa.Array:
        feature = self.features[name]
        if isinstance(feature, datasets.Image):
            self._check(name, cells, Picture)
            return pa.array([cell and {"bytes": cell, "path": None} for cell in cells], PICTURE)
        if name in self._shapes:
            self._check(name, cells, np.ndarray)
            return self._numbers(name, cells)
        if name in self._lists:
            self._check_lists(name, cells)
            return pa.array(cells, pa.list_(SCALARS[self._lists[name]][0]))
        if isinstance(feature, OtherType):
            raise SourceError(
                f"{name!r} of {self.name} holds a {feature.dtype}; an input is a picture, a tensor "
                f"or an array, ids and labels are numbers or text, several labels a list of these"
            )
        kind = pa.int64() if isinstance(feature, datasets.ClassLabel) else feature.pa_type
        return pa.array(cells, kind)

    def _check(self, name: str, cells: list[Any], kind: type) -> None:
        for cell in cells:
            if not isinstance(cell, kind) and (cell is not None or kind is np.ndarray):
                was = "a picture" if kind is Picture else "numbers"
                raise SourceError(
                    f"{name!r} of {self.name} is {was} in the first rows, and a "
                    f"{type(cell).__name__} in another; a column holds one type"
                )

    def _check_lists(self, name: str, cells: list[Any]) -> None:
        kind = self._lists[name]
        for cell in cells:
            if cell is not None and (type(cell) is not list or (cell and list_type(cell) != kind)):
                raise SourceError(
                    f"{name!r} of {self.name} is a list of {kind.__name__} in the first rows, and "
                    f"{short(repr(cell))} in another; a column holds one type"
                )

    def _numbers(self, name: str, cells: list[np.ndarray]) -> pa.Array:
        shape, dtype = self._shapes[name]
        for cell in cells:
            if (cell.shape, cell.dtype) != (shape, dtype):
                raise SourceError(
                    f"{name!r} of {self.name} is {cell.dtype} {list(cell.shape)} in a row, and "
                    f"{dtype} {list(shape)} in the first; inputs are equally large, but for tokens "
                    f"in {IDS}, and lists of whole numbers"
                )
        values = np.stack(cells) if cells else np.empty((0, *shape), dtype)
        column = pa.array(values.ravel())
        for length in reversed(shape):
            column = pa.FixedSizeListArray.from_arrays(column, length)
        return column


def _renew_lock() -> None:
    """A thread of the parent may have held it when this process was forked."""
    global _lock
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_renew_lock)


def _labels_beside(data: Any) -> list[Any] | None:
    """The labels that torchvision's data sets keep beside their rows; None where there are none."""
    if isinstance(data, torch.utils.data.Subset):
        inner = _labels_beside(data.dataset)
        return inner and [inner[i] for i in data.indices]
    targets = getattr(data, "targets", None)
    if isinstance(targets, torch.Tensor | np.ndarray):
        targets = targets.tolist()
    if not isinstance(targets, list | tuple) or len(targets) != len(data):
        return None
    return list(targets) if {type(one) for one in targets} == {int} else None


def _classes(data: Any) -> list[str] | None:
    """The names of the classes as torchvision's data sets have them."""
    if isinstance(data, torch.utils.data.Subset):
        return _classes(data.dataset)
    names = getattr(data, "classes", None)
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        return None
    return list(names) if len(set(names)) == len(names) else None
