"""The first rows of a pass, dumped for a trial: how long that takes, and how large they are."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow.parquet as pq

from softlabels.capture.job import Job
from softlabels.capture.pilot import with_pilot
from softlabels.capture.pipeline import Work, dump_together, reader
from softlabels.capture.planning import Setup
from softlabels.capture.reading import read_shards
from softlabels.capture.siblings import failing_midway
from softlabels.capture.timing import READING, TEACHER, WRITING
from softlabels.store.folder import Folder
from softlabels.store.ledger import Ledger
from softlabels.store.records import Plan
from softlabels.system.progress import SILENT


@dataclass(frozen=True)
class Left:
    """A plan, and the shards that a dump in the folder lacks."""

    setup: Setup
    plan: Plan
    missing: list[int]


@dataclass(frozen=True)
class Sample:
    """Rows that were dumped, and how long that took.

    alone: the seconds that reading, the teachers and writing take of them, each alone
    sizes: of each dump, bytes that a row and a file itself cost
    """

    rows: int
    seconds: float
    alone: dict[str, float]
    sizes: list[tuple[float, int]]


def sample_of(lefts: Sequence[Left], rows: int) -> Sample:
    """Dump the first rows as one shard into passing folders."""
    with tempfile.TemporaryDirectory(prefix="softlabels-") as place:
        works = []
        for number, left in enumerate(lefts):
            with failing_midway(left.setup.title):
                small = _small(left, rows, Folder(f"{place}/{number}"))
            works.append(Work(small, [0], left.setup.title))
        for _ in dump_together(works):
            pass
        jobs = [work.job for work in works]
        timing = jobs[0].timing
        began = time.perf_counter()
        for _ in read_shards(reader(jobs), [0]):
            pass
        alone = {
            READING: time.perf_counter() - began,
            TEACHER: max(timing.answering, timing.computing),  # one launches, the other waits
            WRITING: timing.storing,
        }
        return Sample(jobs[0].plan.rows, timing.elapsed, alone, list(map(_sizes, jobs)))


def _small(left: Left, rows: int, folder: Folder) -> Job:
    """The first rows alone, into this folder."""
    setup, plan = left.setup, left.plan
    rows = min(rows, len(setup.source))
    shards = [setup.source.key_fingerprint(0, rows)]
    source = plan.source.replace(rows=rows, shards=shards)
    small = plan.replace(inputs=rows, shard_inputs=rows, source=source)
    if small.make_codec().fits:
        small = with_pilot(setup, small, SILENT, folder)
    pace = replace(setup.pace, on_error="skip")
    return replace(setup.job(plan), plan=small, ledger=Ledger(folder, small), pace=pace)


def _sizes(job: Job) -> tuple[float, int]:
    """Bytes of a row, and of the file beside its rows."""
    file = job.plan.file(0)
    footer = pq.read_metadata(job.folder.path(file))
    pages = 0
    if footer.num_row_groups:
        last = footer.row_group(footer.num_row_groups - 1)
        chunk = last.column(last.num_columns - 1)  # the rows end with these logits
        pages = chunk.data_page_offset + chunk.total_compressed_size
    return pages / job.plan.rows, job.folder.size(file) - pages
