"""Stage one's inner loop: read ahead, answer, encode and write, overlapped across shards.

A few threads read; others decode pictures, which releases the interpreter's lock. Answers are given
on the calling thread, and one thread encodes and writes. Whatever fails anywhere is raised here, at
once, and commits nothing.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
import pyarrow as pa
from torch import Tensor

from softlabels.capture.answers import Answers
from softlabels.capture.timing import TEACHER, WRITING, Timing
from softlabels.capture.transfers import Arriving
from softlabels.errors import TeacherError, UnreadableInput
from softlabels.inputs.augmentations import Drawn
from softlabels.inputs.cropping import OnPicture
from softlabels.inputs.decoding import decode
from softlabels.inputs.examples import numbers_of
from softlabels.inputs.label_lists import as_record
from softlabels.inputs.number_cells import as_columns
from softlabels.inputs.rows import Rows
from softlabels.inputs.sources import Source
from softlabels.inputs.stored_pictures import Resized, Storing
from softlabels.inputs.texts import Texts
from softlabels.inputs.views import joined
from softlabels.models.causes import first_line
from softlabels.models.named import NamedInputs
from softlabels.models.tokens import Tokens, padding
from softlabels.store.codecs.kinds import Dense
from softlabels.store.folder import Folder
from softlabels.store.ledger import Ledger
from softlabels.store.records import Plan, Skipped
from softlabels.store.writer import ShardWriter, shard_schema, stored_features
from softlabels.system.background import cores
from softlabels.system.environment import number_in_environment
from softlabels.system.reused_memory import Empty, ReusedMemory, fresh, pinned

Item = TypeVar("Item")
Result = TypeVar("Result")

WRITES_IN_FLIGHT = 4
WINDOW, WINDOW_ROWS = 16, 16_384  # batches of texts or tokens, and the most rows of several
READERS = 4


@dataclass(frozen=True)
class Pace:
    """How a dump is run, which does not change what it holds.

    batch_size: rows in a forward pass
    workers: threads that decode pictures; None for as many as there are cores for this process
    on_error: stop, or skip: an input that can't be read is left out
    allow_codec_error: store a shard though its codec errs far more than on the pilot
    """

    batch_size: int = 256
    workers: int | None = None
    on_error: str = "stop"
    allow_codec_error: bool = False

    def __post_init__(self) -> None:
        _ = self.cores  # a wrong environment is refused before anything is written

    @property
    def threads(self) -> int:
        """Threads that decode pictures."""
        return self.cores if self.workers is None else self.workers

    @property
    def cores(self) -> int:
        """Those of this process. Ranks of one machine share its cores."""
        ranks = number_in_environment("LOCAL_WORLD_SIZE", 1, least=1)
        return max(1, cores() // ranks)

    @property
    def readers(self) -> int:
        """Batches that are read at once, by threads that wait for those that decode. Few are
        enough, and what waits in memory must not grow with the cores."""
        return min(READERS, self.threads)


@dataclass(frozen=True)
class Job:
    """A plan and the objects that carry it out. timing: of what was done of it so far"""

    plan: Plan
    source: Source
    answers: Answers
    ledger: Ledger
    pace: Pace
    timing: Timing = field(default_factory=Timing)

    @property
    def folder(self) -> Folder:
        return self.ledger.folder

    @property
    def readers(self) -> int:
        """Threads that read. Rows that are only hashed come in large blocks: one thread keeps one
        block of inputs in memory."""
        if self.source.runs_code:  # of which reading may be the most expensive part
            return self.pace.threads
        return self.pace.readers if self.answers.needs_inputs else 1


@dataclass(frozen=True)
class Ready:
    """Rows that can be answered, and those that are left out.

    inputs: those of `rows`, decoded; None where answers need none, or where there are no rows
    views: the parameters of each view of them; empty for the inputs as they are
    unturned: pictures that are fed as stored, though their EXIF orientation says to turn them
    truncated: texts of which the end was cut
    files: the pictures of `rows` as they are stored, if that is not as they are
    """

    rows: Rows
    inputs: Tensor | NamedInputs | None
    skipped: list[Skipped]
    unturned: int = 0
    truncated: int = 0
    views: list[Drawn] = field(default_factory=list)
    files: list[Storing] = field(default_factory=list)


@dataclass(frozen=True)
class Batch:
    """A part of one shard. count: the source rows that it covers; last: it closes the shard."""

    shard: int
    count: int
    last: bool
    ready: Ready


def dump_shards(job: Job, shards: Iterable[int]) -> Iterator[int]:
    """Dump these shards, one after the other without a pause between them; yields the number of
    source rows done, batch by batch, as they are handed to the file."""
    scribe = Scribe(job)
    writer = ThreadPoolExecutor(1, thread_name_prefix="write")
    pending: deque[Future[int]] = deque()
    timing = job.timing

    def written() -> int:
        with timing.of(WRITING):
            rows = pending.popleft().result()
        timing.rows += rows
        return rows

    try:
        with timing.dump(), closing(read_shards(job, shards)) as batches:
            for batch in timing.awaited(batches):
                with timing.of(TEACHER):
                    answer = answer_to(job.answers, batch.ready) if len(batch.ready.rows) else None
                if not isinstance(batch.ready.inputs, Tokens):  # their lengths are counted
                    batch = replace(batch, ready=replace(batch.ready, inputs=None))
                pending.append(writer.submit(scribe.write, batch, answer))
                while len(pending) > WRITES_IN_FLIGHT or (pending and pending[0].done()):
                    yield written()
            while pending:
                yield written()
    except BaseException as error:
        writer.submit(scribe.abandon, error)
        raise
    finally:
        writer.shutdown(wait=True)


def read_shards(job: Job, shards: Iterable[int]) -> Generator[Batch]:
    """The batches of these shards, read ahead."""
    tasks = ((shard, start, stop) for shard in shards for start, stop in _batches(job, shard))
    readers = ThreadPoolExecutor(job.readers, thread_name_prefix="read")
    depth = 2 * job.readers
    empty = pinned if job.answers.on_gpu else ReusedMemory(depth).empty
    try:
        yield from read_ahead(readers, lambda task: read(job, *task, empty), tasks, depth)
    finally:
        readers.shutdown(wait=False, cancel_futures=True)


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


def read(job: Job, shard: int, start: int, stop: int, empty: Empty = fresh) -> Batch:
    """Read the source rows [start, stop) of a shard, and decode their inputs where answers need
    them. empty: makes the tensors that pictures are decoded into"""
    rows = job.source.read(start, stop)
    ready = make_ready(rows, job.answers, job.pace, job.plan.stored, empty)
    # hashed and decoded: nothing waits in the queue but numbers, and files that are stored
    if not job.plan.with_inputs or ready.files:
        ready = replace(ready, rows=replace(ready.rows, cells=[]))
    ready = replace(ready, views=job.plan.draw_views(ready.rows.ids))
    return Batch(shard, stop - start, stop == job.plan.bounds(shard)[1], ready)


def make_ready(
    rows: Rows,
    answers: Answers,
    pace: Pace,
    resized: Resized | None = None,
    empty: Empty = fresh,
) -> Ready:
    """Raises UnreadableInput that names the row, unless such rows are left out.

    resized: how pictures are stored, if it is not as they are: the teacher sees what is decoded of
    these files; empty: makes the tensor that they are decoded into
    """
    if not answers.needs_inputs:
        reasons = answers.left_out(rows)
        return Ready(_without(rows, reasons), None, _left_out(rows, reasons))
    if answers.texts is not None:
        tokens, truncated = answers.texts.tokens_of(rows)
        return Ready(rows, tokens, [], truncated=truncated)
    if not isinstance(rows.cells, list):
        numbers = numbers_of(rows.cells, answers.preprocess, rows.ids)
        return Ready(rows, numbers.pin_memory() if answers.on_gpu else numbers, [])
    preprocess = answers.preprocess
    ways: list[OnPicture] = [preprocess] * len(rows)
    if resized is not None:
        ways = [Storing(resized, preprocess) for _ in range(len(rows))]
    decoded = decode(
        rows.cells, ways, rows.ids, pace.threads, empty,
        turns=not (preprocess.is_upright or preprocess.is_opaque),
    )  # fmt: skip
    for _, error in decoded.unreadable if pace.on_error != "skip" else ():
        raise UnreadableInput(
            f"{error}. Leave such rows out with --resume --on-error skip"
        ) from error
    reasons = [(position, str(error)) for position, error in decoded.unreadable]
    unturned = sum(turn != 1 for turn in decoded.turns)
    unread = {position for position, _ in reasons}
    files = [way for i, way in enumerate(ways) if isinstance(way, Storing) and i not in unread]
    return Ready(
        _without(rows, reasons), decoded.inputs, _left_out(rows, reasons), unturned, files=files
    )


def answer_to(answers: Answers, ready: Ready) -> Arriving:
    """To each view of the rows, one view after the other."""
    return answers.answer(ready.rows, ready.inputs, ready.views)


def _without(rows: Rows, reasons: list[tuple[int, str]]) -> Rows:
    if not reasons:
        return rows
    return rows.select(np.delete(np.arange(len(rows)), [position for position, _ in reasons]))


def _left_out(rows: Rows, reasons: list[tuple[int, str]]) -> list[Skipped]:
    return [
        Skipped(
            id=rows.ids[position].item(),
            row=int(rows.numbers[position]),
            input_hash=int(rows.hashes[position]),
            label=as_record(rows.labels, position),
            reason=reason,
        )
        for position, reason in reasons
    ]


class Scribe:
    """The writing thread's side: the shard that is open, if any."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.schema = shard_schema(job.plan, stored_features(job.plan, job.source))
        self.open: ShardWriter | None = None
        self.failed = False

    def write(self, batch: Batch, coming: Arriving | None) -> int:
        """Add a batch to its shard; commit the shard after its last. The source rows done."""
        if self.failed:  # batches may be queued behind the one that failed
            raise RuntimeError("an earlier batch of this dump could not be written")
        with self.job.timing.writing():
            self._write(batch, coming)
        return batch.count

    def _write(self, batch: Batch, coming: Arriving | None) -> None:
        if self.open is None:
            job = self.job
            writer = ShardWriter(job.folder, job.plan, batch.shard, self.schema)
            writer.holds_error = not job.pace.allow_codec_error
            self.open = writer.__enter__()
        try:
            rows = batch.ready.rows
            for entry in batch.ready.skipped:
                self.open.skip(entry)
            self.open.unturned += batch.ready.unturned
            self.open.truncated += batch.ready.truncated
            if isinstance(inputs := batch.ready.inputs, Tokens):
                self.open.tokens += int(inputs.lengths.sum())
                if self.job.answers.pads and coming is not None and coming.at_once is not None:
                    self.open.padding += padding(inputs.lengths, coming.at_once)
            if coming is not None:
                answer, stored = self._arrived(coming, rows), None
                if batch.ready.files:
                    stored = file_columns(batch.ready.files, self.schema)
                elif self.job.plan.with_inputs:
                    stored = input_columns(rows.cells, self.schema)
                drawn = joined(batch.ready.views)
                self.open.add(rows.ids, rows.labels, rows.hashes, answer, stored, drawn)
            if batch.last:
                done, self.open = self.open, None
                done.__exit__(None, None, None)
                assert done.commit is not None, "it was left without an exception"
                self.job.ledger.note(done.commit)
        except BaseException as error:
            self.abandon(error)
            raise

    def _arrived(self, coming: Arriving, rows: Rows) -> Dense:
        """The answers to these rows. Raises TeacherError where the device fails, which is known
        only now."""
        assert self.open is not None, "its shard is open"
        self.open.ran(self.job.answers.hardware, coming.at_once)
        try:
            with self.job.timing.device():
                return coming.wait()
        except RuntimeError as error:
            raise TeacherError(
                f"{self.job.answers.title} failed on {self.job.answers.hardware}: "
                f"{first_line(error)}. It did so in the rows with id {rows.ids[0].item()!r} to "
                f"{rows.ids[-1].item()!r}, or in those that were given to it after them"
            ) from error

    def abandon(self, error: BaseException) -> None:
        """Drop the open shard: nothing of it is kept, and nothing more is written."""
        self.failed = True
        if self.open is not None:
            dropped, self.open = self.open, None
            dropped.__exit__(type(error), error, error.__traceback__)


