"""What mends a shard that is damaged or missing: it depends on where the dump came from."""

import os
import re

from softlabels.store.folder import Folder

HUB_COPY = re.compile(r".*/datasets--([\w.-]+?)--([\w.-]+)/snapshots/[0-9a-f]{40}((?:/[\w.-]+)*)")
PULLED = ".pulled.json"  # what a folder was pulled from: {"dump": "ORG/NAME", "commit": …}


def remedy(folder: Folder) -> str:
    """In words, without a full stop."""
    if folder.url.startswith("hf://"):
        return "ask its owner to push it again"
    if found := HUB_COPY.fullmatch(folder.root):
        return f"softlabels pull {found[1]}/{found[2]}{found[3]} fetches it again"
    if again := pull_command(folder):
        return f"{again} fetches it; or use what is here, with --shards"
    return "the same softlabels dump, or import, with --resume redoes it and nothing else"


def pull_command(folder: Folder) -> str | None:
    """What fetched a folder, and goes on with it; None for one that was made here."""
    if not folder.is_local or not os.path.isfile(folder.path(PULLED)):
        return None
    note = folder.read_json(PULLED)
    bare = " --labels-only" * (note.get("labels_only") is True)
    return f"softlabels pull {str(note.get('dump'))[:200]} --out {folder}{bare}"
