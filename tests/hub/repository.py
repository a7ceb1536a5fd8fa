"""A dataset repository: its history, its branches and tags, and what its files are made of."""

import hashlib
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from tests.hub.rules import ATTRIBUTES, Refused


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass(frozen=True)
class File:
    """`oid` is git's: of the content or, for an LFS file, of the pointer to its `sha256`.
    `xet_hash` is that of a file in chunks."""

    oid: str
    size: int
    sha256: str | None = None
    xet_hash: str | None = None

    @classmethod
    def lfs(cls, sha256: str, size: int, xet_hash: str | None) -> "File":
        return cls(git_hash(pointer(sha256, size)), size, sha256, xet_hash)

    @property
    def key(self) -> str:
        """What names its bytes in the store, and its ETag."""
        return self.sha256 or self.oid


def pointer(sha256: str, size: int) -> bytes:
    return b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n" % (
        sha256.encode(),
        size,
    )


@dataclass(frozen=True, eq=False)
class Commit:
    parent: "Commit | None"
    title: str
    message: str
    author: str
    files: dict[str, File]
    date: datetime = field(default_factory=lambda: datetime.now(UTC))

    @cached_property
    def oid(self) -> str:
        told = (self.parent and self.parent.oid, self.title, self.message, self.author, self.date)
        return hashlib.sha1(repr((told, sorted(self.files.items()))).encode()).hexdigest()

    def line(self) -> Iterator["Commit"]:
        """This commit and those before it, newest first."""
        commit: Commit | None = self
        while commit:
            yield commit
            commit = commit.parent

    def last_change(self, path: str) -> "Commit":
        """The commit that made what is at this path, a file or a folder, as it is."""
        for commit in self.line():
            before = commit.parent.under(path) if commit.parent else {}
            if commit.under(path) != before:
                return commit
        raise KeyError(path)

    def under(self, path: str) -> dict[str, File]:
        return {
            name: file
            for name, file in self.files.items()
            if name == path or not path or name.startswith(path + "/")
        }


class Store:
    """Bytes by name on disk: LFS objects by their SHA-256, small files by git's hash."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, key: str) -> Path:
        return self.folder / key

    def tamper(self, key: str, change: Callable[[bytes], bytes]) -> None:
        self.path(key).write_bytes(change(self.path(key).read_bytes()))

    def xet_hash(self, key: str) -> str | None:
        return None

    def put(self, key: str, chunks: Iterable[bytes], check: Callable[[Path], None]) -> None:
        """Keeps all of it, or nothing where it doesn't come whole or `check` raises."""
        draft = self.folder / f"{uuid.uuid4().hex}.draft"
        try:
            with open(draft, "wb") as file:
                file.writelines(chunks)
            check(draft)
            os.replace(draft, self.path(key))
        finally:
            draft.unlink(missing_ok=True)

    def put_blob(self, content: bytes) -> File:
        oid = git_hash(content)
        self.put(oid, [content], lambda _: None)
        return File(oid, len(content))


class Repository:
    def __init__(self, name: str, author: str, private: bool, store: Store) -> None:
        self.name, self.private, self.store = name, private, store
        self.objects: set[str] = set()  # LFS objects that were sent to this repository
        attributes = store.put_blob(ATTRIBUTES.encode())
        first = Commit(None, "initial commit", "", author, {".gitattributes": attributes})
        self.commits = {first.oid: first}
        self.branches = {"main": first}
        self.tags: dict[str, Commit] = {}

    def find(self, revision: str) -> Commit:
        """A branch, a tag, or a commit by at least seven digits."""
        for named in (self.branches, self.tags):
            if revision in named:
                return named[revision]
        for oid, commit in list(self.commits.items()):
            if len(revision) >= 7 and oid.startswith(revision):
                return commit
        raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def add(self, branch: str, commit: Commit) -> None:
        self.commits[commit.oid] = self.branches[branch] = commit

    def text(self, commit: Commit, path: str) -> str:
        """A small file's content; "" where there is none."""
        if path not in commit.files:
            return ""
        return self.store.path(commit.files[path].key).read_text(errors="replace")
