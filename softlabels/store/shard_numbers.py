"""The numbers of some of a dump's shards, as people write them: `0-9`, `3`, `0-3,7`."""

import re
from collections.abc import Iterable, Sequence

from softlabels.errors import UsageError
from softlabels.system.humanize import counted

WORD = re.compile(r"\s*(\d{1,6})(?:\s*-\s*(\d{1,6}))?\s*", re.ASCII)


def parse_numbers(text: str | Iterable[int] | None, count: int) -> list[int]:
    """The numbers of some of `count` shards, ascending.

    text: such as `0-3,7`, or whole numbers; None for all. Raises UsageError for a shard that does
    not exist, for text that can't be parsed, and for an empty choice.
    """
    if text is None:
        return list(range(count))
    if isinstance(text, int):  # as YAML reads it
        text = str(text)
    chosen: set[int] = set()
    for word in text.split(",") if isinstance(text, str) else map(str, text):
        match = WORD.fullmatch(word)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, -1)
        if not first <= last < count:
            raise UsageError(
                f"--shards has {word[:40].strip()!r}; the dump has {counted(count, 'shard')}: "
                f"write numbers from 0 to {count - 1}, such as 0-3,7"
            )
        chosen.update(range(first, last + 1))
    if not chosen:
        raise UsageError(f"--shards names none; the dump has {counted(count, 'shard')}")
    return sorted(chosen)


def write_numbers(numbers: Sequence[int]) -> str:
    """Ascending numbers as `parse_numbers` reads them."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
