"""Whether a process that made a claim still lives.

Locally its lock (`flock`, through filelock) is held; the kernel lets go when a process dies.
Elsewhere it writes its object again every few seconds; one that is old by the store's own clock
was left by a process that died.
"""

import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from filelock import FileLock, Timeout

from softlabels.store.folder import Folder
from softlabels.system.local_files import make_directory

CLAIMS = ".claims"
NAME = re.compile(CLAIMS + r"/\w+-\d+-\w+\.(json|lock)")
BEAT, LEASE = 5.0, 30.0  # seconds between two signs of life; without one for this long: dead


def unheard(words: str) -> None:
    """Nobody waits to be told."""


Waiting = Callable[[str], None]


class Life:
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


def life_in(folder: Folder) -> Life:
    return LocalLife(folder) if folder.is_local else RemoteLife(folder)


def _about() -> dict[str, Any]:
    since = datetime.now(UTC).isoformat(timespec="seconds")
    return {"host": socket.gethostname(), "pid": os.getpid(), "since": since}


class LocalLife(Life):
    def __init__(self, folder: Folder) -> None:
        self.folder = folder

    def begin(self, name: str) -> None:
        self.lock = self._lock(name)
        for _ in range(20):
            make_directory(self.folder.path(CLAIMS))
            with suppress(FileNotFoundError):  # another that left took the empty folder with it
                self.lock.acquire(timeout=10)
                break
        with open(self.folder.path(name), "w") as file:  # seen only now, when the lock is held
            json.dump(_about(), file)

    def end(self, name: str) -> None:
        self._bury_the_dead(name)
        with suppress(OSError):
            os.unlink(self.folder.path(name))
        if not self.lock.is_locked:
            return
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
        except (Timeout, PermissionError):  # another user's lock can't even be asked
            return True

    def _bury_the_dead(self, own: str) -> None:
        """Workers that were lost and replaced, and locks of processes killed while they came or
        left."""
        names = [name for name in self.folder.files(CLAIMS) if NAME.fullmatch(name)]
        for name in {name.rpartition(".")[0] + ".json" for name in names} - {own}:
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


class RemoteLife(Life):
    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.stopped = threading.Event()
        self.thread: threading.Thread | None = None

    def begin(self, name: str) -> None:
        self.about = json.dumps(_about()).encode()
        self._beat(name)
        self.thread = threading.Thread(target=self._go_on, args=(name,), daemon=True)
        self.thread.start()

    def end(self, name: str) -> None:
        self.stopped.set()
        if self.thread is not None:
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
