"""The folder of `pull --out`. Interrupted pulls resume; later pulls may add shards."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from huggingface_hub import try_to_load_from_cache

from softlabels.errors import UsageError
from softlabels.hub.contents import Place
from softlabels.hub.page import reduced_to
from softlabels.places.folders import PULLED
from softlabels.places.hub_address import HubAddress
from softlabels.places.hub_copies import get_file
from softlabels.store.claims import claimed, new_run, sweep
from softlabels.store.folder import PARTIAL, Folder
from softlabels.store.ledger import read_plan
from softlabels.store.lives import CLAIMS
from softlabels.store.names import CARD, MANIFEST, commit_name
from softlabels.store.records import Manifest, Plan
from softlabels.store.shard_check import sha256_of
from softlabels.system.local_files import make_directory

UNFINISHED = ".pulling"  # the Hub client's cache of what is on its way


class Remote(Protocol):
    """Where a dump is pulled from.

    dump, revision: its address, as the note has them
    commit: what it was when the pull began: a commit of the Hub, or the manifest's SHA-256
    place: where that is, for messages
    shared: whether its card may describe other dumps too
    """

    place: str
    dump: str
    revision: str | None
    commit: str
    shared: bool

    def get(self, name: str, to: Folder) -> None:
        """Fetch a file into a folder, of which a copy on this disk is good enough. Raises
        FileNotFoundError, StoreError, or an error of the Hub's client."""

    def get_again(self, name: str, to: Folder) -> None:
        """Fetch a file itself, of which no copy is good enough."""


class OwnFolder:
    """Files are moved in as they arrive, the manifest last.

    labels_only: leave out the inputs that the dump has there.

    Raises UsageError unless the folder is empty or holds an earlier pull of the same dump.
    """

    def __init__(self, out: str, remote: Remote, labels_only: bool) -> None:
        self.folder, self.remote, self.is_bare = Folder(out), remote, labels_only
        self._note = {
            "dump": remote.dump,
            "revision": remote.revision,
            "commit": remote.commit,
            "labels_only": labels_only,
        }
        self._sizes: dict[str, int] = {}
        if not self.folder.is_local:
            raise UsageError(f"--out is {out}; pull to this disk")

    @contextmanager
    def taken(self, manifest: Manifest, plan: Plan) -> Iterator[None]:
        """Hold the folder for a pull of this dump. Raises FolderInUse where another process writes
        there."""
        self._before()
        with claimed(self.folder, new_run()):
            self.folder.refuse_links(UNFINISHED)
            sweep(self.folder)
            self._begin(manifest, plan)
            yield

    def unrecorded(self, plan: Plan) -> list[int]:
        """The shards that an earlier pull left here and whose records are not fetched yet."""
        files, records = self.folder.files("data"), self.folder.files("commits")
        return [
            number
            for number in range(plan.shards)
            if plan.file(number) in files and commit_name(number) not in records
        ]

    def _begin(self, manifest: Manifest, plan: Plan) -> None:
        before = self._before()
        there = read_plan(self.folder) if before else None
        if there is not None and there != plan:
            raise UsageError(
                f"--out is {self.folder}, which holds an earlier {self.remote.dump}: another dump "
                f"has taken its place {self.remote.place}; choose another folder"
            )
        if before and before.get("commit") != self.remote.commit:
            for name in (MANIFEST, CARD):
                Path(self.folder.path(name)).unlink(missing_ok=True)
            shutil.rmtree(self.folder.path("commits"), ignore_errors=True)
            if not self._note["labels_only"]:
                self._remove_redone(manifest)
        self._sizes = {record.file: record.bytes for record in manifest.shards}
        self.folder.write_json(PULLED, self._note)

    def _remove_redone(self, manifest: Manifest) -> None:
        """Remove the shards that have other bytes there now."""
        for record in manifest.shards:
            path = self.folder.path(record.file)
            if os.path.isfile(path) and sha256_of(path) != record.sha256:
                os.unlink(path)

    def _before(self) -> dict[str, Any]:
        """The note of an earlier pull of the same dump; empty for a new folder."""
        if not os.path.exists(self.folder.root):
            return {}
        if os.path.isfile(self.folder.root):
            raise UsageError(f"--out is {self.folder}, which is a file; choose a folder")
        if not set(self.folder.names()) - {CLAIMS, PARTIAL}:
            return {}
        if not self.folder.exists(PULLED):
            raise UsageError(f"--out is {self.folder}, which is not empty; choose another folder")
        note = self.folder.read_json(PULLED)
        if any(note.get(name) != self._note[name] for name in ("dump", "labels_only")):
            bare = " without its inputs" if note.get("labels_only") else ""
            raise UsageError(
                f"--out is {self.folder}, to which {str(note.get('dump'))[:200]} was pulled{bare};"
                f" choose another folder"
            )
        return note

    def get(self, name: str) -> None:
        """Fetch a file unless it is here, a shard with the recorded size. The manifest is always
        fetched: it says what the others must be."""
        path = self.folder.path(name)
        if os.path.isfile(path) and name != MANIFEST:
            size = os.path.getsize(path)
            if self._sizes.get(name, size) == size:
                return
        self.remote.get(name, Folder(self.folder.root))  # each thread with its own unfinished files

    def get_again(self, name: str) -> None:
        """Fetch a file even if it is here."""
        self.remote.get_again(name, Folder(self.folder.root))

    def finish(self, plan: Plan) -> None:
        """Fetch the manifest, and reduce the card to this dump."""
        if self.folder.exists(CARD) and self.remote.shared:
            with self.folder.open(CARD) as file:
                card = file.read()
            with suppress(UnicodeDecodeError):
                self.folder.write_text(CARD, reduced_to(card.decode(), Place.of("", plan)))
        self.get(MANIFEST)
        shutil.rmtree(self.folder.path(UNFINISHED), ignore_errors=True)


class OnHub:
    """A dump on the Hub at a commit."""

    place = "on the Hub"

    def __init__(self, address: HubAddress, commit: str) -> None:
        self.address, self.commit = address, commit
        self.dump, self.revision = address.dump, address.revision
        self.shared = not address.folder

    def get(self, name: str, to: Folder) -> None:
        """From the client's cache, if it is there."""
        cached = try_to_load_from_cache(
            self.address.repo, self.address.inside(name), revision=self.commit, repo_type="dataset"
        )
        if not isinstance(cached, str):
            self.get_again(name, to)
            return
        with to.create(name) as file, open(cached, "rb") as content:
            shutil.copyfileobj(content, file, 1 << 20)

    def get_again(self, name: str, to: Folder) -> None:
        path = to.path(name)
        got = get_file(self.address, name, self.commit, cache=to.path(UNFINISHED))
        make_directory(os.path.dirname(path))
        os.replace(os.path.realpath(got), path)


class InStore:
    """A dump at an address such as s3://BUCKET/d."""

    place = "at its address"
    revision: str | None = None
    shared = False

    def __init__(self, folder: Folder, manifest: Manifest) -> None:
        self.folder, self.dump = folder, folder.url
        content = json.dumps(manifest.as_json, sort_keys=True)
        self.commit = hashlib.sha256(content.encode()).hexdigest()

    def get(self, name: str, to: Folder) -> None:
        self.folder.size(name)  # no folder, no pipe; and FileNotFoundError
        with to.create(name) as file:
            self.folder.download(name, file.name)

    get_again = get
