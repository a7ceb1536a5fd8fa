"""The verb `pull`: a dump of the Hub on this disk, every file held against its record."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from softlabels.config.publishing import PullOptions
from softlabels.errors import DamagedDump, StoreError, UsageError
from softlabels.filling import cores
from softlabels.progress import SILENT, Progress
from softlabels.store.audit import sha256_of
from softlabels.store.folder import Folder
from softlabels.store.hub_address import HubAddress, commit_of, fetch_files, fetch_manifest
from softlabels.store.manifest import CARD, MANIFEST, PLAN, commit_name, read_manifest
from softlabels.store.records import Manifest


@dataclass(frozen=True)
class Pulled:
    """Where a dump is now, and of which commit."""

    path: str
    commit: str
    manifest: Manifest


def pull(progress: Progress = SILENT, **options: Any) -> Pulled:
    """Fetch a dump and check it. Options are those of `softlabels pull`.

    What is here already is not fetched again. Raises DamagedDump for a file with other bytes than
    recorded, which is removed from the cache, and StoreError where the Hub can't be reached.
    """
    words = PullOptions(**options)
    address = HubAddress.parse(words.repo if "://" in words.repo else f"hf://datasets/{words.repo}")
    if address is None:
        raise UsageError(f"{words.repo!r} is no name of a dataset; write ORG/NAME")
    if words.revision:
        address = HubAddress(address.repo, words.revision)
    if words.out and os.path.exists(words.out) and os.listdir(words.out):
        raise UsageError(f"{words.out} is not empty; choose another folder with --out")
    folder = fetch_manifest(address)
    fetch_files(address, folder, progress)
    manifest, plan = read_manifest(folder)
    check(folder, address, manifest, progress)
    if words.out:
        names = [record["file"] for record in manifest.shards]
        names += [PLAN, *map(commit_name, range(plan.shards)), CARD]
        _copy(folder, Folder(words.out), [*names, MANIFEST])
    return Pulled(words.out or folder.root, commit_of(folder), manifest)


def check(folder: Folder, address: HubAddress, manifest: Manifest, progress: Progress) -> None:
    """Raises DamagedDump where a shard has other bytes than recorded, and forgets that file."""
    total = manifest.bytes // 1_000_000
    with progress.bar("check", total, "MB") as advance, ThreadPoolExecutor(cores()) as pool:
        paths = [folder.path(record["file"]) for record in manifest.shards]
        for path, record, found in zip(
            paths, manifest.shards, pool.map(sha256_of, paths), strict=True
        ):
            advance(record["bytes"] // 1_000_000)
            if found != record["sha256"]:
                os.unlink(os.path.realpath(path))
                raise DamagedDump(
                    f"{address}/{record['file']} has other bytes than its record tells (SHA-256 "
                    f"differs); ask its owner to push it again"
                )


def _copy(folder: Folder, to: Folder, names: list[str]) -> None:
    for name in names:
        try:
            os.makedirs(os.path.dirname(to.path(name)), exist_ok=True)
            with to.create(name) as file, open(folder.path(name), "rb") as content:
                shutil.copyfileobj(content, file, 1 << 20)
        except FileNotFoundError:
            if name != CARD:
                raise StoreError(f"{folder}/{name} is missing") from None
