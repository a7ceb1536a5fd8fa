"""Processes that tests start and stop. They are forks of a server that has imported what they need
and done nothing else, so that they begin at once and inherit no threads."""

import multiprocessing
import os
import runpy
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload([
    "softlabels.capture", "softlabels.students", "softlabels.verification", "tests.conftest",
    "torch.distributed", "torch._dynamo",
])  # fmt: skip


def start(
    work: Callable[..., Any], environment: dict[str, str] | None = None, **words: Any
) -> multiprocessing.Process:
    """Run `work(**words)` in a process of its own; exit code 3 where it raised. `work` has a name
    in a module."""
    process = SERVER.Process(target=_body, args=(work, environment or {}, words), daemon=True)
    process.start()
    return process


def _body(work: Callable[..., Any], environment: dict[str, str], words: dict[str, Any]) -> None:
    os.environ |= environment
    try:
        work(**words)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(3)
    os._exit(0)


def command(*words: object, cwd: Path, out: Path, err: Path) -> multiprocessing.Process:
    """`python -m softlabels` with these words in the folder `cwd`, without the seconds that a fresh
    interpreter needs to import torch. `out` and `err` are the files for what it says."""
    here = {
        "words": [str(word) for word in words],
        "cwd": str(cwd),
        "environment": dict(os.environ),
    }
    process = SERVER.Process(target=_command, args=(str(out), str(err)), kwargs=here)
    process.start()
    return process


def _command(out: str, err: str, words: list[str], cwd: str, environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    for name, stream in ((out, sys.stdout), (err, sys.stderr)):
        with open(name, "wb") as file:
            os.dup2(file.fileno(), stream.fileno())
        stream.reconfigure(encoding="utf-8")
    os.chdir(cwd)
    sys.path.insert(0, cwd)
    sys.argv = ["softlabels", *words]
    runpy.run_module("softlabels", run_name="__main__", alter_sys=True)


def kill(process: multiprocessing.Process) -> bool:
    """kill -9; whether the process was still at work."""
    living = process.is_alive()
    with suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)
    process.join(30)
    assert not process.is_alive()
    return living


def wait_for(condition: Callable[[], Any], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)
