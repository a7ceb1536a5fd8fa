"""The folder of `pull --out`. Interrupted pulls resume; later pulls may add shards."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

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

UNFINISHED = ".pulling"  # the client's cache of what is on its way


class OwnFolder:
    """Files are moved in as they arrive, the manifest last.

    labels_only: leave out the inputs that the dump has on the Hub.

    Raises UsageError unless the folder is empty or holds an earlier pull of the same dump.
    """

    def __init__(self, out: str, address: HubAddress, commit: str, labels_only: bool) -> None:
        self.folder = Folder(out)
        self.address, self.commit = address, commit
        self._note = {
            "dump": address.dump,
            "revision": address.revision,
            "commit": commit,
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
                f"--out is {self.folder}, which holds an earlier {self.address.dump}: another dump "
                f"has taken its place on the Hub; choose another folder"
            )
        if before and before.get("commit") != self.commit:
            for name in (MANIFEST, CARD):
                Path(self.folder.path(name)).unlink(missing_ok=True)
            shutil.rmtree(self.folder.path("commits"), ignore_errors=True)
            if not self._note["labels_only"]:
                self._remove_redone(manifest)
        self._sizes = {record.file: record.bytes for record in manifest.shards}
        self.folder.write_json(PULLED, self._note)

    def _remove_redone(self, manifest: Manifest) -> None:
        """Remove the shards that have other bytes on the Hub now."""
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

    def get(self, address: HubAddress, name: str, commit: str) -> None:
        """Fetch a file unless it is here, a shard with the recorded size. The manifest is always
        fetched: it says what the others must be."""
        path = self.folder.path(name)
        if os.path.isfile(path) and name != MANIFEST:
            size = os.path.getsize(path)
            if self._sizes.get(name, size) == size:
                return
        cached = try_to_load_from_cache(
            address.repo, address.inside(name), revision=commit, repo_type="dataset"
        )
        if isinstance(cached, str):
            own = Folder(self.folder.root)  # each thread with its own place for what is unfinished
            with own.create(name) as file, open(cached, "rb") as content:
                shutil.copyfileobj(content, file, 1 << 20)
        else:
            self.get_again(address, name, commit)

    def get_again(self, address: HubAddress, name: str, commit: str) -> None:
        """Fetch a file even if it is here."""
        path = self.folder.path(name)
        got = get_file(address, name, commit, cache=self.folder.path(UNFINISHED))
        make_directory(os.path.dirname(path))
        os.replace(os.path.realpath(got), path)

    def finish(self, plan: Plan) -> None:
        """Fetch the manifest, and reduce the card to this dump."""
        if self.folder.exists(CARD) and not self.address.folder:
            with self.folder.open(CARD) as file:
                card = file.read()
            with suppress(UnicodeDecodeError):
                self.folder.write_text(CARD, reduced_to(card.decode(), Place.of("", plan)))
        self.get(self.address, MANIFEST, self.commit)
        shutil.rmtree(self.folder.path(UNFINISHED), ignore_errors=True)
