"""Two teachers in one pass over the same pictures, beside a dump of each alone.

    python -m benchmarks.several [--pictures 1536] [--threads 2] [--repeats 5] [--json FILE]

Pictures are the JPEGs of `benchmarks.pictures`, 500×375, which become [3, 224, 224]. One teacher
computes nothing, the other is a small convolutional net; each gives 1,000 logits. `both` is the
command `softlabels.dump` with both, `null` and `net` are the same command with one, into folders
that are removed afterwards. All three run in turn in one process, after one warm-up.

The first line is a prediction: what `softlabels.plan` says of the three, before any of them runs.
Then the ratio of `both` to `null` and `net` one after the other, the median of the rounds' ratios
with the smallest and the largest beside it, by the clock and by the CPU time of all threads, which
others on the machine change less. Below 1, the pass saves: a half would be two teachers for the
price of one. Nothing here is a test.
"""

import argparse
import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import datasets
import torch
from torch import Tensor, nn

import softlabels
from benchmarks.pictures import BATCH, CLASSES, PREPROCESS, Null, save

SAMPLES = 3
WAYS = {"null": ["null"], "net": ["net"], "both": ["null", "net"]}


class Net(nn.Module):
    """Three convolutions and a linear layer: about 15 million multiplications a picture."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 16, 7, 4, 3), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(),
            nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(64, CLASSES),
        )  # fmt: skip

    def forward(self, inputs_NCHW: Tensor) -> Tensor:
        logits_NC: Tensor = self.layers(inputs_NCHW)
        return logits_NC


def main() -> None:
    datasets.disable_progress_bars()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=1536)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(
        f"torch {torch.__version__}, {options.threads} threads, {os.cpu_count()} cores, load "
        f"{os.getloadavg()[0]:.1f}, {options.pictures:,} pictures"
    )
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        data = place / "pictures.parquet"
        save(str(data), options.pictures)
        words = {
            "data": str(data),
            "preprocess": PREPROCESS,
            "batch_size": BATCH,
            "workers": options.threads,
            "device": "cpu",
        }
        foretold = predict(place, words)
        found = measure(place, words, options.repeats)
    report(foretold, found, options.pictures)
    if options.json:
        options.json.write_text(json.dumps({"plan": foretold, "runs": found}, indent=2) + "\n")


def teachers(way: str) -> dict[str, nn.Module]:
    made: dict[str, type[nn.Module]] = {"null": Null, "net": Net}
    return {name: made[name]().eval() for name in WAYS[way]}


def predict(place: Path, words: dict[str, Any]) -> dict[str, float]:
    """Seconds that `plan` foretells of each way: the median of some samples, taken in turn."""
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(SAMPLES):
        for way in WAYS:
            estimate = softlabels.plan(teacher=teachers(way), out=str(place / "o"), **words)
            seconds[way].append(estimate.seconds)
    return {way: median(found) for way, found in seconds.items()}


def measure(
    place: Path, words: dict[str, Any], repeats: int
) -> dict[str, list[tuple[float, float]]]:
    """Seconds of each run of each way, by the clock and of CPU time."""
    found: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    for turn in range(-1, repeats):
        for way in WAYS:
            made = teachers(way)
            clock, used = time.perf_counter(), time.process_time()
            softlabels.dump(teacher=made, out=str(place / "o"), **words)
            if turn >= 0:
                found[way].append((time.perf_counter() - clock, time.process_time() - used))
            shutil.rmtree(place / "o")  # or each run would be charged for fresh page cache
    return found


def report(
    foretold: dict[str, float], found: dict[str, list[tuple[float, float]]], pictures: int
) -> None:
    print(f"\n| | {' | '.join(WAYS)} | both over null + net |\n|---|{'---|' * (len(WAYS) + 1)}")
    ratio = foretold["both"] / (foretold["null"] + foretold["net"])
    cells = " | ".join(f"{pictures / foretold[way]:,.0f}" for way in WAYS)
    print(f"| plan, images/s | {cells} | {ratio:.2f} |")
    for place, name in enumerate(("the clock", "CPU time")):
        seconds = {way: [run[place] for run in runs] for way, runs in found.items()}
        ratios = [
            both / (null + net)
            for null, net, both in zip(*(seconds[way] for way in WAYS), strict=True)
        ]
        cells = " | ".join(f"{pictures / median(seconds[way]):,.0f}" for way in WAYS)
        spread = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"| by {name}, images/s | {cells} | {spread} |")


if __name__ == "__main__":
    main()
