"""Stage one's inner loop: read ahead, answer, encode and write, overlapped across shards.

Threads of `reading` read and decode. Answers are given on the calling thread, and one thread of
`writing` encodes and writes. Whatever fails anywhere is raised here, at once, and no shard that was
begun after it is committed.

Several jobs may be fed by one reader: each batch is read once and goes to all of them that miss its
shard.
"""

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace

from softlabels.capture.answers import Answers
from softlabels.capture.job import Job
from softlabels.capture.reading import Ready, read_shards
from softlabels.capture.siblings import failing_midway
from softlabels.capture.timing import TEACHER, WRITING
from softlabels.capture.transfers import Arriving
from softlabels.capture.writing import Scribe
from softlabels.models.tokens import Tokens

WRITES_IN_FLIGHT = 4


@dataclass(frozen=True)
class Work:
    """A job, and its shards that are to be made.

    title: what an error of its teacher begins with, where there are several; empty for nothing
    """

    job: Job
    shards: Collection[int]
    title: str = ""


def dump_shards(job: Job, shards: Iterable[int]) -> Iterator[int]:
    """Dump these shards, one after the other without a pause between them; yields the number of
    source rows done, batch by batch, as they are handed to the file."""
    yield from dump_together([Work(job, list(shards))])


def dump_together(works: Sequence[Work]) -> Iterator[int]:
    """`dump_shards` of several jobs, whose inputs are the same as `reading` gives them. The timing
    of the first counts for all."""
    timing = works[0].job.timing
    works = [replace(one, job=replace(one.job, timing=timing)) for one in works]
    parts = [(Scribe(work.job), work, set(work.shards)) for work in works]
    shards = sorted({shard for work in works for shard in work.shards})
    writer = ThreadPoolExecutor(1, thread_name_prefix="write")
    pending: deque[list[tuple[Work, Future[int]]]] = deque()  # by batch, the works that it goes to

    def written() -> int:
        rows = 0
        with timing.of(WRITING):
            for work, writing in pending.popleft():
                with failing_midway(work.title):
                    rows = writing.result()
        timing.rows += rows
        return rows

    def is_written() -> bool:
        return bool(pending) and all(writing.done() for _, writing in pending[0])

    try:
        reading = read_shards(reader([work.job for work in works]), shards)
        with timing.dump(), closing(reading) as batches:
            for batch in timing.awaited(batches):
                takers = [(s, work) for s, work, missing in parts if batch.shard in missing]
                answers = []
                for scribe, work in takers:
                    with timing.of(TEACHER), failing_midway(work.title):
                        answers.append((scribe, work, _answer_to(work.job.answers, batch.ready)))
                if not isinstance(batch.ready.inputs, Tokens):  # their lengths are counted
                    batch = replace(batch, ready=replace(batch.ready, inputs=None))
                pending.append([(w, writer.submit(s.write, batch, a)) for s, w, a in answers])
                while len(pending) > WRITES_IN_FLIGHT or is_written():
                    yield written()
            while pending:
                yield written()
            with timing.of(WRITING):
                for scribe, work, _ in parts:
                    with failing_midway(work.title):
                        writer.submit(scribe.finish).result()
    except BaseException as error:
        for scribe, _, _ in parts:
            writer.submit(scribe.abandon, error)
            writer.submit(scribe.finish)
        raise
    finally:
        writer.shutdown(wait=True)


def reader(jobs: Sequence[Job]) -> Job:
    """The job whose rows are read, for all: as many at once as one of them takes, and into memory
    for a GPU where one of them uses it."""
    first = next((job for job in jobs if job.answers.on_gpu), jobs[0])
    rows = max(job.pace.batch_size for job in jobs)
    return replace(first, pace=replace(first.pace, batch_size=rows))


def _answer_to(answers: Answers, ready: Ready) -> Arriving | None:
    """To each view of the rows, one view after the other; None where there are no rows."""
    if not len(ready.rows):
        return None
    return answers.answer(ready.rows, ready.inputs)
