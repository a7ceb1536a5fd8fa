"""The verb `push`: a verified dump becomes a dataset on the Hub, in as few commits as it takes."""

import hashlib
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    DatasetCard,
    HfApi,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile

from softlabels.config.publishing import PushOptions
from softlabels.errors import DamagedDump, MissingExtra, StoreError, UsageError
from softlabels.hub.calibration import calibrate
from softlabels.hub.labels_only import without_inputs
from softlabels.hub.page import render_page
from softlabels.hub.picture import PICTURE, draw
from softlabels.progress import SILENT, Progress
from softlabels.store.audit import sha256_of
from softlabels.store.checking import make_record
from softlabels.store.folder import Folder
from softlabels.store.hub_address import HubAddress, quiet, said
from softlabels.store.json_objects import parse_object
from softlabels.store.manifest import CARD, MANIFEST, PLAN, commit_name, read_manifest
from softlabels.store.reader import DumpReader
from softlabels.store.records import Plan
from softlabels.verification import verify

Operation = CommitOperationAdd | CommitOperationCopy | CommitOperationDelete

COMMIT_FILES = 200  # shards, records and removals in a commit
DATA = (".parquet", ".arrow", ".csv", ".json", ".jsonl", ".tar", ".zip", ".npz")
UPLOAD_FILES = 8  # shards between two ticks of the bar


@dataclass(frozen=True)
class Pushed:
    """What was published where. `commit` is None where nothing had changed, and of a dry run."""

    repo: str
    url: str
    commit: str | None
    files: list[str]
    bytes: int
    removed: list[str]
    unchanged: int


def push(progress: Progress = SILENT, **options: Any) -> Pushed:
    """Publish a dump. Options are those of `softlabels push`.

    It is verified first. Files that the repository has already are not sent again, also after a
    push that was cut off; the last commit brings the manifest, which makes the dataset complete.
    Raises DamagedDump and IncompleteDump for a dump that is not whole, UsageError for one with
    inputs where it isn't said whether to publish them, StoreError where the Hub refuses or can't be
    reached.
    """
    words = PushOptions(**options)
    address = HubAddress.parse(f"hf://datasets/{words.repo}")
    if address is None or address.revision:
        raise UsageError(f"{words.repo!r} is no name of a dataset; write ORG/NAME")
    folder = Folder(words.dump)
    if not folder.is_local:
        raise UsageError(f"{folder} is elsewhere; push a dump from this disk")
    _, plan = read_manifest(folder)
    if plan.with_inputs and not (words.include_inputs or words.labels_only):
        raise UsageError(
            f"{folder} holds the inputs of {plan.source['data']}; say --include-inputs if their "
            f"licence lets you publish them, else --labels-only"
        )
    _check(words.dump, progress)
    if not plan.with_inputs or words.include_inputs:
        return _publish(folder, address, words, progress)
    with tempfile.TemporaryDirectory(prefix="softlabels-") as place:
        bare = without_inputs(DumpReader(folder), Folder(place), progress)
        with suppress(FileNotFoundError):  # what its owner wrote into it
            shutil.copyfile(folder.path(CARD), bare.path(CARD))
        return _publish(bare, address, words, progress)


def _check(dump: str, progress: Progress) -> None:
    verdict = verify(progress, dump=dump)
    if not verdict.good:
        first = verdict.findings[0]
        raise DamagedDump(
            f"{dump} is damaged, and was not pushed: {first.file} {first.problem}; "
            f"softlabels verify {dump} tells everything"
        )


