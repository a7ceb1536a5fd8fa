"""What mends a shard that is damaged or missing: it depends on where the dump came from."""

import os
import shlex
from pathlib import Path

from softlabels.errors import DamagedDump
from softlabels.inputs.whereabouts import recall
from softlabels.store.folder import Folder
from softlabels.store.hub_address import HUB_COPY, HubAddress
from softlabels.store.recipe import TEACHER, recipe
from softlabels.store.records import Plan

PULLED = ".pulled.json"  # what was pulled into a folder: dump, revision, commit, labels_only


def remedy(folder: Folder, plan: Plan | None = None, skipped: bool = False) -> str:
    """In words, without a full stop; of a dump that was made here, where its plan is given, with
    the whole command. `skipped`: whether rows were left out of it."""
    if folder.url.startswith("hf://"):
        return "ask its owner to push it again"
    if found := HUB_COPY.fullmatch(folder.root):
        dump = f"{found['org']}/{found['name']}{found['inner']}"
        newest = Path(found["place"], "refs", "main")
        is_newest = newest.is_file() and newest.read_text() == found["commit"]
        return (
            f"softlabels pull {dump}{'' if is_newest else '@' + found['commit']} fetches it again"
        )
    if again := pull_command(folder):
        return f"{again} fetches it; or use what is here, with --shards"
    if plan is None or plan.teacher["kind"] == "imported":
        return "the same softlabels dump, or import, with --resume redoes it and nothing else"
    data = recall(plan.source["fingerprint"]) if plan.source["origin"] == "local" else None
    again = " ".join([*recipe(plan, skipped, data), f"--out {shlex.quote(str(folder))} --resume"])
    return f"{again} redoes it and nothing else, where {TEACHER} is the teacher's file"


def pull_command(folder: Folder) -> str | None:
    """What fetched a folder, and goes on with it; None for one that was made here."""
    if not folder.is_local or not os.path.isfile(folder.path(PULLED)):
        return None
    try:
        note = folder.read_json(PULLED)
    except (DamagedDump, OSError):
        return None
    dump, revision = str(note.get("dump")), note.get("revision")
    address = HubAddress.parse(
        f"hf://datasets/{dump}@{revision}" if revision else f"hf://datasets/{dump}"
    )
    if address is None or address.dump != dump:
        return None
    bare = " --labels-only" * (note.get("labels_only") is True)
    return f"softlabels pull {address} --out {shlex.quote(str(folder))}{bare}"
