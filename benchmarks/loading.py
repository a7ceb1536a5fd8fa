"""Stored logits in batches of 256: speed, first batch, bytes and memory, beside other formats.

    python -m benchmarks.loading [--rows 200000] [--repeats 5] [--quick] [--only WORD] [--json FILE]

Every way of reading is measured in turn, A B C A B C …, with one torch thread. A ratio is the
median of the rounds' ratios, with the smallest and largest beside it. Files lie in the page cache,
into which they were read from the disk, except where it says cold. The limit is a bare memory map
from which torch gathers rows by a permutation; it makes that permutation and holds one batch, as
the others do. Each shuffled epoch is read beside it, in turns of some milliseconds. Nothing here is
a test. A quarter of an hour on two cores.
"""

import argparse
import gc
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import datasets
import torch

import softlabels
from benchmarks import offline
from benchmarks.pace import Pace
from benchmarks.page_cache import drop, read_again
from benchmarks.rivals import BATCH, SLOW_SHARE, Way, missing, ways, write

CLASSES = (10, 1000)
SPEEDS = ("sequential", "shuffled", "of the limit")
MAPPED, LIMIT = "softlabels, mapped", "memory map, index_select"
MEMORY_SHARE = 4  # memory is measured at a quarter of the rows, and at five times that
GOALS: list[tuple[str, str, float, Callable[[dict], float]]] = [
    ("shuffled, mapped over bare memory map, C=1000", "at least", 0.9,
     lambda r: r["speed, C=1000"][MAPPED]["of the limit"]["median"]),
    ("shuffled, mapped over datasets in torch format, C=1000", "at least", 8,
     lambda r: r["speed, C=1000"]["datasets, torch format"]["mapped over it"]["median"]),
    ("first batch of a dump never seen, mapped, C=1000, s", "at most", 0.2,
     lambda r: r["first batch, C=1000"][MAPPED]["never seen"]["median"]),
    ("training from the store over tensors in memory", "at least", 0.97,
     lambda r: r["training"]["batches over tensors"]["median"]),
    ("bytes a row over raw float16, C=1000", "at most", 1.01,
     lambda r: r["speed, C=1000"][MAPPED]["bytes a row"] / 2000),
    ("memory for each further row, mapped, bytes (a row has 2,000)", "at most", 32,
     lambda r: r["memory"][MAPPED]["bytes a further row"]),
]  # fmt: skip


