"""The verb `pull`: fetch a dump, from the Hub or any address, and check every file against its
record."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from huggingface_hub import is_offline_mode
from huggingface_hub.errors import EntryNotFoundError

from softlabels.errors import DamagedDump, StoreError, UsageError
from softlabels.hub.labels_only import bare_plan, without_inputs
from softlabels.hub.own_folder import InStore, OnHub, OwnFolder
from softlabels.options import PullOptions, verb
from softlabels.places.folders import elsewhere, open_folder
from softlabels.places.hub_address import HubAddress, first_line
from softlabels.places.hub_copies import (
    commit_of,
    fetch_each,
    fetch_files,
    fetch_manifest,
    get_file,
)
from softlabels.store.folder import Folder
from softlabels.store.ledger import Ledger, read_manifest, read_plan
from softlabels.store.names import CARD, MANIFEST, PLAN, commit_name
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
    """What was fetched. shards: the numbers of those that are at `path` now. commit: of the Hub;
    None for another address."""

    path: str
    commit: str | None
    manifest: Manifest
    shards: list[int]

    def __repr__(self) -> str:
        held = f"{len(self.shards):,} of {counted(len(self.manifest.shards), 'shard')}"
        size = f"{counted(self.rows, 'row')}, {size_words(self.bytes)}"
        commit = f", commit {self.commit[:7]}" if self.commit else ""
        return f"Pulled({self.path}: {size}, {held}{commit})"

    @property
    def rows(self) -> int:
        return sum(self.manifest.shards[number].rows for number in self.shards)

    @property
    def bytes(self) -> int:
        return sum(self.manifest.shards[number].bytes for number in self.shards)


class Cached:
    """A target of `_fetch`: the Hub client's cache, which places files itself."""

    def __init__(self, address: HubAddress, copy: Folder) -> None:
        self.folder, self.address, self.commit = copy, address, commit_of(copy)

    def get(self, name: str) -> None:
        get_file(self.address, name, self.commit)

    def get_again(self, name: str) -> None:
        get_file(self.address, name, self.commit, force=True)


@verb(PullOptions)
def pull(options: PullOptions, progress: Progress) -> Pulled:
    """Fetch a dump, or some shards of it, and check it.

    Files that are here already are not fetched again, unless their bytes differ from the record.

    Raises DamagedDump where those on the Hub differ too, StoreError where it can't be reached.
    """
    address = HubAddress.parse(
        options.repo if "://" in options.repo else f"hf://datasets/{options.repo}"
    )
    if address is not None:
        return _from_hub(address, options, progress)
    if "://" in options.repo:
        return _from_store(open_folder(options.repo), options, progress)
    raise UsageError(
        f"{options.repo!r} is not the name of a dump; write ORG/NAME, ORG/NAME/FOLDER for one of "
        f"several, or an address such as s3://BUCKET/{options.repo.strip('/') or 'd'}"
    )


def _from_hub(address: HubAddress, options: PullOptions, progress: Progress) -> Pulled:
    if options.revision:
        address = replace(address, revision=options.revision)
    copy = fetch_manifest(address)
    cached = Cached(address, copy)
    try:
        manifest, plan = read_manifest(copy)
    except DamagedDump:  # perhaps only in transit or on this disk
        _get_again(cached, MANIFEST, str(address))
        manifest, plan = read_manifest(copy)
    numbers = parse_numbers(options.shards, plan.shards)
    remedy = "ask its owner to push it again"

    def fetch(to: Cached | OwnFolder, numbers: list[int]) -> None:
        fetch_files(address, copy, progress, shards=numbers, get=to.get)
        _mend(to, manifest, numbers, str(address), remedy, progress)

    if options.out is None:
        fetch(cached, numbers)
        return Pulled(copy.root, cached.commit, manifest, numbers)

    def bare_source() -> Folder:
        if is_offline_mode():  # then the cache must have it
            fetch_files(address, copy, progress, rows_only=True)
            return copy
        return elsewhere(address, copy)

    own = OwnFolder(options.out, OnHub(address, cached.commit), _is_bare(options, plan))
    manifest = _into(own, manifest, numbers, fetch, bare_source, progress)
    return Pulled(own.folder.root, cached.commit, manifest, numbers)


def _from_store(source: Folder, options: PullOptions, progress: Progress) -> Pulled:
    """A dump at an address of an object store or another file system."""
    if source.is_local:
        raise UsageError(f"{source} is on this disk already")
    if options.revision is not None:
        raise UsageError(f"--revision is of the Hub; {source} has none")
    if options.out is None:
        raise UsageError(f"say where {source} shall lie on this disk, with --out DIR")
    manifest, plan = read_manifest(source)
    numbers = parse_numbers(options.shards, plan.shards)

    def fetch(to: OwnFolder, numbers: list[int]) -> None:
        def get(name: str) -> None:
            try:
                to.get(name)
            except FileNotFoundError as error:
                if name != CARD:
                    raise DamagedDump(f"{source}/{name} is missing; {source.remedy}") from error

        fetch_each(manifest, numbers, get, progress)
        _mend(to, manifest, numbers, str(source), source.remedy, progress)

    own = OwnFolder(options.out, InStore(source, manifest), _is_bare(options, plan))
    manifest = _into(own, manifest, numbers, fetch, lambda: source, progress)
    return Pulled(own.folder.root, None, manifest, numbers)


def _is_bare(options: PullOptions, plan: Plan) -> bool:
    return options.labels_only and plan.with_inputs


def _into(
    own: OwnFolder,
    manifest: Manifest,
    numbers: list[int],
    fetch: Callable[[OwnFolder, list[int]], None],
    bare_source: Callable[[], Folder],
    progress: Progress,
) -> Manifest:
    """Fill a folder; the manifest that it has then. bare_source: what a copy without inputs is made
    from."""
    plan = manifest.plan
    here = bare_plan(plan, own.remote.place) if own.is_bare else plan
    with own.taken(manifest, here):
        if own.is_bare:
            without_inputs(DumpReader(bare_source()), own.folder, progress)
            return read_manifest(own.folder)[0]
        fetch(own, sorted({*numbers, *own.unrecorded(plan)}))
        own.finish(plan)
    return manifest


def _mend(
    to: Cached | OwnFolder,
    manifest: Manifest,
    numbers: list[int],
    source: str,
    remedy: str,
    progress: Progress,
) -> None:
    """Fetch once more what does not agree with the manifest. Raises DamagedDump where a file still
    differs then."""
    plan = manifest.plan
    wrong = _wrong(to.folder, manifest, plan, numbers, progress)
    for file in wrong:
        _get_again(to, file, source)
    redone = [n for n in numbers if {plan.file(n), commit_name(n)} & set(wrong)]
    if wrong and (still := _wrong(to.folder, manifest, plan, redone, SILENT)):
        what = f"does not agree with {MANIFEST}"
        if still[0].endswith(".parquet") or still[0].startswith(f"{SHARED}/"):
            what = "has other bytes than recorded (SHA-256 differs)"
        raise DamagedDump(f"{source}/{still[0]} {what}; {remedy}")


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


def _get_again(to: Cached | OwnFolder, file: str, name: str) -> None:
    """Raises StoreError where it can't be fetched."""
    missing = (EntryNotFoundError, ValueError)  # ValueError: the client has no network to force
    try:
        to.get_again(file)
    except missing as error:
        raise StoreError(
            f"{name}/{file} is damaged here, and can't be fetched: "
            f"{first_line(error.__cause__ or error)}"
        ) from error
