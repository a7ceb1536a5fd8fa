"""Work that is done once for each of many items, by threads."""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")
Result = TypeVar("Result")
PATIENCE_SECONDS = 3

opening = threading.Lock()  # held while what threads share is set up; a forked child gets its own


def _renew() -> None:
    global opening
    opening = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


def cores() -> int:
    """The processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_order(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    threads: int,
    abort: Callable[[], None] = lambda: None,
) -> Iterator[Result]:
    """Yields `work(item)` for each item, in order, computed by up to `threads` threads.

    The first exception is raised once the other threads have ended. Ctrl-C stops waiting at once
    and calls `abort` to end the threads. (An executor would join its threads first, and so hang as
    long as a server does not answer.)
    """
    jobs = [(Future[Result](), item) for item in items]
    waiting = deque(jobs)

    def run() -> None:
        while True:
            try:
                future, item = waiting.popleft()
            except IndexError:
                return
            try:
                future.set_result(work(item))
            except BaseException as error:
                future.set_exception(error)

    crew = [threading.Thread(target=run, daemon=True) for _ in range(min(threads, len(jobs)))]
    for thread in crew:
        thread.start()
    try:
        for future, _ in jobs:
            while not wait([future], 1).done:  # a wait without a timeout may miss Ctrl-C
                pass
            yield future.result()
    except Exception:
        waiting.clear()
        for thread in crew:
            thread.join()
        raise
    except KeyboardInterrupt:
        waiting.clear()
        end = time.monotonic() + PATIENCE_SECONDS
        while any(thread.is_alive() for thread in crew) and time.monotonic() < end:
            abort()  # again and again: a thread may only now begin what has to be aborted
            time.sleep(0.1)
        raise
    finally:
        waiting.clear()


class Filler:
    """Runs `work(item)` for items 0 … count − 1 in background threads, once each.

    An exception in `work` stops the rest; the next call of `check` or `wait` raises it. A forked
    child has no threads, so there `wait` does the missing items itself. The threads stop at the
    next item once the main thread has ended. `finish` runs after the last item, in its thread; what
    it raises counts as raised by an item.
    """

    def __init__(
        self,
        work: Callable[[int], None],
        count: int,
        threads: int,
        finish: Callable[[], None] = lambda: None,
    ) -> None:
        self.work, self.finish = work, finish
        self.done = np.zeros(count, bool)
        self.threads = threads
        self._next = 0
        self._left = count
        self._failure: BaseException | None = None
        self._changed = threading.Condition()
        self._process: int | None = None

    def start(self) -> None:
        """Begin in the background, if that has not happened yet."""
        if self._process is None:
            self._process = os.getpid()
            for _ in range(min(self.threads, len(self.done))):
                threading.Thread(target=self._run, name="softlabels-fill").start()

    @property
    def is_here(self) -> bool:
        """Whether the threads run in this process, or would: a forked child has none."""
        return self._process in (None, os.getpid())

    def check(self) -> None:
        """Raises the exception that stopped the work, if one did."""
        if self._failure is not None:
            raise self._failure

    def wait(self, enough: Callable[[], bool] = lambda: False) -> None:
        """Returns when all items are done, and `finish`, or when these are enough, which is asked
        after each. Raises what `check` raises."""
        self.start()
        if self._process != os.getpid():
            for item in np.flatnonzero(~self.done).tolist():
                self.work(item)
                self.done[item] = True
            return
        with self._changed:
            self._changed.wait_for(
                lambda: self._failure is not None or bool(self.done.all()) or enough()
            )
        self.check()

    def _run(self) -> None:
        main = threading.main_thread()
        while main.is_alive() and (item := self._take()) is not None:
            try:
                self.work(item)
                if self._is_last():
                    self.finish()
            except BaseException as error:
                self._failure = self._failure or error  # the first; others may follow from it
            with self._changed:
                self.done[item] = self._failure is None
                self._changed.notify_all()

    def _is_last(self) -> bool:
        with self._changed:
            self._left -= 1
            return not self._left

    def _take(self) -> int | None:
        with self._changed:
            if self._failure is not None or self._next == len(self.done):
                return None
            self._next += 1
            return self._next - 1
