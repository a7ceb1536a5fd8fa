"""What of a dump is done, what is done again, and the first and the last things written."""

from softlabels.capture.job import Job
from softlabels.capture.pilot import check_probes, left_behind, with_pilot
from softlabels.capture.planning import Setup, make_plan
from softlabels.capture.sampling import check_sample
from softlabels.errors import StoreError
from softlabels.inputs.sources import Source
from softlabels.inputs.texts import Texts
from softlabels.inputs.whereabouts import remember
from softlabels.models.checkpoint import library_versions
from softlabels.models.tokens import Tokens
from softlabels.reports.card import card_is_good, render_card
from softlabels.store.claims import sweep
from softlabels.store.folder import Folder
from softlabels.store.ledger import Ledger
from softlabels.store.names import CARD, PLAN
from softlabels.store.records import Manifest, Plan
from softlabels.store.shard_check import check_shards
from softlabels.store.side_files import SHARED
from softlabels.store.writer import shard_features, stored_features
from softlabels.system.humanize import few
from softlabels.system.local_files import remove_if_empty
from softlabels.system.progress import Progress


def begin(setup: Setup, resume: bool, progress: Progress) -> Plan:
    """Write the plan, or find the same one there.

    Raises PlanMismatch for another dump in the folder, and StoreError for other files in it or
    for an unfinished dump that `resume` does not ask for.
    """
    ledger, folder = setup.ledger, setup.folder
    earlier = ledger.earlier_plan(mends=resume)
    if earlier is not None:
        setup.answers.check_earlier(earlier.teacher, folder)
    plan = make_plan(setup, earlier)
    if earlier is not None:
        plan.check_same(earlier, folder)
        if resume:
            check_probes(setup, plan)
    else:
        plan = left_behind(folder, plan)
    ledger.plan = plan
    if earlier is None and not _is_own(ledger):
        raise StoreError(_not_empty(folder, plan))
    # all shards and no manifest: only card and manifest are left to write, which asks nobody
    begun = earlier is not None and bool(ledger.missing or ledger.manifest)
    if begun and not resume and not is_complete(ledger):
        raise StoreError(
            f"{folder} holds an unfinished dump: {ledger.state}. Add --resume to go on "
            f"with it, or choose another folder with --out"
        )
    if earlier is None and plan.pilot is None:
        ledger.plan = plan = with_pilot(setup, plan, progress, folder)
    if ledger.frozen != plan:
        if earlier is not None or folder.exists(PLAN):
            progress.say(f"{PLAN} was lost or damaged; it is written again")
        ledger.write_plan(plan)
    _note_source(setup.source, plan, progress)
    return plan


def _not_empty(folder: Folder, plan: Plan) -> str:
    others = [name for name in folder.names() if not name.startswith(".")]
    dumps = [name for name in others if folder.exists(f"{name}/{PLAN}")]
    if dumps:
        name = plan.teacher.name.replace("/", "-")
        return (
            f"{folder} is no dump and holds dumps ({few(dumps)}); choose a folder beside them, "
            f"such as with --out {str(folder).rstrip('/')}/{name}"
        )
    return (
        f"{folder} is not empty and holds no dump (there is {others[0]!r}); choose another folder "
        f"with --out"
    )


def look_at(job: Job, shards: list[int], check: str, progress: Progress) -> list[int]:
    """Those of these finished shards that are to be done again, being no longer what was written.
    `check` is that of the options: whether each is read whole.

    Raises PlanMismatch where some rows of the others, read again, are not what they were made from.
    """
    redo = damaged(job, shards, progress) if check == "full" else []
    unread = check_sample(job, [shard for shard in shards if shard not in redo], progress)
    return sorted({*redo, *unread})


def damaged(job: Job, shards: list[int], progress: Progress) -> list[int]:
    """Those of these finished shards that are no longer what was written: each is read whole.
    A commit that the manifest contradicts counts as damaged."""
    ledger = job.ledger
    commits = ledger.commits_of(shards)
    manifest = ledger.manifest
    if manifest is not None and manifest.plan == job.plan:
        commits = {i: c for i, c in commits.items() if c.record == manifest.shards[i]}
    redo = [shard for shard in shards if shard not in commits]
    with progress.bar("check", len(commits), "shards") as advance:
        for checked in check_shards(job.folder, job.plan, list(commits.values()), job.pace.threads):
            advance(1)
            for finding in checked.findings:
                progress.say(f"{finding}; it is done again")
            if checked.findings:
                redo.append(checked.shard)
    return sorted(redo)


