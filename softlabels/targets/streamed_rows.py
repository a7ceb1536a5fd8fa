"""A dump read row group by row group, wherever it lies, keeping only the last few.

For dumps larger than memory and disk, and for a look at a remote one. Row groups are decoded in
threads, page checksums verified, each by one request; nothing is written. N rows asked for.
"""

import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from softlabels.errors import UsageError
from softlabels.inputs.cropping import OnPicture
from softlabels.inputs.examples import Examples
from softlabels.inputs.label_lists import as_tensor
from softlabels.inputs.preprocess import Preprocess
from softlabels.inputs.sources import Source
from softlabels.inputs.text_inputs import TextInputs
from softlabels.inputs.texts import joined_texts
from softlabels.inputs.token_inputs import TokenInputs
from softlabels.inputs.viewed import ViewedInputs
from softlabels.inputs.views.mixing import PARTNER_LABEL, WEIGHT
from softlabels.logits import Logits
from softlabels.models.named import NamedInputs
from softlabels.models.tokens import Tokens
from softlabels.store.codecs.codec import as_tensors
from softlabels.store.gathering import RowGroups
from softlabels.store.label_columns import read_labels
from softlabels.store.pages.columns import Column
from softlabels.store.reader import DumpReader
from softlabels.store.shard_reader import ShardReader
from softlabels.system import background
from softlabels.targets.joining import JoinedInputs, StoredInputs, stored_steps
from softlabels.targets.mapped_rows import no_labels, target_columns
from softlabels.targets.orders import HELD_GROUPS

THREADS = 8
# Row groups of a window and of the next two, where a batch lies in two of them, and of the one
# before, which the last such batch used after it asked for the next.
WINDOWS = 4
KEPT = WINDOWS * HELD_GROUPS


@dataclass(frozen=True)
class Group:
    """A decoded row group: ids and labels, what the codec stores, and the inputs, not decoded."""

    table: pa.Table
    stored: dict[str, Any]
    inputs: Examples | TextInputs | TokenInputs | None

    def only(self, rows: np.ndarray) -> "Group":
        """Copies of these rows, without inputs."""
        stored = {
            name: values[torch.from_numpy(rows)]
            if isinstance(values, Tensor)
            else [values[row] for row in rows]
            for name, values in self.stored.items()
        }
        return Group(self.table.take(pa.array(rows)), stored, None)


@dataclass(frozen=True)
class Chosen:
    """Rows that were asked for, by their row groups.

    parts: of each group, where its rows stand among those that were asked for
    local: of each group, its rows
    back: the rows of one group after the other, in the order that was asked for
    """

    groups: list[Group]
    parts: list[np.ndarray]
    local: list[np.ndarray]
    back: np.ndarray

    @property
    def table(self) -> pa.Table:
        pairs = zip(self.groups, self.local, strict=True)
        tables = [group.table.take(pa.array(rows)) for group, rows in pairs]
        return pa.concat_tables(tables).take(pa.array(self.back))

    def inputs(self, preprocesses: Sequence[OnPicture] | None = None) -> Any:
        """Tensors, texts or tokens."""
        read: list[Any] = []
        for group, part, rows in zip(self.groups, self.parts, self.local, strict=True):
            assert group.inputs is not None, "they were asked for"
            if preprocesses is None:
                read.append(group.inputs.gather_uncached(rows))
            else:
                assert isinstance(group.inputs, Examples), "texts are no pictures"
                own = [preprocesses[place] for place in part]
                read.append(group.inputs.gather_pictures(rows, own))
        if isinstance(read[0], Tensor):
            return torch.cat(read)[torch.from_numpy(self.back)]
        if isinstance(read[0], NamedInputs):
            return type(read[0]).joined(read)[self.back]
        return joined_texts(read, self.back)


