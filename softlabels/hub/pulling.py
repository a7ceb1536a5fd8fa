"""The verb `pull`: a dump of the Hub on this disk, every file held against its record."""

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
from softlabels.store.manifest import (
    MANIFEST,
    PLAN,
    commit_name,
    read_manifest,
    read_plan,
    read_records,
)
from softlabels.store.reader import DumpReader
from softlabels.store.records import Manifest, Plan
from softlabels.store.shard_check import sha256_of
from softlabels.store.shard_numbers import parse_numbers
from softlabels.system.background import cores
from softlabels.system.progress import Progress


@dataclass(frozen=True)
class Pulled:
    """Where a dump is now, of which commit, and the numbers of the shards that are there."""

    path: str
    commit: str
    manifest: Manifest
    shards: list[int]

    @property
    def rows(self) -> int:
        return sum(self.manifest.shards[number]["rows"] for number in self.shards)

    @property
    def bytes(self) -> int:
        return sum(self.manifest.shards[number]["bytes"] for number in self.shards)


class Cached:
    """The Hub client's cache, where everything has its place."""

    def __init__(self, copy: Folder) -> None:
        self.folder = copy

    def get(self, address: HubAddress, name: str, commit: str) -> None:
        get_file(address, name, commit)

    def get_again(self, address: HubAddress, name: str, commit: str) -> None:
        get_file(address, name, commit, force=True)


@verb(PullOptions)
def pull(options: PullOptions, progress: Progress) -> Pulled:
    """Fetch a dump, or some shards of it, and check it.

    What is here already is not fetched again, unless it has other bytes than recorded. Raises
    DamagedDump where the Hub's have too, and StoreError where it can't be reached.
    """
    address = HubAddress.parse(
        options.repo if "://" in options.repo else f"hf://datasets/{options.repo}"
    )
    if address is None:
        raise UsageError(
            f"{options.repo!r} is no name of a dump; write ORG/NAME, or ORG/NAME/FOLDER for one of "
            f"several"
        )
    if options.revision:
        address = replace(address, revision=options.revision)
    copy = fetch_manifest(address)
    try:
        manifest, plan = read_manifest(copy)
    except DamagedDump:  # on its way, or on this disk
        _get_again(address, copy, Cached(copy), MANIFEST)
        manifest, plan = read_manifest(copy)
    commit, numbers = commit_of(copy), parse_numbers(options.shards, plan.shards)
    if options.out is None:
        _fetch(address, copy, Cached(copy), manifest, plan, numbers, progress)
        return Pulled(copy.root, commit, manifest, numbers)
    bare = options.labels_only and plan.with_inputs
    own = OwnFolder(options.out, address, commit, bare)
    with own.taken(manifest, replace(plan, with_inputs=plan.with_inputs and not bare)):
        if bare:
            source = elsewhere(address, copy)
            if is_offline_mode():  # from what is here
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
    """Raises DamagedDump where a shard has other bytes than recorded, also when it is fetched anew,
    and where plan or records are not the manifest's."""
    fetch_files(address, copy, progress, shards=numbers, get=to.get)
    records = [manifest.shards[number] for number in numbers]
    total = sum(record["bytes"] for record in records) // 1_000_000
    with progress.bar("check", total, "MB") as advance, ThreadPoolExecutor(cores()) as pool:
        hashes = pool.map(lambda record: sha256_of(to.folder.path(record["file"])), records)
        for record, found in zip(records, hashes, strict=True):
            advance(record["bytes"] // 1_000_000)
            if found != record["sha256"]:
                _get_again(address, copy, to, record["file"])
                if sha256_of(to.folder.path(record["file"])) != record["sha256"]:
                    raise DamagedDump(
                        f"{address}/{record['file']} has other bytes than its record tells "
                        f"(SHA-256 differs); ask its owner to push it again"
                    )
    for name in _wrong(to.folder, manifest, plan, numbers):
        _get_again(address, copy, to, name)
    if wrong := _wrong(to.folder, manifest, plan, numbers):
        raise DamagedDump(
            f"{address}: {PLAN} or a record in commits/ is not what {MANIFEST} tells ({wrong[0]} "
            f"first); ask its owner to push it again"
        )


def _wrong(folder: Folder, manifest: Manifest, plan: Plan, numbers: list[int]) -> list[str]:
    """The plan, and the records of these shards, that are not the manifest's."""
    try:
        wrong = [] if read_plan(folder) == plan else [PLAN]
    except DamagedDump:
        wrong = [PLAN]
    there = read_records(folder, plan)
    told = {number: there[number].record for number in numbers if number in there}
    return wrong + [commit_name(n) for n in numbers if told.get(n) != manifest.shards[n]]


def _get_again(address: HubAddress, copy: Folder, to: Cached | OwnFolder, name: str) -> None:
    """Raises StoreError where it can't be had."""
    try:
        to.get_again(address, name, commit_of(copy))
    except (
        EntryNotFoundError,
        ValueError,
    ) as error:  # ValueError: of the client, without a network
        reason = first_line(error.__cause__ or error)
        raise StoreError(
            f"{address}/{name} is damaged here, and can't be fetched: {reason}"
        ) from error
