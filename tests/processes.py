"""Processes that tests start and stop: forks of this one, so that they begin at once."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

FORK = multiprocessing.get_context("fork")


def start(work: Callable[..., Any], **words: Any) -> multiprocessing.Process:
    """Run `work(**words)` in a process of its own; exit code 3 where it raised."""

    def body() -> None:
        os.setsid()
        try:
            work(**words)
        except BaseException:
            os._exit(3)
        os._exit(0)

    process = FORK.Process(target=body, daemon=True)
    process.start()
    return process


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
