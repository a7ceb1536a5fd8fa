"""The tables of a sweep as Parquet has them: a row for each student, a row for each epoch."""

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from softlabels.students.history import History
from softlabels.students.sweeps.grid import Trial
from softlabels.students.sweeps.results import Ended, Measure

WHOSE = [
    ("student", pa.string()),
    ("T", pa.float64()),
    ("alpha", pa.float64()),
    ("lr", pa.float64()),
    ("weight_decay", pa.float64()),
    ("seed", pa.int64()),
]
OF_EPOCH = [("epoch", pa.int64()), ("loss", pa.float64()), ("learning_rate", pa.float64())]


def results_table(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Columns of all rows: a student that failed has none of the held-out rows."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pa.table({name: pa.array([row.get(name) for row in rows]) for name in names})


def curves_table(ended: Iterable[Ended], measure: Measure) -> tuple[pa.Table, list[Trial]]:
    """A row for each epoch of each student, also of one that failed in a later one; and which
    students have none, because their history can't be read.

    Columns: those of the setting and the seed, `epoch`, `loss` and `learning_rate`, and
    `held_out_NAME` of what the epoch is chosen by. float64 but `epoch`, `seed` and errors, int64.
    """
    chosen = [(f"held_out_{name}", kind) for name, kind in _chosen_by(measure)]
    rows: list[dict[str, Any]] = []
    missing = []
    for one in ended:
        setting = one.trial.setting
        whose = {**vars(setting), "seed": one.trial.seed}
        try:
            entries = History(one.checkpoint).read()
        except (OSError, ValueError):
            if one.metrics is not None:  # else it failed in its first epoch, which is no entry
                missing.append(one.trial)
            continue
        for entry in entries:
            held = {f"held_out_{name}": v for name, v in (entry.get("held_out") or {}).items()}
            rows.append(whose | entry | held)
    schema = pa.schema([*WHOSE, *OF_EPOCH, *chosen])
    return pa.Table.from_pylist(rows, schema=schema), missing


def _chosen_by(measure: Measure) -> list[tuple[str, pa.DataType]]:
    if measure.name == "errors":
        return [("errors", pa.int64()), ("nll", pa.float64())]
    names = ("map", "nll") if measure.name == "map" else ("kl",)
    return [(name, pa.float64()) for name in names]
