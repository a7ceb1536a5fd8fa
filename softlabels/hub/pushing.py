"""The verb `push`: a verified dump becomes a dataset on the Hub, in as few commits as possible."""

import os
import re
import shutil
import tempfile
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeGuard

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    DatasetCard,
    HfApi,
)

from softlabels.errors import DamagedDump, MissingExtra, StoreError, UsageError
from softlabels.hub.announcing import announcement
from softlabels.hub.contents import Place
from softlabels.hub.labels_only import bare_plan, without_inputs
from softlabels.hub.page import TEACHER_LICENSE, Where, render_index, render_page
from softlabels.hub.repository import (
    data_folders,
    dump_files,
    dump_folders,
    earlier_files,
    look,
    read_file,
    refuse_tag,
    same,
)
from softlabels.options import PushOptions, verb
from softlabels.places.folders import open_folder
from softlabels.places.hub_address import HubAddress, quiet, translated
from softlabels.reports.figures import pictures_of
from softlabels.reports.rows import sample
from softlabels.reports.survey import survey
from softlabels.store.folder import Folder
from softlabels.store.ledger import read_manifest
from softlabels.store.names import CARD, MANIFEST
from softlabels.store.reader import DumpReader
from softlabels.system.humanize import counted, size_words
from softlabels.system.progress import Progress
from softlabels.verification import verify

Operation = CommitOperationAdd | CommitOperationCopy | CommitOperationDelete

COMMIT = re.compile(r"[0-9a-f]{40}")
COMMIT_FILES = 200  # shards, records and removals in a commit
UPLOAD_FILES = 8  # shards between two updates of the bar


@dataclass(frozen=True)
class Pushed:
    """What was published, and where. commit: None after a dry run, or if nothing had changed."""

    repo: str
    url: str
    commit: str | None
    files: list[str]
    bytes: int
    removed: list[str]
    unchanged: int

    def __repr__(self) -> str:
        at = "nothing sent" if self.commit is None else f"commit {self.commit[:7]}"
        size = f"{counted(len(self.files), 'file')}, {size_words(self.bytes)}"
        return f"Pushed({self.url}: {size}, {len(self.removed):,} removed, {at})"


@dataclass(frozen=True)
class Publishing:
    """How a dump is published: options of these names."""

    private: bool
    replace: bool
    dry_run: bool
    license: str | None
    teacher_license: str | None


@verb(PushOptions)
def push(options: PushOptions, progress: Progress) -> Pushed:
    """Publish a dump.

    It is verified first. Files that the repository already has are not sent again, so an
    interrupted push can be repeated. The last commit adds the manifest, which makes the dataset
    complete.

    Raises DamagedDump or IncompleteDump for a dump that is not whole, UsageError for one with
    inputs without `include_inputs` or `labels_only`, StoreError where the Hub refuses or can't be
    reached.
    """
    address = _address(options.repo, options.revision)
    how = options.part(Publishing)
    folder = open_folder(options.dump)
    if not folder.is_local:
        raise UsageError(f"{folder} is not on this disk; push pushes a local dump")
    _, plan = read_manifest(folder)
    if plan.with_inputs and not (options.include_inputs or options.labels_only):
        raise UsageError(
            f"{folder} holds the inputs of {plan.source.data}; add --include-inputs if their "
            f"licence lets you publish them, else --labels-only"
        )
    if plan.with_inputs and options.labels_only:
        bare_plan(plan, str(folder))
    _check(options.dump, progress)
    for line in announcement(DumpReader(folder), address, options.include_inputs, options.license):
        progress.say(line)
    if not plan.with_inputs or options.include_inputs:
        return _publish(folder, address, how, progress)
    with tempfile.TemporaryDirectory(prefix="softlabels-") as place:
        bare = without_inputs(DumpReader(folder), Folder(place), progress)
        with suppress(FileNotFoundError):  # the card with what its owner wrote
            shutil.copyfile(folder.path(CARD), bare.path(CARD))
        return _publish(bare, address, how, progress)


