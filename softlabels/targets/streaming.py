"""A dump read row group by row group, wherever it lies, keeping only the last few.

For dumps larger than memory and disk, and for a look at a remote one. Row groups are decoded in
threads, page checksums verified, each by one request; nothing is written. N rows asked for.
"""

import os
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from softlabels.errors import UsageError
from softlabels.inputs.examples import Examples
from softlabels.inputs.preprocess import Preprocess
from softlabels.logits import DenseLogits
from softlabels.store.codec import DTYPES
from softlabels.store.decoding import ShardDecoder
from softlabels.store.gathering import RowGroups
from softlabels.store.reader import DumpReader
from softlabels.system import background
from softlabels.targets.orders import HELD_GROUPS

THREADS = 8
KEPT = 3 * HELD_GROUPS  # row groups: of a window, of the next, and of where they meet


@dataclass(frozen=True)
class Group:
    """A decoded row group: its rows without logits and inputs, its logits, and its inputs."""

    table: pa.Table
    logits_NC: Tensor
    inputs: Callable[[np.ndarray], Tensor] | None


class StreamedRows:
    """The rows of a dump by row group. `inputs`: a row group's table → local rows → their inputs,
    or None to leave them out."""

    def __init__(
        self,
        reader: DumpReader,
        inputs: Callable[[pa.Table], Callable[[np.ndarray], Tensor]] | None,
        columns: list[str],
    ) -> None:
        self.reader, self.inputs, self.names = reader, inputs, [*columns, "logits"]
        plan, shards = reader.plan, reader.records
        self.groups = RowGroups(
            [s["rows"] for s in shards], plan.group_rows, reader.codec.row_bytes
        )
        self.decoders = [
            ShardDecoder(reader.folder, plan, number, shard["rows"])
            for number, shard in zip(reader.numbers, shards, strict=True)
        ]
        self._bounds = self.groups.row_bounds
        self._process: int | None = None

    def __reduce__(self) -> tuple:
        return StreamedRows, (self.reader, self.inputs, self.names[:-1])

    def gather(self, rows: np.ndarray) -> DenseLogits:
        """The logits of these rows in the stored dtype."""
        logits: DenseLogits = self.columns(rows)["targets"]
        return logits

    def columns(self, rows: np.ndarray) -> dict[str, Any]:
        """These rows, in their order: id, input, label and targets."""
        groups = np.searchsorted(self._bounds, rows, side="right") - 1
        numbers, where = np.unique(groups, return_inverse=True)
        if not len(rows):
            numbers = np.zeros(1, np.int64)  # none of its rows, but its dtypes
        asked = [self._ask(int(group)) for group in numbers]
        found = [future.result() for future in asked]
        order = np.argsort(where, kind="stable")
        parts = np.split(order, np.cumsum(np.bincount(where, minlength=len(numbers)))[:-1])
        local = [rows[p] - self._bounds[g] for p, g in zip(parts, numbers, strict=True)]
        logits = torch.empty(len(rows), self.reader.plan.classes,
                             dtype=DTYPES[self.reader.plan.dtype][0])  # fmt: skip
        inputs = []
        for group, part, chosen in zip(found, parts, local, strict=True):
            logits[torch.from_numpy(part)] = group.logits_NC[torch.from_numpy(chosen)]
            if group.inputs is not None:
                inputs.append(group.inputs(chosen))
        back = np.empty(len(rows), np.int64)
        back[order] = np.arange(len(rows))
        pairs = zip(found, local, strict=True)
        table = pa.concat_tables([g.table.take(pa.array(chosen)) for g, chosen in pairs]).take(
            pa.array(back)
        )
        columns: dict[str, Any] = {"id": _ids(table["id"])}
        if inputs:
            columns["input"] = torch.cat(inputs)[torch.from_numpy(back)]
        labels = table["label"].to_numpy() if "label" in self.names else np.full(len(rows), -1)
        return columns | {"label": torch.from_numpy(labels.copy()), "targets": DenseLogits(logits)}

    def order_text(self, text: str) -> str:
        """Rows that are far apart can't be mixed here: `full` becomes `blocks`.

        Raises UsageError for blocks that are not row groups.
        """
        if text not in ("none", "full", "blocks"):
            raise UsageError(f"shuffle is {text!r}; a streamed dump has none and blocks")
        return "blocks" if text == "full" else text

    def read_ahead(self, rows: np.ndarray) -> None:
        """Begin to decode the row groups of these rows."""
        for group in np.unique(np.searchsorted(self._bounds, rows, side="right") - 1):
            self._ask(int(group))

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
                while len(self._held) > KEPT:
                    self._held.popitem(last=False)
            self._held.move_to_end(group)
            return self._held[group]

    def _begin(self) -> None:
        if self._process is not None:  # forked: clients of object stores don't live on
            folder = self.reader.folder.reopened()
            for decoder in self.decoders:
                decoder.folder = folder
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="stream")
        self._held: OrderedDict[int, Future[Group]] = OrderedDict()
        self._lock = Lock()
        self._process = os.getpid()

    def _decode(self, group: int) -> Group:
        shard = self.groups.shard_of(group)
        table = self.decoders[shard].table(group - self.groups.of_shard(shard).start, self.names)
        logits = torch.from_numpy(self.reader.codec.decode(table["logits"]))
        inputs = None if self.inputs is None else self.inputs(table)
        others = [name for name in self.names if name not in ("logits", "input")]
        return Group(table.select(others), logits, inputs)


class StreamedInputs(Examples):
    """The inputs of streamed rows, by row of the dump."""

    def __init__(self, rows: StreamedRows, preprocess: Preprocess) -> None:
        self.rows, self.preprocess, self.device = rows, preprocess, None

    def __reduce__(self) -> tuple:
        return StreamedInputs, (self.rows, self.preprocess)

    def __len__(self) -> int:
        return len(self.rows.reader)

    def gather(self, rows: np.ndarray) -> Tensor:
        inputs: Tensor = self.rows.columns(rows)["input"]
        return inputs

    gather_uncached = gather

    @property
    def kept(self) -> bool:
        return False


def _ids(column: pa.ChunkedArray) -> Tensor | list[str]:
    if pa.types.is_integer(column.type):
        return torch.from_numpy(column.to_numpy().copy())
    texts: list[str] = column.to_pylist()
    return texts
