"""A student on stored logits: beside tensors in memory, and beside its teacher in the loop.

A part of `benchmarks.loading`. All students take their steps in turn, a few at a time, so that what
else the machine does falls on each alike. 784 float inputs, C = 10, a teacher mlp:1200x1200, a
student mlp:800x800, AdamW, T = 4, batches of 256. N rows of a batch.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import datasets
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

import softlabels
from benchmarks.ratios import make_data
from softlabels.models.specs import build_model
from softlabels.targets.orders import permutation

BATCH, T, CHUNK = 256, 4.0, 5
TEACHER, STUDENT, INPUTS, CLASSES = "mlp:1200x1200", "mlp:800x800", 784, 10
EPOCHS = (1, 10, 50)

Pairs = Iterator[tuple[Tensor, Tensor]]  # inputs and the teacher's logits of a batch


class Learner:
    """A student that takes steps on what `source(epoch)` gives."""

    def __init__(self, source: Callable[[int], Pairs]) -> None:
        torch.manual_seed(0)
        self.source = source
        self.model = build_model(STUDENT, [INPUTS], CLASSES)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3)
        self.seconds = self.cpu = 0.0

    def begin(self, epoch: int) -> None:
        self.pairs = self.source(epoch)
        self.seconds = self.cpu = 0.0

    def go_on(self) -> bool:
        """Some steps; False at the epoch's end."""
        began, cpu, steps = time.perf_counter(), time.process_time(), 0
        for input_NX, logits_NC in islice(self.pairs, CHUNK):
            loss = softlabels.kd_loss(self.model(input_NX), logits_NC, T=T, alpha=1)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            steps += 1
        self.seconds += time.perf_counter() - began
        self.cpu += time.process_time() - cpu
        return steps == CHUNK


def measure(place: Path, repeats: int, quick: bool) -> dict:
    datasets.config.HF_DATASETS_CACHE = place / "hf"
    rows = 5_000 if quick else 20_000
    data, teacher = place / "data.parquet", place / "t.pt"
    make_data(str(data), [INPUTS], rows)
    torch.manual_seed(0)
    model = build_model(TEACHER, [INPUTS], CLASSES).eval()
    torch.save(model.state_dict(), teacher)
    dumping = []
    for turn in range(1 + min(3, repeats)):
        began = time.perf_counter()
        softlabels.dump(teacher=str(teacher), model=TEACHER, data=str(data),
                        out=str(place / f"made-{turn}"))  # fmt: skip
        dumping.append(time.perf_counter() - began)
    began = time.perf_counter()
    dataset = softlabels.load(place / "made-0", T=T)
    everything = dataset.take(np.arange(rows))
    opening = time.perf_counter() - began
    sources = {
        "tensors": _tensors(everything["input"].contiguous(), everything["logits"]),
        "batches": lambda epoch: _pairs(dataset.batches(BATCH, shuffle=True, epoch=epoch)),
        "DataLoader": lambda epoch: _pairs(DataLoader(dataset, BATCH, shuffle=True)),
        "teacher in the loop": _online(everything["input"], model),
    }
    for epoch in (0, 1):  # inputs are decoded in the background; a warm-up
        for source in sources.values():
            sum(1 for _ in source(epoch))
    return _report(_train(sources, repeats), _read(sources, repeats), dumping[1:], opening, rows)


def _train(sources: dict[str, Callable[[int], Pairs]], repeats: int) -> dict[str, np.ndarray]:
    """Seconds and CPU seconds of each epoch of each, [epochs, 2]."""
    learners = {name: Learner(source) for name, source in sources.items()}
    taken: dict[str, list] = {name: [] for name in sources}
    for epoch in range(repeats + 1):
        for learner in learners.values():
            learner.begin(epoch)
        going = list(learners.values())
        while going:
            going = [learner for learner in going[1:] + going[:1] if learner.go_on()]
        for name, learner in learners.items():
            taken[name] += [[learner.seconds, learner.cpu]] if epoch else []
    return {name: np.array(epochs) for name, epochs in taken.items()}


def _read(sources: dict[str, Callable[[int], Pairs]], repeats: int) -> dict[str, float]:
    """Microseconds a batch of reading alone, medians."""
    taken: dict[str, list[float]] = {name: [] for name in sources}
    for epoch in range(repeats):
        for name, source in sources.items():
            began = time.perf_counter()
            batches = sum(1 for _ in source(epoch))
            taken[name].append((time.perf_counter() - began) / batches * 1e6)
    return {name: statistics.median(values) for name, values in taken.items()}


def _report(
    taken: dict[str, np.ndarray], reading: dict[str, float], dumping: list[float],
    opening: float, rows: int,
) -> dict:  # fmt: skip
    steps, results = -(-rows // BATCH), {}
    heads = "steps/s | of tensors in memory | by CPU time | reading, µs a batch"
    print(f"\n| student, {rows:,} rows | {heads} |\n|---|---|---|---|---|")
    for name, seconds in taken.items():
        wall, cpu = (taken["tensors"] / seconds).T
        speed = steps / float(np.median(seconds[:, 0]))
        results[f"{name} over tensors"] = {
            **_spread(wall), "by CPU time": _spread(cpu), "steps/s": speed,
            "reading, µs": reading[name],
        }  # fmt: skip
        shares = " | ".join(f"{np.median(x):.3f} ({x.min():.3f} to {x.max():.3f})"
                            for x in (wall, cpu))  # fmt: skip
        print(f"| {name} | {speed:.1f} | {shares} | {reading[name]:.0f} |")
    epoch, online = (
        float(np.median(taken[name][:, 0])) for name in ("batches", "teacher in the loop")
    )
    dump = statistics.median(dumping)
    print(f"\nMeasured: a dump {dump:.2f} s, opening {opening:.2f} s, an epoch from it "
          f"{epoch:.2f} s, one with the teacher in the loop {online:.2f} s.")  # fmt: skip
    print("\n| computed from these, epochs | offline, s | online, s | online over offline |")
    print("|---|---|---|---|")
    totals = {}
    for epochs in EPOCHS:
        offline = dump + opening + epochs * epoch
        totals[f"{epochs}"] = {"offline": offline, "online": epochs * online}
        print(f"| {epochs} | {offline:.1f} | {epochs * online:.1f} | "
              f"{epochs * online / offline:.2f} |")  # fmt: skip
    return {
        "training": results,
        "offline": {"dump": dump, "opening": opening, "epoch": epoch, "online epoch": online,
                    "totals, computed": totals},
    }  # fmt: skip


def _spread(values: np.ndarray) -> dict[str, float]:
    return {"median": float(np.median(values)), "min": values.min(), "max": values.max()}


def _tensors(input_RX: Tensor, logits_RC: Tensor) -> Callable[[int], Pairs]:
    def read(epoch: int) -> Pairs:
        for part in torch.from_numpy(permutation(len(input_RX), 0, epoch)).split(BATCH):
            yield input_RX.index_select(0, part), logits_RC.index_select(0, part)

    return read


def _online(input_RX: Tensor, teacher: torch.nn.Module) -> Callable[[int], Pairs]:
    def read(epoch: int) -> Pairs:
        for part in torch.from_numpy(permutation(len(input_RX), 0, epoch)).split(BATCH):
            input_NX = input_RX.index_select(0, part)
            with torch.inference_mode():
                logits_NC = teacher(input_NX)
            yield input_NX, logits_NC.clone()

    return read


def _pairs(batches: DataLoader | softlabels.targets.batches.Batches) -> Pairs:
    for batch in batches:
        yield batch["input"], batch["logits"]
