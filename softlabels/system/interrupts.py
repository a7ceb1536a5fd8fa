"""Ctrl-C and SIGTERM, held back while something is half done."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Interrupts:
    """While it is entered, a signal that arrives in a `held` block takes effect when the block
    ends. A second one does not wait: the block may hang.

    half_done: whether a `held` block is running or was left by an exception.

    Python delivers signals to the main thread only; entered in another one, it holds nothing back.
    """

    def __init__(self) -> None:
        self.half_done = False
        self._waiting: tuple[int, FrameType | None] | None = None
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                handler = signal.getsignal(number)
                if callable(handler):  # else the system's own: the process just ends
                    self._handlers[number] = handler
                    signal.signal(number, self._arrived)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

    @contextmanager
    def held(self) -> Iterator[None]:
        self.half_done = True
        yield  # an exception of the block leaves it half done
        self.half_done = False
        if self._waiting is not None:
            (number, frame), self._waiting = self._waiting, None
            self._handlers[number](number, frame)

    def _arrived(self, number: int, frame: FrameType | None) -> None:
        if self.half_done and self._waiting is None:
            self._waiting = number, frame
        else:
            self._handlers[number](number, frame)
