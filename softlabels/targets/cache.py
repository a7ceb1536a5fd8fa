"""The local cache: decoded logits, copies of remote dumps, and which files were seen to be whole.

    PLACE/rows/SHA256.rows      a shard's logits, one row after the other; SHA256 is its file's
    PLACE/rows/SHA256.json      what that is, for people
    PLACE/copies/NAME/          a remote dump's manifest and shards; who uses it holds NAME.used
    PLACE/verified/NAME         an empty file: this file, as it was then, had the recorded SHA-256

PLACE is $SOFTLABELS_CACHE, else ~/.cache/softlabels. Every file appears whole or not at all. Who
makes one holds the lock beside it; a process that ends lets go of it.
"""

import errno
import hashlib
import json
import os
import shutil
import time
import uuid
import weakref
from collections.abc import Collection
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from softlabels.errors import DiskFull, UsageError
from softlabels.store.gathering import Region
from softlabels.store.mapping import map_file
from softlabels.words import size_words

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

PLACE, BUDGET = "SOFTLABELS_CACHE", "SOFTLABELS_CACHE_GB"
LOOK_SECONDS = 10


@dataclass(frozen=True)
class About:
    """What a file of decoded logits is: of which dump and shard, rows and bytes."""

    dump: str
    file: str
    rows: int
    bytes: int


@dataclass(frozen=True)
class Entry:
    """Something in the cache: where, how large, when last used (seconds since 1970)."""

    path: str
    bytes: int
    used: float

    @property
    def words(self) -> str:
        """What it is."""
        path = Path(self.path)
        with suppress(OSError, ValueError):
            if path.is_dir():
                return f"copy of {json.loads((path / 'about.json').read_text())['dump']}"
            shard = About(**json.loads(path.with_suffix(".json").read_text()))
            return f"decoded from {shard.dump}/{shard.file}"
        return "a copy" if path.is_dir() else "decoded logits"


class Making:
    """A file of decoded logits on its way: `write` its parts, then `publish`. Holds its lock.

    `region` is the file mapped: what is written appears there. Writing into the map itself would
    cost a page fault for every 4 KiB, more than decoding them.
    """

    def __init__(self, path: str, about: About, lock: FileLock) -> None:
        self.path, self.about, self._lock = path, about, lock
        self.partial = f"{path}.{os.getpid()}-{uuid.uuid4().hex[:8]}.partial"
        self.process = os.getpid()
        self.published = False
        self._file = open(self.partial, "w+b", buffering=0)  # noqa: SIM115
        try:
            self._file.truncate(about.bytes)
            if hasattr(os, "posix_fallocate"):  # a full disk is told now, not at the last write
                os.posix_fallocate(self._file.fileno(), 0, about.bytes)
            self.region: Region = map_file(self.partial)
        except BaseException:
            self.abandon()
            raise

    def write(self, start: int, values: np.ndarray) -> None:
        """Put these bytes, uint8, at this place of the file."""
        view = memoryview(values.data)
        while len(view):
            done = os.pwrite(self._file.fileno(), view, start)
            view, start = view[done:], start + done

    def publish(self) -> None:
        """Flush it to the disk and give it its name."""
        os.fsync(self._file.fileno())
        self._file.close()
        Path(self.path).with_suffix(".json").write_text(json.dumps(asdict(self.about)))
        os.replace(self.partial, self.path)
        self.published = True
        self._lock.release()

    def abandon(self) -> None:
        """Give up what is not published; others may begin anew."""
        self._file.close()
        with suppress(OSError):
            os.unlink(self.partial)
        self._lock.release()


