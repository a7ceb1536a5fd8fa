"""The local cache: copies of remote dumps, tokens of texts, decoded pictures and numbers, and which
files had their recorded hash.

    PLACE/copies/NAME/          a remote dump's manifest and shards; its users lock NAME.used
    PLACE/tokens/NAME/          the tokens of a source of texts; likewise
    PLACE/decoded/NAME/         the decoded inputs of a dump; likewise
    PLACE/verified/NAME         an empty file: this file, as it was then, had the recorded SHA-256;
                                or these rows of these files had the recorded hashes

PLACE is $SOFTLABELS_CACHE, else ~/.cache/softlabels. Every file appears whole or not at all.
"""

import errno
import hashlib
import json
import os
import shutil
import weakref
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from softlabels.errors import DiskFull, UsageError
from softlabels.system.humanize import size_words

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

PLACE, BUDGET = "SOFTLABELS_CACHE", "SOFTLABELS_CACHE_GB"
KINDS = "copies", "tokens", "decoded"


def cache_place() -> Path:
    """The folder that $SOFTLABELS_CACHE names, or the default."""
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get(PLACE) or Path(home) / "softlabels").expanduser()


@dataclass(frozen=True)
class Entry:
    """A folder in the cache: its path, its size in bytes, when it was last used (Unix seconds)."""

    path: str
    bytes: int
    used: float

    @property
    def description(self) -> str:
        """For a list of the cache: which dump it is a copy of, or of which data it has tokens or
        decoded inputs."""
        about: dict[str, Any] = {}
        with suppress(OSError, ValueError):
            about = json.loads((Path(self.path) / "about.json").read_text())
        if "tokens" in about:
            return f"tokens of {about['tokens']}, by {about['tokenizer']}"
        if "decoded" in about:
            return str(about["decoded"])
        return f"copy of {about['dump']}" if "dump" in about else "a copy"


class LocalCache:
    """The cache at `place`, by default at `cache_place()`.

    It may hold $SOFTLABELS_CACHE_GB; without that, half of the disk space that is free or already
    taken by the cache. Raises UsageError if the variable is not a number.
    """

    def __init__(self, place: str | os.PathLike[str] | None = None) -> None:
        self.place = Path(place) if place else cache_place()
        self._budget: int | None = None
        if text := os.environ.get(BUDGET):
            try:
                self._budget = int(float(text) * 1e9)
            except ValueError:
                raise UsageError(f"{BUDGET} is {text!r}; it must be a number of GB") from None

    @property
    def budget(self) -> int:
        """The most bytes that the cache may hold."""
        if self._budget is not None:
            return self._budget
        existing = next(p for p in (self.place, *self.place.absolute().parents) if p.exists())
        return (shutil.disk_usage(existing).free + self.bytes) // 2

    @property
    def bytes(self) -> int:
        return sum(entry.bytes for entry in self.entries())

    def make_room(self, size: int, what: str, kept: Collection[str] = ()) -> None:
        """Remove what was least recently used, except the paths `kept`, until `size` more bytes
        fit the budget. Raises DiskFull if they don't fit even then.

        what: what needs the room, for the error message.
        """
        entries = sorted(self.entries(), key=lambda entry: entry.used)
        excess = sum(entry.bytes for entry in entries) + size - self.budget
        for entry in entries:
            if excess > 0 and entry.path not in kept and remove(entry):
                excess -= entry.bytes
        if excess > 0:
            raise DiskFull(
                f"the cache {self.place} may hold {size_words(self.budget)}; for {what} it needs "
                f"{size_words(excess)} more. Make room, set {BUDGET} to a larger number of GB, or "
                f"{PLACE} to another disk"
            )

    def entries(self) -> list[Entry]:
        """Everything in it that takes space."""
        entries = []
        for path in sorted(chain(*(self.place.glob(f"{kind}/*/") for kind in KINDS))):
            with suppress(OSError):
                size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
                entries.append(Entry(str(path), size, (path / "about.json").stat().st_mtime))
        return entries

    def clear(self) -> int:
        """Delete all that is not in use, and all marks; returns the bytes freed."""
        freed = sum(entry.bytes for entry in self.entries() if remove(entry))
        shutil.rmtree(self.place / "verified", ignore_errors=True)
        return freed

    def is_verified(self, path: str, sha256: str) -> bool:
        """Whether this very file, unchanged since, was once seen to have this hash."""
        return self.is_noted(_of_file(path, sha256))

    def remember_verified(self, path: str, sha256: str) -> None:
        self.note(_of_file(path, sha256))

    def is_noted(self, text: str) -> bool:
        """Whether this was noted: that certain content, as certain files held it, is right."""
        return self._mark(text).exists()

    def note(self, text: str) -> None:
        with suppress(OSError):  # without the mark, the content is only checked again
            self._mark(text).parent.mkdir(parents=True, exist_ok=True)
            self._mark(text).touch()

    def _mark(self, text: str) -> Path:
        return self.place / "verified" / hashlib.sha256(text.encode()).hexdigest()[:32]


def _of_file(path: str, sha256: str) -> str:
    """A changed file gets another mark, also where its time of change was set back: no program sets
    st_ctime."""
    stat = os.stat(path)
    times = f"{stat.st_mtime_ns} {stat.st_ctime_ns}"
    return f"{sha256} {stat.st_dev} {stat.st_ino} {stat.st_size} {times}"


def hold(copy: str | os.PathLike[str], user: object) -> None:
    """Keep all processes from removing this folder as long as `user` lives. Nothing is removed from
    a cache without write permission."""
    if fcntl is not None:
        try:
            file = open(f"{copy}.used", "w")  # noqa: SIM115
        except PermissionError:
            return
        except OSError as error:
            if error.errno != errno.EROFS:
                raise
            return
        fcntl.flock(file, fcntl.LOCK_SH)
        weakref.finalize(user, file.close)


def remove(entry: Entry) -> bool:
    """Remove a folder unless it is in use; returns whether it was removed."""
    with open(f"{entry.path}.used", "w") as file:
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        shutil.rmtree(entry.path, ignore_errors=True)
    return True