def refuse_damaged(job: Job, shards: list[int]) -> None:
    """Raises StoreError where one of these finished shards is no longer what was written."""
    commits = list(job.ledger.commits_of(shards).values())
    for checked in check_shards(job.folder, job.plan, commits, job.pace.threads):
        for finding in checked.findings:
            raise StoreError(f"{job.folder}: {finding}. Add --resume to make such shards again")


def settle(job: Job, redo: list[int], progress: Progress) -> list[int]:
    """Withdraw the commits of shards to be redone and remove what is stale. All missing shards."""
    ledger = job.ledger
    _remove_strays(ledger, progress)  # first, since it may refuse
    missing = sorted({*ledger.missing, *redo})
    if missing:
        ledger.withdraw(redo)
    sweep(job.folder)
    return missing


def withdraw(ledger: Ledger) -> None:
    """Take a plan back of which nothing is committed: the remedy is another one, for which the
    folder must be free."""
    ledger.refresh()
    if not ledger.commits:
        for name in (PLAN, *ledger.plan.shared):
            ledger.folder.delete(name)
        if ledger.folder.is_local:
            for name in ("data", SHARED):
                remove_if_empty(ledger.folder.path(name))


def finish(job: Job) -> Manifest | None:
    """Write the card, and the manifest last; None where shards are not committed yet."""
    ledger, plan = job.ledger, job.plan
    if not ledger.is_recorded():
        return None
    ledger.refresh()
    commits = ledger.commits
    if len(commits) < plan.shards:
        return None
    manifest = Manifest.derive(plan, list(commits.values()), library_versions())
    features = shard_features(plan, stored_features(plan, job.source))
    card = render_card(manifest, plan, features, _task(job.source, plan))
    job.folder.write_text(CARD, card)
    ledger.write_manifest(manifest)
    sweep(job.folder)  # of workers that were lost and replaced
    return manifest


def _task(source: Source, plan: Plan) -> str | None:
    """The Hub's word for what such inputs are for; None where the inputs don't tell."""
    cells = source.read(0, 1).cells
    if plan.preprocess == "tokens" or isinstance(cells, Texts | Tokens):
        return "text-classification"
    if isinstance(cells, list) or cells.ndim in (3, 4):
        return "image-classification"
    return "tabular-classification" if len(source.columns.inputs) > 1 else None


def is_complete(ledger: Ledger) -> bool:
    """Whether manifest and card are what the commits make of them, and every file is there."""
    manifest, plan = ledger.manifest, ledger.plan
    if manifest is None or manifest.plan != plan:
        return False
    if not card_is_good(ledger.folder, manifest, plan):
        return False
    return manifest.agrees(Manifest.derive(plan, list(ledger.commits.values()), {}))


def _note_source(source: Source, plan: Plan, progress: Progress) -> None:
    """Note where local data lie, since no record says it."""
    try:
        if source.origin == "local":
            remember(plan.source.identity, source.data)
    except OSError as error:
        progress.say(
            f"warning: can't note where {plan.source.data} lies ({error.strerror or error}): "
            f"train and verify will have to be told, with --source or --data"
        )


def _is_own(ledger: Ledger) -> bool:
    """Whether the folder is empty but for what a pilot wrote, or all that was committed in it was
    committed by this plan."""
    if not [n for n in ledger.folder.names() if not n.startswith(".") and n != SHARED]:
        return True
    ledger.refresh()
    return bool(ledger.records) and not ledger.strangers


def _remove_strays(ledger: Ledger, progress: Progress) -> None:
    """Copies of this dump's own files under other names. Raises StoreError for anything else."""
    for stray in ledger.strays():
        if stray.shard is None:
            raise StoreError(
                f"{ledger.folder}/{stray.name} is not a file of this dump and does not belong "
                f"there. Move it away, then run the same command again"
            )
        progress.say(f"{stray.name} {stray}; it is removed")
        ledger.folder.delete(stray.name)
