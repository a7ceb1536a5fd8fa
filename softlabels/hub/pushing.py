"""The verb `push`: a verified dump becomes a dataset on the Hub, in as few commits as it takes."""

import re
import shutil
import tempfile
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    DatasetCard,
    HfApi,
)

from softlabels.errors import DamagedDump, MissingExtra, StoreError, UsageError
from softlabels.hub.announcing import announcement
from softlabels.hub.calibration import calibrate
from softlabels.hub.contents import Place
from softlabels.hub.labels_only import without_inputs
from softlabels.hub.page import TEACHER_LICENSE, Where, render_index, render_page
from softlabels.hub.picture import PICTURE, draw
from softlabels.hub.repository import (
    compare,
    data_folders,
    dump_files,
    dump_folders,
    earlier_files,
    look,
    refuse_tag,
)
from softlabels.options import PushOptions
from softlabels.places.folders import open_folder
from softlabels.places.hub_address import HubAddress, quiet, said
from softlabels.store.folder import Folder
from softlabels.store.manifest import CARD, MANIFEST, read_manifest
from softlabels.store.reader import DumpReader
from softlabels.system.progress import SILENT, Progress
from softlabels.verification import verify

Operation = CommitOperationAdd | CommitOperationCopy | CommitOperationDelete

COMMIT = re.compile(r"[0-9a-f]{40}")
COMMIT_FILES = 200  # shards, records and removals in a commit
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
        raise UsageError(
            f"{words.repo!r} is no name of a dump; write ORG/NAME, or ORG/NAME/FOLDER for one of "
            f"several"
        )
    if {"data", "commits"} & set(address.folder.split("/")):
        raise UsageError(
            f"{address}: a folder named data or commits is part of a dump; choose another name"
        )
    if words.revision and COMMIT.fullmatch(words.revision):
        raise UsageError(f"--revision {words.revision} is a commit; push to a branch")
    address = replace(address, revision=words.revision)
    folder = open_folder(words.dump)
    if not folder.is_local:
        raise UsageError(f"{folder} is elsewhere; push a dump from this disk")
    _, plan = read_manifest(folder)
    if plan.with_inputs and not (words.include_inputs or words.labels_only):
        raise UsageError(
            f"{folder} holds the inputs of {plan.source['data']}; say --include-inputs if their "
            f"licence lets you publish them, else --labels-only"
        )
    _check(words.dump, progress)
    for line in announcement(DumpReader(folder), address, words):
        progress.say(line)
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
    url = f"{api.endpoint}/datasets/{address.repo}"
    with said(address), quiet():
        head, there = look(api, address)
        if words.revision and head is not None:
            refuse_tag(api, address)
        earlier = earlier_files(api, folder, address, head, there, words.replace)
        pages = _pages(api, folder, address, words, head, there, progress)
        changed = compare(folder, address, pages, there)
        stale = sorted(there.keys() & earlier - set(dump_files(folder, address)))
        sent = sum(len(c) if isinstance(c, bytes) else Path(c).stat().st_size
                   for c in changed.values())  # fmt: skip
        result = Pushed(address.repo, url, None, sorted(changed), sent, stale,
                        len(dump_files(folder, address)) + len(pages) - len(changed))  # fmt: skip
        for page in {CARD, address.inside(CARD)}:
            _validate(pages[page])
        if words.dry_run or not (changed or stale):
            return result
        head = _make_place(api, address, words.private)
        manifest = address.inside(MANIFEST)
        commit = _send(
            api, address, changed, stale, head, manifest in there, folder.path(MANIFEST), progress
        )
    return Pushed(**vars(result) | {"commit": commit})


def _make_place(api: HfApi, at: HubAddress, private: bool) -> str | None:
    """The repository and its branch, now that nothing is refused any more; the commit that the
    branch is at."""
    api.create_repo(at.repo, repo_type="dataset", private=private or None, exist_ok=True)
    if at.revision:
        api.create_branch(at.repo, repo_type="dataset", branch=at.revision, exist_ok=True)
    head: str | None = api.dataset_info(at.repo, revision=at.revision).sha
    return head


def _pages(
    api: HfApi,
    folder: Folder,
    at: HubAddress,
    words: PushOptions,
    head: str | None,
    there: Collection[str],
    progress: Progress,
) -> dict[str, bytes]:
    """The card to be, its picture, and of a dump in a folder the card at the top; the cards that
    are there are kept in what is not ours."""

    def card(name: str) -> str | None:
        if name not in there:
            return None
        path = api.hf_hub_download(at.repo, name, repo_type="dataset", revision=head)
        return Path(path).read_text(encoding="utf-8")

    manifest, plan = read_manifest(folder)
    before = card(at.inside(CARD))
    if before is None:
        before = Path(folder.path(CARD)).read_text(encoding="utf-8")
    dumps = dump_folders(there) | {at.folder}
    where = Where(at.repo, Place.of(at.folder, plan), dumps, data_folders(there) - dumps)
    calibration = calibrate(DumpReader(folder))
    pages = {}
    try:
        pages[at.inside(PICTURE)] = draw(calibration)
    except MissingExtra as error:
        progress.say(f"the card has no picture: {error}")
    picture = PICTURE if pages else None
    given = {"license": words.license, TEACHER_LICENSE: words.teacher_license}
    page = render_page(folder, manifest, plan, where, given, calibration, picture, before)
    pages[at.inside(CARD)] = page.encode()
    if at.folder:
        index = render_index(folder, manifest, plan, where, given, card(CARD) or "")
        pages[CARD] = index.encode()
    return pages


def _validate(card: bytes) -> None:
    """Raises UsageError for a header that the Hub would refuse, before anything is sent."""
    try:
        DatasetCard(card.decode()).validate(repo_type="dataset")
    except ValueError as error:
        raise UsageError(f"the Hub refuses the header of README.md: {error}") from error


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
    data, commits = at.inside("data/"), at.inside("commits/")
    shards = [adds[name] for name in sorted(adds) if name.startswith(data)]
    records = [adds[name] for name in sorted(adds) if name.startswith(commits)]
    others = [add for name, add in sorted(adds.items()) if not name.startswith((data, commits))]
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
        name = at.inside(MANIFEST)
        pieces[0].append(CommitOperationDelete(name))
        others = [add for add in others if add.path_in_repo != name]
        others.append(CommitOperationAdd(name, manifest))
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