def input_columns(cells: list[bytes] | np.ndarray | Texts | Tokens, schema: pa.Schema) -> pa.Table:
    """The cells of a block as the columns of a shard that hold inputs: `input`, or those that go to
    models by name."""
    if isinstance(cells, Tokens):
        offsets = pa.array(np.concatenate([[0], np.cumsum(cells.lengths)]), pa.int32())
        lists = {
            name: pa.ListArray.from_arrays(offsets, pa.array(values, pa.int32()))
            for name, values in cells.columns.items()
        }
        return pa.table({name: one.cast(schema.field(name).type) for name, one in lists.items()})
    if isinstance(cells, np.ndarray) and cells.dtype.names is not None:
        numbers = as_columns(cells)
        return pa.table({n: one.cast(schema.field(n).type) for n, one in numbers.items()})
    type_ = schema.field("input").type
    if isinstance(cells, Texts):
        return pa.table({"input": pa.array(list(cells), type_)})
    if isinstance(cells, list):
        pictures = [{"bytes": cell, "path": None} for cell in cells]
        return pa.table({"input": pa.array(pictures, type_)})
    return pa.table({"input": pa.array(cells.tolist(), type_)})


def file_columns(files: list[Storing], schema: pa.Schema) -> pa.Table:
    """Resized pictures as the columns of a shard that hold them and their own hashes."""
    hashes = pa.array([file.hash for file in files], pa.uint64())
    stored = input_columns([file.content for file in files], schema)
    return stored.add_column(0, "stored_hash", hashes)


def _batches(job: Job, shard: int) -> Iterator[tuple[int, int]]:
    """The source rows that are read at once: a batch, or of texts and tokens several, whose rows
    are sorted by length before they are batched."""
    start, stop = job.plan.bounds(shard)
    size = job.pace.batch_size
    if job.answers.texts is not None:
        size = max(size, min(WINDOW * size, WINDOW_ROWS))
    for first in range(start, stop, size):
        yield first, min(first + size, stop)
