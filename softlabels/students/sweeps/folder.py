"""The folder of a sweep: what is written there when all its students have ended."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from softlabels.errors import MissingExtra
from softlabels.students.sweeps.figure import draw
from softlabels.students.sweeps.results import SweepResult
from softlabels.students.sweeps.tables import curves_table, results_table
from softlabels.system.humanize import counted, few, json_text
from softlabels.system.local_files import appearing
from softlabels.system.progress import Progress

STUDENTS, TABLE, CURVES, RECORD, BEST, PLOT = (
    "students", "results.parquet", "curves.parquet", "results.json", "best.pt", "results.png"
)  # fmt: skip


def write_results(result: SweepResult, ran: dict[str, Any], progress: Progress) -> SweepResult:
    """Write tables, plot and the best student. Returns the result with its plot.

    ran: how it came about, for results.json
    """
    folder = Path(result.out)
    try:
        _write(folder / PLOT, draw(result))
        result = replace(result, plot=str(folder / PLOT))
    except MissingExtra as error:
        progress.say(f"{error} (everything else is done)")
    _write(folder / BEST, Path(result.best_student.checkpoint).read_bytes())
    _write_table(folder / TABLE, results_table([one.row for one in result.ended]))
    curves, missing = curves_table(result.ended, result.measure)
    if missing:
        progress.say(
            f"warning: {counted(len(missing), 'student')} of {len(result.ended):,} "
            f"{'has' if len(missing) == 1 else 'have'} no history that can be read, so {CURVES} "
            f"lacks {few([trial.name for trial in missing])}"
        )
    _write_table(folder / CURVES, curves)
    # last: a folder with it has the rest
    _write(folder / RECORD, (json_text(result.as_json | {"ran": ran}) + "\n").encode())
    return result


def _write(path: Path, content: bytes) -> None:
    with appearing(path) as file:
        file.write(content)


def _write_table(path: Path, table: pa.Table) -> None:
    with appearing(path) as file:
        pq.write_table(table, file)
