"""Dumps as a table and as values."""

import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from softlabels.system.humanize import short, size_words

if TYPE_CHECKING:
    from softlabels.reports.info import Listed


def dumps_at(path: str) -> "list[Listed]":
    """The dumps below a folder of this disk that is none itself; else nothing."""
    if not os.path.isdir(path):
        return []
    from softlabels.places.folders import open_folder
    from softlabels.reports.info import dumps_in

    return dumps_in(open_folder(path))


def as_table(dumps: "list[Listed]") -> str:
    """A table with a line for each dump."""
    heads = ("dump", "rows", "classes", "teacher", "codec", "size", "state")
    table = [heads] + [
        (one.path, f"{one.rows:,}", f"{one.classes:,}", short(one.teacher, 40), one.codec,
         size_words(one.bytes), one.state)
        for one in dumps
    ]  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        "  ".join(cell.rjust(width) if name in ("rows", "classes", "size") else cell.ljust(width)
                  for name, cell, width in zip(heads, line, widths, strict=True)).rstrip()
        for line in table
    ]  # fmt: skip
    return "\n".join(lines)


def as_values(dumps: "list[Listed]") -> list[dict[str, Any]]:
    return [asdict(one) | {"state": one.state} for one in dumps]