class Bench:
    """Where files lie, how many rows they have, and what was measured."""

    def __init__(self, place: Path, rows: int, repeats: int, least: float, most: float) -> None:
        self.place, self.rows, self.repeats = place, rows, repeats
        self.pace = Pace(least, most)
        self.results: dict[str, Any] = {}

    def folder(self, classes: int, rows: int | None = None) -> Path:
        """Everything in every format; with `rows`, that many in fewer formats."""
        folder = self.place / f"C{classes}-{rows or 'all'}"
        if not folder.exists():
            folder.mkdir()
            write(folder, rows or self.rows, classes, only_ours=rows is not None)
            read_again(folder)
        return folder

    def fresh(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self.place, prefix="cache-"))

    def speed(self) -> None:
        """Sequential and shuffled epochs, and the latter's shares of the limit."""
        for classes in CLASSES:
            everyone = [w for w in ways(self.folder(classes)) if "dictionary" not in w.name]
            cache = self.fresh()
            stores = [way.open(cache) for way in everyone]
            for way, store in zip(everyone, stores, strict=True):
                self.pace.rate(way, store, True, 0)
                way.settle(store)
            results: dict = {way.name: {name: [] for name in SPEEDS} for way in everyone}
            for turn in range(1, self.repeats + 1):
                for way, store in zip(everyone, stores, strict=True):
                    sequential = self.pace.rate(way, store, False, turn)
                    shuffled, most = self.pace.beside(everyone[0], stores[0], way, store, turn)
                    figures = sequential, shuffled, shuffled / most
                    for name, figure in zip(SPEEDS, figures, strict=True):
                        results[way.name][name].append(figure)
            self.results[f"speed, C={classes}"] = {
                way.name: {
                    "bytes a row": way.bytes / self.rows_of(way),
                    "mapped over it": spread(ratios(results, MAPPED, way.name)),
                    **{name: spread(figures) for name, figures in results[way.name].items()},
                }
                for way in everyone
            }
            show_speed(classes, self.results[f"speed, C={classes}"])

    def rows_of(self, way: Way) -> int:
        few = way.name.startswith(("webdataset", "mosaicml"))
        return max(BATCH, self.rows // SLOW_SHARE) if few else self.rows

    def first_batch(self) -> None:
        """Seconds from nothing to the first shuffled batch: never seen (an empty cache), again."""
        for classes in CLASSES:
            everyone = [w for w in ways(self.folder(classes)) if "2 workers" not in w.name]
            taken: dict = {way.name: {"never seen": [], "again": []} for way in everyone}
            for _ in range(self.repeats):
                for way in everyone:
                    cache = self.fresh()
                    for kind in ("never seen", "again"):
                        taken[way.name][kind].append(first_batch(way, cache))
                    shutil.rmtree(cache)
            results = {
                name: {kind: spread(results) for kind, results in kinds.items()}
                for name, kinds in taken.items()
            }
            self.results[f"first batch, C={classes}"] = results
            print(f"\n| seconds to the first shuffled batch, C={classes} | never seen | again |")
            print("|---|---|---|")
            for name, kinds in results.items():
                print(f"| {name} | {words_of(kinds['never seen'])} | {words_of(kinds['again'])} |")

    def memory(self) -> None:
        """The growth of anonymous memory over two epochs, in a process of its own."""
        few = self.rows // MEMORY_SHARE
        print(f"\n| peak MiB beyond the start, C=1000 | {few:,} rows | {5 * few:,} | bytes a row |")
        print("|---|---|---|---|")
        self.results["memory"] = {}
        for name in [way.name for way in ways(self.folder(1000, few))]:
            small, large = (
                watch(self.folder(1000, rows), name, self.fresh()) for rows in (few, 5 * few)
            )
            each = (large - small) * 2**20 / (4 * few)
            self.results["memory"][name] = {
                f"{few} rows": small, f"{5 * few} rows": large, "bytes a further row": each,
            }  # fmt: skip
            print(f"| {name} | {small:.1f} | {large:.1f} | {each:.0f} |", flush=True)

    def cold(self) -> None:
        """Shuffled rows from files that are not in the page cache."""
        folder, cache = self.folder(1000), self.fresh()
        names = (LIMIT, MAPPED, "… shuffle='blocks(64, 512)'")
        chosen = [way for way in ways(folder) if way.name in names]
        taken: dict = {way.name: [] for way in chosen}
        stayed = 0.0
        for turn in range(self.repeats + 1):
            for way in chosen:
                if turn:
                    stayed = max(stayed, drop(way.files))
                store = way.open(cache)
                speed = self.pace.rate(way, store, True, turn, once=True)
                way.settle(store)  # in turn 0 it is hashed, and is known to be whole from then on
                taken[way.name] += [speed] if turn else []
                del store
                gc.collect()
        self.results["cold files"] = {name: spread(results) for name, results in taken.items()}
        self.results["cold files"] |= {"share of pages that stayed in memory": stayed}
        print("\n| cold files, shuffled, C=1000 | thousand rows/s |\n|---|---|")
        for name, speeds in taken.items():
            print(f"| {name} | {words_of(spread(speeds))} |")
        print(
            f"At most {stayed:.1%} of a way's pages stayed in memory when its files were dropped."
        )

    def training(self) -> None:
        self.results |= offline.measure(self.place, self.repeats, quick=self.pace.most < 1)


def first_batch(way: Way, cache: Path) -> float:
    began = time.perf_counter()
    store = way.open(cache)
    reading = iter(way.batches(store, True, 0))
    next(reading)
    taken = time.perf_counter() - began
    way.settle(store)
    del reading, store
    gc.collect()
    return taken


def watch(folder: Path, name: str, cache: Path) -> float:
    """MiB of the same way in a process of its own, its second epoch too."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", str(folder), name, str(cache)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return float(done.stdout.split()[-1])


def ratios(results: dict, a: str, b: str) -> list[float]:
    return [x / y for x, y in zip(results[a]["shuffled"], results[b]["shuffled"], strict=True)]


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def words_of(results: dict[str, float]) -> str:
    median, least, most = (short(results[key]) for key in ("median", "min", "max"))
    return f"{median} ({least} to {most})"


def short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def show_speed(classes: int, results: dict) -> None:
    print(f"\n| thousand rows/s, C={classes} | {' | '.join(SPEEDS)} | bytes a row |")
    print("|---|---|---|---|---|")
    for name, one in results.items():
        cells = [words_of(one[kind]) for kind in SPEEDS]
        print(f"| {name} | {' | '.join(cells)} | {one['bytes a row']:.0f} |", flush=True)


def show_goals(results: dict) -> None:
    print("\n| goal | bound | measured | |\n|---|---|---|---|")
    results["goals"] = {}
    for name, kind, bound, figure in GOALS:
        try:
            value = results["goals"][name] = figure(results)
        except KeyError:  # that part was left out
            continue
        met = value >= bound if kind == "at least" else value <= bound
        print(f"| {name} | {kind} {bound} | {value:.3g} | {'met' if met else 'not met'} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows, two rounds")
    parser.add_argument("--only", default="", help="parts whose name holds this")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.quick:
        options.rows, options.repeats = options.rows // 10, 2
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    torch.set_num_threads(1)
    print(f"softlabels {softlabels.__version__}, torch {torch.__version__}, 1 thread, "
          f"OMP_WAIT_POLICY={os.environ['OMP_WAIT_POLICY']}, {os.cpu_count()} cores, "
          f"{options.rows:,} rows, float16, batches of {BATCH}")  # fmt: skip
    print("\n".join(missing()))
    least, most = (0.1, 0.5) if options.quick else (0.4, 1.5)
    with tempfile.TemporaryDirectory() as place:
        bench = Bench(Path(place), options.rows, options.repeats, least, most)
        parts = (bench.speed, bench.first_batch, bench.memory, bench.cold,
                 bench.training)  # fmt: skip
        for part in parts:
            if options.only in part.__name__:
                part()
    show_goals(bench.results)
    if options.json:
        options.json.write_text(json.dumps(bench.results, indent=2) + "\n")


if __name__ == "__main__":
    main()
