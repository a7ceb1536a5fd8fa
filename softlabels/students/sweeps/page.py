"""The page about a sweep: whether soft targets help, at which settings, and what ran."""

import math
import shlex
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from softlabels.reports.page import (
    Block,
    Command,
    Facts,
    Page,
    Remark,
    Section,
    Table,
    Text,
    Tile,
)
from softlabels.students.sweeps.curve_charts import curve_charts
from softlabels.students.sweeps.folder import BEST, CURVES, TABLE
from softlabels.students.sweeps.grid import plain
from softlabels.students.sweeps.reading import AGAIN, SweepRecord, read_sweep
from softlabels.students.sweeps.results import Line, SweepResult, spread
from softlabels.students.sweeps.temperature_chart import difference_chart, temperature_charts
from softlabels.system.humanize import counted, elapsed_words, few, short

CHARTS = 4  # students that get a chart against T
FEW = 12  # settings in the first table, and in the chart of differences
MOST = 1000  # rows of a table
RECIPE = ("epochs", "batch_size", "loss", "rows", "holdout", "data_seed", "precision", "device")
VARIED = ("student", "T", "alpha", "lr", "weight_decay")


def sweep_page(place: str) -> Page:
    """place: the folder of a sweep. Raises UsageError as `read_sweep` does."""
    record = read_sweep(place)
    result = record.result
    sections = [
        Section("The temperature", temperature_charts(result, CHARTS)),
        Section("The best settings", _settings(result)),
        Section("Learning curves", _curves(record)),
        Section("Use the best student", _use(record)),
        Section("What ran", _ran(record)),
        Section("All students", _students(record)),
    ]
    data = record.ran.get("data", {}).get("data")
    version = record.ran.get("versions", {}).get("softlabels")
    return Page(
        kind="Sweep",
        title=f"Students of {short(str(record.ran.get('teacher', 'a teacher')))}"
        + (f" on {short(str(data))}" if data else ""),
        lead=result.verdict or _without_verdict(result),
        sections=[section for section in sections if section.blocks],
        tiles=_tiles(result),
        remarks=_remarks(record),
        foot=f"The sweep in {place}, {counted(len(result.ended), 'student')}, trained with "
        f"softlabels {version or 'of an earlier version'}.",
    )


def _without_verdict(result: SweepResult) -> str:
    """What can be said where nothing is compared with hard labels."""
    best = result.best
    return (
        f"At their best, with {result.named(best.setting)}, students have {_shown(result, best)} "
        f"{result.measure.title}. There is nothing of hard labels to compare that with."
    )


def _shown(result: SweepResult, line: Line) -> str:
    return f"{line.mean:.{result.measure.digits}f}"


def _tiles(result: SweepResult) -> list[Tile]:
    best, digits = result.best, result.measure.digits
    seeds = max(len(line.values) + line.failures for line in result.lines)
    tiles = [Tile(_shown(result, best), result.measure.title, result.named(best.setting))]
    hard = [line for line in result.lines if line.setting.is_hard and line.values]
    if hard and result.measure.name != "kl":
        base = min(hard, key=lambda line: line.key)
        tiles.append(Tile(_shown(result, base), "with hard labels alone", result.way(base.setting)))
    if best.differences:
        mean = sum(best.differences) / len(best.differences)
        error = best.difference_error
        note = "" if error is None else f"standard error {error:.{digits}f}"
        tiles.append(Tile(f"{mean:+.{digits}f}", "difference by seed", note))
    settings = counted(len(result.lines), "setting")
    tiles.append(
        Tile(f"{len(result.ended):,}", "students", f"{settings}, {counted(seeds, 'seed')}")
    )
    return tiles


def _remarks(record: SweepRecord) -> list[Remark]:
    result = record.result
    remarks = []
    if record.unknown:
        remarks.append(
            Remark(
                f"the sweep was begun anew with more settings and is not finished: "
                f"{counted(len(record.unknown), 'file')} of other students "
                f"{'lies' if len(record.unknown) == 1 else 'lie'} in its folder "
                f"({few(record.unknown)}). This page shows what was complete before.",
                "warning",
            )
        )
    failed = [one for one in result.ended if one.metrics is None]
    if failed:
        remarks.append(
            Remark(
                f"{counted(len(failed), 'student')} of {len(result.ended):,} failed, the first "
                f"{failed[0].trial.name}: {failed[0].failure}. Means are of the others.",
                "warning",
            )
        )
    if len(result.lines) > 1:
        remarks.append(
            Remark(
                f"the best of {len(result.lines):,} settings looks better on the rows that chose "
                f"it than it is: measure {BEST} on data of its own."
            )
        )
    return remarks


def _settings(result: SweepResult) -> list[Block]:
    lines = sorted((line for line in result.lines if line.values), key=lambda line: line.key)
    first = lines[:FEW]
    hard = [line for line in lines if line.setting.is_hard]
    if hard and hard[0] not in first:
        first.append(hard[0])
    chart = difference_chart(result, FEW) if result.measure.name != "kl" else None
    caption = (
        f"{result.measure.title}, the best first: mean and spread (standard deviation) over seeds, "
        f"and the difference to hard labels with the same seeds and way of training"
    )
    blocks: list[Block] = [_table(result, first, caption)]
    if len(lines) > len(first):
        blocks.append(_table(result, lines[:MOST], f"All {_of(lines)} settings", folded=True))
    return [*blocks, *([chart] if chart else [])]


def _of(rows: Sequence[Any]) -> str:
    return f"{len(rows):,}" if len(rows) <= MOST else f"{MOST:,} best of {len(rows):,}"


