"""How a verb reports what it is doing. Verbs know only this interface; the command line draws the
bars."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Advance(Protocol):
    """`advance(n, note)`: n more units are done; `note` says how it goes."""

    def __call__(self, n: int, note: str = "") -> None: ...


def ignore(n: int, note: str = "") -> None:
    """An `Advance` that does nothing."""


class Progress:
    """Shows nothing: the default of every verb in Python."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def say(self, text: str) -> None:
        """Show a line to the user."""

    @contextmanager
    def bar(self, what: str, total: int, unit: str, done: int = 0) -> Iterator[Advance]:
        """Yields the `advance` of a bar of `total` units, of which `done` are done already."""
        yield ignore


SILENT = Progress()


class Once(Progress):
    """Says each line once."""

    def __init__(self, inner: Progress) -> None:
        self.inner = inner
        self.said: set[str] = set()

    def say(self, text: str) -> None:
        if text not in self.said:
            self.said.add(text)
            self.inner.say(text)

    @contextmanager
    def bar(self, what: str, total: int, unit: str, done: int = 0) -> Iterator[Advance]:
        with self.inner.bar(what, total, unit, done) as advance:
            yield advance


class Titled(Progress):
    """Begins each line and each bar with what it is about."""

    def __init__(self, inner: Progress, title: str) -> None:
        self.inner, self.title = inner, title

    def say(self, text: str) -> None:
        self.inner.say(f"{self.title}: {text}")

    @contextmanager
    def bar(self, what: str, total: int, unit: str, done: int = 0) -> Iterator[Advance]:
        with self.inner.bar(f"{self.title}: {what}", total, unit, done) as advance:
            yield advance
