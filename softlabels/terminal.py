"""Progress for a person: lines and bars on stderr. Bars only where stderr is a terminal."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import (
    Progress as Bars,
)
from rich.text import Text

from softlabels.progress import Advance, Progress


class TerminalProgress(Progress):
    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        self.console.print(text, markup=False)

    @contextmanager
    def bar(self, what: str, total: int, unit: str) -> Iterator[Advance]:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:,}/{task.total:,}"),
            _Speed(unit),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        bars = Bars(*columns, console=self.console, disable=not self.console.is_terminal)
        with bars:
            task = bars.add_task(what, total=total, note="")

            def advance(n: int, note: str = "") -> None:
                words = {"note": note} if note else {}
                bars.update(task, advance=n, **words)  # type: ignore[arg-type]

            yield advance


class _Speed(ProgressColumn):
    """Units a second, averaged over the last moments."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f} {self.unit}/s")
