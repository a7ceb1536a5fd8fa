"""Numbers as people read them, and values as JSON."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any


def counted(number: int, noun: str) -> str:
    """`1 shard`, `1,200 rows`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def measured(value: float) -> str:
    """A loss or another measure: `0.1234`, `2.6e+35`."""
    return f"{value:.4f}" if abs(value) < 1e6 else f"{value:.2g}"


def probability(q: float) -> str:
    """In up to 7 characters."""
    return f"{q:.4f}" if q >= 0.00005 or q == 0 else f"{q:.0e}"


def short(text: str, most: int = 60) -> str:
    """Text from outside, fit for one line of ours: printable, `most` characters at most."""
    line = "".join(c if c.isprintable() else " " for c in text)
    return line if len(line) <= most else line[: most - 1] + "…"


def shortened(names: Sequence[str], most: int) -> list[str]:
    """Names from outside as `short` makes them, but for long ones both ends: names often differ in
    their ends alone. Those that are still the same text get their place, `abc…xyz (7)`."""
    lines = [short(name, max(len(name), 1)) for name in names]
    made = [
        line if len(line) <= most else f"{line[: most // 2]}…{line[len(line) - (most - 1) // 2 :]}"
        for line in lines
    ]
    seen = Counter(made)
    return [f"{name} ({place})" if seen[name] > 1 else name for place, name in enumerate(made)]


def few(names: Sequence[str], between: str = ", ", most: int = 3) -> str:
    """The first names: `a, b, c, …`."""
    return between.join(names[:most]) + (f"{between}…" if len(names) > most else "")


def either(choices: Sequence[str]) -> str:
    """`a, b or c`."""
    *first, last = choices
    return f"{', '.join(first)} or {last}" if first else last


def size_words(count: float) -> str:
    """Bytes in decimal units."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}" if count < 100 else f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


def time_words(seconds: float) -> str:
    if seconds < 90:
        return f"about {seconds:.0f} s" if seconds >= 1 else "a second or less"
    for unit, length in (("min", 60), ("h", 3600)):
        if seconds < 90 * length or (unit == "h" and seconds < 48 * length):
            return f"about {seconds / length:.0f} {unit}"
    return f"about {seconds / 86400:.1f} days"


def elapsed_words(seconds: float) -> str:
    """`3.7 s`, `12 min 5 s`, `2 h 40 min`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def aligned(lines: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """A table's lines, the head among them: the first columns to the left, so many, the others to
    the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


def fact_lines(facts: Mapping[str, str]) -> list[str]:
    """A line for each fact, the values aligned."""
    width = max(map(len, facts))
    return [f"{name:<{width}}  {value}" for name, value in facts.items()]


def html_table(facts: Mapping[str, Any]) -> str:
    """Names and values as an HTML table, for notebooks."""
    rows = [
        f"<tr><th>{escape(name)}</th><td>{escape(_cell(facts[name]))}</td></tr>" for name in facts
    ]
    return f"<table>{''.join(rows)}</table>"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return measured(value)
    return f"{value:,}" if isinstance(value, int) else str(value)


def json_text(value: Any) -> str:
    """One line of JSON. NaN and infinities, which JSON does not know, are null."""
    return json.dumps(_finite(value), ensure_ascii=False, default=str, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
