"""The verb of stage one.

The order of things: the teacher and the data are opened and tried on each other; the folder is
claimed; the plan is made, or found to be the same as the one there; finished shards are looked
at; the missing ones are dumped; the card and the manifest come last. Of several ranks the first
plans, and the last to finish writes the manifest.
"""

from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain

from softlabels.capture.engines import ENGINES
from softlabels.capture.estimating import tell_size
from softlabels.capture.pipeline import Job
from softlabels.capture.planning import Setup, make_plan, prepare
from softlabels.capture.refusing import refuse_unstorable
from softlabels.capture.resuming import begin, finish, is_complete, look_at, settle, withdraw
from softlabels.capture.team import Team, join_team
from softlabels.errors import (
    DiskFull,
    LogitsError,
    StoreError,
    TeacherError,
    UnreadableInput,
    UsageError,
)
from softlabels.options import DumpOptions, verb
from softlabels.places.hub_files import make_repository
from softlabels.reports.doubts import doubts
from softlabels.store.claims import claimed, is_lost, new_run
from softlabels.store.records import Manifest, Plan
from softlabels.system.humanize import counted, size_words
from softlabels.system.progress import SILENT, Progress


@dataclass(frozen=True)
class DumpResult:
    """Where the dump is, its manifest, and the source rows that this call ran the teacher on.

    The manifest is None where other ranks than this one still have shards to do.
    """

    out: str
    manifest: Manifest | None
    rows_run: int
    rank: int = 0

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
    try:
        with ExitStack() as stack:
            return _dump(options, team, stack, progress)
    except DiskFull as error:
        raise DiskFull(f"{error}. Make room, then run the same command with --resume") from error


def _dump(options: DumpOptions, team: Team, stack: ExitStack, progress: Progress) -> DumpResult:
    with team.meeting():
        setup = prepare(options, progress if team.is_first else SILENT)
        refuse_unstorable(setup)
        run = _claim(setup, team, stack, progress)
        job, missing = _agree(setup, team, progress)
    out = str(job.folder)
    if missing is None:
        progress.say(f"{out} is complete already; nothing to do")
        return DumpResult(out, job.ledger.complete(), 0, team.rank)
    if team.is_first:
        tell_size(setup, job.plan, missing, progress)
    mine = team.part_of(missing)
    try:
        _run(setup, job, mine, run, progress)
    except (LogitsError, TeacherError, UnreadableInput):
        if team.world == 1 and options.engine == "local":
            withdraw(job.ledger)
        raise
    manifest = finish(job)
    if manifest is None and team.world == 1:
        raise StoreError(f"{job.ledger.state}, the others vanished; use --resume")
    if manifest is not None:
        for doubt in doubts(manifest, job.plan):
            progress.say(f"warning: {doubt}")
    return DumpResult(out, manifest, job.plan.inputs_of(mine), team.rank)


def _claim(setup: Setup, team: Team, stack: ExitStack, progress: Progress) -> str:
    """Enter the folder, the first rank before the others. The run that all of them are of."""
    folder = setup.folder

    def lead() -> str:
        make_repository(folder, progress)
        run = new_run()
        stack.enter_context(claimed(folder, run, 0, progress))
        return run

    run: str = team.share("run", lead)
    if not team.is_first:
        stack.enter_context(claimed(folder, run, team.rank, progress))
    team.came(lambda rank: is_lost(folder, run, rank))
    return run


def _agree(setup: Setup, team: Team, progress: Progress) -> tuple[Job, list[int] | None]:
    """The plan, and the missing shards; None where there is nothing to do.

    Finished shards are divided among the ranks to be looked at; what is missing or damaged is
    then divided among them to be dumped.
    """
    resume = setup.options.resume or team.resumes
    folder, ledger = setup.folder, setup.ledger
    plan = Plan.parse(
        team.share("plan", lambda: begin(setup, resume, progress).as_json), "the plan"
    )
    team.begun()
    job = setup.job(plan)

    def finished() -> list[int] | None:
        return list(ledger.commits) if resume or not is_complete(ledger) else None

    done = team.share("finished", finished)
    if done is None:
        return job, None

    def look() -> list[int]:
        if not team.is_first:
            make_plan(setup, plan).check_same(plan, folder)
        return look_at(job, team.part_of(done), setup.options.check, progress) if resume else []

    def settled(found: list[list[int]]) -> list[int] | None:
        missing = settle(job, sorted(chain.from_iterable(found)), progress)
        if missing and resume:
            progress.say(f"to do: {counted(len(missing), 'shard')} of {plan.shards:,}")
        if missing or is_complete(ledger):
            return missing or None
        progress.say("every shard is there; card and manifest are written again")
        return missing

    missing = team.conclude("missing", look, settled)
    ledger.forget(missing or [])  # another rank may make them
    return job, missing


def _run(setup: Setup, job: Job, shards: list[int], run: str, progress: Progress) -> None:
    try:
        ENGINES[setup.options.engine](setup, job.plan, shards, run, progress)
    except DiskFull as error:
        raise DiskFull(f"{error}: {job.ledger.state}") from error
    except KeyboardInterrupt:
        progress.say(f"stopped: {job.ledger.state}. Go on with the same command and --resume")
        raise
