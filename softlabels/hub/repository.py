"""The files of a repository on the Hub, beside those of a dump."""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import (
    EntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils.sha import git_hash

from softlabels.errors import StoreError, UsageError
from softlabels.places.hub_address import HubAddress
from softlabels.store.folder import Folder
from softlabels.store.json_objects import parse_object
from softlabels.store.ledger import read_manifest
from softlabels.store.names import MANIFEST, PLAN, commit_name
from softlabels.store.records import Plan
from softlabels.store.shard_check import sha256_of

DATA = (".parquet", ".arrow", ".csv", ".json", ".jsonl", ".tar", ".zip", ".npz")


def look(api: HfApi, at: HubAddress) -> tuple[str | None, dict[str, RepoFile]]:
    """The branch's commit and its files by path; (None, {}) without a repository."""
    try:
        head = api.dataset_info(at.repo, revision=at.revision).sha
        tree = list(api.list_repo_tree(at.repo, repo_type="dataset", revision=head, recursive=True))
    except RepositoryNotFoundError:
        return None, {}  # the push will create it
    except RevisionNotFoundError:
        return look(api, replace(at, revision=None))  # it will be created from main
    except EntryNotFoundError:
        return head, {}
    return head, {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}


def earlier_files(
    api: HfApi,
    folder: Folder,
    at: HubAddress,
    head: str | None,
    there: dict[str, RepoFile],
    may_replace: bool,
) -> set[str]:
    """The files of another dump that lies there and will be replaced; empty for none.

    Raises StoreError where it may not be replaced, and where the repository holds other data.
    """
    if at.inside(PLAN) not in there:
        dumps = dump_folders(there)
        data = [n for n in there if n.endswith(DATA) and not any(_is_in(n, d) for d in dumps)]
        ours = dump_files(folder, at) if data else {}
        if not all(name in ours for name in data):
            raise StoreError(
                f"{at.repo} holds data that are not a dump of softlabels ({min(data)} …); push to "
                f"another repository"
            )
        return set()
    content = read_file(api, at, at.inside(PLAN), head)
    old = Plan.parse(parse_object(content, PLAN), f"{at}/{PLAN}")
    if old.hash == read_manifest(folder)[1].hash:
        return set()
    if not may_replace:
        raise StoreError(
            f"{at} holds another dump: {old.teacher.name} on {old.source.data}, plan "
            f"{old.hash[:19]}…; push to another repository or --revision, or add --replace"
        )
    shards = range(old.shards)
    stale = [name for i in shards for name in (commit_name(i), old.file(i))]
    return {at.inside(name) for name in (*stale, *old.shared)}


def dump_folders(there: Iterable[str]) -> set[str]:
    """The folders of the dumps in a repository; empty for the one at its top."""
    names = {PLAN, MANIFEST}
    return {name.rpartition("/")[0] for name in there if name.rpartition("/")[2] in names}


def data_folders(there: Iterable[str]) -> set[str]:
    """The folders whose data/ has Parquet files, as that of a dump has."""
    parts = (name.rpartition("/data/") for name in there if name.endswith(".parquet"))
    return {folder for folder, between, name in parts if between and "/" not in name}


def _is_in(name: str, dump: str) -> bool:
    """Whether a file belongs to the dump in a folder. At the top, other files may lie beside it."""
    return name.startswith(f"{dump}/" if dump else ("data/", "commits/", "shared/", PLAN, MANIFEST))


def refuse_tag(api: HfApi, at: HubAddress) -> None:
    """Raises UsageError where the revision is a tag, which names one commit for good."""
    tags = api.list_repo_refs(at.repo, repo_type="dataset").tags
    if at.revision in [tag.name for tag in tags]:
        raise UsageError(f"--revision {at.revision} is a tag of {at.repo}; push to a branch")


def read_file(api: HfApi, at: HubAddress, name: str, head: str | None) -> bytes:
    """A small file of a repository."""
    path = api.hf_hub_download(at.repo, name, repo_type="dataset", revision=head)
    return Path(path).read_bytes()


def dump_files(folder: Folder, at: HubAddress) -> dict[str, tuple[str | bytes, str]]:
    """All files of a dump but its card, by their name in the repository: (path on this disk,
    SHA-256, or '' where none is recorded)."""
    manifest, plan = read_manifest(folder)
    records = {commit_name(shard): "" for shard in range(plan.shards)}
    shards = {record.file: record.sha256 for record in manifest.shards}
    files = {PLAN: ""} | dict(plan.shared) | records | shards | {MANIFEST: ""}
    return {at.inside(name): (folder.path(name), sha256) for name, sha256 in files.items()}


def same(entry: RepoFile | None, content: str | bytes, sha256: str = "") -> bool:
    """Whether a file of a repository has this content: bytes, or the path of a file. The Hub lists
    large files with their SHA-256, small ones with their git blob id."""
    if entry is None:
        return False
    if isinstance(content, str):
        if entry.size != os.path.getsize(content):
            return False
        if entry.lfs is not None:
            return bool(entry.lfs.sha256 == (sha256 or sha256_of(content)))
        content = Path(content).read_bytes()
    if entry.lfs is not None:
        return bool(entry.lfs.sha256 == hashlib.sha256(content).hexdigest())
    return bool(entry.blob_id == git_hash(content))
