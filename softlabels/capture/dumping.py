"""The verb of stage one: the teacher and the data are opened and tried on each other; what follows
is in `running`."""

from contextlib import ExitStack
from dataclasses import dataclass, field

from softlabels.capture.bottleneck import bottleneck
from softlabels.capture.estimating import tell_size
from softlabels.capture.preparing import prepare
from softlabels.capture.running import Looking, carry_out, enter, saying_how_to_go_on
from softlabels.capture.team import Team, join_team
from softlabels.errors import UsageError
from softlabels.options import DumpOptions, verb
from softlabels.store.records import Manifest
from softlabels.system.humanize import counted, size_words
from softlabels.system.progress import SILENT, Progress


@dataclass(frozen=True)
class DumpResult:
    """Where the dump is, its manifest, and the source rows that this call ran the teacher on.

    The manifest is None where other ranks than this one still have shards to do.

    rows_per_second: source rows; 0 where none were left to do
    shares: of the time, what went to reading, to the teacher and to writing; empty where the
        teacher ran on no more than one batch
    bound: the largest of them: reading, teacher or writing
    """

    out: str
    manifest: Manifest | None
    rows_run: int
    rank: int = 0
    rows_per_second: float = 0.0
    shares: dict[str, float] = field(default_factory=dict)
    bound: str | None = None

    def __repr__(self) -> str:
        run = f"{self.rows_run:,} run now"
        if self.manifest is None:
            return f"DumpResult({self.out}: not complete yet, {run}, rank {self.rank})"
        size = f"{counted(self.manifest.rows, 'row')}, {size_words(self.manifest.bytes)}"
        return f"DumpResult({self.out}: {size}, {run})"


@verb(DumpOptions)
def dump(options: DumpOptions, progress: Progress) -> DumpResult:
    """Run a teacher over a dataset once and store its raw logits.

    Raises TeacherError, SourceError, LogitsError, PlanMismatch, FolderInUse, StoreError or
    DiskFull. Shards that were committed before stay, and `resume=True` goes on from there.
    """
    team = join_team()
    if team.world > 1 and options.engine != "local":
        raise UsageError(
            f"--engine {options.engine} starts its own workers; run it without torchrun"
        )
    if options.engine == "ray" and not isinstance(options.teacher, str):
        raise UsageError(
            "--engine ray opens the teacher in each worker, so it takes no object in memory: give "
            "a file, or package.module:factory. Under torchrun each rank makes its own"
        )
    if options.engine == "ray" and not isinstance(options.preprocess, str | None):
        raise UsageError("--engine ray opens the data in each worker, so preprocess= is text there")
    if options.engine == "ray" and not isinstance(options.data, str | None):
        raise UsageError(
            "--engine ray opens the data in each worker, so it takes no data set in memory: save "
            "it, such as with to_parquet, and name the file. Under torchrun each rank makes its own"
        )
    with saying_how_to_go_on(), ExitStack() as stack:
        return _dump(options, team, stack, progress)


def _dump(options: DumpOptions, team: Team, stack: ExitStack, progress: Progress) -> DumpResult:
    with team.meeting():
        setup = prepare(options, progress if team.is_first else SILENT)
        begun = enter(setup, Looking(options.resume, options.check), team, stack, progress)
    job, missing = begun.job, begun.missing
    out = str(job.folder)
    if missing is None:
        return DumpResult(out, job.ledger.complete(), 0, team.rank)
    if team.is_first:
        tell_size(setup, job.plan, missing, progress)
    mine = team.part_of(missing)
    alone = team.world == 1
    manifest, timing = carry_out(setup, begun, mine, options.engine, alone, progress)
    if line := bottleneck(job, timing):
        progress.say(line)
    return DumpResult(
        out, manifest, job.plan.inputs_of(mine), team.rank,
        timing.rows_per_second, timing.shares, timing.bound,
    )  # fmt: skip
