"""The verb of stage one: the teacher and the data are opened and tried on each other; what follows
is in `running`."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from softlabels.capture.bottleneck import bottleneck
from softlabels.capture.estimating import tell_sizes
from softlabels.capture.measuring import Left
from softlabels.capture.preparing import prepare, prepare_siblings
from softlabels.capture.resuming import withdraw
from softlabels.capture.running import (
    UNUSABLE,
    Begun,
    Looking,
    carry_out,
    enter,
    saying_how_to_go_on,
)
from softlabels.capture.siblings import passes, whose, with_common_shards
from softlabels.capture.team import Team, join_team
from softlabels.errors import SoftlabelsError, UsageError
from softlabels.options import DumpOptions, verb
from softlabels.store.records import Manifest
from softlabels.system.humanize import counted, size_words
from softlabels.system.progress import SILENT, Progress, Titled


@dataclass(frozen=True)
class DumpResult:
    """Where the dump is, its manifest, and the source rows that this call ran the teacher on.

    The manifest is None where other ranks than this one still have shards to do.

    rows_per_second: source rows; 0 where none were left to do
    shares: of the time, what went to reading, to the teacher and to writing; empty where the
        teacher ran on no more than one batch
    bound: the largest of them: reading, teacher or writing
    dumps: of several teachers the result of each, by its name; `out` is then the folder that holds
        their dumps, `rows_run` counts for all, and the rest is in these. Those that shared a pass
        tell of its speed
    """

    out: str
    manifest: Manifest | None
    rows_run: int
    rank: int = 0
    rows_per_second: float = 0.0
    shares: dict[str, float] = field(default_factory=dict)
    bound: str | None = None
    dumps: "dict[str, DumpResult]" = field(default_factory=dict)

    def __repr__(self) -> str:
        if self.dumps:
            inside = ", ".join(map(repr, self.dumps.values()))
            return f"DumpResult({self.out}: {counted(len(self.dumps), 'dump')}: {inside})"
        run = f"{self.rows_run:,} run now"
        if self.manifest is None:
            return f"DumpResult({self.out}: not complete yet, {run}, rank {self.rank})"
        size = f"{counted(self.manifest.rows, 'row')}, {size_words(self.manifest.bytes)}"
        return f"DumpResult({self.out}: {size}, {run})"


@verb(DumpOptions)
def dump(options: DumpOptions, progress: Progress) -> DumpResult:
    """Run a teacher over a dataset once and store its raw logits. Several teachers answer each
    batch together, and each gets a dump of its own.

    Raises TeacherError, SourceError, LogitsError, PlanMismatch, FolderInUse, StoreError or
    DiskFull. Shards that were committed before stay, and `resume=True` goes on from there.
    """
    team = join_team()
    if team.world > 1 and options.engine != "local":
        raise UsageError(
            f"--engine {options.engine} starts its own workers; run it without torchrun"
        )
    if options.engine == "ray":
        _refuse_objects(options)
    with saying_how_to_go_on(), ExitStack() as stack:
        return (_dump_several if options.several else _dump)(options, team, stack, progress)


def _refuse_objects(options: DumpOptions) -> None:
    if not all(isinstance(one.the_teacher, str) for one in options.each):
        raise UsageError(
            "--engine ray opens the teacher in each worker, so it takes no object in memory: give "
            "a file, or package.module:factory. Under torchrun each rank makes its own"
        )
    if not isinstance(options.preprocess, str | None):
        raise UsageError("--engine ray opens the data in each worker, so preprocess= is text there")
    if not isinstance(options.data, str | None):
        raise UsageError(
            "--engine ray opens the data in each worker, so it takes no data set in memory: save "
            "it, such as with to_parquet, and name the file. Under torchrun each rank makes its own"
        )


def _dump(options: DumpOptions, team: Team, stack: ExitStack, progress: Progress) -> DumpResult:
    with team.meeting():
        setup = prepare(options, progress if team.is_first else SILENT)
        begun = enter(setup, Looking(options.resume, options.check), team, stack, progress)
    if begun.missing is None:
        return _nothing_to_do(begun, team)
    _tell_sizes([begun], team, progress)
    return _made([begun], options, team, progress)[0]


def _dump_several(
    options: DumpOptions, team: Team, stack: ExitStack, progress: Progress
) -> DumpResult:
    """Each into a folder of its own; those whose inputs are the same in one pass."""
    looking = Looking(options.resume, options.check)
    first = progress if team.is_first else SILENT
    begun: dict[str, Begun] = {}
    with team.meeting(), _freeing(begun, options, team, SoftlabelsError):
        place, setups = prepare_siblings(options, first)
        if team.is_first:
            setups = with_common_shards(setups)
        for name, setup in setups.items():
            with team.sharing(name), whose(setup.title):
                begun[name] = enter(setup, looking, team, stack, Titled(progress, name))
    results = {n: _nothing_to_do(one, team) for n, one in begun.items() if one.missing is None}
    with _freeing(begun, options, team, *UNUSABLE):
        todo = {name: one.job for name, one in begun.items() if one.missing is not None}
        _tell_sizes([begun[name] for name in todo], team, progress)
        for names in passes(todo, options.engine, first):
            group = [begun[name] for name in names]
            alone = Titled(progress, str(group[0].job.folder))
            made = _made(group, options, team, progress if len(group) > 1 else alone)
            results |= dict(zip(names, made, strict=True))
    run = sum(one.rows_run for one in results.values())
    return DumpResult(place, None, run, team.rank, dumps={name: results[name] for name in begun})


def _tell_sizes(begun: list[Begun], team: Team, progress: Progress) -> None:
    if team.is_first:
        lefts = [Left(one.setup, one.job.plan, one.missing or []) for one in begun]
        tell_sizes(lefts, progress)


def _nothing_to_do(begun: Begun, team: Team) -> DumpResult:
    return DumpResult(str(begun.job.folder), begun.job.ledger.complete(), 0, team.rank)


def _made(
    begun: list[Begun], options: DumpOptions, team: Team, progress: Progress
) -> list[DumpResult]:
    """Of dumps that are made in one pass. A shard that several lack is one rank's, of all of them:
    so its rows are read once."""
    lacking = sorted({shard for one in begun for shard in one.missing or ()})
    ours = set(team.part_of(lacking))
    parts = [one.part([shard for shard in one.missing or () if shard in ours]) for one in begun]
    manifests, timing = carry_out(parts, options.engine, team.world == 1, progress)
    if line := bottleneck(parts[0].job, timing):
        progress.say(line)
    return [
        DumpResult(
            str(part.job.folder), manifest, part.job.plan.inputs_of(part.shards), team.rank,
            timing.rows_per_second, timing.shares, timing.bound,
        )
        for part, manifest in zip(parts, manifests, strict=True)
    ]  # fmt: skip


@contextmanager
def _freeing(
    begun: dict[str, Begun], options: DumpOptions, team: Team, *errors: type[Exception]
) -> Iterator[None]:
    """Where such an error ends the block, plans of which nothing is committed are taken back, so
    that their folders are free for others."""
    try:
        yield
    except errors:
        if team.world == 1 and options.engine == "local":
            for one in begun.values():
                withdraw(one.job.ledger)
        raise
