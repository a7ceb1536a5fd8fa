"""What a dump will be, before it is begun: rows, shards and bytes by arithmetic, for `dump`; and
time too, from a measured sample, for `plan`."""

import shutil
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.parquet as pq

from softlabels.capture.bottleneck import advice
from softlabels.capture.pilot import with_pilot
from softlabels.capture.pipeline import dump_shards
from softlabels.capture.planning import (
    Setup,
    make_plan,
    mean_input_bytes,
)
from softlabels.capture.preparing import prepare
from softlabels.capture.reading import read_shards
from softlabels.capture.refusing import refuse_unstorable
from softlabels.capture.timing import PARTS, READING, TEACHER, THE, WRITING
from softlabels.options import PlanOptions, verb
from softlabels.store.folder import Folder
from softlabels.store.ledger import Ledger
from softlabels.store.records import Plan
from softlabels.system.humanize import counted, size_words, time_words
from softlabels.system.progress import SILENT, Progress

SAMPLE_SECONDS, SAMPLE_BATCHES = 1.0, 8
PACKED_BYTES = 11  # of a row beside its logits: 8 of the input's hash; id, view and label, packed
PACKED_VIEWS = {
    "bool": 1 / 7, "uint8": 1, "int16": 1, "int32": 2, "float32": 4, "uint64": 0.2, "int64": 3,
    "string": 8, "list": 3,
}  # fmt: skip
CHUNK_BYTES = 100  # of what a footer says of a column in a row group
FOOTER_BYTES = 2600  # of a shard's file: the footer and the page index


@dataclass(frozen=True)
class Estimate:
    """What a dump would be.

    batch_size: rows in a forward pass
    rows, shards: to be dumped; shard_rows: the source's rows in a shard, each with all its views
    bytes: on disk; free: where they shall go, None for a remote folder
    seconds, rows_per_second: of the work, by this process
    reading, teacher, writing: rows/s of each alone
    bound: the slowest of them
    advice: what would make it faster, if an option does
    """

    out: str
    batch_size: int
    rows: int
    shards: int
    shard_rows: int
    bytes: int
    seconds: float
    rows_per_second: float
    free: int | None
    reading: float
    teacher: float
    writing: float
    bound: str
    advice: list[str]

    def __repr__(self) -> str:
        return (
            f"Estimate({self.out}: {counted(self.rows, 'row')}, {counted(self.shards, 'shard')}, "
            f"{size_words(self.bytes)}, {time_words(self.seconds)}, bound by {self.bound})"
        )

    @property
    def facts(self) -> dict[str, str]:
        """For people, in the order in which they ask."""
        facts = {
            "folder": self.out,
            "rows": f"{self.rows:,}",
            "batches": f"of {self.batch_size:,} rows",
            "shards": f"{self.shards:,} of up to {self.shard_rows:,} source rows",
            "size": f"about {size_words(self.bytes)}",
            "time": f"{time_words(self.seconds)}, {self.rows_per_second:,.0f} rows/s",
        }
        alone = ", ".join(f"{part} {getattr(self, part):,.0f}" for part in PARTS)
        facts["alone"] = f"{alone} rows/s"
        facts["bound by"] = "; ".join([THE[self.bound], *self.advice])
        if self.free is not None:
            facts["free there"] = size_words(self.free)
        return facts

    @property
    def warnings(self) -> list[str]:
        return _too_small(self.bytes, self.free)


@verb(PlanOptions)
def plan(options: PlanOptions, progress: Progress) -> Estimate:
    """What `dump` with these options would be; nothing is written where it would go.

    A few batches are read, run through the teacher and encoded; of a dump that is there already,
    what is left counts. Raises what `dump` would raise.
    """
    setup = prepare(options, progress)
    refuse_unstorable(setup)
    drafted, missing = _left(setup, progress)
    return _estimate(setup, drafted, missing)


def _left(setup: Setup, progress: Progress) -> tuple[Plan, list[int]]:
    """The plan, and the shards that a dump in the folder lacks."""
    folder, ledger = setup.folder, setup.ledger
    earlier = ledger.read_plan()
    plan = make_plan(setup, earlier)
    if earlier is None:
        return plan, list(range(plan.shards))
    plan.check_same(earlier, folder)
    ledger.plan = plan
    missing = ledger.missing
    done = plan.shards - len(missing)
    progress.say(f"{folder} holds {done:,} of its {counted(plan.shards, 'shard')} already")
    return plan, missing


