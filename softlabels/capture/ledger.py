"""What is done in a dump's folder and what is not; the first and the last things written."""

from contextlib import suppress

from softlabels.capture.pipeline import Job
from softlabels.capture.planning import Setup, make_plan
from softlabels.checkpoint import library_versions
from softlabels.errors import DamagedDump, StoreError
from softlabels.inputs.sources import Source
from softlabels.inputs.whereabouts import origin, remember
from softlabels.store.card import card_is_good, render_card
from softlabels.store.claims import sweep
from softlabels.store.folder import Folder
from softlabels.store.manifest import (
    CARD,
    MANIFEST,
    PLAN,
    commit_name,
    read_commits,
    read_manifest,
    read_plan,
)
from softlabels.store.records import Commit, Manifest, Plan
from softlabels.store.shard_check import check_shards, whose_shard
from softlabels.store.writer import shard_features
from softlabels.system.local_files import remove_if_empty
from softlabels.system.progress import Progress


def begin(setup: Setup, resume: bool, progress: Progress) -> Plan:
    """Write the plan, or find the same one there.

    Raises PlanMismatch for another dump in the folder, and StoreError for other files in it or
    for an unfinished dump that `resume` does not ask for.
    """
    folder = setup.folder
    earlier = _earlier_plan(folder, resume)
    plan = make_plan(setup, earlier)
    if earlier is not None:
        plan.check_same(earlier, folder)
    elif not _is_own(folder, plan):
        others = [name for name in folder.names() if not name.startswith(".")]
        raise StoreError(
            f"{folder} is not empty and holds no dump (there is {others[0]!r}); "
            f"choose another folder with --out"
        )
    if earlier is not None and not resume and not is_complete(folder, plan):
        done = len(read_commits(folder, plan))
        if done < plan.shards or folder.exists(MANIFEST):
            raise StoreError(
                f"{folder} holds an unfinished dump: {state(folder, plan)}. Add --resume to go on "
                f"with it, or choose another folder with --out"
            )
    if _plan_as_written(folder) != plan:
        if earlier is not None or folder.exists(PLAN):
            progress.say(f"{PLAN} was lost or damaged; it is written again")
        folder.write_json(PLAN, plan.as_json)
    _note_source(setup.source, plan, progress)
    return plan


def damaged(job: Job, shards: list[int], progress: Progress) -> list[int]:
    """Those of these finished shards that are no longer what was written: each is read whole.
    A commit that the manifest contradicts counts as damaged."""
    commits = read_commits(job.folder, job.plan)
    manifest = _manifest(job.folder)
    if manifest is not None and manifest[1] == job.plan:
        records = manifest[0].shards
        commits = {i: c for i, c in commits.items() if c.record == records[i]}
    chosen = [commits[shard] for shard in shards if shard in commits]
    found = [shard for shard in shards if shard not in commits]
    with progress.bar("check", len(chosen), "shards") as advance:
        for checked in check_shards(job.folder, job.plan, chosen, job.workers):
            advance(1)
            for finding in checked.findings:
                progress.say(f"{finding}; it is done again")
            if checked.findings:
                found.append(checked.shard)
    return sorted(found)


def settle(job: Job, redo: list[int], progress: Progress) -> list[int]:
    """Withdraw the commits of shards to be redone and remove what is stale. All missing shards."""
    folder, plan = job.folder, job.plan
    _remove_strays(folder, plan, progress)  # first, since it may refuse
    done = set(read_commits(folder, plan)) - set(redo)
    missing = [shard for shard in range(plan.shards) if shard not in done]
    if missing:
        folder.delete(MANIFEST)
    for shard in redo:
        folder.delete(commit_name(shard))
    sweep(folder)
    return missing


def withdraw(folder: Folder, plan: Plan) -> None:
    """Take a plan back of which nothing is committed: the remedy is another one, for which the
    folder must be free."""
    if not read_commits(folder, plan):
        folder.delete(PLAN)
        if folder.is_local:
            remove_if_empty(folder.path("data"))


def finish(job: Job) -> Manifest | None:
    """Write the card, and the manifest last; None where shards are not committed yet."""
    folder, plan = job.folder, job.plan
    commits = read_commits(folder, plan)
    if len(commits) < plan.shards:
        return None
    manifest = Manifest.derive(plan, list(commits.values()), library_versions())
    write_last(folder, manifest, plan, job.source)
    return manifest


