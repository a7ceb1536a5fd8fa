"""Stage one's inner loop: read ahead, forward, encode and write, overlapped across shards.

Readers are threads (decoding releases the interpreter's lock), the forward pass stays on the
calling thread, and one thread encodes and writes. Whatever fails anywhere is raised here, at once,
and commits nothing. N rows of a batch, C classes.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from softlabels.errors import UnreadableInput
from softlabels.inputs.examples import as_tensor, decode_image, stack
from softlabels.inputs.preprocess import Preprocess
from softlabels.inputs.sources import Rows, Source
from softlabels.store.folder import Folder
from softlabels.store.manifest import Plan
from softlabels.store.writer import ShardWriter, shard_schema
from softlabels.teachers import Teacher

Item = TypeVar("Item")
Result = TypeVar("Result")

WRITES_IN_FLIGHT = 4


@dataclass(frozen=True)
class Job:
    """A plan and the objects that carry it out. How it is run does not change what it gives."""

    plan: Plan
    source: Source
    teacher: Teacher
    preprocess: Preprocess
    folder: Folder
    device: torch.device
    batch_size: int = 256
    workers: int = 2
    skip_unreadable: bool = False


@dataclass(frozen=True)
class Batch:
    """Rows of one shard, decoded. `last` closes the shard; `skipped` holds (id, reason)."""

    shard: int
    last: bool
    rows: Rows
    inputs: Tensor | None
    skipped: list[tuple[Any, str]]


def dump_shard(job: Job, shard: int) -> int:
    """Dump one shard of the plan and commit it; the rows that it covers. Idempotent."""
    return sum(dump_shards(job, [shard]))


def dump_shards(job: Job, shards: Iterable[int]) -> Iterator[int]:
    """Dump these shards, one after the other without a pause between them; yields the number of
    source rows done, batch by batch, as they are handed to the file."""
    tasks = ((shard, start, stop) for shard in shards for start, stop in _batches(job, shard))
    scribe = Scribe(job)
    readers = ThreadPoolExecutor(job.workers, thread_name_prefix="read")
    writer = ThreadPoolExecutor(1, thread_name_prefix="write")
    pending: deque[Future[int]] = deque()
    try:
        for batch in read_ahead(readers, lambda task: read(job, *task), tasks, 2 * job.workers):
            logits_NC = None if batch.inputs is None else forward(job, batch.inputs)
            pending.append(writer.submit(scribe.write, batch, logits_NC))
            while len(pending) > WRITES_IN_FLIGHT or (pending and pending[0].done()):
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BaseException as error:
        writer.submit(scribe.abandon, error)
        raise
    finally:
        readers.shutdown(wait=False, cancel_futures=True)
        writer.shutdown(wait=True)


def read_ahead(
    pool: ThreadPoolExecutor,
    work: Callable[[Item], Result],
    items: Iterable[Item],
    depth: int,
) -> Iterator[Result]:
    """`map(work, items)` in order, with up to `depth` results under way in the pool."""
    waiting: deque[Future[Result]] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) >= depth:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def read(job: Job, shard: int, start: int, stop: int) -> Batch:
    """Read and decode the source rows [start, stop) of a shard."""
    rows = job.source.read(start, stop)
    last = stop == job.plan.bounds(shard)[1]
    if isinstance(rows.cells, np.ndarray):
        return Batch(shard, last, rows, as_tensor(rows.cells), [])
    values, kept, skipped = [], [], []
    for position, (cell, id) in enumerate(zip(rows.cells, rows.ids.tolist(), strict=True)):
        try:
            values.append(decode_image(cell, job.preprocess, id))
            kept.append(position)
        except UnreadableInput as error:
            if not job.skip_unreadable:
                raise UnreadableInput(
                    f"{error} Leave such rows out with --resume --on-error skip"
                ) from error
            skipped.append((id, str(error)))
    if skipped:
        cells = [rows.cells[i] for i in kept]
        rows = Rows(rows.ids[kept], rows.labels[kept], rows.hashes[kept], cells)
    return Batch(shard, last, rows, stack(values, rows.ids) if values else None, skipped)


def forward(job: Job, inputs: Tensor) -> Tensor:
    """The teacher's logits [N, C], still on the device: the writing thread waits for them."""
    if job.device.type == "cuda":
        inputs = inputs.pin_memory()
    on_device = inputs.to(job.device, non_blocking=True)
    return job.teacher.logits(job.preprocess.on_numbers(on_device), job.plan.precision)


class Scribe:
    """The writing thread's side: the shard that is open, if any."""

    def __init__(self, job: Job) -> None:
        self.job = job
        feature = job.source.input_feature if job.plan.with_inputs else None
        self.schema = shard_schema(job.plan, feature)
        self.open: ShardWriter | None = None
        self.failed = False

    def write(self, batch: Batch, logits_NC: Tensor | None) -> int:
        """Add a batch to its shard; commit the shard after its last. The source rows done."""
        if self.failed:  # batches may be queued behind the one that failed
            raise RuntimeError("an earlier batch of this dump could not be written")
        if self.open is None:
            job = self.job
            self.open = ShardWriter(job.folder, job.plan, batch.shard, self.schema).__enter__()
        try:
            for id, reason in batch.skipped:
                self.open.skip(id, reason)
            if logits_NC is not None:
                rows = batch.rows
                inputs = self._column(rows.cells) if self.job.plan.with_inputs else None
                self.open.add(rows.ids, rows.labels, rows.hashes, logits_NC, inputs)
            if batch.last:
                closing, self.open = self.open, None
                closing.__exit__(None, None, None)
        except BaseException as error:
            self.abandon(error)
            raise
        return len(batch.rows) + len(batch.skipped)

    def abandon(self, error: BaseException) -> None:
        """Drop the open shard: nothing of it is kept, and nothing more is written."""
        self.failed = True
        if self.open is not None:
            closing, self.open = self.open, None
            closing.__exit__(type(error), error, error.__traceback__)

    def _column(self, cells: list[bytes] | np.ndarray) -> pa.Array:
        type_ = self.schema.field("input").type
        if isinstance(cells, list):
            return pa.array([{"bytes": cell, "path": None} for cell in cells], type_)
        return pa.array(cells.tolist(), type_)


def _batches(job: Job, shard: int) -> Iterator[tuple[int, int]]:
    start, stop = job.plan.bounds(shard)
    for first in range(start, stop, job.batch_size):
        yield first, min(first + job.batch_size, stop)
