"""How a verb tells what it is doing. Verbs know this door only; the command line paints it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Advance = Callable[[int, str], None]


class Progress:
    """Hears and says nothing: the default of every verb in Python."""

    def say(self, text: str) -> None:
        """One line for a person."""

    @contextmanager
    def bar(self, what: str, total: int, unit: str) -> Iterator[Advance]:
        """Yields `advance(n, note)`; n units of `total` are done, `note` says how it goes."""
        yield lambda n, note="": None


SILENT = Progress()