class StreamedRows:
    """The rows of a dump by row group. `inputs`: a row group's table → its inputs, or None to leave
    them out. `kept`: how many row groups are held."""

    def __init__(
        self,
        reader: DumpReader,
        inputs: StoredInputs | JoinedInputs | None,
        columns: list[str],
        kept: int = KEPT,
    ) -> None:
        self.reader, self.inputs, self.names, self.kept = reader, inputs, columns, kept
        shard_rows, plan = [record.rows for record in reader.records], reader.plan
        self.groups = RowGroups(shard_rows, plan.group_rows, 0, len(plan.views))
        self.shards = [reader.shard(shard) for shard in range(len(reader.records))]
        self.row_bounds = self.groups.row_bounds
        self._process: int | None = None

    def __reduce__(self) -> tuple:
        return StreamedRows, (self.reader, self.inputs, self.names, self.kept)

    def prepared_by(self, preprocess: Preprocess) -> "StreamedRows":
        """The same rows, whose inputs this prepares."""
        assert self.inputs is not None, "they were asked for"
        inputs = replace(self.inputs, preprocess=preprocess)
        return StreamedRows(self.reader, inputs, self.names, self.kept)

    def keep(self, groups: int) -> None:
        """Hold so many row groups, or more where another asked for more."""
        self.kept = max(self.kept, groups)

    def gather(self, rows: np.ndarray) -> Logits:
        """The logits of these rows as they are stored."""
        chosen = self._choose(rows, inputs=False)
        return self.reader.codec.wrap(self._stored(chosen, len(rows)))

    def columns(self, rows: np.ndarray, inputs: bool = False) -> dict[str, Any]:
        """These rows, in their order: id, label and targets, and their inputs if asked for."""
        chosen = self._choose(rows, inputs)
        codec, plan = self.reader.codec, self.reader.plan
        stored = self._stored(chosen, len(rows))
        table = chosen.table
        columns: dict[str, Any] = {"id": _ids(table["id"])}
        if "view" in self.names:
            columns["view"] = torch.from_numpy(table["view"].to_numpy().copy())
        if inputs:
            columns["input"] = chosen.inputs()
        none = {} if "label" in self.names else {"label": no_labels(len(rows), plan)}
        partners = [name for name in plan.partner_columns if name == PARTNER_LABEL]
        labels = {
            name: as_tensor(read_labels(plan, name, table[name]), plan.classes)
            for name in (*plan.label_columns, *partners)
        }
        if plan.mixing is not None:
            labels[WEIGHT] = torch.from_numpy(table[WEIGHT].to_numpy().copy())
        return columns | none | labels | target_columns(codec, stored)

    def _stored(self, chosen: Chosen, rows: int) -> dict[str, Any]:
        """The codec's columns of these so many rows."""
        return {
            column.name: _spread(
                column,
                rows,
                [group.stored[column.name] for group in chosen.groups],
                chosen.parts,
                chosen.local,
            )
            for column in self.reader.codec.columns
        }

    def inputs_of(self, rows: np.ndarray, preprocesses: Sequence[OnPicture] | None = None) -> Any:
        """The inputs of these rows, [N, …], or texts; pictures by a preprocessing of their own, if
        given."""
        return self._choose(rows, inputs=True).inputs(preprocesses)

    def examples(self, group: int) -> Examples | TextInputs | TokenInputs | None:
        """The inputs of the rows of a row group."""
        return self._ask(group).result().inputs

    def _choose(self, rows: np.ndarray, inputs: bool) -> Chosen:
        groups = np.searchsorted(self.row_bounds, rows, side="right") - 1
        numbers, where = np.unique(groups, return_inverse=True)
        if not len(rows):
            numbers = np.zeros(1, np.int64)  # none of its rows, but its dtypes
        order = np.argsort(where, kind="stable")
        parts = np.split(order, np.cumsum(np.bincount(where, minlength=len(numbers)))[:-1])
        local = [rows[p] - self.row_bounds[g] for p, g in zip(parts, numbers, strict=True)]
        back = np.empty(len(rows), np.int64)
        back[order] = np.arange(len(rows))
        if len(numbers) > self.kept and not inputs:  # which would be in memory at once
            read = [group.only(own) for group, own in zip(self._each(numbers), local, strict=True)]
            return Chosen(read, parts, [np.arange(len(own)) for own in local], back)
        asked = [self._ask(int(group)) for group in numbers]
        return Chosen([future.result() for future in asked], parts, local, back)

    def _each(self, numbers: np.ndarray) -> Iterator[Group]:
        """These row groups, a few ahead."""
        for place in range(len(numbers)):
            ahead = [self._ask(int(group)) for group in numbers[place : place + THREADS]]
            yield ahead[0].result()

    def order_text(self, text: str) -> str:
        """Rows that are far apart can't be mixed here: `full` becomes `blocks`.

        Raises UsageError for blocks that are not row groups.
        """
        if text not in ("none", "full", "blocks"):
            raise UsageError(f"shuffle is {text!r}; a streamed dump has none and blocks")
        return "blocks" if text == "full" else text

    def read_ahead(self, rows: np.ndarray) -> None:
        """Begin to decode the row groups of these rows, unless they would push each other out."""
        groups = np.unique(np.searchsorted(self.row_bounds, rows, side="right") - 1)
        for group in groups.tolist() if len(groups) <= self.kept else ():
            self._ask(group)

    def settle(self) -> None:
        """Every page was checked when it was read."""

    def _ask(self, group: int) -> "Future[Group]":
        if self._process != os.getpid():
            with background.opening:
                if self._process != os.getpid():
                    self._begin()
        with self._lock:
            held = self._held.get(group)
            if held is None or (held.done() and held.exception() is not None):
                self._held[group] = self._pool.submit(self._decode, group)
                while len(self._held) > self.kept:
                    self._held.popitem(last=False)
            self._held.move_to_end(group)
            return self._held[group]

    def _begin(self) -> None:
        if self._process is not None:  # forked: clients of object stores don't live on
            folder = self.reader.folder.reopened()
            for shard in self.shards:
                shard.folder = folder
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="stream")
        self._held: OrderedDict[int, Future[Group]] = OrderedDict()
        self._lock = Lock()
        self._process = os.getpid()

    def _decode(self, group: int) -> Group:
        number = self.groups.shard_of(group)
        shard, first = self.shards[number], self.groups.of_shard(number).start
        table = shard.table(group - first, [*self.names, *self.reader.codec.names])
        stored = as_tensors(shard.decode(table))
        inputs = self._inputs(shard, group - first, table)
        others = [name for name in self.names if name not in self.reader.plan.input_columns]
        return Group(table.select(others), stored, inputs)

    def _inputs(
        self, shard: ShardReader, group: int, table: pa.Table
    ) -> Examples | TextInputs | TokenInputs | None:
        """Those of a row group, as its view shows them."""
        if self.inputs is None:
            return None
        plan = self.reader.plan
        if not plan.has_views:
            return self.inputs(table)
        before = group % len(plan.views)
        if "input" in self.names and before:  # stored with the band's first view
            place = table.column_names.index("input")
            stored = shard.table(group - before, ["input"])["input"]
            table = table.set_column(place, "input", stored)
        drawn = {name: table[name].to_numpy() for name in plan.parameters}
        inputs = self.inputs(table)
        assert isinstance(inputs, Examples), "texts have no views"
        assert plan.augmentation is not None, "there are views"
        views, numbers = np.full(len(table), plan.views[before]), np.arange(len(table))
        stored = stored_steps(plan, self.inputs.preprocess)
        shape = plan.view_shape or []
        return ViewedInputs(inputs, plan.augmentation, numbers, views, drawn, shape, stored)


