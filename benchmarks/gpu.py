"""What a GPU waits for: dumps and students beside the barest loops that do the same work.

    python -m benchmarks.gpu [--minutes 4] [--only STEP …] [--tiny] [--json FILE]

Steps, in this order, each guarded and timed; one that would begin after --minutes is left out:

    forward    ResNet-50 in bf16 on pictures that lie on the GPU: the most that a dump can reach
    decoding   threads that decode JPEGs and store nothing, as many as there are cores
    pictures   a dump of the ResNet-50 from JPEGs of 500×375, and of a teacher that costs nothing
    vectors    the forward of an MLP 128-2048-2048-1000, and its dump with several batch sizes
    storing    a dump with a teacher that costs nothing over np.save and SHA-256 of the same bytes
    training   `train` of an 800-800 student over the barest loop on tensors on the GPU
    student    `train` of a ResNet-18 from pictures in the dump over uint8 tensors on the GPU

A line says what was measured, the goal if there is one, and what it took. `rows alone` are the
seconds of the progress bar: without opening, fingerprint, the trial batch and records. Nets have
random weights. --tiny runs every step with small sizes on any machine, to try the script; its
figures mean nothing. Nothing here is a test. N rows of a batch, C classes.
"""

import argparse
import hashlib
import json
import os
import shutil
import statistics
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line has it

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

import softlabels
from benchmarks.pictures import bare, save
from benchmarks.resnets import resnet18, resnet50, tiny
from softlabels.inputs.preprocess import Preprocess
from softlabels.models.specs import build_model
from softlabels.students.optimization import learning_rate_factor
from softlabels.system.background import cores
from softlabels.system.devices import autocast, resolve_device
from softlabels.system.progress import Advance, Progress

CLASSES, WIDTH, T = 1000, 128, 4.0
STEPS = "forward", "decoding", "pictures", "vectors", "storing", "training", "student"


class Watch(Progress):
    """Notes when each bar began, and when how many units of it were done."""

    def __init__(self) -> None:
        self.bars: dict[str, list[tuple[float, int]]] = {}

    @contextmanager
    def bar(self, what: str, total: int, unit: str, done: int = 0) -> Iterator[Advance]:
        times = self.bars[what] = [(time.perf_counter(), done)]

        def advance(n: int, note: str = "") -> None:
            times.append((time.perf_counter(), times[-1][1] + n))

        yield advance

    def seconds(self, what: str, first: int = 0) -> float:
        """Of the bar, from the moment when `first` units were done."""
        times = self.bars[what]
        return times[-1][0] - next(moment for moment, units in times if units >= first)


