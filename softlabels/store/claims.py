"""One dump at a time in a folder: each process that writes there says so while it lives.

A claim is a file `.claims/RUN-RANK-TOKEN.json`. Processes with the same RUN are one dump and
welcome each other; a process of another run turns back. So the question is only whether whoever
made a claim still lives:

- locally, its lock (`flock`, through filelock) is held; the kernel lets go when a process dies;
- elsewhere, the object is written again every few seconds; one that is old by the store's own
  clock was left by a process that died.
"""

import json
import os
import random
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from filelock import FileLock, Timeout

from softlabels.errors import FolderInUse
from softlabels.progress import SILENT, Progress
from softlabels.store.folder import Folder, make_directory

CLAIMS = ".claims"
BEAT, LEASE = 5.0, 30.0  # seconds between two signs of life; without one for this long: dead
TRIES = 12
NAME = re.compile(CLAIMS + r"/\w+-\d+-\w+\.json")
UNGUARDED = ("hf",)  # where every write is a commit to a repository


@dataclass(frozen=True)
class Claim:
    """Somebody's claim as found in the folder."""

    name: str

    @property
    def run(self) -> str:
        return self.name.partition("/")[2].partition("-")[0]

    @property
    def rank(self) -> int:
        return int(self.name.split("-")[1])

    @property
    def token(self) -> str:
        return self.name.rpartition("-")[2].removesuffix(".json")


def new_run() -> str:
    return uuid.uuid4().hex[:12]


@contextmanager
def claimed(folder: Folder, run: str, rank: int = 0, progress: Progress = SILENT) -> Iterator[None]:
    """Within this block the folder is this run's. Raises FolderInUse where it is another's."""
    if any(kind in UNGUARDED for kind in _protocols(folder)):
        yield
        return
    life = _life(folder)
    name = f"{CLAIMS}/{run}-{rank}-{folder.token}.json"
    with ExitStack() as stack:
        for attempt in range(TRIES):
            _refuse_others(folder, life, run, progress)
            held = stack.enter_context(_hold(life, name))
            if not [c for c in claims(folder) if c.run != run and life.is_alive(c.name)]:
                yield
                return
            stack.close()  # both came at the same moment: both step back, and one comes first
            time.sleep(random.uniform(0, 0.1 * 2 ** min(attempt, 5)))
            del held
        raise FolderInUse(f"{folder} is wanted by several dumps at once; start one of them again")


def claims(folder: Folder) -> list[Claim]:
    return [Claim(name) for name in folder.files(CLAIMS) if NAME.fullmatch(name)]


def alive_tokens(folder: Folder) -> set[str]:
    """The tokens of all processes that write to this folder, as `Folder.sweep` wants them."""
    life = _life(folder)
    return {c.token for c in claims(folder) if c.token == folder.token or life.is_alive(c.name)}


def is_lost(folder: Folder, run: str, rank: int) -> bool:
    """Whether this rank of the run came and died. A rank that did not come yet is not lost."""
    found = [c for c in claims(folder) if c.run == run and c.rank == rank]
    return bool(found) and not any(_life(folder).is_alive(c.name) for c in found)


def _refuse_others(folder: Folder, life: "_Life", run: str, progress: Progress) -> None:
    for claim in claims(folder):
        if claim.run == run:
            continue
        if life.is_alive(claim.name, 0.3, lambda words: progress.say(f"{folder}: {words}")):
            raise FolderInUse(
                f"{folder} is being written by another dump ({_who(folder, claim.name)}). Wait "
                f"until it is done, or choose another folder with --out"
            )
        life.bury(claim.name)


def _life(folder: Folder) -> "_Life":
    return _LocalLife(folder) if folder.is_local else _RemoteLife(folder)


def _who(folder: Folder, name: str) -> str:
    with suppress(Exception):
        told = folder.read_json(name)
        return f"process {told['pid']} on {told['host']}, since {told['since']}"
    return "it has just begun"


@contextmanager
def _hold(life: "_Life", name: str) -> Iterator[None]:
    life.begin(name)
    try:
        yield
    finally:
        life.end(name)


def _about() -> dict[str, Any]:
    since = datetime.now(UTC).isoformat(timespec="seconds")
    return {"host": socket.gethostname(), "pid": os.getpid(), "since": since}


def _protocols(folder: Folder) -> tuple[str, ...]:
    found = folder.fs.protocol
    return (found,) if isinstance(found, str) else tuple(found)