def write_last(folder: Folder, manifest: Manifest, plan: Plan, source: Source) -> None:
    """The card, and the manifest, whose existence means that the dump is complete."""
    feature = source.input_feature if plan.with_inputs else None
    features = shard_features(plan, feature)
    folder.write_text(CARD, render_card(manifest, plan, features, _task(source, plan)))
    folder.write_json(MANIFEST, manifest.as_json)
    sweep(folder)  # of workers that were lost and replaced


def _task(source: Source, plan: Plan) -> str | None:
    """The Hub's word for what such inputs are for; None where the inputs don't tell."""
    if "tokens" in plan.preprocess:
        return "text-classification"
    cells = source.read(0, 1).cells
    if isinstance(cells, list) or cells.ndim in (3, 4):
        return "image-classification"
    return "tabular-classification" if len(source.columns.inputs) > 1 else None


def is_complete(folder: Folder, plan: Plan) -> bool:
    """Whether manifest and card are what the commits make of them, and every file is there."""
    found = _manifest(folder)
    if found is None or found[1] != plan or not card_is_good(folder, *found):
        return False
    commits = read_commits(folder, plan)
    return found[0].agrees(Manifest.derive(plan, list(commits.values()), {}))


def state(folder: Folder, plan: Plan) -> str:
    return f"{len(read_commits(folder, plan))} of {plan.shards} shards are committed and safe"


def _note_source(source: Source, plan: Plan, progress: Progress) -> None:
    """Note where local data lie, since no record says it."""
    try:
        if origin(source.data) == "local":
            remember(plan.source.fingerprint, source.data)
    except OSError as error:
        progress.say(
            f"warning: can't note where {plan.source.data} lies ({error.strerror or error}): "
            f"train and verify will have to be told, with --source or --data"
        )


def _earlier_plan(folder: Folder, resume: bool) -> Plan | None:
    """The plan in the folder, also where only the manifest still has it."""
    plan = _plan_as_written(folder) if resume else read_plan(folder)
    manifest = _manifest(folder)
    return plan if plan is not None or manifest is None else manifest[1]


def _plan_as_written(folder: Folder) -> Plan | None:
    try:
        return read_plan(folder)
    except DamagedDump:
        return None


def _manifest(folder: Folder) -> tuple[Manifest, Plan] | None:
    """The manifest and its plan; None where there is no good one."""
    try:
        return read_manifest(folder) if folder.exists(MANIFEST) else None
    except DamagedDump:
        return None


def _is_own(folder: Folder, plan: Plan) -> bool:
    """Whether the folder is empty, or all that was committed in it was committed by this plan."""
    if not [name for name in folder.names() if not name.startswith(".")]:
        return True
    records = folder.read_jsons(folder.files("commits")).values()
    plans = {r.get("plan") for r in records if isinstance(r, dict)}
    return plans == {plan.hash}


def _remove_strays(folder: Folder, plan: Plan, progress: Progress) -> None:
    """Copies of this dump's own files under other names. Raises StoreError for anything else."""
    shards = range(plan.shards)
    files = folder.files("data")
    for name in sorted(set(folder.names("data")) - {plan.file(shard) for shard in shards}):
        shard = None
        if name in files:
            with folder.open(name) as file:
                shard = whose_shard(file, plan)
        _remove_stray(folder, name, shard, progress)
    files = folder.files("commits")
    for name in sorted(set(folder.names("commits")) - {commit_name(shard) for shard in shards}):
        shard = None
        with suppress(DamagedDump):
            if name in files:
                commit = Commit.parse(folder.read_json(name), name)
                shard = commit.shard if commit.plan == plan.hash else None
        _remove_stray(folder, name, shard, progress)


def _remove_stray(folder: Folder, name: str, shard: int | None, progress: Progress) -> None:
    if shard is None:
        raise StoreError(
            f"{folder}/{name} is no file of this dump and does not belong there. Move it away, "
            f"then run the same command again"
        )
    progress.say(f"{name} is shard {shard} of this dump under another name; it is removed")
    folder.delete(name)