class Firsts(nn.Module):
    """Logits that cost nothing, and tell rows apart."""

    def forward(self, inputs_NX: Tensor) -> Tensor:
        flat = inputs_NX.flatten(1)[:, :CLASSES]
        # beyond ±32 the rounding of each row would be looked at more closely
        return flat.repeat(1, -(-CLASSES // flat.shape[1]))[:, :CLASSES] * 4 - 2


@dataclass
class Bench:
    place: Path
    device: torch.device
    is_tiny: bool
    figures: dict[str, Any] = field(default_factory=dict)

    def say(self, name: str, value: float, unit: str, goal: float | None = None) -> None:
        aim = "" if goal is None else f"   goal {goal:,g}"
        shown = f"{value:,.3f}" if value < 100 else f"{value:,.0f}"
        print(f"  {name:<66} {shown:>10} {unit}{aim}", flush=True)
        self.figures[name] = {"value": value, "unit": unit, "goal": goal}

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def timed(self, work: Callable[[], object]) -> float:
        self.wait()
        began = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - began

    def size(self, large: int, small: int) -> int:
        return small if self.is_tiny else large

    # -- what steps share

    @property
    def pictures(self) -> int:
        return self.size(8192, 96)

    @property
    def rows(self) -> int:
        return self.size(400_000, 1000)

    @property
    def words(self) -> str:
        edges = (256, 224) if not self.is_tiny else (40, 32)
        return f"rgb|resize({edges[0]})|center_crop({edges[1]})|scale(255)"

    def jpegs(self) -> str:
        path = self.place / "jpegs.parquet"
        if not path.exists():
            save(str(path), self.pictures)
        return str(path)

    def teacher(self) -> nn.Module:
        torch.manual_seed(0)
        net = tiny() if self.is_tiny else resnet50()
        return net.eval().to(self.device)

    def numbers(self) -> str:
        path = self.place / "numbers.parquet"
        if not path.exists():
            values = np.random.default_rng(0).normal(size=(self.rows, WIDTH)).astype(np.float32)
            cells = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), WIDTH)
            pq.write_table(pa.table({"x": cells}), path, row_group_size=16_384)
        return str(path)

    def dump(self, name: str, teacher: nn.Module, data: str, **more: Any) -> tuple[float, float]:
        """Seconds of the whole command, and of the rows alone."""
        watch, options = Watch(), {"precision": "bf16", "device": str(self.device)} | more
        whole = self.timed(lambda: softlabels.dump(
            teacher=teacher, name="net", data=data, out=str(self.place / name), progress=watch,
            **options,
        ))  # fmt: skip
        return whole, watch.seconds("dump")

    # -- the steps

    def forward(self) -> None:
        edge, batch = self.size(224, 32), self.size(256, 32)
        inputs = torch.rand(batch, 3, edge, edge, device=self.device)
        for memory_format in (torch.contiguous_format, torch.channels_last):
            net = self.teacher().to(memory_format=memory_format)
            given, turns = inputs.contiguous(memory_format=memory_format), self.size(30, 2)

            def run(net: nn.Module = net, given: Tensor = given, turns: int = turns) -> None:
                with torch.inference_mode(), autocast(self.device, "bf16"):
                    for _ in range(turns):
                        net(given)

            run()
            rate = batch * turns / self.timed(run)
            self.say(f"bare forward, {str(memory_format).removeprefix('torch.')}", rate, "images/s")

    def decoding(self) -> None:
        loop = bare(self.jpegs(), cores(), self.words)
        loop()
        self.say(f"bare decoding, {cores()} threads", self.pictures / self.timed(loop), "images/s")

    def pictures_dumped(self) -> None:
        data, how = self.jpegs(), {"preprocess": self.words}
        few = self.place / "few.parquet"
        save(str(few), self.size(1024, 96))
        self.dump("warm", self.teacher(), str(few), **how)
        goal = None if self.is_tiny else 5000
        for name, teacher, more in (
            ("ResNet-50", self.teacher(), {}),
            ("a teacher that costs nothing", Firsts().eval(), {"precision": "float32"}),
        ):
            whole, alone = self.dump(name, teacher, data, **how, **more)
            aim = goal if name == "ResNet-50" else None
            self.say(f"dump of {name}, rows alone", self.pictures / alone, "images/s", aim)
            self.say("… the whole command", self.pictures / whole, "images/s")
            if bare_rate := self.figures.get(f"bare decoding, {cores()} threads"):
                ratio = self.pictures / alone / bare_rate["value"]
                self.say("… rows alone over bare decoding", ratio, "", None if aim else 0.9)

    def vectors(self) -> None:
        data, rows = self.numbers(), self.rows
        torch.manual_seed(0)
        net = build_model("mlp:2048x2048", [WIDTH], CLASSES).eval().to(self.device)
        turns, sizes = self.size(20, 1), (256, 2048, 8192) if not self.is_tiny else (64, 256)
        inputs = torch.randn(sizes[-1], WIDTH, device=self.device)

        def forward() -> None:
            with torch.inference_mode(), autocast(self.device, "bf16"):
                for _ in range(turns):
                    net(inputs)

        forward()
        rate = sizes[-1] * turns / self.timed(forward)
        self.say(f"MLP, bare forward, batches of {sizes[-1]}", rate, "rows/s")
        for batch in sizes:
            whole, alone = self.dump(f"mlp-{batch}", net, data, batch_size=batch)
            self.say(f"MLP, dump, batches of {batch}, rows alone", rows / alone, "rows/s")
        self.say("… the whole command", rows / whole, "rows/s")

    def storing(self) -> None:
        data, rows = self.numbers(), self.rows
        values = torch.randn(rows, CLASSES).half().numpy()

        def save_and_hash() -> None:
            path = self.place / "bare.npy"
            path.unlink(missing_ok=True)  # as a dump, it writes a new file
            with open(path, "wb") as file:
                np.save(file, values)
                file.flush()
                os.fsync(file.fileno())
            hashlib.sha256(values.data).digest()

        how = {"precision": "float32", "batch_size": 4096}
        self.dump("storing-warm", Firsts().eval(), data, **how)
        pairs = []
        for _ in range(3):  # in turns, since others may use the disk
            shutil.rmtree(self.place / "storing", ignore_errors=True)
            barest = self.timed(save_and_hash)
            whole, alone = self.dump("storing", Firsts().eval(), data, **how)
            pairs.append((barest / alone, barest / whole))
        over_rows, over_whole = (statistics.median(pair) for pair in zip(*pairs, strict=True))
        name = "np.save and SHA-256 over dump with a teacher that costs nothing, rows alone"
        self.say(name, over_rows, "", 0.5)
        self.say("… the whole command", over_whole, "")

    def training(self) -> None:
        data, rows, epochs = self.numbers(), self.rows, 3
        self.dump("numbers", Firsts().eval(), data, precision="float32", batch_size=4096)
        dump = str(self.place / "numbers")
        everything = softlabels.load(dump, T=T).take(np.arange(rows))
        inputs = everything["input"].to(self.device)
        logits = everything["logits"].to(self.device)
        for batch in (2048, 256):
            barest = self.timed(lambda size=batch: self._barest(inputs, logits, epochs, size))
            watch = Watch()
            whole = self.timed(lambda size=batch, seen=watch: softlabels.train(
                dump=dump, student="mlp:800x800", T=T, alpha=1, epochs=epochs, holdout=0,
                batch_size=size, device=str(self.device), out=str(self.place / "s.pt"),
                progress=seen,
            ))  # fmt: skip
            name = f"train 800-800, batches of {batch}, over the barest loop"
            self.say(f"{name}: the whole command", barest / whole, "", 0.8 if batch > 256 else None)
            later = watch.seconds("train", first=rows) * epochs / (epochs - 1)
            self.say(f"{name}: epochs after the first", barest / later, "")

    def _barest(self, inputs: Tensor, logits: Tensor, epochs: int, size: int) -> None:
        model = build_model("mlp:800x800", [WIDTH], CLASSES).to(self.device)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
        steps = epochs * -(-len(inputs) // size)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate_factor(step, steps, 0.02)
        )
        for _ in range(epochs):
            for part in torch.randperm(len(inputs), device=self.device).split(size):
                loss = softlabels.kd_loss(model(inputs[part]), logits[part], T=T, alpha=1)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                schedule.step()

    def student(self) -> None:
        data, epochs, batch = self.jpegs(), 4, self.size(256, 32)
        how = {"preprocess": self.words, "store_inputs": "original"}
        self.dump("pictures", Firsts().eval(), data, precision="float32", **how)
        dump = str(self.place / "pictures")
        everything = softlabels.load(dump, T=T).take(np.arange(self.pictures))
        pixels = everything["input"].to(self.device)
        logits = everything["logits"].to(self.device)
        torch.manual_seed(0)
        self._epochs(pixels, logits, 1, batch)  # cuDNN tries its algorithms
        barest = self.timed(lambda: self._epochs(pixels, logits, epochs, batch))
        watch = Watch()
        whole = self.timed(lambda: softlabels.train(
            dump=dump, student=self._net(), T=T, alpha=1, epochs=epochs, holdout=0,
            batch_size=batch, precision="bf16", device=str(self.device),
            out=str(self.place / "r.pt"), progress=watch,
        ))  # fmt: skip
        later = watch.seconds("train", first=self.pictures) * epochs / (epochs - 1)
        self.say("ResNet-18 over tensors: epochs after the first", barest / later, "", 0.95)
        self.say("… the whole command", barest / whole, "")
        self.say("… its images", self.pictures * epochs / whole, "images/s")

    def _net(self) -> nn.Module:
        torch.manual_seed(0)
        return (tiny() if self.is_tiny else resnet18()).to(self.device)

    def _epochs(self, pixels: Tensor, logits: Tensor, epochs: int, size: int) -> None:
        model, on_numbers = self._net().train(), Preprocess.parse(self.words).on_numbers
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
        for _ in range(epochs):
            for part in torch.randperm(len(pixels), device=self.device).split(size):
                with autocast(self.device, "bf16"):
                    student_NC = model(on_numbers(pixels[part]))
                loss = softlabels.kd_loss(student_NC.float(), logits[part], T=T, alpha=1)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=4)
    parser.add_argument("--only", choices=STEPS, action="append")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    datasets.disable_progress_bars()
    device = resolve_device("auto")
    if device.type != "cuda" and not options.tiny and options.only != ["storing"]:
        parser.error(
            "no CUDA device here; --tiny tries the script on any machine, and --only storing says "
            "something on a CPU too"
        )
    name = torch.cuda.get_device_name() if device.type == "cuda" else device.type
    print(f"torch {torch.__version__}, {name}, {cores()} cores", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SOFTLABELS_CACHE"] = f"{folder}/cache"
        datasets.config.HF_DATASETS_CACHE = Path(folder) / "hf"
        bench = Bench(Path(folder), device, options.tiny)
        for step in options.only or STEPS:
            run(bench, step, 60 * options.minutes - (time.monotonic() - began))
            if options.json:
                options.json.write_text(json.dumps(bench.figures, indent=2) + "\n")
    print(f"took {time.monotonic() - began:.0f} s")


def run(bench: Bench, step: str, left: float) -> None:
    """One step. What it raises is printed, and the next one begins."""
    if left <= 0:
        print(f"{step}: left out, the time is over")
        return
    print(f"{step}:", flush=True)
    began = time.monotonic()
    try:
        getattr(bench, "pictures_dumped" if step == "pictures" else step)()
    except Exception:
        traceback.print_exc()
    if bench.device.type == "cuda":
        print(f"  at most {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB of the GPU")
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    print(f"  {step} took {time.monotonic() - began:.1f} s", flush=True)


if __name__ == "__main__":
    main()
