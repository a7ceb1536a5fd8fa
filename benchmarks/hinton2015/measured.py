"""What no command does: transfer sets without some digits, moved biases, a sweep's test errors."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import softlabels

EVERY = 10  # of the training rows one is held out
BIASES = np.array(sorted(np.arange(-12, 12.01, 0.25), key=abs))  # of equal ones the smaller is best


def write_parts(train: Path, folder: Path, parts: dict[str, list[int]]) -> dict[str, int]:
    """Write held.parquet, every tenth row, and of the others those of these digits, each under
    its name. Returns how many rows each has."""
    table = pq.read_table(train)
    is_held = np.arange(len(table)) % EVERY == 0
    rest = table.filter(~is_held)
    written = {"held": table.filter(is_held)} | {
        name: rest.filter(pc.is_in(rest["label"], value_set=pa.array(digits)))
        for name, digits in parts.items()
    }
    for name, rows in written.items():
        pq.write_table(rows, folder / f"{name}.parquet")
    return {name: len(rows) for name, rows in written.items()}


def moved_biases(checkpoint: Path, held: Path, test: Path, classes: list[int]) -> dict[str, Any]:
    """Errors with one number added to these classes' logits: chosen on the held-out rows, and, for
    the paper's way, on the test rows themselves.

    Returns {"plain", "held", "test"}: each {"bias", "errors", "of_classes", "rows_of_classes"},
    all of the test rows.
    """
    known = {name: _answers(checkpoint, path) for name, path in (("held", held), ("test", test))}
    # of equal ones the smallest, and towards what is expected: a class that the student never saw
    # is too low, classes that it saw alone are too high
    tried = -BIASES if len(classes) == 1 else BIASES

    def best(name: str) -> float:
        errors = [int((_wrong(*known[name], classes, bias)).sum()) for bias in tried]
        return float(tried[int(np.argmin(errors))])

    def at(bias: float) -> dict[str, Any]:
        wrong = _wrong(*known["test"], classes, bias)
        is_of = np.isin(known["test"][1], classes)
        return {"bias": bias, "errors": int(wrong.sum()), "of_classes": int(wrong[is_of].sum()),
                "rows_of_classes": int(is_of.sum())}  # fmt: skip

    return {"plain": at(0.0), "held": at(best("held")), "test": at(best("test"))}


def errors_of_all(sweep: Path, test: Path) -> dict[str, Any]:
    """Test errors of every student of a sweep: {"students": [{T, alpha, seed, errors}]}."""
    rows = pq.read_table(sweep / "results.parquet").to_pylist()
    found = []
    for row in rows:
        result = softlabels.evaluate(checkpoint=row["checkpoint"], data=str(test))
        kept = {name: row[name] for name in ("T", "alpha", "seed", "held_out_errors")}
        found.append(kept | {"errors": result["errors"]})
    return {"students": found}


def _answers(checkpoint: Path, data: Path) -> tuple[np.ndarray, np.ndarray]:
    """Logits [N, C] and labels [N], by a dump of the student."""
    with tempfile.TemporaryDirectory() as place:
        out = str(Path(place) / "answers")
        softlabels.dump(teacher=str(checkpoint), data=str(data), out=out)
        batches = softlabels.load(out, inputs=False).batches(4096)
        answers = [(batch["logits"].float().numpy(), batch["label"].numpy()) for batch in batches]
    logits, labels = (np.concatenate(each) for each in zip(*answers, strict=True))
    return logits, labels


def _wrong(
    logits_NC: np.ndarray, labels_N: np.ndarray, classes: Sequence[int], bias: float
) -> np.ndarray:
    moved = logits_NC.copy()
    moved[:, list(classes)] += bias
    return np.asarray(moved.argmax(1) != labels_N)
