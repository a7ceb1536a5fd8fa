"""Stage one's inner loop: read ahead, answer, encode and write, overlapped across shards.

Threads of `reading` read and decode. Answers are given on the calling thread, and one thread of
`writing` encodes and writes. Whatever fails anywhere is raised here, at once, and no shard that was
begun after it is committed.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace

from softlabels.capture.answers import Answers
from softlabels.capture.job import Job
from softlabels.capture.reading import Ready, read_shards
from softlabels.capture.timing import TEACHER, WRITING
from softlabels.capture.transfers import Arriving
from softlabels.capture.writing import Scribe
from softlabels.models.tokens import Tokens

WRITES_IN_FLIGHT = 4


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
                    answer = _answer_to(job.answers, batch.ready)
                if not isinstance(batch.ready.inputs, Tokens):  # their lengths are counted
                    batch = replace(batch, ready=replace(batch.ready, inputs=None))
                pending.append(writer.submit(scribe.write, batch, answer))
                while len(pending) > WRITES_IN_FLIGHT or (pending and pending[0].done()):
                    yield written()
            while pending:
                yield written()
            with timing.of(WRITING):
                writer.submit(scribe.finish).result()
    except BaseException as error:
        writer.submit(scribe.abandon, error)
        writer.submit(scribe.finish)
        raise
    finally:
        writer.shutdown(wait=True)


def _answer_to(answers: Answers, ready: Ready) -> Arriving | None:
    """To each view of the rows, one view after the other; None where there are no rows."""
    if not len(ready.rows):
        return None
    return answers.answer(ready.rows, ready.inputs)
