"""What pictures cost a dump that stores them, and a student that reads them there: as they came, or
resized.

    python -m benchmarks.stored_pictures [--pictures 512] [--repeats 5]

Pictures are those of benchmarks.pictures: JPEGs of 500×375, smooth fields and grain, quality 90,
4:2:0; the steps are rgb|resize(256)|center_crop(224), the teacher computes nothing. Of each kind of
store: bytes a picture; images a second of an epoch that decodes, in shuffled batches of 256, as
training reads them; the same with random_resized_crop(224), which decodes in every epoch; an epoch
over decoded pictures in a mapped file of the cache. The kinds run in turn; figures are medians with
the smallest and the largest, by the clock, and milliseconds of CPU time an image, which others on
the machine change less. Nothing here is a test.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import datasets
import numpy as np
import torch

import softlabels
from benchmarks.pictures import PREPROCESS, Null, save
from softlabels.inputs import examples
from softlabels.inputs.augmented import Augmented
from softlabels.inputs.views.augment import parse_augment
from softlabels.targets.soft_dataset import Dump

KINDS = "original", "resized(256)", "resized(256, png)"
BATCH = 256


def main() -> None:
    datasets.disable_progress_bars()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    examples.CACHE_BYTES = 0  # decoded pictures have no room in memory
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        os.environ["SOFTLABELS_CACHE"] = f"{folder}/cache"
        save(f"{folder}/pictures.parquet", options.pictures)
        for kind in KINDS:
            softlabels.dump(
                teacher=Null().eval(), name="null", data=f"{folder}/pictures.parquet",
                preprocess=PREPROCESS, store_inputs=kind, out=f"{folder}/{kind}", device="cpu",
            )  # fmt: skip
        taken: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for _ in range(options.repeats):
            for kind in KINDS:
                for name, epoch in ways(place / kind).items():
                    taken.setdefault((kind, name), []).append(timed(epoch))
        for kind in KINDS:
            size = sum(file.stat().st_size for file in (place / kind / "data").iterdir())
            print(f"{kind}: {size / options.pictures / 1000:.1f} kB a row, its logits included")
        for (kind, name), pairs in taken.items():
            rates = sorted(options.pictures / clock for clock, _ in pairs)
            used = median(cpu for _, cpu in pairs) / options.pictures * 1000
            print(
                f"{kind}, {name}: {median(rates):,.0f} images/s ({rates[0]:,.0f} to "
                f"{rates[-1]:,.0f}), {used:.2f} ms of CPU an image"
            )
    sys.stdout.flush()


def ways(dump: Path) -> dict[str, Callable[[], None]]:
    """What an epoch may be, of a dump that is opened for it."""
    plain = softlabels.load(dump, cache=False)
    mapped = softlabels.load(dump)
    for _ in mapped.batches(BATCH):  # whichever opens it first decodes
        pass
    if mapped.examples._kept is not None:
        mapped.examples._kept.filler.wait()
    assert isinstance(plain, Dump)
    cropped = Augmented(
        plain.examples, parse_augment("random_resized_crop(224)"), 0, plain.reader.ids
    )
    rows = np.random.default_rng(0).permutation(len(plain))

    def crops() -> None:
        for start in range(0, len(rows), BATCH):
            cropped.gather(rows[start : start + BATCH], 1)

    return {
        "decoded": lambda: an_epoch(plain),
        "cropped": crops,
        "mapped": lambda: an_epoch(softlabels.load(dump)),
    }


def an_epoch(dataset: softlabels.SoftDataset) -> None:
    for batch in dataset.batches(BATCH, shuffle=True):
        assert batch.columns["input"].dtype == torch.uint8


def timed(work: Callable[[], None]) -> tuple[float, float]:
    began = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - began[0], time.process_time() - began[1]


if __name__ == "__main__":
    main()
