"""A sweep as its folder tells it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from softlabels.errors import DamagedDump, UsageError
from softlabels.store.json_objects import parse_object
from softlabels.students.sweeps.folder import CURVES, RECORD, STUDENTS, TABLE
from softlabels.students.sweeps.grid import Setting, Trial
from softlabels.students.sweeps.results import MEASURES, Ended, Measure, SweepResult
from softlabels.system.humanize import counted

AGAIN = "run the sweep once more with --resume, which trains no complete student and writes it anew"


@dataclass(frozen=True)
class Curve:
    """The epochs of a student, one value each; NaN where there is none.

    held_out: of the measure by which the students are compared
    """

    loss: list[float]
    held_out: list[float]


@dataclass(frozen=True)
class SweepRecord:
    """ran: how it came about, by the names of `ran` in results.json
    curves: of each student that has one
    unknown: files of students that are not in the results: of a sweep that goes on
    """

    result: SweepResult
    ran: dict[str, Any]
    curves: dict[Trial, Curve]
    unknown: list[str]


def is_sweep(place: str) -> bool:
    """Whether it is the folder of a sweep, complete or not."""
    folder = Path(place)
    return (folder / RECORD).is_file() or bool(_begun(folder))


def read_sweep(place: str) -> SweepRecord:
    """Raises UsageError for one that is not finished, and for files that can't be read."""
    folder = Path(place)
    if not (folder / RECORD).is_file():
        complete = len(list((folder / STUDENTS).glob("*.pt")))
        raise UsageError(
            f"{place} holds a sweep that is not finished: {counted(complete, 'student')} "
            f"{'is' if complete == 1 else 'are'} complete, and {RECORD} comes with the last. Go on "
            f"with it: softlabels sweep with the same options and --resume"
        )
    try:
        record = parse_object((folder / RECORD).read_bytes(), str(folder / RECORD))
        measure = Measure(record["measure"], int(record["held_out_rows"]))
        MEASURES[measure.name]  # a later softlabels may have others
        ended = [_ended(row, folder) for row in _rows(folder / TABLE)]
        result = SweepResult(place, measure, ended)
        result.best_student  # noqa: B018  there is one
    except (OSError, DamagedDump, pa.ArrowException, LookupError, TypeError, ValueError) as error:
        raise UsageError(
            f"{folder / RECORD} and {TABLE} can't be read as the results of a sweep "
            f"({type(error).__name__}: {error}); {AGAIN}"
        ) from error
    known = {f"{one.trial.name}.pt" for one in ended}
    unknown = [name for name in _begun(folder) if name.removesuffix(".state") not in known]
    return SweepRecord(result, _ran(record.get("ran")), _curves(folder, measure), unknown)


def _ran(value: Any) -> dict[str, Any]:
    """Empty where the record is one of an earlier softlabels; parts that are no objects are."""
    if not isinstance(value, dict):
        return {}
    parts = {n: value.get(n) for n in ("data", "options", "versions")}
    return value | {n: part if isinstance(part, dict) else {} for n, part in parts.items()}


def _begun(folder: Path) -> list[str]:
    """Files of its students, and the states of stacks."""
    students = folder / STUDENTS
    found = [*students.glob("*-s*.pt"), *students.glob("*.pt.state"), *folder.glob("stack-*.state")]
    return sorted(path.name for path in found)


def _rows(path: Path) -> list[dict[str, Any]]:
    with path.open("rb") as file:  # by a path, Arrow takes `a:b/c` for an address
        return pq.read_table(file).to_pylist()


def _ended(row: Mapping[str, Any], folder: Path) -> Ended:
    held = {
        name.removeprefix("held_out_"): value
        for name, value in row.items()
        if name.startswith("held_out_") and value is not None
    }
    trial = _trial(row)
    failed = row["checkpoint"] is None
    metrics = {"epoch": row["epoch"], "loss": row["loss"], "held_out": held}
    place = folder / STUDENTS / f"{trial.name}.pt"  # the folder may have been moved
    return Ended(trial, str(place), None if failed else metrics, row["failure"] or "")


def _trial(row: Mapping[str, Any]) -> Trial:
    setting = Setting(row["student"], row["lr"], row["weight_decay"], row["T"], row["alpha"])
    return Trial(setting, row["seed"])


def _curves(folder: Path, measure: Measure) -> dict[Trial, Curve]:
    """None where the file lacks or can't be read: the rest of a page needs none."""
    curves: dict[Trial, Curve] = {}
    try:
        for row in _rows(folder / CURVES):
            curve = curves.setdefault(_trial(row), Curve([], []))
            curve.loss.append(_number(row["loss"]))
            curve.held_out.append(_number(row[f"held_out_{measure.name}"]))
    except (OSError, pa.ArrowException, LookupError):
        return {}
    return curves


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
