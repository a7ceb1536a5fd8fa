"""The verb `pull`: fetch a dump from the Hub and check every file against its record."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from huggingface_hub import is_offline_mode
from huggingface_hub.errors import EntryNotFoundError

from softlabels.errors import DamagedDump, StoreError, UsageError
from softlabels.hub.labels_only import without_inputs
from softlabels.hub.own_folder import OwnFolder
from softlabels.options import PullOptions, verb
from softlabels.places.folders import elsewhere
from softlabels.places.hub_address import HubAddress, first_line
from softlabels.places.hub_copies import (
    commit_of,
    fetch_files,
    fetch_manifest,
    get_file,
)
from softlabels.store.folder import Folder
from softlabels.store.ledger import Ledger, read_manifest, read_plan
from softlabels.store.names import MANIFEST, PLAN, commit_name
from softlabels.store.reader import DumpReader
from softlabels.store.records import Manifest, Plan
from softlabels.store.shard_check import sha256_of
from softlabels.store.shard_numbers import parse_numbers
from softlabels.store.side_files import SHARED
from softlabels.system.background import cores
from softlabels.system.humanize import counted, size_words
from softlabels.system.progress import SILENT, Progress


@dataclass(frozen=True)
class Pulled:
    """What was fetched. shards: the numbers of those that are at `path` now."""

    path: str
    commit: str
    manifest: Manifest
    shards: list[int]

    def __repr__(self) -> str:
        held = f"{len(self.shards):,} of {counted(len(self.manifest.shards), 'shard')}"
        size = f"{counted(self.rows, 'row')}, {size_words(self.bytes)}"
        return f"Pulled({self.path}: {size}, {held}, commit {self.commit[:7]})"

    @property
    def rows(self) -> int:
        return sum(self.manifest.shards[number].rows for number in self.shards)

    @property
    def bytes(self) -> int:
        return sum(self.manifest.shards[number].bytes for number in self.shards)


class Cached:
    """A target of `_fetch`: the Hub client's cache, which places files itself."""

    def __init__(self, copy: Folder) -> None:
        self.folder = copy

    def get(self, address: HubAddress, name: str, commit: str) -> None:
        get_file(address, name, commit)

    def get_again(self, address: HubAddress, name: str, commit: str) -> None:
        get_file(address, name, commit, force=True)


@verb(PullOptions)
def pull(options: PullOptions, progress: Progress) -> Pulled:
    """Fetch a dump, or some shards of it, and check it.

    Files that are here already are not fetched again, unless their bytes differ from the record.

    Raises DamagedDump where those on the Hub differ too, StoreError where it can't be reached.
    """
    address = HubAddress.parse(
        options.repo if "://" in options.repo else f"hf://datasets/{options.repo}"
    )
    if address is None:
        raise UsageError(
            f"{options.repo!r} is not the name of a dump; write ORG/NAME, or ORG/NAME/FOLDER for "
            f"one of several"
        )
    if options.revision:
        address = replace(address, revision=options.revision)
    copy = fetch_manifest(address)
    try:
        manifest, plan = read_manifest(copy)
    except DamagedDump:  # perhaps only in transit or on this disk
        _get_again(address, copy, Cached(copy), MANIFEST)
        manifest, plan = read_manifest(copy)
    commit, numbers = commit_of(copy), parse_numbers(options.shards, plan.shards)
    if options.out is None:
        _fetch(address, copy, Cached(copy), manifest, plan, numbers, progress)
        return Pulled(copy.root, commit, manifest, numbers)
    bare = options.labels_only and plan.with_inputs
    own = OwnFolder(options.out, address, commit, bare)
    here = plan.replace(store_inputs="none") if bare else plan
    with own.taken(manifest, here):
        if bare:
            source = elsewhere(address, copy)
            if is_offline_mode():  # then the cache must have it
                fetch_files(address, copy, progress, rows_only=True)
                source = copy
            without_inputs(DumpReader(source), own.folder, progress)
            manifest, plan = read_manifest(own.folder)
        else:
            all_here = sorted({*numbers, *own.unrecorded(plan)})
            _fetch(address, copy, own, manifest, plan, all_here, progress)
            own.finish(plan)
    return Pulled(own.folder.root, commit, manifest, numbers)


def _fetch(
    address: HubAddress,
    copy: Folder,
    to: Cached | OwnFolder,
    manifest: Manifest,
    plan: Plan,
    numbers: list[int],
    progress: Progress,
) -> None:
    """Raises DamagedDump where a file still differs from the manifest when fetched a second
    time."""
    fetch_files(address, copy, progress, shards=numbers, get=to.get)
    wrong = _wrong(to.folder, manifest, plan, numbers, progress)
    for name in wrong:
        _get_again(address, copy, to, name)
    redone = [n for n in numbers if {plan.file(n), commit_name(n)} & set(wrong)]
    if wrong and (still := _wrong(to.folder, manifest, plan, redone, SILENT)):
        what = f"does not agree with {MANIFEST}"
        if still[0].endswith(".parquet") or still[0].startswith(f"{SHARED}/"):
            what = "has other bytes than recorded (SHA-256 differs)"
        raise DamagedDump(f"{address}/{still[0]} {what}; ask its owner to push it again")


def _wrong(
    folder: Folder, manifest: Manifest, plan: Plan, numbers: list[int], progress: Progress
) -> list[str]:
    """The names of shards, records, side files and plan that do not agree with the manifest."""
    wrong, shards = [], [manifest.shards[number] for number in numbers]
    total = sum(shard.bytes for shard in shards) // 1_000_000
    with progress.bar("check", total, "MB") as advance, ThreadPoolExecutor(cores()) as pool:
        hashes = pool.map(lambda shard: sha256_of(folder.path(shard.file)), shards)
        for shard, sha256 in zip(shards, hashes, strict=True):
            advance(shard.bytes // 1_000_000)
            if sha256 != shard.sha256:
                wrong.append(shard.file)
    wrong += [n for n, sha256 in plan.shared.items() if sha256_of(folder.path(n)) != sha256]
    try:
        wrong += [] if read_plan(folder) == plan else [PLAN]
    except DamagedDump:
        wrong.append(PLAN)
    there = Ledger(folder, plan).refresh()
    records = {number: there[number].record for number in numbers if number in there}
    return wrong + [commit_name(n) for n in numbers if records.get(n) != manifest.shards[n]]


def _get_again(address: HubAddress, copy: Folder, to: Cached | OwnFolder, name: str) -> None:
    """Raises StoreError where it can't be fetched."""
    missing = (EntryNotFoundError, ValueError)  # ValueError: the client has no network to force
    try:
        to.get_again(address, name, commit_of(copy))
    except missing as error:
        raise StoreError(
            f"{address}/{name} is damaged here, and can't be fetched: "
            f"{first_line(error.__cause__ or error)}"
        ) from error
