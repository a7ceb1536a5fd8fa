"""How much anonymous memory an epoch takes, in MiB: what `benchmarks.loading` starts for each way.

    python -m benchmarks.memory FOLDER NAME CACHE

The highest of opening, a sequential and a shuffled epoch, less what there was before. Small files
are read first, so that libraries and their pools are there. Pages of mapped files, which the
system takes back at will, are not in it.
"""

import os
import sys
import tempfile
import threading
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import datasets
import torch

from benchmarks.rivals import Way, ways, write

STEP_SECONDS = 0.002


def anonymous() -> int:
    """KiB."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("RssAnon"))


def read(folder: Path, name: str, cache: Path) -> None:
    way: Way = next(way for way in ways(folder) if way.name == name)
    store = way.open(cache)
    for shuffle in (False, True):
        for _ in way.batches(store, shuffle, 0):
            pass
    way.settle(store)


def main() -> None:
    folder, name, cache = sys.argv[1:]
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as small:
        write(Path(small), 2000, 1000, only_ours=True)
        read(Path(small), name, Path(small) / "cache")
    start, highest = anonymous(), [0]

    def sample() -> None:
        while True:
            highest[0] = max(highest[0], anonymous())
            time.sleep(STEP_SECONDS)

    threading.Thread(target=sample, daemon=True).start()
    read(Path(folder), name, Path(cache))
    print((highest[0] - start) / 1024)


if __name__ == "__main__":
    main()
