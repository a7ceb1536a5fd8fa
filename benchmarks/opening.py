"""What opening for training costs: numbers are read, hashed, joined and kept in memory.

    python -m benchmarks.opening [--rows 400000] [--width 128] [--repeats 5] [--only LAYOUT]
                                 [--against CHECKOUT]

A dump of ten logits a row is joined with its source, a Parquet file: in the dump's order; in
another one, by numbers; by texts; in one row group. For each: rows a second of `load` and a pass
over all rows in order; the same once more, when the cache remembers what was checked; of `load` and
an epoch of shuffled batches of 256; and how much longer that epoch takes than later ones, `load`
left out, in a first run and in a second one, whose cache has the numbers. The digests alone stand
above: no reader that hashes each row is faster. Each figure is the median of processes of their
own, with the smallest and largest, by the clock and, where others use the machine, by CPU time;
--against runs another checkout of softlabels in turns with this one.
"""

import argparse
import hashlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

import softlabels
from softlabels.inputs.checked import SETTLED_SECONDS

CLASSES, GROUP_ROWS, BATCH = 10, 16_384, 256
LAYOUTS = ("in order", "mixed", "by texts", "one group")
HERE = Path(__file__).resolve().parents[1]


class Firsts(torch.nn.Module):
    """A teacher that costs nothing."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :10]


def make(place: Path, layout: str, rows: int, width: int) -> None:
    """`d`, a dump, and `source.parquet`, where its inputs are."""
    place.mkdir()
    values = np.random.default_rng(0).normal(size=(rows, width)).astype(np.float32)
    names = [f"row/{i:09d}" for i in range(rows)] if layout == "by texts" else list(range(rows))

    def write(order: np.ndarray) -> None:
        cells = pa.FixedSizeListArray.from_arrays(pa.array(values[order].reshape(-1)), width)
        table = pa.table({"x": cells, "name": pa.array(names).take(pa.array(order))})
        size = rows if layout == "one group" else GROUP_ROWS
        pq.write_table(table, place / "source.parquet", row_group_size=size)

    write(np.arange(rows))
    torch.jit.script(Firsts()).save(str(place / "t.pt"))
    softlabels.dump(
        teacher=str(place / "t.pt"), data=str(place / "source.parquet"), out=str(place / "d"),
        input_column="x", id_column="name", batch_size=4096,
    )  # fmt: skip
    if layout in ("mixed", "by texts"):
        write(np.random.default_rng(1).permutation(rows))


def once(place: Path, how: str) -> dict[str, float]:
    """Seconds of a process of its own, which has imported all that it needs."""
    small = place.parent / "small"
    epoch(softlabels.load(small / "d", source=str(small / "source.parquet")), True, 0)
    began, used = time.perf_counter(), time.process_time()
    dataset = softlabels.load(place / "d", source=str(place / "source.parquet"))
    seconds = {"load": time.perf_counter() - began}
    if how == "pass":
        seconds["pass"] = epoch(dataset, False, 0) + seconds["load"]
        seconds["CPU of pass"] = time.process_time() - used
    else:
        for number in range(4):
            seconds[f"epoch {number}"] = epoch(dataset, True, number)
    for thread in threading.enumerate():  # what a longer training would have written meanwhile
        if thread.name == "softlabels-save":
            thread.join()
    return seconds | {"peak MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def epoch(dataset: Any, shuffle: bool, number: int) -> float:
    began = time.perf_counter()
    for batch in dataset.batches(BATCH, shuffle=shuffle, epoch=number):
        assert len(batch["input"]) == len(batch["logits"])
    return time.perf_counter() - began


def digests(rows: int, width: int) -> float:
    """Seconds of CPU time of the digests alone."""
    size = width * 4
    cells = memoryview(np.random.default_rng(0).bytes(rows * size))
    began = time.process_time()
    for start in range(0, rows * size, size):
        hashlib.sha256(cells[start : start + size]).digest()
    return time.process_time() - began


def child(version: Path, place: Path, how: str, cache: Path) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, str(Path(__file__)), "--once", str(place), how],
        env=os.environ | {"PYTHONPATH": str(version), "SOFTLABELS_CACHE": str(cache)},
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def figures(version: Path, place: Path, rows: int) -> dict[str, float]:
    cache = place / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    first, again = child(version, place, "pass", cache), child(version, place, "pass", cache)
    shutil.rmtree(cache)
    epochs, second = child(version, place, "epochs", cache), child(version, place, "epochs", cache)
    later, later_again = (
        statistics.median(run[f"epoch {number}"] for number in (1, 2, 3))
        for run in (epochs, second)
    )
    return {
        "opened, k rows/s": rows / first["pass"] / 1e3,
        "by CPU time": rows / first["CPU of pass"] / 1e3,
        "opened again": rows / again["pass"] / 1e3,
        "again by CPU time": rows / again["CPU of pass"] / 1e3,
        "load and shuffled epoch": rows / (epochs["load"] + epochs["epoch 0"]) / 1e3,
        "later epochs": rows / later / 1e3,
        "first epoch over later": epochs["epoch 0"] / later,
        "… in a second run": second["epoch 0"] / later_again,
        "… load included": (second["load"] + second["epoch 0"]) / later_again,
        "peak MB": epochs["peak MB"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", choices=LAYOUTS, action="append")
    parser.add_argument("--against", type=Path, metavar="CHECKOUT")
    parser.add_argument("--once", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.once:
        print(json.dumps(once(Path(args.once[0]), args.once[1])))
        return
    versions = {"this": HERE} | ({"other": args.against.resolve()} if args.against else {})
    rate = statistics.median(args.rows / digests(args.rows, args.width) for _ in range(3)) / 1e3
    print(f"{args.rows:,} rows of {args.width} floats; k rows/s of CPU time, digests: {rate:,.0f}")
    for layout in args.only or LAYOUTS:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["SOFTLABELS_CACHE"] = f"{folder}/cache"
            place = Path(folder) / "large"
            make(place, layout, args.rows, args.width)
            make(Path(folder) / "small", layout, 100, args.width)
            time.sleep(SETTLED_SECONDS)  # else it is too young to note
            runs: dict[str, list[dict[str, float]]] = {name: [] for name in versions}
            for _ in range(args.repeats):
                for name, version in versions.items():
                    runs[name].append(figures(version, place, args.rows))
        for name, taken in runs.items():
            print(f"| {layout}, {name} | " + " | ".join(map(cell, columns(taken))) + " |")
    print("columns: " + ", ".join(taken[0]), flush=True)


def columns(taken: list[dict[str, float]]) -> list[list[float]]:
    return [sorted(one[key] for one in taken) for key in taken[0]]


def cell(values: list[float]) -> str:
    return f"{statistics.median(values):,.4g} ({values[0]:,.4g} to {values[-1]:,.4g})"


if __name__ == "__main__":
    main()
