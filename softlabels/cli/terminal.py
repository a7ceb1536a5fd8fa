"""Progress on stderr: bars at a terminal, elsewhere a line every minute; or JSON lines."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

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
from rich.table import Column
from rich.text import Text

from softlabels.system.humanize import json_text
from softlabels.system.progress import Advance, Progress

LINE_SECONDS = 60.0  # between two lines of progress where there is no terminal
JSON_SECONDS = 10.0
WIDE = 100  # columns of a terminal


class TerminalProgress(Progress):
    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        self.console.print(text, markup=False)

    @contextmanager
    def bar(self, what: str, total: int, unit: str, done: int = 0) -> Iterator[Advance]:
        if not self.console.is_terminal:
            with _ticking(
                total, done, LINE_SECONDS, lambda tick: self.say(_line(what, unit, tick))
            ) as go:
                yield go
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(24 if self.console.width >= WIDE else 5, table_column=Column(no_wrap=True)),
            TextColumn("{task.completed:,}/{task.total:,}"),
            _Speed(unit),
            TimeRemainingColumn(table_column=Column(no_wrap=True)),
            _Note(),
        )
        with Bars(*columns, console=self.console) as bars:
            task = bars.add_task(what, total=total, completed=done, note="")

            def move(n: int, note: str = "") -> None:
                fields = {"note": note} if note else {}
                bars.update(task, advance=n, **fields)  # type: ignore[arg-type]

            yield move


class LogProgress(Progress):
    """JSON lines on stderr, for log collectors: `time` (UTC), `event` (say, progress or error),
    `rank` under torchrun, and the event's own fields."""

    def say(self, text: str) -> None:
        log_event("say", text=text)

    @contextmanager
    def bar(self, what: str, total: int, unit: str, done: int = 0) -> Iterator[Advance]:
        def write(tick: dict[str, Any]) -> None:
            log_event("progress", what=what, unit=unit, **tick)

        with _ticking(total, done, JSON_SECONDS, write) as advance:
            yield advance
        write({"done": total, "total": total})


def log_event(event: str, **details: Any) -> None:
    ranked = {"rank": int(os.environ["RANK"])} if os.environ.get("RANK", "").isdigit() else {}
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    line = json_text({"time": now, "event": event} | ranked | details)
    print(line, file=sys.stderr, flush=True)


@contextmanager
def _ticking(
    total: int, done: int, every: float, write: Callable[[dict[str, Any]], None]
) -> Iterator[Advance]:
    """An `advance` that calls `write` at most once in `every` seconds, with done, total,
    per_second, seconds_left and note."""
    began = last = time.monotonic()
    before, latest = done, ""

    def advance(n: int, note: str = "") -> None:
        nonlocal done, last, latest
        done += n
        latest = note or latest
        now = time.monotonic()
        if now - last >= every:
            last = now
            speed = (done - before) / (now - began)
            left = round((total - done) / speed) if speed else None
            notes = {"note": latest} if latest else {}
            write({"done": done, "total": total, "per_second": round(speed, 1),
                   "seconds_left": left} | notes)  # fmt: skip

    yield advance


def _rate(speed: float, unit: str) -> str:
    """`1,200 rows/s`, `1.0 students/s`."""
    return f"{speed:,.0f} {unit}/s" if speed >= 9.95 else f"{speed:.1f} {unit}/s"


def _line(what: str, unit: str, tick: dict[str, Any]) -> str:
    left = "" if tick["seconds_left"] is None else f", {tick['seconds_left']:,} s left"
    note = f", {tick['note']}" if "note" in tick else ""
    return (
        f"{what}: {tick['done']:,} of {tick['total']:,} {unit}, "
        f"{_rate(tick['per_second'], unit)}{left}{note}"
    )


class _Speed(ProgressColumn):
    """Units per second, averaged over the last seconds."""

    def __init__(self, unit: str) -> None:
        super().__init__(table_column=Column(no_wrap=True))
        self.unit = unit

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else _rate(speed, self.unit))


class _Note(ProgressColumn):
    """How it goes, on one line: where the terminal is narrow its end is left out, and not the
    columns before it, which do not wrap."""

    def render(self, task: Task) -> Text:
        return Text(task.fields["note"], no_wrap=True, overflow="ellipsis")
