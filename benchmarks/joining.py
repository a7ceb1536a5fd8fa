"""Labels without inputs, joined with their source: batches of 256 beside tensors in memory.

    python -m benchmarks.joining [--rows 50000] [--repeats 5] [--json FILE]

Inputs are 784 numbers in float32, logits 10 in float16. The limit gathers both from tensors by a
permutation. Ways are measured in turn, batch by batch; a ratio is the median of the rounds' ratios,
with the smallest and largest beside it. The first epoch reads the source, hashes every input and
compares it; its time is given apart. A minute on two cores.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import datasets
import numpy as np
import torch

import softlabels
from softlabels.targets.orders import permutation

BATCH, WIDTH, CLASSES = 256, 784, 10


class Firsts(torch.nn.Module):
    """A teacher that costs nothing."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :10]


def make(place: Path, rows: int) -> dict[str, dict[str, Any]]:
    """A dump with its inputs and one without, the source and the same in another order; what each
    way of loading is told."""
    x = np.random.default_rng(0).normal(size=(rows, WIDTH)).astype(np.float32)
    features = datasets.Features({
        "x": datasets.List(datasets.Value("float32"), length=WIDTH),
        "name": datasets.Value("int64"),
    })  # fmt: skip
    order = permutation(rows, 1, 0)
    for name, chosen in (("source", np.arange(rows)), ("mixed", order)):
        table = datasets.Dataset.from_dict({"x": x[chosen], "name": chosen}, features=features)
        table.to_parquet(str(place / f"{name}.parquet"))
    torch.jit.script(Firsts()).save(str(place / "t.pt"))
    options = {"teacher": str(place / "t.pt"), "data": str(place / "source.parquet"),
             "input_column": "x", "id_column": "name", "batch_size": 4096}  # fmt: skip
    softlabels.dump(out=str(place / "bare"), **options)
    softlabels.dump(out=str(place / "with"), store_inputs="original", **options)
    return {
        "joined with the source": {"path": place / "bare"},
        "… in another order": {"path": place / "bare", "source": str(place / "mixed.parquet")},
        "inputs stored in the dump": {"path": place / "with"},
    }


def bare(inputs: torch.Tensor, logits: torch.Tensor, epoch: int) -> Iterator[int]:
    order = torch.from_numpy(permutation(len(inputs), 0, epoch))
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        yield len(inputs.index_select(0, rows)) + 0 * len(logits.index_select(0, rows))


def stored(dataset: Any, epoch: int) -> Iterator[int]:
    for batch in dataset.batches(BATCH, shuffle=True, epoch=epoch):
        yield len(batch["input"]) + 0 * len(batch["logits"])


def turns(ways: dict[str, Iterator[int]]) -> dict[str, float]:
    """Rows a second of each, a batch of one after a batch of the other."""
    seconds, rows = dict.fromkeys(ways, 0.0), dict.fromkeys(ways, 0)
    while True:
        for name, batches in ways.items():
            began = time.perf_counter()
            got = next(batches, None)
            seconds[name] += time.perf_counter() - began
            if got is None:
                return {name: rows[name] / seconds[name] for name in ways}
            rows[name] += got


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SOFTLABELS_CACHE"] = f"{folder}/cache"
        ways = make(Path(folder), args.rows)
        first, loaded = {}, {}
        for name, options in ways.items():
            began = time.perf_counter()
            loaded[name] = softlabels.load(T=4, **options)
            for _ in stored(loaded[name], 0):
                pass
            first[name] = time.perf_counter() - began
        whole = loaded["joined with the source"].take(range(args.rows))
        inputs, logits = whole["input"].clone(), whole["logits"].clone()
        speeds: dict[str, list[float]] = {}
        ratios: dict[str, list[float]] = {name: [] for name in ways}
        for epoch in range(1, args.repeats + 1):
            for name, dataset in loaded.items():
                figures = turns(
                    {"limit": bare(inputs, logits, epoch), name: stored(dataset, epoch)}
                )
                for way, speed in figures.items():
                    speeds.setdefault(way, []).append(speed)
                ratios[name].append(figures[name] / figures["limit"])
    print(
        f"| {args.rows:,} rows | thousand rows/s | of tensors in memory | load and first epoch, s |"
    )
    print("|---|---|---|---|")
    print(f"| tensors in memory | {statistics.median(speeds['limit']) / 1e3:,.0f} | 1 | |")
    for name, figures in ratios.items():
        speed, ratio = statistics.median(speeds[name]) / 1e3, statistics.median(figures)
        spread = f"({min(figures):.2f} to {max(figures):.2f})"
        print(f"| {name} | {speed:,.0f} | {ratio:.2f} {spread} | {first[name]:.2f} |")
    if args.json:
        args.json.write_text(json.dumps({"speeds": speeds, "ratios": ratios, "first": first}))


if __name__ == "__main__":
    main()
