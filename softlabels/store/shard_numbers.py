"""Some of a dump's shards, as people write them: `0-9`, `3`, `0-3,7`."""

import re
from collections.abc import Iterable, Sequence

from softlabels.errors import UsageError
from softlabels.system.humanize import counted

WORD = re.compile(r"\s*(\d{1,6})(?:\s*-\s*(\d{1,6}))?\s*", re.ASCII)


def parse_numbers(words: str | Iterable[int] | None, count: int) -> list[int]:
    """The numbers of some of `count` shards, ascending; None is all. Whole numbers do too.

    Raises UsageError for what isn't there or can't be read, and for none.
    """
    if words is None:
        return list(range(count))
    if isinstance(words, int):  # as YAML reads it
        words = str(words)
    chosen: set[int] = set()
    for word in words.split(",") if isinstance(words, str) else map(str, words):
        found = WORD.fullmatch(word)
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, -1)
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
