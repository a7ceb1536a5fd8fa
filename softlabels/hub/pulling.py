"""The verb `pull`: a dump of the Hub on this disk, every file held against its record."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from softlabels.config.publishing import PullOptions
from softlabels.errors import DamagedDump, StoreError, UsageError
from softlabels.filling import cores
from softlabels.progress import SILENT, Progress
from softlabels.store.audit import sha256_of
from softlabels.store.folder import Folder
from softlabels.store.hub_address import HubAddress, commit_of, fetch_files, fetch_manifest
from softlabels.store.manifest import (
    CARD,
    MANIFEST,
    PLAN,
    commit_name,
    read_manifest,
    read_plan,
    read_records,
)
from softlabels.store.records import Manifest, Plan


@dataclass(frozen=True)
class Pulled:
    """Where a dump is now, and of which commit."""

    path: str
    commit: str
    manifest: Manifest


def pull(progress: Progress = SILENT, **options: Any) -> Pulled:
    """Fetch a dump and check it. Options are those of `softlabels pull`.

    What is here already is not fetched again, unless it has other bytes than recorded. Raises
    DamagedDump where the Hub's have too, and StoreError where it can't be reached.
    """
    words = PullOptions(**options)
    address = HubAddress.parse(words.repo if "://" in words.repo else f"hf://datasets/{words.repo}")
    if address is None:
        raise UsageError(f"{words.repo!r} is no name of a dataset; write ORG/NAME")
    if words.revision:
        address = HubAddress(address.repo, words.revision)
    to = Folder(words.out) if words.out else None
    if to is not None and not to.is_local:
        raise UsageError(f"--out is {to}; pull to this disk")
    if to is not None and os.path.exists(to.root) and (os.path.isfile(to.root) or to.names()):
        raise UsageError(f"--out is {to}, which is there and not empty; choose another folder")
    folder = fetch_manifest(address)
    fetch_files(address, folder, progress)
    manifest, plan = read_manifest(folder)
    check(folder, address, manifest, plan, progress)
    if to is not None:
        names = [record["file"] for record in manifest.shards]
        names += [PLAN, *map(commit_name, range(plan.shards)), CARD]
        _copy(folder, to, [*names, MANIFEST])
    return Pulled(to.root if to else folder.root, commit_of(folder), manifest)


def check(
    folder: Folder, address: HubAddress, manifest: Manifest, plan: Plan, progress: Progress
) -> None:
    """Raises DamagedDump where a shard has other bytes than recorded, also when it is fetched anew,
    and where plan or records are not the manifest's."""
    total = manifest.bytes // 1_000_000
    with progress.bar("check", total, "MB") as advance, ThreadPoolExecutor(cores()) as pool:
        paths = [folder.path(record["file"]) for record in manifest.shards]
        hashes = pool.map(sha256_of, paths)
        for path, record, found in zip(paths, manifest.shards, hashes, strict=True):
            advance(record["bytes"] // 1_000_000)
            if found != record["sha256"]:
                Path(path).resolve().unlink()  # it may be this disk's copy alone
                Path(path).unlink(missing_ok=True)  # the link, where the cache is made of links
                fetch_files(address, folder)
                if sha256_of(path) != record["sha256"]:
                    raise DamagedDump(
                        f"{address}/{record['file']} has other bytes than its record tells "
                        f"(SHA-256 differs); ask its owner to push it again"
                    )
    records = [commit.record for commit in read_records(folder, plan).values()]
    if read_plan(folder) != plan or records != manifest.shards:
        raise DamagedDump(
            f"{address}: {PLAN} or a record in commits/ is not what {MANIFEST} tells; ask its "
            f"owner to push it again"
        )


def _copy(folder: Folder, to: Folder, names: list[str]) -> None:
    for name in names:
        try:
            with to.create(name) as file, open(folder.path(name), "rb") as content:
                shutil.copyfileobj(content, file, 1 << 20)
        except FileNotFoundError:
            if name != CARD:
                raise StoreError(f"{folder}/{name} is missing") from None
