"""A graph of steps that is run once: what is done is not done again.

A step is `softlabels` with arguments, or a function. Its record, FOLDER/steps/NAME.json, holds what
it printed or returned, and its fingerprint: of the arguments, of the files that it reads, of that
which `--config` names and of the steps it needs. A step whose fingerprint has changed, and all that
need it, are run again, and what they had written is removed. The code is not in it: to run a step
again with other code, remove its record.
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

import torch
from filelock import FileLock


@dataclass(frozen=True)
class Step:
    """arguments: of `softlabels`, or, where `work` is given, what tells it from other work. Those
    that name files outside the folder of all steps are read.

    needs: the steps before it
    """

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
        self.folder, self._hashes = folder, dict[str, str]()
        self.records = folder / "steps"
        self.records.mkdir(parents=True, exist_ok=True)

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for name in TopologicalSorter(self._needs).static_order():
            step = self.by_name[name]
            files = [self._hash(argument) for argument in step.arguments]
            parts = [step.arguments, files, step.config, [found[need] for need in step.needs]]
            found[name] = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
        return found

    def _hash(self, argument: str) -> str | None:
        """Of a file that no step writes: one of another folder. None where it is none."""
        path = Path(argument)
        is_made = path.absolute().is_relative_to(self.folder.absolute())
        if is_made or not path.is_file():
            return None
        if argument not in self._hashes:
            self._hashes[argument] = hashlib.sha256(path.read_bytes()).hexdigest()
        return self._hashes[argument]

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
        """What is known of a step that is done; None of one that is not. seconds: since its last
        start, of `starts`; on: which machine; result: what it printed or returned."""
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
        starts = self._begin(step)
        started = time.monotonic()
        try:
            result = step.work() if step.work is not None else self._command(step, jobs)
        except BaseException:
            stopped.set()
            raise
        record = {
            "fingerprint": self.fingerprints[step.name], "command": step.command,
            "seconds": time.monotonic() - started, "starts": starts,
            "date": time.strftime("%Y-%m-%d"), "load": os.getloadavg()[0], "on": machine(),
            "result": result,
        }  # fmt: skip
        _write(self._path(step.name), record)

    def _begin(self, step: Step) -> int:
        """How often it has been started as it is; what was made otherwise is removed."""
        note = self._path(step.name).with_suffix(".begun")
        fingerprint, starts = self.fingerprints[step.name], 1
        begun = json.loads(note.read_text(encoding="utf-8")) if note.exists() else {}
        if begun.get("fingerprint") == fingerprint:
            starts = begun["starts"] + 1
        elif step.out is not None:
            _remove(step.out)  # --resume would refuse to go on with it
        _write(note, {"fingerprint": fingerprint, "starts": starts})
        return starts

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


def _write(path: Path, content: dict[str, Any]) -> None:
    written = path.with_suffix(f"{path.suffix}.part")
    written.write_text(json.dumps(content, indent=1), encoding="utf-8")
    written.rename(path)


def machine() -> str:
    """What steps are run on here, in words."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{os.cpu_count()} CPU cores, {device}, torch {torch.__version__}"