def _publish(folder: Folder, address: HubAddress, words: PushOptions, progress: Progress) -> Pushed:
    api = HfApi()
    branch = HubAddress(address.repo, words.revision)
    url = f"{api.endpoint}/datasets/{address.repo}"
    with said(branch), quiet():
        if not words.dry_run:
            api.create_repo(address.repo, repo_type="dataset", private=words.private or None,
                            exist_ok=True)  # fmt: skip
            if words.revision:
                api.create_branch(address.repo, repo_type="dataset", branch=words.revision,
                                  exist_ok=True)  # fmt: skip
        head, there = _look(api, branch)
        earlier = _earlier(api, folder, branch, head, there, words.replace)
        pages = _pages(api, folder, branch, words, head if CARD in there else None, progress)
        changed = _compare(folder, pages, there)
        stale = sorted(there.keys() & earlier - set(_files(folder)))
        sent = sum(len(c) if isinstance(c, bytes) else Path(c).stat().st_size
                   for c in changed.values())  # fmt: skip
        result = Pushed(address.repo, url, None, sorted(changed), sent, stale,
                        len(_files(folder)) + len(pages) - len(changed))  # fmt: skip
        _validate(pages[CARD])
        if words.dry_run or not (changed or stale):
            return result
        commit = _send(
            api, branch, changed, stale, head, MANIFEST in there, folder.path(MANIFEST), progress
        )
    return Pushed(**vars(result) | {"commit": commit})


def _look(api: HfApi, at: HubAddress) -> tuple[str | None, dict[str, RepoFile]]:
    """The commit that the branch is at, and the files that it has; nothing where it isn't."""
    try:
        head = api.dataset_info(at.repo, revision=at.revision).sha
        tree = list(api.list_repo_tree(at.repo, repo_type="dataset", revision=head, recursive=True))
    except RepositoryNotFoundError:
        return None, {}  # a dry run
    except RevisionNotFoundError:
        return _look(api, HubAddress(at.repo))  # likewise: a branch begins as the main one is
    except EntryNotFoundError:
        return head, {}
    return head, {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}


def _earlier(
    api: HfApi,
    folder: Folder,
    at: HubAddress,
    head: str | None,
    there: dict[str, RepoFile],
    replace: bool,
) -> set[str]:
    """The files of the dump that is there now, if another is. Raises StoreError for one that is not
    to be replaced, and for a repository with data that are no dump."""
    if PLAN not in there:
        data = [name for name in there if name.endswith(DATA)]
        if data and MANIFEST not in there and not all(n in _files(folder) for n in data):
            raise StoreError(
                f"{at} holds data that are no dump of softlabels ({min(data)} …); push to a "
                f"repository of its own"
            )
        return set()
    path = api.hf_hub_download(at.repo, PLAN, repo_type="dataset", revision=head)
    old = make_record(Plan, parse_object(Path(path).read_bytes(), PLAN), f"{at}/{PLAN}")
    if old.hash == read_manifest(folder)[1].hash:
        return set()
    if not replace:
        raise StoreError(
            f"{at} holds another dump: {old.teacher['name']} on {old.source['data']}, plan "
            f"{old.hash[:19]}…; push to another repository or --revision, or add --replace"
        )
    shards = range(old.shards)
    return {*map(commit_name, shards), *map(old.file, shards)}


def _pages(
    api: HfApi,
    folder: Folder,
    at: HubAddress,
    words: PushOptions,
    head: str | None,
    progress: Progress,
) -> dict[str, bytes]:
    """The card to be, and its picture; the card that is there is kept in what is not ours."""
    manifest, plan = read_manifest(folder)
    before = folder.path(CARD)
    if head is not None:
        before = api.hf_hub_download(at.repo, CARD, repo_type="dataset", revision=head)
    text = Path(before).read_text(encoding="utf-8")
    calibration = calibrate(DumpReader(folder))
    pages = {}
    try:
        pages[PICTURE] = draw(calibration)
    except MissingExtra as error:
        progress.say(f"the card has no picture: {error}")
    picture = PICTURE if pages else None
    page = render_page(folder, manifest, plan, at.repo, words.license, calibration, picture, text)
    return pages | {CARD: page.encode()}


