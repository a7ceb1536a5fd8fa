"""A graph of steps that is run once: what is done is not done again.

A step is `softlabels` with arguments, or a function. Its record, FOLDER/steps/NAME.json, holds what
it printed or returned, and its fingerprint: of the arguments, of the file that `--config` names and
of the steps it needs. A step whose fingerprint has changed, and all that need it, are run again.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import cached_property
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from filelock import FileLock


@dataclass(frozen=True)
class Step:
    """arguments: of `softlabels`, or `work` and what it is to be told apart by. It runs after
    the steps of `needs`."""

    name: str
    arguments: tuple[str, ...]
    needs: tuple[str, ...] = ()
    work: Callable[[], dict[str, Any]] | None = None

    @property
    def command(self) -> str:
        return " ".join(("softlabels", *self.arguments))

    @property
    def out(self) -> Path | None:
        """The file or folder that it writes."""
        words = self.arguments
        return Path(words[words.index("--out") + 1]) if "--out" in words else None

    @property
    def config(self) -> str:
        """The text of its configuration."""
        words = self.arguments
        if "--config" not in words:
            return ""
        return Path(words[words.index("--config") + 1]).read_text(encoding="utf-8")


class Steps:
    """What was asked for, by name, and what is recorded of it in a folder."""

    def __init__(self, steps: Iterable[Step], folder: Path) -> None:
        self.by_name = {step.name: step for step in steps}
        self.records = folder / "steps"
        self.records.mkdir(parents=True, exist_ok=True)

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for name in TopologicalSorter(self._needs).static_order():
            step = self.by_name[name]
            parts = [step.arguments, step.config, [found[need] for need in step.needs]]
            found[name] = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
        return found

    @property
    def _needs(self) -> dict[str, tuple[str, ...]]:
        return {name: step.needs for name, step in self.by_name.items()}

    def _wanted(self, only: Sequence[str] | None) -> dict[str, tuple[str, ...]]:
        """In the order of all steps: what is ready is done in that order."""
        left = [name for name in self.by_name if not only or name.startswith(tuple(only))]
        found: set[str] = set()
        while left:
            name = left.pop()
            found.add(name)
            left.extend(self.by_name[name].needs)
        return {name: step.needs for name, step in self.by_name.items() if name in found}

    def record(self, name: str) -> dict[str, Any] | None:
        """{fingerprint, seconds, result} of a step that is done; None of one that is not."""
        try:
            found = json.loads(self._path(name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return found if found["fingerprint"] == self.fingerprints[name] else None

    def run(self, jobs: int, only: Sequence[str] | None = None) -> None:
        """Do what is not done, so many at a time. only: steps whose names begin so, and those that
        they need. Raises SystemExit, after those that run have ended, where one fails."""
        order = TopologicalSorter(self._wanted(only))
        order.prepare()
        stopped = threading.Event()
        running: dict[Future[None], str] = {}
        with ThreadPoolExecutor(jobs) as pool:
            while order.is_active():
                for name in order.get_ready():
                    running[pool.submit(self._once, self.by_name[name], jobs, stopped)] = name
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    name = running.pop(future)
                    future.result()
                    order.done(name)

    def _once(self, step: Step, jobs: int, stopped: threading.Event) -> None:
        with FileLock(self._path(step.name).with_suffix(".lock")):  # another run may be at it
            if not stopped.is_set() and self.record(step.name) is None:
                self._do(step, jobs, stopped)

    def _do(self, step: Step, jobs: int, stopped: threading.Event) -> None:
        print(f"{time.strftime('%H:%M:%S')} {step.command if step.work is None else step.name}",
              flush=True)  # fmt: skip
        if self._path(step.name).exists() and step.out is not None:
            _remove(step.out)  # made otherwise: --resume would refuse to go on with it
        started = time.monotonic()
        try:
            result = step.work() if step.work is not None else self._command(step, jobs)
        except BaseException:
            stopped.set()
            raise
        record = {
            "fingerprint": self.fingerprints[step.name], "command": step.command,
            "seconds": time.monotonic() - started, "date": time.strftime("%Y-%m-%d"),
            "load": os.getloadavg()[0], "result": result,
        }  # fmt: skip
        path = self._path(step.name)
        written = path.with_suffix(".part")
        written.write_text(json.dumps(record, indent=1), encoding="utf-8")
        written.rename(path)

    def _path(self, name: str) -> Path:
        return self.records / f"{name.replace('/', '-')}.json"

    def _command(self, step: Step, jobs: int) -> dict[str, Any]:
        """The object that `--json` prints."""
        threads = str(max(1, (os.cpu_count() or 1) // jobs))
        ended = subprocess.run(
            [sys.executable, "-m", "softlabels", *step.arguments, "--json"],
            capture_output=True, text=True, check=False,
            env=os.environ | {"OMP_NUM_THREADS": threads, "OMP_WAIT_POLICY": "PASSIVE"},
        )  # fmt: skip
        if ended.returncode:
            raise SystemExit(f"{step.command}\n{ended.stderr[-2000:]}")
        result: dict[str, Any] = json.loads(ended.stdout)
        return result


def _remove(out: Path) -> None:
    """What a command has written there, with the files beside it that begin with its name."""
    if out.is_dir():
        shutil.rmtree(out)
    for path in out.parent.glob(f"{out.name}*"):
        if path == out or path.name.startswith(f"{out.name}."):
            path.unlink()
