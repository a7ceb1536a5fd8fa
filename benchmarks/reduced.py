"""What it saves to decode large JPEGs at a part of their size, and what it changes.

    python -m benchmarks.reduced [--repeats 7]

CPU time to decode a JPEG and resize it to 256 pixels, of photographs of three sizes, in full and
with `reduced` and `reduced(1)`, in turn; medians. Then how far levels are from those of the picture
decoded in full, for the two photographs that scikit-learn carries, 427×640, at sizes for which they
are decoded at a half and at a quarter. Nothing here is a test.
"""

import argparse
import io
import os
import time
from statistics import median

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from softlabels.inputs.preprocess import Preprocess
from softlabels.inputs.rendering import Picture

SIZES = (500, 375), (1280, 960), (4000, 3000)
WAYS = "", "reduced|", "reduced(1)|"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    photographs = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    for size in SIZES:
        cell = jpeg(photographs[0].resize(size, Image.Resampling.BICUBIC))
        taken: dict[str, list[float]] = {way: [] for way in WAYS}
        for _ in range(repeats):
            for way, times in taken.items():
                start = time.process_time()
                shown(cell, f"{way}resize(256)")
                times.append(1000 * (time.process_time() - start))
        full = median(taken[""])
        for way, times in taken.items():
            name = way.strip("|") or "in full"
            print(f"{size[0]}×{size[1]}, {name}: {median(times):.1f} ms, "
                  f"{median(times) / full:.2f} of it in full")  # fmt: skip
    for way, side in (("reduced|", 100), ("reduced(1)|", 200), ("reduced(1)|", 100)):
        step = f"{way}resize({side})"
        apart = np.concatenate([
            np.abs(shown(cell, step).astype(int) - shown(cell, f"resize({side})")).reshape(-1)
            for cell in map(jpeg, photographs)
        ])  # fmt: skip
        print(f"{step}: levels off by {apart.mean():.2f} in the mean, 99% by at most "
              f"{np.quantile(apart, 0.99):.0f}, by {apart.max()} at most")  # fmt: skip


def jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def shown(cell: bytes, steps: str) -> np.ndarray:
    return Preprocess.parse(steps).on_picture(Picture(cell))


if __name__ == "__main__":
    main()
