"""What a dump of pictures costs: images a second with a teacher that computes nothing, over the
bare loop that decodes the same pictures by the same threads, gives them to the same teacher and
stores nothing, and over another version.

    python -m benchmarks.pictures [--old FOLDER] [--pictures 3072] [--threads 2] [--repeats 5]
                                  [--json FILE]

Pictures are JPEGs of 500×375 (smooth random fields and grain, quality 90, 4:2:0), each a file's
bytes in one Parquet file; they become uint8 [3, 224, 224] by rgb|resize(256)|center_crop(224). The
teacher gives 1,000 pixels of each input as its logits. `shards` are the pictures alone: reading,
hashing, decoding, answers, storing; `command` is the whole of `softlabels.dump`, with opening, the
first batch that a teacher is tried on, plan and records.

The bare loop, `bare`, finds the files' bytes in memory. Threads decode each picture into its place
in a batch; meanwhile the batch before becomes float32 and is divided by 255, as any teacher needs
it, and the teacher is called. All batches lie in the same memory. `decode` is the part of it that
decodes, alone.

--old names a checkout of another version, whose code runs the same dump. Sides run in turn, each in
a process of its own; a ratio is the median of the rounds' ratios, with the smallest and largest
beside it, by the clock and by the CPU time of all threads, which others on the machine change less.
Nothing here is a test.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from statistics import median

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import datasets
import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor, nn

import softlabels
from softlabels.capture.pipeline import dump_shards
from softlabels.capture.preparing import prepare
from softlabels.capture.resuming import begin
from softlabels.options import DumpOptions
from softlabels.system.progress import SILENT

HEIGHT, WIDTH, BATCH, CLASSES = 375, 500, 256, 1000
PREPROCESS = "rgb|resize(256)|center_crop(224)|scale(255)"
SIDES = "decode", "bare", "shards", "command"
AHEAD = 3  # batches of the bare loop


class Null(nn.Module):
    """Logits that cost nothing, and tell rows apart."""

    def forward(self, inputs_NCHW: Tensor) -> Tensor:
        return inputs_NCHW[:, 0, :5].flatten(1)[:, :CLASSES] * 8 - 4


def main() -> None:
    datasets.disable_progress_bars()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--old", type=Path)
    parser.add_argument("--pictures", type=int, default=3072)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--side", help="run one side, and print its seconds")
    parser.add_argument("--data")
    options = parser.parse_args()
    if options.side:
        print(json.dumps(run(options.side, options.data, options.threads)))
        return
    here = Path(__file__).parents[1]
    print(f"torch {torch.__version__}, {options.threads} decoding threads, {os.cpu_count()} cores")
    sides = {side: (side, here) for side in SIDES}
    if options.old:
        sides |= {f"old {side}": (side, options.old.absolute()) for side in SIDES[2:]}
    rounds: list[dict[str, list[float]]] = []
    with tempfile.TemporaryDirectory() as folder:
        data = str(Path(folder) / "pictures.parquet")
        save(data, options.pictures)
        for _ in range(options.repeats):
            rounds.append({
                name: measured(side, data, options.threads, place)
                for name, (side, place) in sides.items()
            })  # fmt: skip
    report(rounds, options.pictures)
    if options.json:
        options.json.write_text(json.dumps(rounds, indent=2) + "\n")


def report(rounds: list[dict[str, list[float]]], pictures: int) -> None:
    names = list(rounds[0])
    for name in names:
        rates = [pictures / each[name][0] for each in rounds]
        used = [1000 * each[name][1] / pictures for each in rounds]
        print(f"{name:12} {median(rates):7,.0f} images/s, {median(used):.2f} ms of CPU an image")
    pairs = [(ours, theirs) for ours in ("shards", "command") for theirs in ("bare", "decode")]
    pairs += [(name.removeprefix("old "), name) for name in names if name.startswith("old ")]
    for ours, theirs in pairs:
        for place, clock in enumerate(("clock", "CPU time")):
            ratios = sorted(each[theirs][place] / each[ours][place] for each in rounds)
            print(
                f"{ours} over {theirs}, {clock}: {median(ratios):.3f} "
                f"({ratios[0]:.3f} to {ratios[-1]:.3f})"
            )


def measured(side: str, data: str, threads: int, code: Path) -> list[float]:
    """Seconds by the clock and of CPU, in a process that runs the code in this folder."""
    command = [sys.executable, __file__, "--side", side, "--data", data, "--threads", str(threads)]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(code)}, check=True, capture_output=True,
        text=True,
    )  # fmt: skip
    seconds: list[float] = json.loads(done.stdout.splitlines()[-1])
    return seconds


def run(side: str, data: str, threads: int) -> list[float]:
    torch.manual_seed(0)
    words = {"teacher": Null().eval(), "data": data, "preprocess": PREPROCESS, "device": "cpu"}
    words |= {"workers": threads, "batch_size": BATCH, "name": "null"}
    with tempfile.TemporaryDirectory() as folder:
        words["out"] = str(Path(folder) / "d")
        if side in ("bare", "decode"):
            return timed(bare(data, threads, teacher=Null().eval() if side == "bare" else None))
        if side == "command":
            return timed(lambda: softlabels.dump(**words))
        setup = prepare(DumpOptions(**words))
        job = setup.job(begin(setup, False, SILENT))
        return timed(lambda: sum(dump_shards(job, range(job.plan.shards))))


def timed(work: Callable[[], object]) -> list[float]:
    began = time.perf_counter(), time.process_time()
    work()
    return [time.perf_counter() - began[0], time.process_time() - began[1]]


def bare(
    data: str, threads: int, words: str = PREPROCESS, teacher: nn.Module | None = None
) -> Callable[[], object]:
    """Threads that decode pictures which lie in memory, each into its place in a batch, and a
    teacher that is called with each batch, if there is one."""
    from softlabels.inputs.decoding import decode_image
    from softlabels.inputs.preprocess import Preprocess

    cells = [row["bytes"] for row in pq.read_table(data)["image"].to_pylist()]
    preprocess = Preprocess.parse(words)
    shape = AHEAD, BATCH, *decode_image(cells[0], preprocess, 0).shape
    batches, numbers = torch.empty(shape, dtype=torch.uint8), torch.empty(shape[1:])

    def part(start: int) -> None:
        into = batches[start // BATCH % AHEAD].numpy()
        for place in range(start, min(start + 16, len(cells))):
            np.copyto(into[place % BATCH], decode_image(cells[place], preprocess, place))

    def answer(start: int, parts: list[Future[None]]) -> None:
        for each in parts:
            each.result()
        if teacher is not None:
            rows = min(BATCH, len(cells) - start)
            given = batches[start // BATCH % AHEAD, :rows]
            for one, other in zip(numbers[:rows].split(4), given.split(4), strict=True):
                one.copy_(other).div_(255)  # a few at a time, in the cache
            teacher(numbers[:rows]).clone()

    @torch.inference_mode()
    def loop() -> None:
        waiting: deque[tuple[int, list[Future[None]]]] = deque()
        with ThreadPoolExecutor(threads) as pool:
            for start in range(0, len(cells), BATCH):
                if len(waiting) == AHEAD:
                    answer(*waiting.popleft())
                firsts = range(start, min(start + BATCH, len(cells)), 16)
                waiting.append((start, [pool.submit(part, first) for first in firsts]))
            while waiting:
                answer(*waiting.popleft())

    return loop


def save(path: str, count: int) -> None:
    """As many different pictures as a second or so makes, and these again."""
    made = [jpeg(seed) for seed in range(min(count, 256))]
    rows = {"image": [{"bytes": made[i % len(made)], "path": None} for i in range(count)]}
    features = datasets.Features({"image": datasets.Image()})
    datasets.Dataset.from_dict(rows, features=features).to_parquet(path)


def jpeg(seed: int) -> bytes:
    chance, pixels = np.random.default_rng(seed), np.zeros((3, HEIGHT, WIDTH), np.float32)
    for cells, strength in ((4, 70), (16, 35), (64, 16), (160, 8)):  # of a field, from coarse on
        field = torch.from_numpy(chance.normal(size=(1, 3, cells * 3 // 4, cells)))
        fine = nn.functional.interpolate(field.float(), (HEIGHT, WIDTH), mode="bicubic")
        pixels += strength * fine[0].numpy()
    pixels += 4 * chance.normal(size=(1, HEIGHT, WIDTH))
    buffer = io.BytesIO()
    image = Image.fromarray(np.clip(pixels + 120, 0, 255).astype(np.uint8).transpose(1, 2, 0))
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
