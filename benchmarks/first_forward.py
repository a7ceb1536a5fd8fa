"""How long a dump of a folder of images takes until its first forward pass.

    python -m benchmarks.first_forward [--rows 200000] [--repeats 3] [--place DIR]

Images are PNGs of 8×8 pixels in ten class folders: the less an image costs, the more of the time is
the program's own. Each time is that of a process of its own, from the call of `dump` until a batch
of the first shard reaches the teacher; modules are imported before. With --place, the images are
left there, for the same measurement of another version (PYTHONPATH).
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

CLASSES = 10
MEASURED = """
import os, sys, time
import softlabels
from softlabels.capture.answers import RunningTeacher

place = sys.argv[1]
softlabels.dump  # imported

def stop(*given):
    print(time.perf_counter() - began, time.process_time() - worked, flush=True)
    os._exit(0)

RunningTeacher.answer = stop
out = sys.argv[2]
began, worked = time.perf_counter(), time.process_time()
softlabels.dump(teacher=place + "/t.pt", data=place + "/images", out=out)
"""


def make(place: Path, rows: int) -> None:
    """The images, each another, and a teacher."""
    chance = np.random.default_rng(0)
    for index in range(rows):
        folder = place / "images" / f"class{index % CLASSES}"
        if index < CLASSES:
            folder.mkdir(parents=True)
        pixels = chance.integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:06d}.png")


def make_teacher(place: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, CLASSES))
    torch.jit.script(module.eval()).save(str(place / "t.pt"))


def measure(place: Path) -> tuple[float, float]:
    """Seconds by the clock and of the processor."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-c", MEASURED, str(place), f"{out}/d"]
        done = subprocess.run(command, cwd=out, capture_output=True, text=True, check=True)
    clock, processor = map(float, done.stdout.splitlines()[-1].split())
    return clock, processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--place")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as passing:
        place = Path(options.place or passing)
        if not (place / "images").exists():
            make(place, options.rows)
        make_teacher(place)
        results = [measure(place) for _ in range(options.repeats)]
    for what, seconds in zip(("clock", "processor"), zip(*results, strict=True), strict=True):
        print(f"{what}: {statistics.median(seconds):.1f} s "
              f"({min(seconds):.1f} to {max(seconds):.1f}) until the first forward")  # fmt: skip


if __name__ == "__main__":
    main()
