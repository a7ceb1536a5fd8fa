"""Whether a process that made a claim still lives.

On a local disk it holds a lock (`flock`, through filelock), which the kernel releases when it dies.
In an object store it writes the claim again every few seconds: a claim that is old by the store's
own clock was left by a dead process.
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


def ignore(text: str) -> None:
    """Report nothing."""


Waiting = Callable[[str], None]


class Life:
    """How a process holds a claim, and how other processes see whether it lives."""

    def begin(self, name: str) -> None:
        raise NotImplementedError

    def end(self, name: str) -> None:
        raise NotImplementedError

    def is_alive(self, name: str, patience: float = 0.0, waiting: Waiting = ignore) -> bool:
        """Whether the holder lives.

        patience: seconds to wait for a lock. A process that looks takes the lock for a moment, so
        without patience a dead claim that another process is looking at seems alive.
        waiting: called with a line for the user if this takes long
        """
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
            with suppress(FileNotFoundError):  # a process that ended removed the empty folder
                self.lock.acquire(timeout=10)
                break
        # the lock comes first: others take a claim without a held lock for that of a dead process
        with open(self.folder.path(name), "w") as file:
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

    def is_alive(self, name: str, patience: float = 0.0, waiting: Waiting = ignore) -> bool:
        if not os.path.exists(self._lock_path(name)):
            return False
        try:
            with self._lock(name).acquire(timeout=patience, poll_interval=0.02):
                return False
        except (Timeout, PermissionError):  # PermissionError: another user's lock
            return True

    def _bury_the_dead(self, own: str) -> None:
        """Remove the claims of lost workers that were replaced, and the locks of processes that
        were killed while they began or ended."""
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

    def is_alive(self, name: str, patience: float = 0.0, waiting: Waiting = ignore) -> bool:
        """As long as a claim is younger than LEASE, waits for the next sign of life."""
        first = self._beaten(name)
        reported = False
        while first is not None:
            age = self._now() - first
            if age > LEASE:
                return False
            if not reported:
                reported = True
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
            with suppress(Exception):  # if the store stays away, the dump itself fails
                self._beat(name)

    def _beat(self, name: str) -> None:
        self.folder.upload(name, self.about)

    def _beaten(self, name: str) -> float | None:
        try:
            return float(self.folder.fs.modified(self.folder.path(name)).timestamp())
        except FileNotFoundError:
            return None

    def _now(self) -> float:
        """The time by the store's clock, read from an object written just now, since the clocks of
        machines differ."""
        clock = f"{CLAIMS}/clock-{self.folder.token}"
        self.folder.upload(clock, b"{}")
        now = self._beaten(clock)
        self.folder.delete(clock)
        return now if now is not None else time.time()