def _address(repo: str, revision: str | None) -> HubAddress:
    """The address to push to, on the branch of --revision. Raises UsageError for one where no dump
    can lie."""
    address = HubAddress.parse(f"hf://datasets/{repo}")
    if address is None or address.revision:
        raise UsageError(
            f"{repo!r} is not the name of a dump; write ORG/NAME, or ORG/NAME/FOLDER for one of "
            f"several"
        )
    if {"data", "commits"} & set(address.folder.split("/")):
        raise UsageError(
            f"{address}: a folder named data or commits is part of a dump; choose another name"
        )
    if revision and COMMIT.fullmatch(revision):
        raise UsageError(f"--revision {revision} is a commit; push to a branch")
    return replace(address, revision=revision)


def _check(dump: str, progress: Progress) -> None:
    verdict = verify(dump=dump, progress=progress)
    if not verdict.good:
        first = verdict.findings[0]
        raise DamagedDump(
            f"{dump} is damaged and was not pushed: {first.file} {first.problem}; "
            f"softlabels verify {dump} lists all problems"
        )


def _publish(folder: Folder, at: HubAddress, how: Publishing, progress: Progress) -> Pushed:
    api, manifest = HfApi(), at.inside(MANIFEST)
    with translated(at), quiet():
        head, there = look(api, at)
        if at.revision and head is not None:
            refuse_tag(api, at)
        earlier = earlier_files(api, folder, at, head, there, how.replace)
        names = {CARD, at.inside(CARD)} & there.keys()
        cards = {name: read_file(api, at, name, head).decode() for name in names}
    licences = {"license": how.license, TEACHER_LICENSE: how.teacher_license}
    pages = _pages(folder, at, licences, there, cards, progress)
    files = dump_files(folder, at) | {name: (page, "") for name, page in pages.items()}
    with translated(at), quiet():
        changed = {
            n: part for n, (part, sha256) in files.items() if not same(there.get(n), part, sha256)
        }
        stale = sorted((there.keys() & earlier) - files.keys())
        size = sum(len(c) if isinstance(c, bytes) else os.path.getsize(c) for c in changed.values())
        url = f"{api.endpoint}/datasets/{at.repo}"
        result = Pushed(at.repo, url, None, sorted(changed), size, stale, len(files) - len(changed))
        for name in {CARD, at.inside(CARD)}:
            _validate(pages[name])
        if how.dry_run or not (changed or stale):
            return result
        head = _make_place(api, at, how.private)
        pieces = _pieces(at, changed, stale, folder.path(MANIFEST) if manifest in there else None)
        return replace(result, commit=_send(api, at, pieces, head, progress))


def _make_place(api: HfApi, at: HubAddress, private: bool) -> str | None:
    """Create the repository and its branch, after all checks; returns the branch's commit."""
    api.create_repo(at.repo, repo_type="dataset", private=private or None, exist_ok=True)
    if at.revision:
        api.create_branch(at.repo, repo_type="dataset", branch=at.revision, exist_ok=True)
    head: str | None = api.dataset_info(at.repo, revision=at.revision).sha
    return head


