"""The records as they lie in a folder: found, read, checked against each other and the files."""

import os

from softlabels.errors import DamagedDump, IncompleteDump, StoreError
from softlabels.store.folder import Folder
from softlabels.store.records import Commit, Manifest, Plan

PLAN, MANIFEST, CARD = "plan.json", "softlabels.json", "README.md"


def commit_name(shard: int) -> str:
    return f"commits/{shard:05d}.json"


def read_plan(folder: Folder) -> Plan | None:
    """The plan in this folder; None where there is none. Raises DamagedDump if unreadable."""
    if not folder.exists(PLAN):
        return None
    return Plan.parse(folder.read_json(PLAN), f"{folder}/{PLAN}")


def read_records(
    folder: Folder, plan: Plan, unread: dict[str, StoreError] | None = None
) -> dict[int, Commit]:
    """The commits of this plan, by shard. Those that are damaged, or of another plan, are left
    out: their shards count as missing.

    Raises StoreError where one can't be fetched; with `unread`, it is put there, by name, and so is
    the DamagedDump of one that is no record.
    """
    expected = {commit_name(shard): shard for shard in range(plan.shards)}
    there = {n: size for n, size in folder.files("commits").items() if n in expected}
    found = {}
    for name, value in folder.read_jsons(there).items():
        try:
            if isinstance(value, StoreError):
                raise value
            commit = Commit.parse(value, f"{folder}/{name}")
        except StoreError as error:
            if unread is not None:
                unread[name] = error
            elif not isinstance(error, DamagedDump):
                raise
            continue
        shard = expected[name]
        if (commit.shard, commit.plan, commit.file) == (shard, plan.hash, plan.file(shard)):
            found[shard] = commit
    return dict(sorted(found.items()))


def read_commits(folder: Folder, plan: Plan) -> dict[int, Commit]:
    """The commits of this plan whose files are there in full size. No shard is opened."""
    sizes = folder.files("data")
    records = read_records(folder, plan)
    return {shard: c for shard, c in records.items() if sizes.get(c.file) == c.bytes}


def read_manifest(folder: Folder) -> tuple[Manifest, Plan]:
    """Raises IncompleteDump where shards are missing, StoreError where there is no dump."""
    if not folder.exists(MANIFEST):
        plan = read_plan(folder)
        if plan is None:
            if folder.is_local and os.path.isfile(folder.root):
                raise StoreError(f"{folder} is a file; a dump is a folder")
            what = "has no dump in it" if folder.exists() else "does not exist"
            raise StoreError(f"{folder} {what}; make one with softlabels dump --out {folder}")
        verb = "import" if plan.is_imported else "dump"
        again = f"the same softlabels {verb} command and --resume"
        raise IncompleteDump(
            f"{folder} holds an unfinished dump: {len(read_commits(folder, plan))} of "
            f"{plan.shards} shards are committed. Finish it with "
            f"{folder.origin.command or again}"
        )
    where = f"{folder}/{MANIFEST}"
    manifest = Manifest.parse(folder.read_json(MANIFEST), where)
    plan = manifest.plan
    if plan.hash != manifest.plan_hash:
        raise DamagedDump(f"{where}: the plan's hash is {plan.hash}, not as recorded")
    if len(manifest.shards) != plan.shards:
        raise DamagedDump(
            f"{where} lists {len(manifest.shards)} shards; its plan has {plan.shards}"
        )
    for shard, record in enumerate(manifest.shards):
        if record.file != plan.file(shard):
            raise DamagedDump(
                f"{folder}: shard {shard} is named {record.file[:200]!r} in {MANIFEST}"
            )
    return manifest, plan
