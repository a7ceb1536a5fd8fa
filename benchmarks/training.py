"""Steps a second of the trainer over the barest loop: an 800-800 MLP, batches of 256.

    python -m benchmarks.training [--threads 1] [--repeats 7] [--epochs 4] [--option ema=0.999 …]

The barest loop takes inputs and logits from tensors in memory and does nothing but the steps. The
trainer's time is that of its bar: from the first step to the last, opening and checkpoint left
out. Both run in turns after one warm-up; a ratio is the median of the pairs' ratios, by the clock
and by CPU time, with the smallest and the largest beside it. Nothing here is a test.

Two runs of the same work differ by a tenth and more on a shared machine. So a last line says what
part of the trainer's own time went to the calls that the barest loop makes too: picking rows, the
student, the loss, backward, the optimizer and its schedule. The rest is what the trainer adds,
reading batches included; no other run is needed to compare it with.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import datasets
import numpy as np
import torch
import yaml

import softlabels
from benchmarks.ratios import make_data
from softlabels.models.specs import build_model
from softlabels.students.losses import Loss, kd_loss
from softlabels.students.optimization import learning_rate_factor
from softlabels.students.student import Student
from softlabels.system.progress import Advance, Progress, ignore

ROWS, BATCH = 20_000, 256


class Watch(Progress):
    """Measures the bar of the training, by the clock and by CPU time, and of the clock what went to
    the calls of the barest loop, which add to spent[0]."""

    seconds = (0.0, 0.0)
    share = 0.0

    def __init__(self, spent: list[float]) -> None:
        self.spent = spent

    @contextmanager
    def bar(self, *what: Any) -> Iterator[Advance]:
        began, before = (time.perf_counter(), time.process_time()), self.spent[0]
        yield ignore
        self.seconds = time.perf_counter() - began[0], time.process_time() - began[1]
        self.share = (self.spent[0] - before) / self.seconds[0]


@contextmanager
def inside() -> Iterator[list[float]]:
    """The seconds in the calls that the barest loop makes too; none of them makes another."""
    spent = [0.0]

    def timed(call: Callable) -> Callable:
        def run(*given: Any, **named: Any) -> Any:
            began = time.perf_counter()
            result = call(*given, **named)
            spent[0] += time.perf_counter() - began
            return result

        return run

    adamw, schedule = torch.optim.AdamW, torch.optim.lr_scheduler.LambdaLR
    calls = [
        (torch.Tensor, "index_select"), (Student, "forward"), (Loss, "__call__"),
        (torch.Tensor, "backward"), (adamw, "zero_grad"), (adamw, "step"), (schedule, "step"),
    ]  # fmt: skip
    with ExitStack() as patches:
        for owner, name in calls:
            patches.enter_context(mock.patch.object(owner, name, timed(getattr(owner, name))))
        yield spent


def main() -> None:
    datasets.disable_progress_bars()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--option", action="append", default=[])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    more = {name: yaml.safe_load(text) for name, text in (o.split("=") for o in options.option)}
    with tempfile.TemporaryDirectory() as folder:
        dump = make_dump(Path(folder))
        bare = barest(dump, options.epochs)
        measure(bare, trainer(dump, options.epochs, more), options.epochs, options.repeats)


def make_dump(place: Path) -> str:
    data, teacher = str(place / "data.parquet"), str(place / "t.pt")
    make_data(data, [784], ROWS)
    torch.manual_seed(0)
    torch.save(build_model("mlp:100", [784], 10).state_dict(), teacher)
    softlabels.dump(teacher=teacher, model="mlp:100", data=data, out=str(place / "d"), device="cpu")
    return str(place / "d")


def barest(dump: str, epochs: int) -> Callable[[], tuple[float, float]]:
    dataset = softlabels.load(dump, T=4)
    everything = dataset.take(np.arange(len(dataset)))
    inputs, logits = everything["input"], everything["logits"]
    steps = epochs * -(-len(inputs) // BATCH)

    def run() -> tuple[float, float]:
        model = build_model("mlp:800x800", [784], 10)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate_factor(step, steps, 0.02)
        )
        began = time.perf_counter(), time.process_time()
        for _ in range(epochs):
            for part in torch.randperm(len(inputs)).split(BATCH):
                loss = kd_loss(model(inputs[part]), logits[part], T=4, alpha=1)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                schedule.step()
        return time.perf_counter() - began[0], time.process_time() - began[1]

    return run


def trainer(dump: str, epochs: int, more: dict[str, Any]) -> Callable[[], tuple[float, ...]]:
    out = str(Path(dump).parent / "s.pt")

    def run() -> tuple[float, ...]:
        with inside() as spent:
            watch = Watch(spent)
            softlabels.train(
                dump=dump, student="mlp:800x800", T=4, alpha=1, epochs=epochs, holdout=0,
                batch_size=BATCH, device="cpu", out=out, progress=watch, **more,
            )  # fmt: skip
        return *watch.seconds, watch.share

    return run


def measure(bare: Callable, trained: Callable, epochs: int, repeats: int) -> None:
    bare(), trained()
    pairs = [(bare(), trained()) for _ in range(repeats)]
    steps = epochs * -(-ROWS // BATCH)
    for index, name in enumerate(("by the clock", "by CPU time")):
        ratios = sorted(a[index] / b[index] for a, b in pairs)
        rate = steps / statistics.median(b[index] for _, b in pairs)
        print(
            f"{name}: trainer over barest loop {statistics.median(ratios):.3f} "
            f"({ratios[0]:.3f} to {ratios[-1]:.3f}); trainer {rate:.0f} steps/s",
            flush=True,
        )
    shares = sorted(b[2] for _, b in pairs)
    print(
        f"of the trainer's time, the calls of the barest loop: {statistics.median(shares):.3f} "
        f"({shares[0]:.3f} to {shares[-1]:.3f})"
    )


if __name__ == "__main__":
    main()
