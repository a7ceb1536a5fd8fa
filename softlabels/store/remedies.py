"""What mends a shard that is damaged or missing: it depends on where the dump came from."""

import os
import shlex
from pathlib import Path

from softlabels.errors import DamagedDump
from softlabels.store.folder import Folder
from softlabels.store.hub_address import HUB_COPY, HubAddress

PULLED = ".pulled.json"  # what was pulled into a folder: dump, revision, commit, labels_only


def remedy(folder: Folder) -> str:
    """In words, without a full stop."""
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
    return "the same softlabels dump, or import, with --resume redoes it and nothing else"


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
