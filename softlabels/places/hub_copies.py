"""Local copies of Hub dumps, in the cache of the Hub's own client.

Interrupted downloads resume; without a network, the cached copy is used. A revision is resolved to
a commit once, so that a dump does not change while it is read.
"""

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from huggingface_hub import HfApi, hf_hub_download, is_offline_mode
from huggingface_hub.constants import HF_HUB_CACHE
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from huggingface_hub.file_download import repo_folder_name

from softlabels.errors import IncompleteDump, StoreError
from softlabels.places.hub_address import (
    HubAddress,
    abort_transfers,
    first_line,
    quiet,
    translated,
)
from softlabels.store.folder import Folder, Origin
from softlabels.store.ledger import read_manifest
from softlabels.store.names import CARD, MANIFEST, PLAN, commit_name
from softlabels.store.records import Manifest
from softlabels.store.shard_numbers import parse_numbers
from softlabels.system.background import in_order
from softlabels.system.progress import SILENT, Progress

CONNECTIONS = 8
HUB_COPY = re.compile(
    r"(?P<place>.*/datasets--(?P<org>[\w.-]+?)--(?P<name>[\w.-]+))"
    r"/snapshots/(?P<commit>[0-9a-f]{40})(?P<inner>(?:/[\w.-]+)*)"
)


def copy_origin(folder: Folder) -> Origin | None:
    """The origin of a folder in the client's cache; None for any other folder."""
    match = HUB_COPY.fullmatch(folder.root) if folder.is_local else None
    if match is None:
        return None
    newest = Path(match["place"], "refs", "main")
    is_newest = newest.is_file() and newest.read_text() == match["commit"]
    dump = f"{match['org']}/{match['name']}{match['inner']}"
    command = f"softlabels pull {dump}{'' if is_newest else '@' + match['commit']}"
    return Origin(f"{command} fetches it again", command, shared=True)


def fetch_manifest(address: HubAddress) -> Folder:
    """Fetch a dump's manifest into the client's cache; returns the copy. Without a network, a
    revision is what it was when last seen.

    Raises StoreError if there is no such dump or copy, IncompleteDump for an unfinished push.
    """
    try:
        with quiet():
            path = get_file(address, MANIFEST, address.revision)
        copy = Folder(os.path.dirname(path))
        copy.origin = copy_origin(copy) or copy.origin
        return copy
    except LocalEntryNotFoundError as error:
        offline = " (HF_HUB_OFFLINE is set)" if is_offline_mode() else ""
        other = _copy_of_another_commit(address)
        known = f"; a copy of another commit is here: {other}" if other else ""
        raise StoreError(
            f"{address} is no folder here; the Hub can't be reached{offline}, and its client has "
            f"no copy: {first_line(error)}{known}"
        ) from error
    except EntryNotFoundError as error:
        if others := dumps_in(address):
            raise StoreError(
                f"{address} is no dump; in folders of {address.repo} are {', '.join(others)}: name "
                f"one of them"
            ) from error
        raise IncompleteDump(
            f"{address} has no {MANIFEST}: it is no dump, or isn't finished; the same softlabels "
            f"push goes on, or the same softlabels dump with --resume"
        ) from error


def _copy_of_another_commit(address: HubAddress) -> HubAddress | None:
    """The newest copy of a dump in the client's cache, at any commit."""
    name = repo_folder_name(repo_id=address.repo, repo_type="dataset")
    place = Path(HF_HUB_CACHE, name, "snapshots")
    manifests = list(place.glob(f"*/{address.inside(MANIFEST)}"))
    if not manifests:
        return None
    newest = max(manifests, key=lambda path: path.stat().st_mtime)
    return replace(address, revision=newest.relative_to(place).parts[0])


def dumps_in(address: HubAddress) -> list[str]:
    """The names of the dumps in folders of a repository."""
    with translated(address):
        names = HfApi().list_repo_files(
            address.repo, repo_type="dataset", revision=address.revision
        )
    folders = sorted(name.rpartition("/")[0] for name in names if name.endswith(f"/{MANIFEST}"))
    return [str(replace(address, folder=folder)) for folder in folders]


def fetch_files(
    address: HubAddress,
    copy: Folder,
    progress: Progress = SILENT,
    rows_only: bool = False,
    shards: str | Iterable[int] | None = None,
    get: Callable[[str], object] | None = None,
) -> None:
    """Fetch the files of a dump, several at a time. Hashes are checked by readers, not here.

    copy: the copy that has the manifest
    rows_only: only shards and side files, without plan, commit records and card
    shards: only these shards and their records; by default all
    get: fetches a file by its name; by default into the client's cache
    """
    commit = commit_of(copy)
    manifest, plan = read_manifest(copy)
    fetch = get or (lambda name: get_file(address, name, commit))

    def get_one(name: str) -> None:
        try:
            fetch(name)
        except EntryNotFoundError as error:
            unknown = isinstance(error, LocalEntryNotFoundError) and not is_offline_mode()
            if name == CARD and not unknown:
                return
            raise StoreError(f"{address}/{name} can't be fetched: {first_line(error)}") from error

    numbers = parse_numbers(shards, plan.shards)
    with quiet():
        fetch_each(manifest, numbers, get_one, progress, rows_only, abort_transfers)


def fetch_each(
    manifest: Manifest,
    numbers: list[int],
    get: Callable[[str], None],
    progress: Progress,
    rows_only: bool = False,
    abort: Callable[[], None] = lambda: None,
) -> None:
    """Call `get` with the name of each file of these shards, several at a time, but for the
    manifest. abort: ends transfers when Ctrl-C stops the wait for them."""
    plan = manifest.plan
    sizes = {r.file: r.bytes for r in (manifest.shards[number] for number in numbers)}
    records = [*map(commit_name, numbers), CARD]
    first, last = ([], []) if rows_only else ([PLAN], records)

    def get_one(name: str) -> int:
        get(name)
        return sizes.get(name, 0) // 1_000_000

    total = sum(sizes.values()) // 1_000_000
    with progress.bar("fetch", total, "MB") as advance:
        for name in [*first, *plan.shared]:
            get_one(name)
        for size in in_order(get_one, [*sizes, *last], CONNECTIONS, abort):
            advance(size)


def commit_of(copy: Folder) -> str:
    """The commit of a copy in the Hub client's cache."""
    match = HUB_COPY.fullmatch(copy.root)
    assert match is not None
    return match["commit"]


def get_file(
    address: HubAddress,
    name: str,
    revision: str | None,
    cache: str | None = None,
    force: bool = False,
) -> str:
    """Fetch a dump's file; returns its path. cache: by default the client's. force: fetch the file
    even if it is there."""
    with translated(address):
        path: str = hf_hub_download(
            address.repo,
            address.inside(name),
            repo_type="dataset",
            revision=revision,
            cache_dir=cache,
            force_download=force,
        )
        return path
