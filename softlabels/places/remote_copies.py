"""Copies of dumps in object stores in the local cache, every file checked against its record."""

import hashlib
import json
import os
import time
from collections.abc import Iterable

from filelock import FileLock

from softlabels.errors import DamagedDump, DiskFull
from softlabels.store.folder import Folder, Origin
from softlabels.store.ledger import read_manifest
from softlabels.store.names import MANIFEST
from softlabels.store.records import ShardRecord
from softlabels.store.shard_check import sha256_of
from softlabels.store.shard_numbers import parse_numbers
from softlabels.store.side_files import SideFiles
from softlabels.system.background import in_order
from softlabels.system.cache import LocalCache, hold
from softlabels.system.progress import SILENT, Progress

CONNECTIONS = 8


def local_copy(
    folder: Folder,
    cache: LocalCache,
    progress: Progress = SILENT,
    shards: str | Iterable[int] | None = None,
) -> Folder:
    """A local copy of a dump, or of some of its shards. One process fetches the missing files,
    several at a time; others wait for it.

    Raises DamagedDump for a file with other bytes than recorded, StoreError if one can't be
    fetched, DiskFull if the cache has no room.
    """
    manifest, plan = read_manifest(folder)
    chosen = [manifest.shards[number] for number in parse_numbers(shards, plan.shards)]
    content = json.dumps(manifest.as_json, sort_keys=True)
    place = cache.place / "copies" / hashlib.sha256(content.encode()).hexdigest()[:32]
    os.makedirs(place.parent, exist_ok=True)
    remedy = f"it is a copy of {folder}: remove {place}, and it is fetched again"
    copy = Folder(place, Origin(remedy))
    hold(place, copy)  # first of all, so that no other process removes it meanwhile
    with FileLock(f"{place}.lock"):
        os.makedirs(place / "data", exist_ok=True)
        missing = [r for r in chosen if not (place / r.file).exists()]
        if missing:
            try:
                cache.make_room(sum(r.bytes for r in missing), str(folder), [str(place)])
            except DiskFull as error:
                raise DiskFull(f"{error}, or do without: --no-cache") from error
            about = {"dump": folder.url, "rows": manifest.rows, "bytes": manifest.bytes}
            copy.write_json("about.json", about)
            _fetch(folder, copy, missing, cache, progress)
        for name in plan.shared:
            if not (place / name).exists():
                side_file = SideFiles(folder, plan.shared).read(name)
                with copy.create(name) as file:
                    file.write(side_file)
        if not (place / MANIFEST).exists():
            copy.write_json(MANIFEST, manifest.as_json)
        os.utime(place / "about.json", (time.time(),) * 2)
    return copy


def _fetch(
    folder: Folder, to: Folder, records: list[ShardRecord], cache: LocalCache, progress: Progress
) -> None:
    def fetch(record: ShardRecord) -> int:
        name = record.file
        try:
            folder.size(name)
            own = Folder(to.root)  # each thread with its own place for what is unfinished
            with own.create(name) as file:
                folder.download(name, file.name)
                if sha256_of(file.name) != record.sha256:
                    raise DamagedDump(
                        f"{folder}/{name} has other bytes than recorded; {folder.remedy}"
                    )
        except FileNotFoundError as error:
            raise DamagedDump(f"{folder}/{name} is missing; {folder.remedy}") from error
        cache.remember_verified(to.path(name), record.sha256)
        return record.bytes

    total = sum(record.bytes for record in records) // 1_000_000
    with progress.bar("fetch", total, "MB") as advance:
        for size in in_order(fetch, records, CONNECTIONS):
            advance(size // 1_000_000)
