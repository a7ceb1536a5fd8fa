"""From a name to a folder that knows how it can be repaired."""

import os
import re
import shlex
from collections.abc import Iterable
from typing import Any

from huggingface_hub import is_offline_mode

from softlabels.errors import DamagedDump
from softlabels.places.hub_address import HubAddress
from softlabels.places.hub_copies import commit_of, copy_origin, fetch_files, fetch_manifest
from softlabels.places.hub_files import hub_folder
from softlabels.store.folder import MADE_HERE, Folder, Origin
from softlabels.system.progress import SILENT, Progress

ADDRESS = re.compile(r"[a-z][a-z0-9]*://[\w.-]+(/[\w.=-]+)*")  # one that a shell takes as it is
PULLED = ".pulled.json"  # what was pulled into a folder: dump, revision, commit, labels_only


def open_folder(path: str | os.PathLike[str]) -> Folder:
    """The folder at a path or an address such as s3://… or hf://datasets/…; nothing is copied."""
    url = os.fspath(path)
    if url.startswith("hf://"):
        return hub_folder(url)
    folder = Folder(url)
    folder.origin = copy_origin(folder) or _pulled(folder) or MADE_HERE
    return folder


def dump_folder(
    path: str | os.PathLike[str],
    want: str = "all",
    progress: Progress = SILENT,
    shards: str | Iterable[int] | None = None,
) -> Folder:
    """The folder of a dump by the user's name for it: a path, an address such as s3://…, or a Hub
    id.

    want: which files of a Hub dump must be on this disk: `all`, those with its `rows`, its
    `manifest`, or `nothing` (it is read on the Hub)
    shards: only the files of these shards

    Raises StoreError if the dump can't be found or fetched.
    """
    address = HubAddress.parse(os.fspath(path))
    if address is None:
        return open_folder(path)
    copy = fetch_manifest(address)
    if want == "nothing" and not is_offline_mode():
        return elsewhere(address, copy)
    if want != "manifest":
        fetch_files(address, copy, progress, rows_only=want == "rows", shards=shards)
    return copy


def elsewhere(address: HubAddress, copy: Folder) -> Folder:
    """The dump on the Hub itself, at the commit of a local copy."""
    inner = f"/{address.folder}" if address.folder else ""
    return hub_folder(f"hf://datasets/{address.repo}@{commit_of(copy)}{inner}")


def _pulled(folder: Folder) -> Origin | None:
    """The origin of a folder that `softlabels pull --out` filled, from the note that it left."""
    if not folder.is_local or not os.path.isfile(folder.path(PULLED)):
        return None
    try:
        note = folder.read_json(PULLED)
    except (DamagedDump, OSError):
        return None
    dump, revision = str(note.get("dump")), note.get("revision")
    if ADDRESS.fullmatch(dump):
        return _origin_of(dump, folder, note)
    address = HubAddress.parse(
        f"hf://datasets/{dump}@{revision}" if revision else f"hf://datasets/{dump}"
    )
    if address is None or address.dump != dump:  # a stranger's note must not end up in a command
        return None
    return _origin_of(str(address), folder, note)


def _origin_of(dump: str, folder: Folder, note: dict[str, Any]) -> Origin:
    bare = " --labels-only" * (note.get("labels_only") is True)
    command = f"softlabels pull {dump} --out {shlex.quote(str(folder))}{bare}"
    return Origin(f"{command} fetches it; or use what is here, with --shards", command)
