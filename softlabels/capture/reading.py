"""Rows of a source that wait to be answered: read ahead, and decoded. N rows of a batch.

A few threads read; others decode pictures, which releases the interpreter's lock.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
from torch import Tensor

from softlabels.capture.answers import Answers
from softlabels.capture.job import Job, Pace
from softlabels.capture.partners import PartnerReading
from softlabels.capture.viewing import Viewing
from softlabels.errors import UnreadableInput
from softlabels.inputs.cropping import DrawnCrop
from softlabels.inputs.decoding import decode
from softlabels.inputs.examples import numbers_of
from softlabels.inputs.label_lists import as_record
from softlabels.inputs.rows import Rows
from softlabels.inputs.shown import Shown
from softlabels.inputs.sources import Source
from softlabels.inputs.stored_pictures import Storing
from softlabels.inputs.views.augmentations import Drawn
from softlabels.models.named import NamedInputs
from softlabels.store.records import Skipped
from softlabels.system.reused_memory import Empty, ReusedMemory, fresh, pinned

Item = TypeVar("Item")
Result = TypeVar("Result")

WINDOW, WINDOW_ROWS = 16, 16_384  # batches of texts or tokens, and the most rows of several


@dataclass(frozen=True)
class Ready:
    """Rows that can be answered, and those that are left out.

    inputs: those of `rows`, decoded, in their views if there are any; None where answers need none,
    or where there are no rows
    views: the columns of each view of them; empty for the inputs as they are
    unturned: pictures that are fed as stored, though their EXIF orientation says to turn them
    truncated: texts of which the end was cut
    files: the pictures of `rows` as they are stored, if that is not as they are
    """

    rows: Rows
    inputs: Tensor | NamedInputs | Shown | None
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


def read_shards(job: Job, shards: Iterable[int]) -> Generator[Batch]:
    """The batches of these shards, read ahead."""
    tasks = ((shard, start, stop) for shard in shards for start, stop in _batches(job, shard))
    readers = ThreadPoolExecutor(job.readers, thread_name_prefix="read")
    depth = 2 * job.readers
    empty = pinned if job.answers.on_gpu else ReusedMemory(depth * job.viewing.at_once).empty
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
    ready = make_ready(rows, job.source, job.answers, job.pace, job.viewing, empty)
    # hashed and decoded: nothing waits in the queue but numbers, and files that are stored
    if not job.plan.with_inputs or ready.files:
        ready = replace(ready, rows=replace(ready.rows, cells=[]))
    return Batch(shard, stop - start, stop == job.plan.bounds(shard)[1], ready)


def make_ready(
    rows: Rows,
    source: Source,
    answers: Answers,
    pace: Pace,
    viewing: Viewing,
    empty: Empty = fresh,
) -> Ready:
    """Raises UnreadableInput that names the row, unless such rows are left out.

    source: that of the rows, which those that they are mixed with are read from, too
    viewing: how pictures are stored, where the teacher sees what is decoded of these files, and in
    which views they are shown; empty: makes the tensors that they are decoded into
    """
    if not answers.needs_inputs:
        reasons = answers.left_out(rows)
        return Ready(_without(rows, reasons), None, _left_out(rows, reasons))
    if answers.texts is not None:
        tokens, truncated = answers.texts.tokens_of(rows)
        return Ready(rows, tokens, [], truncated=truncated)
    if not isinstance(rows.cells, list):
        numbers = numbers_of(rows.cells, answers.preprocess, rows.ids)
        numbers = numbers.pin_memory() if answers.on_gpu else numbers
        if isinstance(numbers, Tensor):
            reading = PartnerReading(source, viewing, answers, pace.threads, empty)
            return _ready(Ready(rows, numbers, []), reading, [numbers], [])
        return Ready(rows, numbers, [])
    preprocess, shooting = answers.preprocess, viewing.shoot(rows.ids)
    decoded = decode(
        rows.cells, shooting.ways, rows.ids, pace.threads, empty,
        turns=not (preprocess.is_upright or preprocess.is_opaque),
    )  # fmt: skip
    for _, error in decoded.unreadable if pace.on_error != "skip" else ():
        raise UnreadableInput(
            f"{error}. Leave such rows out with --resume --on-error skip"
        ) from error
    reasons = [(position, str(error)) for position, error in decoded.unreadable]
    unturned = sum(turn != 1 for turn in decoded.turns)
    shooting = shooting.without({position for position, _ in reasons})
    ready = Ready(
        _without(rows, reasons), decoded.inputs, _left_out(rows, reasons), unturned,
        files=shooting.files,
    )  # fmt: skip
    reading = PartnerReading(source, viewing, answers, pace.threads, empty)
    return _ready(ready, reading, decoded.shots, shooting.crops)


def _ready(
    ready: Ready, reading: PartnerReading, shots: list[Tensor], crops: list[list[DrawnCrop]]
) -> Ready:
    """With the views of its inputs, if there are any."""
    plan = reading.viewing.plan
    if not plan.has_views or not shots:
        return ready
    shown = reading.viewing.shown(ready.rows.ids, shots, crops)
    if plan.mixing is not None:
        shown = reading.joined_by_partners(shown, ready.rows)
    return replace(ready, inputs=shown, views=shown.drawn)


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


def _batches(job: Job, shard: int) -> Iterator[tuple[int, int]]:
    """The source rows that are read at once: a batch, or of texts and tokens several, whose rows
    are sorted by length before they are batched."""
    start, stop = job.plan.bounds(shard)
    # where pictures are cropped, a batch has all views of few inputs, so that no more pictures wait
    # in memory than without views
    size = max(1, job.pace.batch_size // job.viewing.at_once)
    if job.answers.texts is not None:
        size = max(size, min(WINDOW * size, WINDOW_ROWS))
    for first in range(start, stop, size):
        yield first, min(first + size, stop)
