"""How a verb tells what it is doing. Verbs know this door only; the command line paints it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Advance(Protocol):
    """`advance(n, note)`: n more units are done; `note` says how it goes."""

    def __call__(self, n: int, note: str = "") -> None: ...


def unheard(n: int, note: str = "") -> None:
    """An `Advance` that nobody listens to."""


class Progress:
    """Hears and says nothing: the default of every verb in Python."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def say(self, text: str) -> None:
        """One line for a person."""

    @contextmanager
    def bar(self, what: str, total: int, unit: str) -> Iterator[Advance]:
        """Yields the `advance` of a bar of `total` units."""
        yield unheard


SILENT = Progress()
