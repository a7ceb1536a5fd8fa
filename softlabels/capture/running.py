"""From a setup to a complete dump: what `dump` and `import` share.

The order of things: the folder is claimed; the plan is made, or compared with the one that is
there; finished shards are looked at; the missing ones are made; the card and the manifest come
last. Of several ranks the first plans, and the last to finish writes the manifest.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain

from softlabels.capture.engines import ENGINES
from softlabels.capture.job import Job
from softlabels.capture.part import Part
from softlabels.capture.planning import Setup, make_plan
from softlabels.capture.refusing import refuse_unstorable
from softlabels.capture.resuming import (
    begin,
    finish,
    is_complete,
    look_at,
    refuse_damaged,
    settle,
    withdraw,
)
from softlabels.capture.team import Team
from softlabels.capture.timing import Timing
from softlabels.errors import (
    DiskFull,
    LogitsError,
    StoreError,
    TeacherError,
    UnreadableInput,
)
from softlabels.places.hub_files import make_repository
from softlabels.reports.doubts import doubts
from softlabels.store.claims import claimed, is_lost, new_run
from softlabels.store.folder import Folder
from softlabels.store.records import Manifest, Plan
from softlabels.system.humanize import counted
from softlabels.system.progress import Progress, Titled

UNUSABLE = (LogitsError, TeacherError, UnreadableInput)  # another plan is the remedy


@dataclass(frozen=True)
class Looking:
    """How what is there already is looked at.

    resume: go on with an unfinished dump, and make damaged shards again
    check: full, or size: whether finished shards are read whole
    always: whether finished shards are looked at without `resume` too; damage is then refused
    """

    resume: bool
    check: str
    always: bool = False


@dataclass(frozen=True)
class Begun:
    """A dump that holds its folder. missing: None where there is nothing to do."""

    setup: Setup
    job: Job
    missing: list[int] | None
    run: str

    def part(self, shards: list[int]) -> Part:
        """These shards of it."""
        return Part(self.setup, self.job, shards, self.run)


@contextmanager
def saying_how_to_go_on() -> Iterator[None]:
    """A full disk is the user's to mend."""
    try:
        yield
    except DiskFull as error:
        raise DiskFull(f"{error}. Make room, then run the same command with --resume") from error


def enter(
    setup: Setup, looking: Looking, team: Team, stack: ExitStack, progress: Progress
) -> Begun:
    """Claim the folder until the stack is closed, agree on the plan, and find what is missing."""
    refuse_unstorable(setup)
    run = _claim(setup.folder, team, stack, progress)
    job, missing = _agree(setup, looking, team, progress)
    if missing is None:
        progress.say(f"{setup.folder} is complete already; nothing to do")
    return Begun(setup, job, missing, run)


def carry_out(
    parts: Sequence[Part], engine: str, alone: bool, progress: Progress
) -> tuple[list[Manifest | None], Timing]:
    """Make the shards of these dumps, of several in one pass over their rows; then card and
    manifest of each, which is None where other ranks still have shards to do; and what the shards'
    time went to.

    alone: there are no other ranks
    """
    try:
        timing = _run(parts, engine, progress)
    except UNUSABLE:
        if alone and engine == "local":
            for part in parts:
                withdraw(part.job.ledger)
        raise
    several = len(parts) > 1
    finished = [
        _finish(part.job, alone, Titled(progress, str(part.job.folder)) if several else progress)
        for part in parts
    ]
    return finished, timing


def _finish(job: Job, alone: bool, progress: Progress) -> Manifest | None:
    manifest = finish(job)
    if manifest is None and alone:
        raise StoreError(f"{job.ledger.state}, the others vanished; use --resume")
    if manifest is not None:
        for doubt in doubts(manifest, job.plan):
            progress.say(f"warning: {doubt}")
    return manifest


def _claim(folder: Folder, team: Team, stack: ExitStack, progress: Progress) -> str:
    """Enter the folder, the first rank before the others. The run that all of them are of."""

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


def _agree(
    setup: Setup, looking: Looking, team: Team, progress: Progress
) -> tuple[Job, list[int] | None]:
    """The plan, and the missing shards; None where there is nothing to do.

    Finished shards are divided among the ranks to be looked at; what is missing or damaged is
    then divided among them to be dumped.
    """
    resume = looking.resume or team.resumes
    folder, ledger = setup.folder, setup.ledger
    plan = Plan.parse(
        team.share("plan", lambda: begin(setup, resume, progress).as_json), "the plan"
    )
    team.begun()
    job = setup.job(plan)

    def finished() -> list[int] | None:
        looked_at = resume or looking.always or not is_complete(ledger)
        return list(ledger.commits) if looked_at else None

    done = team.share("finished", finished)
    if done is None:
        return job, None

    def look() -> list[int]:
        if not team.is_first:
            make_plan(setup, plan).check_same(plan, folder)
        if resume:
            return look_at(job, team.part_of(done), looking.check, progress)
        if looking.always and looking.check == "full":
            refuse_damaged(job, team.part_of(done))
        return []

    def settled(redo: list[list[int]]) -> list[int] | None:
        missing = settle(job, sorted(chain.from_iterable(redo)), progress)
        if missing and resume:
            progress.say(f"to do: {counted(len(missing), 'shard')} of {plan.shards:,}")
        if missing or is_complete(ledger):
            return missing or None
        progress.say("every shard is there; card and manifest are written again")
        return missing

    missing = team.conclude("missing", look, settled)
    ledger.forget(missing or [])  # another rank may make them
    return job, missing


def _run(parts: Sequence[Part], engine: str, progress: Progress) -> Timing:
    try:
        return ENGINES[engine](parts, progress)
    except DiskFull as error:
        raise DiskFull(f"{error}: {_state(parts, parts[0].setup.sibling)}") from error
    except KeyboardInterrupt:
        progress.say(
            f"stopped: {_state(parts, len(parts) > 1)}. Go on with the same command and --resume"
        )
        raise


def _state(parts: Sequence[Part], named: bool) -> str:
    """How far they have got, in a clause for a message."""
    if not named:
        return parts[0].job.ledger.state
    return "; ".join(f"{part.job.folder}: {part.job.ledger.state}" for part in parts)
