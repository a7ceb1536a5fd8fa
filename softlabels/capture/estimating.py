"""What a dump will be, before it is begun: rows, shards, bytes and time from a measured sample."""

import shutil
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from softlabels.capture.pipeline import dump_shards
from softlabels.capture.planning import Setup, draft, prepare
from softlabels.config import PlanOptions
from softlabels.errors import SoftlabelsError
from softlabels.progress import SILENT, Progress
from softlabels.store.folder import Folder
from softlabels.store.records import Plan

SAMPLE_SECONDS, SAMPLE_BATCHES = 1.0, 8


@dataclass(frozen=True)
class Estimate:
    """rows and shards to be dumped, bytes on disk, seconds of work, rows_per_second of this
    process, and the bytes that are free where they shall go (None for a remote folder)."""

    out: str
    rows: int
    shards: int
    shard_rows: int
    bytes: int
    seconds: float
    rows_per_second: float
    free: int | None

    @property
    def facts(self) -> dict[str, str]:
        """In words, in the order in which a person asks."""
        facts = {
            "folder": self.out,
            "rows": f"{self.rows:,}",
            "shards": f"{self.shards:,} of up to {self.shard_rows:,} rows",
            "size": f"about {size_words(self.bytes)}",
            "time": f"{time_words(self.seconds)}, {self.rows_per_second:,.0f} rows/s",
        }
        if self.free is not None:
            facts["free there"] = size_words(self.free)
        return facts

    @property
    def warnings(self) -> list[str]:
        if self.free is None or self.bytes <= self.free:
            return []
        return [
            f"warning: about {size_words(self.bytes)} are needed and {size_words(self.free)} are "
            f"free; a dump that fills the disk stops, and goes on with --resume"
        ]


def plan(progress: Progress = SILENT, **options: Any) -> Estimate:
    """What `dump` with these options would be; nothing is written where it would go.

    Options are those of `softlabels plan`, which are those of `dump` (see `config.DumpOptions`).
    A few batches are read, run through the teacher and encoded. Raises what `dump` would raise.
    """
    setup = prepare(PlanOptions(**options))
    progress.say(str(setup))
    drafted = draft(setup)
    return estimate(setup, drafted, list(range(drafted.shards)), 1)


def foretell(setup: Setup, plan: Plan, missing: list[int], world: int, progress: Progress) -> None:
    """Say the estimate before a dump begins. What fails here will fail, and be said, there."""
    if not missing or setup.options.engine != "local":
        return
    try:
        found = estimate(setup, plan, missing, world)
    except (SoftlabelsError, OSError):
        return
    facts = found.facts
    words = [f"{facts['rows']} rows", f"{found.shards:,} shards", facts["size"], facts["time"]]
    progress.say(", ".join(words) + (f", {facts['free there']} free" if found.free else ""))
    for warning in found.warnings:
        progress.say(warning)


def estimate(setup: Setup, plan: Plan, missing: list[int], world: int) -> Estimate:
    """Of these shards, divided among `world` processes like this one."""
    batch = setup.options.batch_size
    seconds, stored = _sample(setup, plan, batch)
    count = int(min(SAMPLE_BATCHES, SAMPLE_SECONDS / max(seconds, 1e-6)))
    rows = min(batch, len(setup.source))
    if count > 1 and len(setup.source) > batch:
        rows = min(batch * count, len(setup.source))
        seconds, stored = _sample(setup, plan, rows)
    speed = rows / max(seconds, 1e-9)
    wanted = plan.rows_of(missing)
    return Estimate(
        out=str(setup.folder),
        rows=wanted,
        shards=len(missing),
        shard_rows=plan.shard_rows,
        bytes=round(stored / rows * wanted),
        seconds=wanted / speed / world,
        rows_per_second=speed,
        free=_free(setup.folder),
    )


def _sample(setup: Setup, plan: Plan, rows: int) -> tuple[float, int]:
    """Dump the first rows as one shard into a passing folder: seconds, and bytes of the file."""
    rows = min(rows, len(setup.source))
    told = plan.source | {"shards": [setup.source.short_fingerprint(0, rows)]}
    small = replace(plan, rows=rows, shard_rows=rows, source=told)
    with tempfile.TemporaryDirectory(prefix="softlabels-") as place:
        job = replace(setup.job(small), folder=Folder(place), skip_unreadable=True)
        began = time.perf_counter()
        for _ in dump_shards(job, [0]):
            pass
        return time.perf_counter() - began, job.folder.size(small.file(0))


def _free(folder: Folder) -> int | None:
    if not folder.is_local:
        return None
    place = Path(folder.root).absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def size_words(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}" if count < 100 else f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


def time_words(seconds: float) -> str:
    if seconds < 90:
        return f"about {seconds:.0f} s" if seconds >= 1 else "a second or less"
    for unit, length in (("min", 60), ("h", 3600)):
        if seconds < 90 * length or (unit == "h" and seconds < 48 * length):
            return f"about {seconds / length:.0f} {unit}"
    return f"about {seconds / 86400:.1f} days"