def unheard(words: str) -> None:
    """Nobody waits to be told."""


Waiting = Callable[[str], None]


class _Life:
    """How a claim is held, and how one sees whether another's holder lives."""

    def begin(self, name: str) -> None:
        raise NotImplementedError

    def end(self, name: str) -> None:
        raise NotImplementedError

    def is_alive(self, name: str, patience: float = 0.0, waiting: Waiting = unheard) -> bool:
        """Whether the holder lives. With no patience, a claim that another process looks at in
        this very moment may seem alive."""
        raise NotImplementedError

    def bury(self, name: str) -> None:
        """Remove the claim of a holder that died."""
        raise NotImplementedError


class _LocalLife(_Life):
    def __init__(self, folder: Folder) -> None:
        self.folder = folder

    def begin(self, name: str) -> None:
        self.lock = self._lock(name)
        while not self.lock.is_locked:
            with suppress(FileNotFoundError):  # another that left took the empty folder with it
                make_directory(self.folder.path(CLAIMS))
                self.lock.acquire(timeout=10)
        self.folder.write_json(name, _about())  # seen only now, when the lock is held

    def end(self, name: str) -> None:
        self._bury_the_dead(name)
        with suppress(OSError):
            os.unlink(self.folder.path(name))
        self.lock.release()
        with suppress(OSError):
            os.unlink(self._lock_path(name))
        with suppress(OSError):
            os.rmdir(self.folder.path(CLAIMS))

    def is_alive(self, name: str, patience: float = 0.0, waiting: Waiting = unheard) -> bool:
        if not os.path.exists(self._lock_path(name)):
            return False
        try:
            with self._lock(name).acquire(timeout=patience, poll_interval=0.02):
                return False
        except Timeout:
            return True

    def _bury_the_dead(self, own: str) -> None:
        """Workers that were lost and replaced, and locks of processes killed while they came or
        left."""
        names = {name.rpartition(".")[0] + ".json" for name in self.folder.files(CLAIMS)}
        for name in names - {own}:
            if not self.is_alive(name):
                self.bury(name)

    def bury(self, name: str) -> None:
        for path in (self.folder.path(name), self._lock_path(name)):
            with suppress(OSError):
                os.unlink(path)

    def _lock(self, name: str) -> FileLock:
        return FileLock(self._lock_path(name), thread_local=False)

    def _lock_path(self, name: str) -> str:
        return self.folder.path(name).removesuffix(".json") + ".lock"


class _RemoteLife(_Life):
    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.stopped = threading.Event()

    def begin(self, name: str) -> None:
        self.about = json.dumps(_about()).encode()
        self._beat(name)
        self.thread = threading.Thread(target=self._go_on, args=(name,), daemon=True)
        self.thread.start()

    def end(self, name: str) -> None:
        self.stopped.set()
        self.thread.join()
        self.stopped.clear()
        with suppress(Exception):
            self.folder.delete(name)

    def is_alive(self, name: str, patience: float = 0.0, waiting: Waiting = unheard) -> bool:
        """Waits for a sign of life of a claim that is not old enough to be dead for sure."""
        first = self._beaten(name)
        told = False
        while first is not None:
            age = self._now() - first
            if age > LEASE:
                return False
            if not told:
                told = True
                waiting(f"waiting up to {LEASE - age:.0f} s to see whether another dump lives")
            time.sleep(min(1.0, BEAT / 2))
            last = self._beaten(name)
            if last is not None and last != first:
                return True
            first = last
        return False

    def bury(self, name: str) -> None:
        self.folder.delete(name)

    def _go_on(self, name: str) -> None:
        while not self.stopped.wait(BEAT):
            with suppress(Exception):  # the store may be away for a moment; the dump will say so
                self._beat(name)

    def _beat(self, name: str) -> None:
        self.folder.upload(name, self.about)

    def _beaten(self, name: str) -> float | None:
        try:
            return float(self.folder.fs.modified(self.folder.path(name)).timestamp())
        except FileNotFoundError:
            return None

    def _now(self) -> float:
        """The store's clock: the time of an object that was written just now."""
        clock = f"{CLAIMS}/clock-{self.folder.token}"
        self.folder.upload(clock, b"{}")
        found = self._beaten(clock)
        self.folder.delete(clock)
        return found if found is not None else time.time()