def tell_size(setup: Setup, plan: Plan, missing: list[int], progress: Progress) -> None:
    """Say what a dump of these shards takes, before it begins: by arithmetic, its bar tells the
    time."""
    if not missing:
        return
    inputs, free = plan.inputs_of(missing), _free(setup.folder)
    rows = inputs * len(plan.views)
    size = rows * _row_bytes(setup, plan) + len(missing) * _footer_bytes(plan)
    if plan.with_inputs:
        steps = setup.answers.preprocess
        size += inputs * mean_input_bytes(setup.source, plan.stored, steps)
    what = counted(rows, "row") + f" of {counted(inputs, 'input')}" * plan.has_views
    parts = [what, counted(len(missing), "shard"), f"about {size_words(size)}"]
    progress.say(", ".join(parts) + (f", {size_words(free)} free" if free else ""))
    for warning in _too_small(size, free):
        progress.say(warning)


def _row_bytes(setup: Setup, plan: Plan) -> int:
    """Of a row, in all columns but the input. Text ids, which pack to a third, are the first
    rows'."""
    texts = setup.source.ids[:64].tolist() if plan.ids == "string" else []
    ids = sum(map(len, texts)) // max(1, 3 * len(texts))
    views = sum(PACKED_VIEWS[kind] for kind in plan.view_columns.values())
    return round(plan.make_codec().row_bytes + PACKED_BYTES + views + ids)


def _footer_bytes(plan: Plan) -> int:
    names = plan.source.class_names or []
    groups = len(plan.group_sizes(min(plan.shard_inputs, plan.inputs) * len(plan.views)))
    of_views = CHUNK_BYTES * groups * len(plan.view_columns)
    return FOOTER_BYTES + of_views + 3 * sum(map(len, names))  # twice, and once in base64


def _estimate(setup: Setup, plan: Plan, missing: list[int]) -> Estimate:
    batch = setup.pace.batch_size
    sample = _sample(setup, plan, batch)
    count = int(min(SAMPLE_BATCHES, SAMPLE_SECONDS / max(sample.seconds, 1e-6)))
    if count > 1 and len(setup.source) > batch:
        sample = _sample(setup, plan, batch * count)
    speed = sample.rows / max(sample.seconds, 1e-9)
    alone = {part: sample.rows / max(sample.alone[part], 1e-9) for part in PARTS}
    bound = min(alone, key=lambda part: alone[part])
    rows = plan.inputs_of(missing) * len(plan.views)
    return Estimate(
        out=str(setup.folder),
        batch_size=batch,
        rows=rows,
        shards=len(missing),
        shard_rows=plan.shard_inputs,
        bytes=round(rows * sample.row_bytes + len(missing) * sample.shard_bytes),
        seconds=rows / speed,
        rows_per_second=speed,
        free=_free(setup.folder),
        **alone,
        bound=bound,
        advice=advice(setup.job(plan), bound),
    )


@dataclass(frozen=True)
class _Sample:
    """Rows that were dumped, how long that took, bytes that each of them and a file itself cost.
    alone: the seconds that reading, the teacher and writing take of them, each alone"""

    rows: int
    seconds: float
    alone: dict[str, float]
    row_bytes: float
    shard_bytes: int


def _sample(setup: Setup, plan: Plan, rows: int) -> _Sample:
    """Dump the first rows as one shard into a passing folder."""
    rows = min(rows, len(setup.source))
    shards = [setup.source.key_fingerprint(0, rows)]
    source = plan.source.replace(rows=rows, shards=shards)
    small = plan.replace(inputs=rows, shard_inputs=rows, source=source)
    with tempfile.TemporaryDirectory(prefix="softlabels-") as place:
        folder = Folder(place)
        if small.make_codec().fits:
            small = with_pilot(setup, small, SILENT, folder)
        ledger = Ledger(folder, small)
        pace = replace(setup.pace, on_error="skip")
        job = replace(setup.job(plan), plan=small, ledger=ledger, pace=pace)
        for _ in dump_shards(job, [0]):
            pass
        timing = job.timing
        began = time.perf_counter()
        for _ in read_shards(job, [0]):
            pass
        alone = {
            READING: time.perf_counter() - began,
            TEACHER: max(timing.answering, timing.computing),  # one launches, the other waits
            WRITING: timing.storing,
        }
        file = small.file(0)
        footer = pq.read_metadata(job.folder.path(file))
        pages = 0
        if footer.num_row_groups:
            last = footer.row_group(footer.num_row_groups - 1)
            chunk = last.column(last.num_columns - 1)  # the rows end with these logits
            pages = chunk.data_page_offset + chunk.total_compressed_size
        size = job.folder.size(file) - pages
        return _Sample(small.rows, timing.elapsed, alone, pages / small.rows, size)


def _too_small(size: int, free: int | None) -> list[str]:
    if free is None or size <= free:
        return []
    return [
        f"warning: about {size_words(size)} are needed and {size_words(free)} are free; a dump "
        f"that fills the disk stops, and goes on with --resume"
    ]


def _free(folder: Folder) -> int | None:
    if not folder.is_local:
        return None
    place = Path(folder.root).absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free
