"""What augmentation costs: images a second of batches with crops and flips over clean ones, by the
clock and by the CPU time of all threads, which others on the machine change less.

    python -m benchmarks.augmenting [--threads 2] [--repeats 7] [--pictures 256] [--json FILE]

Pictures that are read and decoded for each batch: JPEGs of about 500×375 pixels, cut from the two
photographs that scikit-learn carries; clean is resize(256)|center_crop(224), augmented
random_resized_crop(224)|flip. Pictures that stay in memory: 20,000 of 32×32; clean is the gather
alone. Each pair is measured in turn, after one warm-up of both; a ratio is the median of the pairs'
ratios, with the smallest and largest beside it. Nothing here is a test.
"""

import argparse
import io
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import datasets
import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from softlabels.inputs.augmented import Augmented
from softlabels.inputs.examples import Examples
from softlabels.inputs.opening import open_source
from softlabels.inputs.preprocess import Preprocess
from softlabels.inputs.views.augment import parse_augment

BATCH = 64
Rates = tuple[float, float]  # by the clock, by CPU time
CLEAN = "rgb|resize(256)|center_crop(224)|scale(255)"


def main() -> None:
    datasets.disable_progress_bars()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--pictures", type=int, default=256)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(
        f"torch {torch.__version__}, {options.threads} thread(s) of torch, {os.cpu_count()} cores"
    )
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        photos, small = str(Path(folder) / "photos.parquet"), str(Path(folder) / "small.parquet")
        save(photos, photographs(options.pictures))
        chance = np.random.default_rng(0)
        save(small, [encoded(Image.fromarray(chance.integers(0, 256, (32, 32, 3), np.uint8)), "PNG")
                     for _ in range(20_000)])  # fmt: skip
        both = "random_resized_crop(224)|flip", "random_crop(224, 28)|flip"
        cases = [(f"decoded, {text}", photos, CLEAN, text) for text in both]
        text = "random_crop(32, 4)|flip"
        cases.append((f"in memory, {text}", small, "rgb", text))
        for name, data, preprocess, augment in cases:
            results[name] = compare(name, data, preprocess, augment, options.repeats)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


def compare(name: str, data: str, preprocess: str, augment: str, repeats: int) -> dict:
    kept = "memory" in name
    clean, changed = (Examples(open_source(data), Preprocess.parse(preprocess)) for _ in range(2))
    shown = Augmented(changed, parse_augment(augment), 0, np.arange(len(changed)))
    if kept:
        for examples in (clean, changed):
            examples.gather(np.arange(len(examples)))
    elif shown.cropping is None:  # as where pictures do not fit into memory
        changed.gather = changed.gather_uncached  # type: ignore[method-assign]

    def plain(rows: np.ndarray, epoch: int) -> torch.Tensor:
        return clean.gather(rows) if kept else clean.gather_uncached(rows)

    sides = {"clean": plain, "augmented": shown.gather}
    rates: dict[str, list[Rates]] = {side: [] for side in sides}
    for turn in range(repeats + 1):
        for side, take in sides.items():
            rate = images_a_second(take, len(clean), turn + 1)
            if turn:
                rates[side].append(rate)
    result = {}
    for place, clock in enumerate(("clock", "CPU time")):
        ours, theirs = ([rate[place] for rate in rates[side]] for side in ("augmented", "clean"))
        ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
        print(
            f"{name:40}{clock:9} {median(ratios):.3f}   ({min(ratios):.3f} to {max(ratios):.3f}; "
            f"{median(ours):,.0f} over {median(theirs):,.0f} images/s)"
        )
        result[clock] = {"ratios": ratios, "augmented": median(ours), "clean": median(theirs)}
    return result


def images_a_second(take: Callable, count: int, epoch: int) -> Rates:
    order = np.random.default_rng(epoch).permutation(count)
    began = time.perf_counter(), time.process_time()
    for start in range(0, count - BATCH + 1, BATCH):
        take(order[start : start + BATCH], epoch)
    images = count // BATCH * BATCH
    return images / (time.perf_counter() - began[0]), images / (time.process_time() - began[1])


def photographs(count: int) -> list[bytes]:
    chance = np.random.default_rng(0)
    sources = [Image.fromarray(image) for image in load_sample_images().images]
    pictures = []
    for i in range(count):
        source = sources[i % len(sources)]
        width, height = int(chance.integers(440, 560)), int(chance.integers(330, 420))
        left = int(chance.integers(0, source.width - width + 1))
        top = int(chance.integers(0, source.height - height + 1))
        pictures.append(encoded(source.crop((left, top, left + width, top + height)), "JPEG"))
    return pictures


def encoded(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, quality=90)
    return buffer.getvalue()


def save(path: str, cells: list[bytes]) -> None:
    features = datasets.Features({"image": datasets.Image()})
    rows = {"image": [{"bytes": cell, "path": None} for cell in cells]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(path)


if __name__ == "__main__":
    main()
