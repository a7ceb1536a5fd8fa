"""Stage one's inner loop: read ahead, forward, encode and write, overlapped across shards.

Readers are threads (decoding releases the interpreter's lock), the forward pass stays on the
calling thread, and one thread encodes and writes. Whatever fails anywhere is raised here, at once,
and commits nothing. N rows of a batch, C classes.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from softlabels.errors import UnreadableInput
from softlabels.inputs.examples import as_tensor, decode_image, stack
from softlabels.inputs.preprocess import Preprocess
from softlabels.inputs.sources import Rows, Source
from softlabels.store.folder import Folder
from softlabels.store.ledger import Ledger
from softlabels.store.records import Plan, Skipped
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
    ledger: Ledger
    device: torch.device
    batch_size: int = 256
    workers: int = 2
    skip_unreadable: bool = False
    allow_codec_error: bool = False

    @property
    def folder(self) -> Folder:
        return self.ledger.folder


@dataclass(frozen=True)
class Batch:
    """Rows of one shard as the source has them, and the decoded inputs of those at `kept`.

    `start` is the first one's number in the source; `last` closes the shard; `skipped` holds
    (position in rows, reason); `unturned` counts pictures that are fed as stored though their EXIF
    orientation says to turn them.
    """

    shard: int
    start: int
    last: bool
    rows: Rows
    kept: np.ndarray
    inputs: Tensor | None
    skipped: list[tuple[int, str]]
    unturned: int = 0


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
        return Batch(shard, start, last, rows, np.arange(len(rows)), as_tensor(rows.cells), [])
    values, kept, skipped = [], [], []
    turns: list[int] | None = None if job.preprocess.is_upright else []
    for position, (cell, id) in enumerate(zip(rows.cells, rows.ids.tolist(), strict=True)):
        try:
            values.append(decode_image(cell, job.preprocess, id, turns))
            kept.append(position)
        except UnreadableInput as error:
            if not job.skip_unreadable:
                raise UnreadableInput(
                    f"{error}. Leave such rows out with --resume --on-error skip"
                ) from error
            skipped.append((position, str(error)))
    inputs = stack(values, rows.ids[kept]) if values else None
    unturned = sum(turn != 1 for turn in turns or [])
    return Batch(shard, start, last, rows, np.array(kept, np.int64), inputs, skipped, unturned)


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
            writer = ShardWriter(job.folder, job.plan, batch.shard, self.schema)
            writer.holds_error = not job.allow_codec_error
            self.open = writer.__enter__()
        try:
            rows = batch.rows
            for entry in _left_out(batch):
                self.open.skip(entry)
            self.open.unturned += batch.unturned
            if logits_NC is not None:
                rows = rows if len(batch.kept) == len(rows) else rows.select(batch.kept)
                inputs = None
                if self.job.plan.with_inputs:
                    inputs = input_column(rows.cells, self.schema.field("input").type)
                self.open.add(rows.ids, rows.labels, rows.hashes, logits_NC, inputs)
            if batch.last:
                closing, self.open = self.open, None
                closing.__exit__(None, None, None)
                assert closing.commit is not None, "it was left without an exception"
                self.job.ledger.note(closing.commit)
        except BaseException as error:
            self.abandon(error)
            raise
        return len(batch.rows)

    def abandon(self, error: BaseException) -> None:
        """Drop the open shard: nothing of it is kept, and nothing more is written."""
        self.failed = True
        if self.open is not None:
            closing, self.open = self.open, None
            closing.__exit__(type(error), error, error.__traceback__)


def input_column(cells: list[bytes] | np.ndarray, type_: pa.DataType) -> pa.Array:
    """The cells of a block as the column `input` of a shard."""
    if isinstance(cells, list):
        return pa.array([{"bytes": cell, "path": None} for cell in cells], type_)
    return pa.array(cells.tolist(), type_)


def _left_out(batch: Batch) -> Iterator[Skipped]:
    for position, reason in batch.skipped:
        yield Skipped(
            id=batch.rows.ids[position].item(),
            row=batch.start + position,
            input_hash=int(batch.rows.hashes[position]),
            label=int(batch.rows.labels[position]),
            reason=reason,
        )


def _batches(job: Job, shard: int) -> Iterator[tuple[int, int]]:
    start, stop = job.plan.bounds(shard)
    for first in range(start, stop, job.batch_size):
        yield first, min(first + job.batch_size, stop)
