"""The loss of a language model's student from hidden states and head, over cross-entropy alone.

    python -m benchmarks.lm_loss [--tokens 2048] [--width 256] [--classes 32768] [--repeats 5]
                                 [--threads 1]

Forward and backward of made hidden states and a head, in float32. "cross-entropy" is written here
in plain torch, with chunks of 128 tokens and gradients in the forward, as Liger-Kernel has it: the
least that a student of this head costs. The others are `linear_kd_loss` with α and T, with the
teacher's logits in float16 (dense) or its hidden states in float16 and its head (features), and
what holds all logits. The ways run in turns, after one of each. Ratios are medians of each round's
ratio to cross-entropy, by CPU time, which a machine that others use changes least, and by the
clock. Peak memory is that of a process of each way, above what it held before: the gradients of
both parameters, and what is there beside them. Nothing here is a test.
"""

import argparse
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

import softlabels

CHUNK, BASE = 128, "cross-entropy"
SMALL = 64  # tokens and classes of what warms a process up


@dataclass(frozen=True)
class Given:
    """What the loss is of: N tokens, D numbers, V classes."""

    hidden_ND: Tensor
    weight_VD: Tensor
    labels_N: Tensor
    teacher_ND: Tensor
    teacher_head: softlabels.LinearHead

    @classmethod
    def make(cls, tokens: int, width: int, classes: int) -> "Given":
        torch.manual_seed(0)
        hidden_ND, teacher_ND = torch.randn(2, tokens, width)
        weight_VD, teacher_VD = torch.randn(2, classes, width) / width**0.5
        return cls(
            hidden_ND.requires_grad_(),
            (2 * weight_VD).requires_grad_(),
            torch.randint(0, classes, (tokens,)),
            teacher_ND.half(),
            softlabels.LinearHead(3 * teacher_VD),
        )

    def features(self) -> softlabels.FeatureLogits:
        return softlabels.FeatureLogits(self.teacher_ND, self.teacher_head)

    def dense(self) -> softlabels.DenseLogits:
        return softlabels.DenseLogits(self.features().dense().half())


class ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, labels_N: Tensor) -> Tensor:
        of_hidden, of_weight = torch.zeros_like(hidden_ND), torch.zeros_like(weight_VD)
        loss, share = torch.zeros(()), 1 / len(hidden_ND)
        logits = torch.empty(CHUNK, len(weight_VD))
        for start in range(0, len(hidden_ND), CHUNK):
            part = slice(start, min(start + CHUNK, len(hidden_ND)))
            z = torch.mm(hidden_ND[part], weight_VD.T, out=logits[: part.stop - start])
            p = torch.softmax(z, -1, out=z)  # in place, which the processor's kernel allows
            index = labels_N[part][:, None]
            loss -= p.gather(-1, index).log().sum()
            p.scatter_add_(-1, index, -torch.ones_like(index, dtype=p.dtype))
            torch.mm(p, weight_VD, out=of_hidden[part]).mul_(share)
            of_weight.addmm_(p.T, hidden_ND[part], alpha=share)
        ctx.gradients = of_hidden, of_weight
        return loss * share

    @staticmethod
    def backward(ctx: Any, factor: Tensor) -> Any:
        (of_hidden, of_weight), ctx.gradients = ctx.gradients, None
        return of_hidden.mul_(factor), of_weight.mul_(factor), None


def kd(targets: Callable[[Given], Any], T: float, alpha: float) -> Callable[[Given], Any]:
    def prepare(given: Given) -> Callable[[], Tensor]:
        of_teacher = targets(given)
        return lambda: softlabels.linear_kd_loss(
            given.hidden_ND, given.weight_VD, of_teacher, given.labels_N, T=T, alpha=alpha
        )

    return prepare


def whole_kd(given: Given) -> Callable[[], Tensor]:
    dense = given.dense()
    return lambda: softlabels.kd_loss(
        given.hidden_ND @ given.weight_VD.T, dense, given.labels_N, T=4, alpha=0.5
    )


WAYS: dict[str, Callable[[Given], Callable[[], Tensor]]] = {
    BASE: lambda given: (
        lambda: ChunkedCrossEntropy.apply(given.hidden_ND, given.weight_VD, given.labels_N)
    ),
    "linear_kd_loss, α = 0": kd(Given.dense, 1, 0),
    "dense, T = 1, α = 1": kd(Given.dense, 1, 1),
    "dense, T = 4, α = 0.5": kd(Given.dense, 4, 0.5),
    "features, T = 1, α = 1": kd(Given.features, 1, 1),
    "features, T = 1, α = 0.5": kd(Given.features, 1, 0.5),
    "features, T = 4, α = 1": kd(Given.features, 4, 1),
    "features, T = 4, α = 0.5": kd(Given.features, 4, 0.5),
    "all logits, cross-entropy": lambda given: (
        lambda: cross_entropy(given.hidden_ND @ given.weight_VD.T, given.labels_N)
    ),
    "all logits, kd_loss, T = 4, α = 0.5": whole_kd,
}


def step(given: Given, loss: Callable[[], Tensor]) -> tuple[float, float]:
    """Seconds of CPU time and by the clock."""
    given.hidden_ND.grad = given.weight_VD.grad = None
    began = time.process_time(), time.perf_counter()
    loss().backward()
    return time.process_time() - began[0], time.perf_counter() - began[1]


def measure_time(given: Given, repeats: int) -> dict[str, list[tuple[float, float]]]:
    losses = {name: prepare(given) for name, prepare in WAYS.items()}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in WAYS}
    for repeat in range(repeats + 1):
        for name, loss in losses.items():
            seconds = step(given, loss)
            if repeat:  # the first one warms up
                times[name].append(seconds)
    return times


def resident(field: str) -> int:
    """KiB, of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def measure_memory(name: str, sizes: tuple[int, int, int], threads: int) -> float:
    """MiB at the highest, above what there was before."""
    torch.set_num_threads(threads)
    small = Given.make(SMALL, sizes[1], SMALL)
    step(small, WAYS[name](small))
    given = Given.make(*sizes)
    loss = WAYS[name](given)
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
    before = resident("VmRSS")
    step(given, loss)
    return (resident("VmHWM") - before) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--classes", type=int, default=32768)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    sizes = options.tokens, options.width, options.classes
    torch.set_num_threads(options.threads)
    load = f"load {os.getloadavg()[0]:.1f}"
    print(f"torch {torch.__version__}, {options.threads} threads, {os.cpu_count()} cores, {load}")
    times = measure_time(Given.make(*sizes), options.repeats)
    print(f"{'':38}{'ms':>7}{'CPU':>7}{'clock':>7}{'MiB':>8}{'memory':>8}")
    held: dict[str, float] = {}
    for name in WAYS:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            held[name] = pool.apply(measure_memory, (name, sizes, options.threads))
        ratios = [
            statistics.median(
                one[i] / base[i] for one, base in zip(times[name], times[BASE], strict=True)
            )
            for i in (0, 1)
        ]
        milliseconds = 1000 * statistics.median(one[0] for one in times[name])
        print(
            f"{name:38}{milliseconds:7.0f}{ratios[0]:7.2f}{ratios[1]:7.2f}{held[name]:8.1f}"
            f"{held[name] / held[BASE]:8.2f}"
        )


if __name__ == "__main__":
    main()
