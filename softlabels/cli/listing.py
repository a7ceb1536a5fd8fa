"""Dumps, made or planned, as text and as values."""

import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from softlabels.system.humanize import counted, short, size_words

if TYPE_CHECKING:
    from softlabels.reports.info import Listed
    from softlabels.store.records import Statistics


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


def accuracy_words(statistics: "Statistics") -> str:
    """How often the teacher is right, of rows with one label or several: of a dump's logits."""
    labelled = counted(statistics.labelled, f"labelled {statistics.unit}")
    several = statistics.positives is not None
    what = "top label is one of the row's in" if several else "accuracy"
    return f"teacher's {what} {statistics.accuracy:.4f} on {labelled}"


def as_made(result: Any) -> tuple[str, dict[str, Any]]:
    """A dump in a line and as a value."""
    manifest = result.manifest
    pace = {name: getattr(result, name) for name in ("rows_per_second", "shares", "bound")}
    if manifest is None:
        done = f"rank {result.rank} has done its {counted(result.rows_run, 'row')}"
        value = {"out": result.out, "rank": result.rank, "rows_run": result.rows_run}
        return f"{result.out}: {done}", value | pace | {"complete": False}
    text = f"{result.out}: {counted(manifest.rows, 'row')}, {size_words(manifest.bytes)}"
    statistics = manifest.statistics
    if statistics and statistics.accuracy is not None:
        text += f"; {accuracy_words(statistics)}"
    if manifest.skipped:
        what = "input" if manifest.plan.has_views else "row"
        text += f"; {counted(len(manifest.skipped), what)} left out (softlabels info names them)"
    if statistics and statistics.tokens:
        text += f"; {statistics.padded} were padding"
    value = {"out": result.out, "rows": manifest.rows, "bytes": manifest.bytes, "complete": True}
    value |= {"rows_run": result.rows_run, "statistics": manifest.as_json["statistics"]} | pace
    return text, value | {"skipped": manifest.as_json["skipped"]}


def as_estimated(estimate: Any) -> dict[str, Any]:
    """As a value; with those of several dumps, where there are several."""
    dumps = {name: as_estimated(one) for name, one in estimate.dumps.items()}
    value = {name: each for name, each in asdict(estimate).items() if name != "dumps"}
    return value | ({"dumps": dumps} if dumps else {})