class LocalCache:
    """`place` is the environment's where it is not given.

    Without $SOFTLABELS_CACHE_GB, the cache takes at most half of the disk that is free or its own.
    Raises UsageError where that is no number.
    """

    def __init__(self, place: str | os.PathLike[str] | None = None) -> None:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        self.place = Path(place or os.environ.get(PLACE) or Path(home) / "softlabels")
        self._budget: int | None = None
        self._room, self._looked = 0, 0.0  # bytes left when the budget was looked at last
        if told := os.environ.get(BUDGET):
            try:
                self._budget = int(float(told) * 1e9)
            except ValueError:
                raise UsageError(f"{BUDGET} is {told!r}; it must be a number of GB") from None

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

    def find(self, sha256: str, size: int) -> str | None:
        """The file with the decoded logits of the shard with this hash."""
        path = self._rows(sha256)
        try:
            if os.path.getsize(path) == size:
                os.utime(path)
                return path
        except OSError:
            pass
        return None

    def make(self, sha256: str, about: About, kept: Collection[str]) -> Making | None:
        """Begin such a file; None while another process makes it, and where the place can't be
        written to.

        What was used longest ago makes room, but for the shards `kept`. Raises DiskFull where the
        budget, or the disk, is too small.
        """
        path = self._rows(sha256)
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            lock = FileLock(f"{path}.lock", thread_local=False)
            lock.acquire(blocking=False)
        except (Timeout, OSError):
            return None
        try:
            self._sweep(path)
            self.make_room(about.bytes, about.dump, [self._rows(one) for one in kept])
            return Making(path, about, lock)
        except OSError as error:
            lock.release()
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFull(
                    f"no space left for {self.place}; make room, set {PLACE} to another disk, or "
                    f"do without: --no-cache"
                ) from error
            return None
        except BaseException:
            lock.release()
            raise

    def _sweep(self, path: str) -> None:
        """Remove what a process that died left half made; the lock is ours."""
        for partial in self.place.glob(f"rows/{os.path.basename(path)}.*.partial"):
            with suppress(OSError):
                partial.unlink()

    def make_room(self, size: int, what: str, kept: Collection[str] = ()) -> None:
        """Remove what was used longest ago until `size` bytes more are within the budget."""
        now = time.monotonic()
        if size <= self._room and now < self._looked + LOOK_SECONDS:
            self._room -= size  # thousands of shards don't list each other
            return
        entries = sorted(self.entries(), key=lambda entry: entry.used)
        excess = sum(entry.bytes for entry in entries) + size - self.budget
        for entry in entries:
            if excess > 0 and entry.path not in kept and remove(entry):
                excess -= entry.bytes
        self._room, self._looked = -excess, now
        if excess > 0:
            raise DiskFull(
                f"the cache {self.place} may hold {size_words(self.budget)}; for {what} it needs "
                f"{size_words(excess)} more. Make room, set {BUDGET} to a larger number of GB, or "
                f"{PLACE} to another disk, or do without: --no-cache"
            )

    def entries(self) -> list[Entry]:
        """Everything in it that takes space."""
        found = []
        for path in sorted(self.place.glob("rows/*.rows")) + sorted(self.place.glob("copies/*/")):
            with suppress(OSError):
                found.append(_entry(path))
        return found

    def clear(self) -> int:
        """Remove everything but copies in use; the bytes that were freed. Who uses decoded logits
        keeps them while he does."""
        freed = 0
        for entry in self.entries():
            freed += entry.bytes * remove(entry)
        for path in self.place.glob("rows/*.rows.*.partial"):
            name = path.name.partition(".rows.")[0] + ".rows"
            lock = FileLock(self.place / "rows" / f"{name}.lock")
            with suppress(Timeout, OSError), lock.acquire(blocking=False):
                freed += path.stat().st_blocks * 512
                path.unlink()
        shutil.rmtree(self.place / "verified", ignore_errors=True)
        return freed

    def is_verified(self, path: str, sha256: str) -> bool:
        """Whether this very file, unchanged since, was once seen to have this hash."""
        return self._mark(path, sha256).exists()

    def remember_verified(self, path: str, sha256: str) -> None:
        with suppress(OSError):  # then it is read again next time
            self._mark(path, sha256).parent.mkdir(parents=True, exist_ok=True)
            self._mark(path, sha256).touch()

    def _rows(self, sha256: str) -> str:
        return str(self.place / "rows" / f"{sha256}.rows")

    def _mark(self, path: str, sha256: str) -> Path:
        found = os.stat(path)
        text = f"{sha256} {found.st_dev} {found.st_ino} {found.st_size} {found.st_mtime_ns}"
        return self.place / "verified" / hashlib.sha256(text.encode()).hexdigest()[:32]


def hold(copy: str | os.PathLike[str], user: object) -> None:
    """Keep this copy from being removed, by whatever process, as long as `user` lives."""
    if fcntl is not None:
        file = open(f"{copy}.used", "w")  # noqa: SIM115
        fcntl.flock(file, fcntl.LOCK_SH)
        weakref.finalize(user, file.close)


def remove(entry: Entry) -> bool:
    """Whether it was removed; not a copy that is in use. Decoded logits that are in use stay in
    memory."""
    if not os.path.isdir(entry.path):
        for path in (Path(entry.path), Path(entry.path).with_suffix(".json")):
            path.unlink(missing_ok=True)
        return True
    with open(f"{entry.path}.used", "w") as file:
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        shutil.rmtree(entry.path, ignore_errors=True)
    return True


def _entry(path: Path) -> Entry:
    if path.is_dir():
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        return Entry(str(path), size, (path / "about.json").stat().st_mtime)
    found = path.stat()
    return Entry(str(path), found.st_blocks * 512, found.st_mtime)