class StreamedInputs(Examples):
    """The inputs of streamed rows, by row of the dump."""

    def __init__(self, rows: StreamedRows, preprocess: Preprocess) -> None:
        self.rows, self.preprocess, self.device = rows, preprocess, None

    def __reduce__(self) -> tuple:
        return StreamedInputs, (self.rows, self.preprocess)

    def __len__(self) -> int:
        return len(self.rows.reader)

    @cached_property
    def source(self) -> Source:  # type: ignore[override]
        """Of the first row group: all are of one kind."""
        first = self.rows.examples(0)
        assert first is not None, "they were asked for"
        return first.source

    def gather(self, rows: np.ndarray) -> Tensor:
        inputs: Tensor = self.rows.inputs_of(rows)
        return inputs

    gather_uncached = gather

    @property
    def input_shape(self) -> list[int]:
        """None that all rows share, where they are texts."""
        return [] if self.source.kind == "text" else super().input_shape

    def finish(self, batch: Any) -> Any:
        return batch if isinstance(batch, Tokens) else super().finish(batch)

    def gather_pictures(self, rows: np.ndarray, preprocesses: Sequence[OnPicture]) -> Tensor:
        pictures: Tensor = self.rows.inputs_of(rows, preprocesses)
        return pictures

    def only(self, rows: np.ndarray) -> None:
        """Nothing is kept."""

    @property
    def kept(self) -> bool:
        return False


def _spread(
    column: Column, rows: int, groups: list[Any], parts: list[np.ndarray], local: list[np.ndarray]
) -> Any:
    """What row groups have of a column: the rows `local` of each, at the places `parts` of all."""
    if not column.mapped:
        values: list[Any] = [None] * rows
        for group, part, chosen in zip(groups, parts, local, strict=True):
            for place, row in zip(part.tolist(), chosen.tolist(), strict=True):
                values[place] = group[row]
        return values
    numbers = torch.from_numpy(column.empty(rows))
    for group, part, chosen in zip(groups, parts, local, strict=True):
        numbers[torch.from_numpy(part)] = group[torch.from_numpy(chosen)]
    return numbers


def _ids(column: pa.ChunkedArray) -> Tensor | list[str]:
    if pa.types.is_integer(column.type):
        return torch.from_numpy(column.to_numpy().copy())
    texts: list[str] = column.to_pylist()
    return texts
