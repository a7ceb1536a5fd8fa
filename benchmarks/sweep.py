"""24 students in a sweep, over the same students one after another by `train`.

    python -m benchmarks.sweep [--student mlp:30x30] [--rows 0] [--shape 784] [--epochs 20]
                               [--batch-size 256] [--repeats 3] [--threads 2] [--dump DIR] [--cold]

The students learn from the digits or from --dump, at three temperatures and from hard labels, or
with --rows from so many made rows of 784 numbers, or of pictures such as --shape 1 28 28, without
labels, at four; with six seeds each. Both ways are whole: `train` opens the dump 24 times and the
sweep once, checkpoints are written, and the sweep also writes its tables. They run in turns after
one warm-up of each, in one process. A ratio is the median of the pairs' ratios, by the clock and by
CPU time, with the smallest and the largest beside it. It also says by how much the weights differ
at most, and in how many students by more than 1e-5. Nothing here is a test.

A student's arithmetic bounds the gain: it is the same either way. What is saved is everything
around it, for each of 24: opening, checks, gathering rows, and the start of each small kernel.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import datasets
import torch

import softlabels
from benchmarks.ratios import make_data
from softlabels.models.specs import build_model

SEEDS = 6


def main() -> None:
    datasets.disable_progress_bars()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--student", default="mlp:30x30")
    parser.add_argument("--rows", type=int, default=0)
    parser.add_argument("--shape", type=int, nargs="+", default=[784])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dump", help="learn from this dump, which has labels")
    parser.add_argument("--cold", action="store_true", help="without a warm-up")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    load = f"load {os.getloadavg()[0]:.1f}"
    print(f"torch {torch.__version__}, {given.threads} threads, {os.cpu_count()} cores, {load}")
    with tempfile.TemporaryDirectory() as place:
        measure(Path(place), given)


def measure(place: Path, given: argparse.Namespace) -> None:
    words = {
        "dump": given.dump or make_dump(place, given.rows, given.shape), "student": given.student,
        "epochs": given.epochs, "batch_size": given.batch_size, "device": "cpu",
        "alpha": 1.0 if given.rows else 0.9,
    }  # fmt: skip
    temperatures = [2.0, 1.0, 4.0, 8.0] if given.rows else [None, 1.0, 4.0, 8.0]
    students = [(T, seed) for T in temperatures for seed in range(SEEDS)]
    runs = {
        "together": lambda: together(place, words, [T for T in temperatures if T]),
        "alone": lambda: alone(place, words, students),
    }
    pairs = []
    for repeat in range(given.cold, given.repeats + 1):
        times = {name: timed(run) for name, run in runs.items()}
        if repeat:  # the first one warms up
            pairs.append(times)
            print(
                ", ".join(f"{n} {clock:.2f} s ({cpu:.2f} CPU)" for n, (clock, cpu) in times.items())
            )
    for number, what in enumerate(("clock", "CPU time")):
        ratios = [pair["together"][number] / pair["alone"][number] for pair in pairs]
        middle = statistics.median(ratios)
        print(
            f"together / alone by {what}: {middle:.3f} ({min(ratios):.3f} to {max(ratios):.3f}), "
            f"1/{1 / middle:.1f}"
        )
    differences = [difference(place, *one) for one in students]
    far = sum(one > 1e-5 for one in differences)
    print(f"weights differ by up to {max(differences):.1e}; by more than 1e-5 in {far} of 24")


def timed(run: Callable[[], Any]) -> tuple[float, float]:
    began = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - began[0], time.process_time() - began[1]


def together(place: Path, words: dict[str, Any], temperatures: list[float]) -> None:
    folder = place / "sweep"
    for path in folder.glob("**/*.*"):
        path.unlink()
    softlabels.sweep(**words, T=temperatures, seeds=SEEDS, out=folder)


def alone(place: Path, words: dict[str, Any], students: list[tuple[float | None, int]]) -> None:
    for T, seed in students:
        own = {"alpha": 0.0, "T": 1.0} if T is None else {"T": T}
        softlabels.train(**(words | own), seed=seed, out=place / f"{T}-{seed}.pt")


def difference(place: Path, T: float | None, seed: int) -> float:
    soft = "hard" if T is None else f"T{T:g}-a*"
    found = next((place / "sweep/students").glob(f"*-{soft}-*-s{seed}.pt"))
    one, other = (
        torch.load(path, weights_only=True)["state_dict"]
        for path in (found, place / f"{T}-{seed}.pt")
    )
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def make_dump(place: Path, rows: int, shape: list[int]) -> str:
    data, teacher, out = "digits", str(place / "t.pt"), str(place / "d")
    if rows:
        data = str(place / "data.parquet")
        make_data(data, shape, rows)
        torch.manual_seed(0)
        torch.save(build_model("mlp:100", shape, 10).state_dict(), teacher)
    else:
        softlabels.fit(data=data, model="mlp:100", epochs=3, device="cpu", out=teacher)
    model = "mlp:100" if rows else None
    softlabels.dump(teacher=teacher, model=model, data=data, out=out, device="cpu")
    return out


if __name__ == "__main__":
    main()
