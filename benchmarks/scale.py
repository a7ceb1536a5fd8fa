"""What trust costs: verify over reading, memory at three sizes, ranks over one process.

    python -m benchmarks.scale [--repeats 5] [--rows 200000] [--only NAME] [--json FILE]

Verify is compared with reading the same bytes (from the page cache, so against the fastest disk
there could be) and with hashing them by as many threads. Memory is the largest anonymous memory of
a process of its own, at one, three and ten times --rows; pages of mapped files, which the system
takes back at will, are not in it. Inputs that a training keeps are memory that it shares with its
workers, and stand apart.
"""

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import datasets
import torch

import softlabels
from benchmarks.ratios import make_data
from softlabels.models.specs import build_model
from tests.capture.test_engines import finish, ranks
from tests.processes import start

WATCHED = """
import json, sys, threading, time
import softlabels

peak = [0, 0]

def watch():
    while True:
        with open("/proc/self/status") as file:
            lines = [line.split() for line in file if line.startswith(("RssAnon", "RssShmem"))]
        for number, line in enumerate(lines):
            peak[number] = max(peak[number], int(line[1]))
        time.sleep(0.005)

threading.Thread(target=watch, daemon=True).start()
for verb, options in json.loads(sys.argv[1]):
    getattr(softlabels, verb)(**options)
print(*peak)
"""


def main() -> None:
    datasets.disable_progress_bars()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rows", type=int, default=200_000, help="of the smallest data")
    parser.add_argument("--only", default="", help="verify, ranks or memory")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        results: dict = {}
        if options.only in "verify":
            results |= verify_speed(Path(place), options.repeats)
        if options.only in "ranks":
            results |= rank_scaling(Path(place), options.repeats)
        if options.only in "memory":
            results |= peak_memory(Path(place), options.rows)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


def made(place: Path, name: str, features: int, spec: str, classes: int, rows: int) -> dict:
    data, teacher = str(place / f"{name}.parquet"), str(place / f"{name}.pt")
    make_data(data, [features], rows)
    torch.manual_seed(0)
    torch.save(build_model(spec, [features], classes).state_dict(), teacher)
    return {"teacher": teacher, "model": spec, "data": data}


def verify_speed(place: Path, repeats: int) -> dict:
    out = place / "verified"
    softlabels.dump(**made(place, "v", 16, "mlp:32", 1000, 200_000), out=str(out))
    files = sorted((out / "data").iterdir())
    size = sum(file.stat().st_size for file in files)

    def read() -> None:
        buffer = bytearray(1 << 20)
        for path in files:
            with path.open("rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass

    def digest(path: Path) -> None:
        with path.open("rb") as file:
            hashlib.file_digest(file, "sha256")

    def hashed() -> None:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(digest, files))

    def verified() -> None:
        assert softlabels.verify(dump=str(out)).good

    works = {"read": read, "sha256": hashed, "verify": verified}
    speeds = {name: size / 1e6 / seconds for name, seconds in in_turn(works, repeats).items()}
    for name, speed in speeds.items():
        print(f"{name:<10} {speed:10,.0f} MB/s   {size / 1e6:,.0f} MB, C=1000, {len(files)} shards")
    return {"MB/s": speeds}


def rank_scaling(place: Path, repeats: int) -> dict:
    options = made(place, "r", 784, "mlp:1200x1200", 10, 60_000) | {"shard_rows": 2000}
    count = iter(range(10_000))

    def out() -> str:
        return str(place / f"ranks-{next(count)}")

    works: dict[str, Callable[[], None]] = {
        "one process": lambda: _fine(finish([start(softlabels.dump, **options, out=out())])),
        "one rank": lambda: _fine(finish(ranks(1, **options, out=out()))),
        "two ranks": lambda: _fine(finish(ranks(2, **options, out=out()))),
    }
    seconds = in_turn(works, repeats)
    began, cpu = time.perf_counter(), time.process_time()
    softlabels.dump(**options, out=out())
    cores = (time.process_time() - cpu) / (time.perf_counter() - began)
    print(f"one process keeps {cores:.2f} of {os.cpu_count()} cores busy")
    for name, value in seconds.items():
        print(
            f"{name:<12} {value:8.2f} s   {seconds['one process'] / value:6.2f} times one process"
        )
    return {"ranks, seconds": seconds, "cores that one process keeps busy": cores}


def _fine(codes: list[int]) -> None:
    assert not any(codes), codes


def peak_memory(place: Path, base: int) -> dict:
    results: dict[str, float] = {}
    for rows in (base, 3 * base, 10 * base):
        options = made(place, f"m{rows}", 16, "mlp:32", 100, rows) | {"shard_rows": 10_000}
        out, student = str(place / f"memory-{rows}"), str(place / f"s{rows}.pt")
        os.environ["SOFTLABELS_CACHE"] = str(place / f"cache-{rows}")
        # the first opening of a file by `datasets` converts it into its cache; that is not ours
        softlabels.plan(**options, out=out)
        train = {
            "dump": out, "source": options["data"], "student": "linear", "T": 2, "alpha": 1,
            "epochs": 1, "batch_size": 256, "out": student,
        }  # fmt: skip
        verbs = {
            "dump": ["dump", options | {"out": out}],
            "verify": ["verify", {"dump": out}],
            "resume": ["dump", options | {"out": out, "resume": True}],
            "train": ["train", train],
            "train again": ["train", train],
        }
        for verb, call in verbs.items():
            done = subprocess.run([sys.executable, "-c", WATCHED, json.dumps([call])],
                                  capture_output=True, text=True, check=True)  # fmt: skip
            anonymous, shared = (int(part) / 1024 for part in done.stdout.split())
            results[f"{verb}, {rows:,}"] = anonymous
            shown = f"{anonymous:8.0f} MiB and {shared:6.0f} shared"
            print(f"{verb:<12} {rows:>10,} rows {shown}", flush=True)
    return {"peak anonymous MiB": results}


def in_turn(works: dict[str, Callable[[], None]], repeats: int) -> dict[str, float]:
    """Median seconds of each, measured A B C A B C … after one round that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(repeats + 1):
        for name, work in works.items():
            began = time.perf_counter()
            work()
            if turn:
                seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}


if __name__ == "__main__":
    main()