def _table(result: SweepResult, lines: Sequence[Line], caption: str, folded: bool = False) -> Table:
    digits = result.measure.digits

    def text(value: float | None, sign: str = "") -> str | None:
        return None if value is None else f"{value:{sign}.{digits}f}"

    rows = [
        [
            line.setting.targets,
            *(_cell(getattr(line.setting, name)) for name in result.varied),
            text(line.mean),
            text(spread(line.values)),
            text(line.as_json["difference"], "+"),
            text(line.difference_error),
            len(line.values),
            line.failures,
        ]
        for line in lines
    ]
    varied = [name.replace("_", " ") for name in result.varied]
    head = ["learns from", *varied, "mean", "spread", "difference", "its standard error",
            "seeds", "failed"]  # fmt: skip
    if not any(line.failures for line in result.lines):
        head, rows = head[:-1], [row[:-1] for row in rows]
    return Table(caption, head, rows, tuple(range(1 + len(varied), len(head))), folded)


def _cell(value: str | float) -> str:
    return value if isinstance(value, str) else plain(value)


def _curves(record: SweepRecord) -> list[Block]:
    charts = curve_charts(record)
    if charts:
        return list(charts)
    return [Remark(f"{CURVES} is not here or can't be read; {AGAIN}.", "warning")]


def _use(record: SweepRecord) -> list[Block]:
    result, student = record.result, record.result.best_student
    best = shlex.quote(str(Path(result.out) / BEST))
    dump = record.ran.get("data", {}).get("dump")
    commands = [f"softlabels eval {best} --data DATA --split SPLIT"]
    if isinstance(dump, str):
        commands.append(f"softlabels eval {best} --against {shlex.quote(dump)}")
    commands.append(f"softlabels export {best} --to onnx")
    held = result.measure.of((student.metrics or {})["held_out"])
    return [
        Text(
            f"{BEST} is the student of {result.named(student.trial.setting)}, seed "
            f"{student.trial.seed}: of the setting that is best on average, the one with the best "
            f"held-out score, {held:.{0 if result.measure.name == 'errors' else 4}f} "
            f"{result.measure.title}. Measure it on data that chose nothing, compare it with its "
            f"teacher, or ship it:"
        ),
        Command("\n".join(commands)),
    ]


def _ran(record: SweepRecord) -> list[Block]:
    ran = record.ran
    if not ran:
        return [Remark(f"the results do not say what ran; {AGAIN}.", "warning")]
    data, options, versions = (ran[name] for name in ("data", "options", "versions"))
    rows = data.get("rows")
    facts = {
        "teacher": ran.get("teacher"),
        "dump": data.get("dump"),
        "plan of the dump": data.get("plan"),
        "data": f"{data.get('data')}, split {data.get('split')}"
        + (f", {counted(rows, 'row')}" if isinstance(rows, int) else ""),
        "held out": counted(record.result.measure.rows, "row"),
        **{_title(name): _listed(options.get(name)) for name in VARIED},
        "seeds": f"{options.get('seeds')}, from {options.get('seed')}",
        **{_title(name): _listed(options.get(name)) for name in RECIPE},
        "ended": _ended(ran),
        "versions": ", ".join(f"{name} {text}" for name, text in versions.items()),
    }
    blocks: list[Block] = [
        Facts({name: str(value) for name, value in facts.items() if value not in (None, "")})
    ]
    if ran.get("command"):
        blocks += [Text("The same students come of:"), Command(str(ran["command"]))]
    return blocks


def _title(name: str) -> str:
    return name.replace("_", " ")


def _listed(value: Any) -> str | None:
    values = value if isinstance(value, list) else [value]
    there = [_cell(each) for each in values if isinstance(each, str | int | float)]
    return ", ".join(there) or None


def _ended(ran: dict[str, Any]) -> str:
    try:
        began, ended = (datetime.fromisoformat(ran[name]) for name in ("last_run_began", "ended"))
        took = elapsed_words((ended - began).total_seconds())
    except (LookupError, TypeError, ValueError):
        return ""
    more = " of the run that ended it" if ran["options"].get("resume") else ""
    return f"{ended:%Y-%m-%d %H:%M} {ended:%Z}, after {took}{more}"


def _students(record: SweepRecord) -> list[Block]:
    measure = record.result.measure
    there = [one for one in record.result.ended if one.metrics]
    there.sort(key=lambda one: measure.key((one.metrics or {})["held_out"]))
    failed = [one for one in record.result.ended if not one.metrics]
    every = [*failed, *there]
    rows = [
        [
            one.trial.setting.targets,
            *(_cell(getattr(one.trial.setting, name)) for name in record.result.varied),
            one.trial.seed,
            None if one.metrics is None else _score(measure.of(one.metrics["held_out"])),
            None if one.metrics is None else one.metrics["held_out"].get("nll"),
            None if one.metrics is None else one.metrics["epoch"],
            one.failure or f"{one.trial.name}.pt",
        ]
        for one in every[:MOST]
    ]
    varied = [_title(name) for name in record.result.varied]
    head = ["learns from", *varied, "seed", measure.name, "NLL", "epoch", "file"]
    numbers = tuple(range(1 + len(varied), len(head) - 1))
    caption = f"{_of(every)} students on {counted(measure.rows, 'held-out row')}, the best first"
    blocks: list[Block] = [
        Table(caption + (", after those that failed" if failed else ""), head, rows, numbers, True),
        Text(f"The files are in the folder students; {TABLE} has all measures of each student."),
    ]
    return blocks


def _score(value: float) -> float | int:
    return int(value) if math.isfinite(value) and value == int(value) else value
