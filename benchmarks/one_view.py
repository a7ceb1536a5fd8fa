"""Rows a second of the batches of one view, over those of a dump that has no others.

    python -m benchmarks.one_view [--repeats 9] [--rows 20000] [--views 4]

Pictures of 32×32 pixels, uint8, C = 1000 float16 logits a row, batches of 256, shuffled and in
blocks. Targets alone are gathered from the mapped files; with inputs, pictures from memory too,
which the drawn view then shifts. All are measured in turns after one warm-up, by the clock and by
the CPU time of all threads, which others on the machine change less; a ratio is the median of the
pairs' ratios, with the smallest and the largest beside it. Nothing here is a test.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from statistics import median

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import datasets
import numpy as np
import torch

import softlabels
from softlabels.targets import SoftDataset

CLASSES, BATCH = 1000, 256


class Teacher(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(48, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layer(torch.nn.functional.avg_pool2d(x, 8).flatten(1))
        return logits


def main() -> None:
    datasets.disable_progress_bars()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--views", type=int, default=4)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        make(place, options.rows, options.views)
        for inputs in (False, True):
            for shuffle in (True, "blocks(64, 512)"):
                compare(place, inputs, shuffle, options.repeats)


def make(place: Path, rows: int, views: int) -> None:
    chance, data = np.random.default_rng(0), str(place / "data.parquet")
    features = datasets.Features({
        "x": datasets.Array3D((3, 32, 32), "uint8"),
        "label": datasets.ClassLabel(num_classes=CLASSES),
    })  # fmt: skip
    content = {
        "x": list(chance.integers(0, 256, (rows, 3, 32, 32), np.uint8)),
        "label": chance.integers(0, CLASSES, rows),
    }
    datasets.Dataset.from_dict(content, features=features).to_parquet(data)
    words = {"teacher": Teacher(), "name": "t", "data": data, "preprocess": "scale(255)"}
    softlabels.dump(**words, out=str(place / "one"))
    softlabels.dump(**words, out=str(place / "many"), views=views, augment="jitter(2)")


def compare(place: Path, inputs: bool, shuffle: bool | str, repeats: int) -> None:
    many = softlabels.load(place / "many", inputs=inputs)
    cases: dict[str, SoftDataset] = {
        "no other views": softlabels.load(place / "one", inputs=inputs),
        "the clean view": many.view(0),
        "a drawn view": many.view(2),
    }
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
    for epoch in range(-2, repeats):
        for name, dataset in cases.items():
            rate = epoch_rate(dataset, abs(epoch), shuffle)
            if epoch >= 0:
                rates[name].append(rate)
    base = rates["no other views"]
    for name, found in rates.items():
        clock, cpu = (
            [one[way] / other[way] for one, other in zip(found, base, strict=True)]
            for way in (0, 1)
        )
        print(
            f"{'inputs and ' * inputs}targets, {shuffle}, {name}: "
            f"{median(rate[1] for rate in found) / 1e3:,.0f} thousand rows a CPU second, "
            f"{median(cpu):.2f} ({min(cpu):.2f} to {max(cpu):.2f}) of one, by the clock "
            f"{median(clock):.2f}"
        )


def epoch_rate(dataset: SoftDataset, epoch: int, shuffle: bool | str) -> tuple[float, float]:
    """Rows a second of an epoch's batches, by the clock and by CPU time."""
    clock, cpu = time.perf_counter(), time.process_time()
    for batch in dataset.batches(BATCH, shuffle=shuffle, epoch=epoch):
        _ = batch.columns.get("input"), batch.columns["targets"]
    return (
        len(dataset) / (time.perf_counter() - clock),
        len(dataset) / (time.process_time() - cpu),
    )


if __name__ == "__main__":
    main()