def _validate(card: bytes) -> None:
    """Raises UsageError for a header that the Hub would refuse, before anything is sent."""
    try:
        DatasetCard(card.decode()).validate(repo_type="dataset")
    except ValueError as error:
        raise UsageError(f"the Hub refuses the header of README.md: {error}") from error


def _files(folder: Folder) -> dict[str, str]:
    """All files of a dump but its card, each with its SHA-256 where that is on record."""
    manifest, plan = read_manifest(folder)
    records = {commit_name(shard): "" for shard in range(plan.shards)}
    shards = {record["file"]: record["sha256"] for record in manifest.shards}
    return {PLAN: ""} | records | shards | {MANIFEST: ""}


def _compare(
    folder: Folder, pages: dict[str, bytes], there: dict[str, RepoFile]
) -> dict[str, str | bytes]:
    """What has to be sent, by name."""
    changed: dict[str, str | bytes] = {}
    for name, sha256 in _files(folder).items():
        if not _same(there.get(name), folder.path(name), sha256):
            changed[name] = folder.path(name)
    for name, content in pages.items():
        if name not in there or not _same_content(there[name], content):
            changed[name] = content
    return changed


def _same(entry: RepoFile | None, path: str, sha256: str) -> bool:
    if entry is None or entry.size != Path(path).stat().st_size:
        return False
    if entry.lfs is not None:
        return bool(entry.lfs.sha256 == (sha256 or sha256_of(path)))
    return _same_content(entry, Path(path).read_bytes())


def _same_content(entry: RepoFile, content: bytes) -> bool:
    """By its SHA-256, or by git's name of it."""
    if entry.lfs is not None:
        return bool(entry.lfs.sha256 == hashlib.sha256(content).hexdigest())
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content)
    return bool(entry.blob_id == blob.hexdigest())


def _send(
    api: HfApi,
    at: HubAddress,
    changed: dict[str, str | bytes],
    stale: list[str],
    head: str | None,
    was_complete: bool,
    manifest: str,
    progress: Progress,
) -> str:
    """Upload, then commit; the id of the last commit.

    Where one commit would be too large, the first of them takes the manifest away and the last one
    brings it: in between, the dataset is seen to be incomplete.
    """
    adds = {name: CommitOperationAdd(name, content) for name, content in changed.items()}
    shards = [adds[name] for name in sorted(adds) if name.startswith("data/")]
    records = [adds[name] for name in sorted(adds) if name.startswith("commits/")]
    others = [
        add for name, add in sorted(adds.items()) if not name.startswith(("data/", "commits/"))
    ]
    total = sum(add.upload_info.size for add in shards) // 1_000_000
    with progress.bar("upload", total, "MB") as advance:
        for start in range(0, len(shards), UPLOAD_FILES):
            part = shards[start : start + UPLOAD_FILES]
            api.preupload_lfs_files(at.repo, part, repo_type="dataset", revision=at.revision)
            if ignored := [add.path_in_repo for add in part if add._should_ignore]:
                raise StoreError(f"{at} has a .gitignore that leaves out {ignored[0]}; change it")
            advance(sum(add.upload_info.size for add in part) // 1_000_000)
    listed: list[Operation] = [*shards, *records, *(CommitOperationDelete(n) for n in stale)]
    pieces = [listed[at_ : at_ + COMMIT_FILES] for at_ in range(0, len(listed), COMMIT_FILES)]
    if len(pieces) > 1 and was_complete:
        pieces[0].append(CommitOperationDelete(MANIFEST))
        others = [add for add in others if add.path_in_repo != MANIFEST]
        others.append(CommitOperationAdd(MANIFEST, manifest))
    pieces = [*pieces[:-1], [*(pieces[-1] if pieces else []), *others]]
    for number, piece in enumerate(pieces, 1):
        made = api.create_commit(
            at.repo,
            piece,
            commit_message=f"Soft labels, {number} of {len(pieces)}",
            repo_type="dataset",
            revision=at.revision,
            parent_commit=head,
        )
        head = made.oid
    return str(head)