def _pages(
    folder: Folder,
    at: HubAddress,
    licences: dict[str, str | None],
    there: Collection[str],
    cards: dict[str, str],
    progress: Progress,
) -> dict[str, bytes]:
    """The new card and its pictures; for a dump in a folder, the card at the top too.

    there: the files of the repository.
    cards: those of them that are cards; what others wrote into them stays.
    """
    manifest, plan = read_manifest(folder)
    before = cards.get(at.inside(CARD))
    if before is None:
        before = Path(folder.path(CARD)).read_text(encoding="utf-8")
    dumps = dump_folders(there) | {at.folder}
    where = Where(at.repo, Place.of(at.folder, plan), dumps, data_folders(there) - dumps)
    reader = DumpReader(folder)
    surveyed = survey(reader)
    names = plan.source.class_names or [str(number) for number in range(plan.classes)]
    parts = [sample(reader, progress), surveyed.section, surveyed.pairs_section(names)]
    rows = "\n\n".join(part for part in parts if part)
    drawn: dict[str, bytes] = {}
    pictures: dict[str, str] = {}
    try:
        for file, (words, picture) in pictures_of(surveyed, names).items():
            drawn[at.inside(file)], pictures[words] = picture, file
    except MissingExtra as error:
        drawn, pictures = {}, {}
        progress.say(f"the card has no pictures: {error}")
    page = render_page(folder, manifest, plan, where, licences, rows, pictures, before)
    pages = drawn
    pages[at.inside(CARD)] = page.encode()
    if at.folder:
        index = render_index(folder, manifest, plan, where, licences, cards.get(CARD, ""))
        pages[CARD] = index.encode()
    return pages


def _validate(card: bytes) -> None:
    """Raises UsageError for a header that the Hub would refuse."""
    try:
        DatasetCard(card.decode()).validate(repo_type="dataset")
    except ValueError as error:
        raise UsageError(f"the Hub refuses the header of README.md: {error}") from error


def _pieces(
    at: HubAddress, changed: dict[str, str | bytes], stale: list[str], manifest: str | None
) -> list[list[Operation]]:
    """The operations of each commit of a push.

    manifest: its path on this disk, if the repository has one.

    A push that is too large for one commit deletes the manifest in the first and adds it in the
    last, so that readers see an incomplete dataset in between. The Hub client's upload_folder makes
    one commit, and its upload_large_folder several in an order of its own, so neither will do.
    """
    name = at.inside(MANIFEST)
    parts = (at.inside("data/"), at.inside("commits/"))
    many = [n for n in sorted(changed) if n.startswith(parts)]
    operations: list[Operation] = [CommitOperationAdd(n, changed[n]) for n in many]
    operations += [CommitOperationDelete(n) for n in stale]
    starts = range(0, len(operations), COMMIT_FILES)
    pieces = [operations[start : start + COMMIT_FILES] for start in starts] or [[]]
    last = {n: changed[n] for n in sorted(changed) if not n.startswith(parts)}
    if manifest is not None and len(pieces) > 1:
        pieces[0].append(CommitOperationDelete(name))
        last[name] = manifest
    pieces[-1] += [CommitOperationAdd(n, content) for n, content in last.items()]
    return pieces


def _is_shard(operation: Operation) -> TypeGuard[CommitOperationAdd]:
    is_add = isinstance(operation, CommitOperationAdd)
    return is_add and operation.path_in_repo.endswith(".parquet")


def _send(
    api: HfApi, at: HubAddress, pieces: list[list[Operation]], head: str | None, progress: Progress
) -> str:
    """Upload and commit piece by piece; the id of the last commit."""
    large = [[op for op in piece if _is_shard(op)] for piece in pieces]
    total = sum(add.upload_info.size for adds in large for add in adds) // 1_000_000
    with progress.bar("upload", total, "MB") as advance:
        for number, (piece, adds) in enumerate(zip(pieces, large, strict=True), 1):
            for start in range(0, len(adds), UPLOAD_FILES):
                part = adds[start : start + UPLOAD_FILES]
                api.preupload_lfs_files(at.repo, part, repo_type="dataset", revision=at.revision)
                if ignored := [add.path_in_repo for add in part if add._should_ignore]:
                    raise StoreError(f"the .gitignore of {at} excludes {ignored[0]}; change it")
                advance(sum(add.upload_info.size for add in part) // 1_000_000)
            head = api.create_commit(
                at.repo,
                piece,
                commit_message=f"Soft labels, {number} of {len(pieces)}",
                repo_type="dataset",
                revision=at.revision,
                parent_commit=head,
            ).oid
    return str(head)
