"""Dump over bare forward, and training from the store over tensors in memory: ratios of one run.

    python -m benchmarks.ratios [--threads 1] [--repeats 5] [--device cpu] [--json FILE]

Each pair is measured in turn, A B A B …, after one warm-up of both; a ratio is the median of the
pairs' ratios, with the smallest and largest beside it. Data is random and lies in memory or in the
page cache. Nothing here is a test.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import datasets
import numpy as np
import torch

import softlabels
from softlabels.capture.answers import RunningTeacher
from softlabels.capture.pipeline import dump_shards
from softlabels.capture.preparing import prepare
from softlabels.capture.resuming import begin, finish
from softlabels.models.specs import build_model
from softlabels.options import DumpOptions, TrainOptions
from softlabels.students.losses import kd_loss
from softlabels.students.optimization import learning_rate_factor
from softlabels.system.devices import resolve_device
from softlabels.system.progress import SILENT

TEACHERS = {
    "mlp, C=10": ("mlp:1200x1200", [784], 10, 40_000),
    "cnn, C=10": ("cnn:32x64", [1, 28, 28], 10, 20_000),
    "mlp, C=1000": ("mlp:1200x1200", [784], 1000, 40_000),
}


def main() -> None:
    datasets.disable_progress_bars()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = resolve_device(options.device)
    print(f"torch {torch.__version__}, {options.threads} thread(s), {device}")
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, (spec, shape, classes, rows) in TEACHERS.items():
            place = Path(folder) / name.replace(" ", "")
            results |= dump_ratios(name, place, spec, shape, classes, rows, device, options.repeats)
        results |= training_ratio(Path(folder) / "mlp,C=10", device, options.repeats)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


def dump_ratios(
    name: str, place: Path, spec: str, shape: list[int], classes: int, rows: int,
    device: torch.device, repeats: int,
) -> dict:  # fmt: skip
    place.mkdir()
    data, teacher = str(place / "data.parquet"), str(place / "t.pt")
    make_data(data, shape, rows)
    torch.manual_seed(0)
    torch.save(build_model(spec, shape, classes).state_dict(), teacher)
    count = iter(range(10_000))

    def options() -> DumpOptions:
        out = str(place / f"dump-{next(count)}")
        return DumpOptions(teacher=teacher, model=spec, data=data, out=out, device=str(device))

    setup = prepare(options())
    assert isinstance(setup.answers, RunningTeacher)
    model = setup.answers.model
    values = setup.source.read(0, rows).cells
    inputs = torch.from_numpy(np.array(values)).float()

    def bare() -> None:
        for part in inputs.split(256):
            model.logits(part.to(device))
        if device.type == "cuda":
            torch.cuda.synchronize()

    def pipeline() -> float:
        made = prepare(options())
        job = made.job(begin(made, False, SILENT))
        started = time.perf_counter()
        for _ in dump_shards(job, range(job.plan.shards)):
            pass
        finish(job)
        return time.perf_counter() - started

    def whole() -> None:
        softlabels.dump(**vars(options()))

    return {
        f"dump, {name}: shards over bare forward": compare(
            f"{name}, shards", pipeline, bare, repeats
        ),
        f"dump, {name}: whole command over bare forward": compare(
            f"{name}, whole", whole, bare, repeats
        ),
    }


def training_ratio(place: Path, device: torch.device, repeats: int) -> dict:
    """An 800-800 student, T=4, alpha=0.9, batches of 256, two epochs, no hold-out."""
    dump = str(next(place.glob("dump-*/softlabels.json")).parent)
    dataset = softlabels.load(dump, T=4)
    rows = np.arange(len(dataset))
    everything = dataset.take(rows)
    inputs, logits = everything["input"].to(device), everything["logits"].to(device)
    options = TrainOptions(dump=dump, epochs=2, holdout=0, alpha=1, T=4, device=str(device),
                         out=str(place / "s.pt"))  # fmt: skip

    def in_memory() -> float:
        model = build_model("mlp:800x800", [784], 10).to(device)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
        steps = 2 * -(-len(rows) // 256)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate_factor(step, steps, 0.02)
        )
        started = time.perf_counter()
        for _ in range(2):
            for part in torch.randperm(len(rows), device=device).split(256):
                loss = kd_loss(model(inputs[part]), logits[part], T=4, alpha=1)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                schedule.step()
        float(loss.detach())
        return time.perf_counter() - started

    def from_store() -> float:
        started = time.perf_counter()
        softlabels.train(**vars(options))
        return time.perf_counter() - started

    def reading() -> None:
        opened = softlabels.load(dump, T=4)
        _ = opened.take(rows[:256])["input"]

    opening = median_seconds(reading, repeats)
    result = compare("800-800 student, tensors over store", in_memory, from_store, repeats)
    print(f"{'opening the dump and its inputs':<42} {opening:8.3f} s")
    return {"train: tensors in memory over store (speed of the store)": result,
            "train: seconds to open the dump": opening}  # fmt: skip


def make_data(path: str, shape: list[int], rows: int) -> None:
    values = np.random.default_rng(0).normal(size=(rows, *shape)).astype(np.float32)
    feature = (
        datasets.List(datasets.Value("float32"), length=shape[0])
        if len(shape) == 1
        else datasets.Array3D(tuple(shape), "float32")
    )
    features = datasets.Features({"x": feature})
    datasets.Dataset.from_dict({"x": list(values)}, features=features).to_parquet(path)


def seconds(work: Callable[[], float | None]) -> float:
    """A run's own measure where it gives one, else its wall time."""
    started = time.perf_counter()
    own = work()
    return time.perf_counter() - started if own is None else own


def median_seconds(work: Callable[[], float | None], repeats: int) -> float:
    return statistics.median(seconds(work) for _ in range(repeats))


def compare(
    name: str, a: Callable[[], float | None], b: Callable[[], float | None], repeats: int
) -> dict:
    seconds(a), seconds(b)
    pairs = [(seconds(a), seconds(b)) for _ in range(repeats)]
    ratios = [first / second for first, second in pairs]
    results = {
        "ratio": statistics.median(ratios),
        "min": min(ratios),
        "max": max(ratios),
        "a_seconds": statistics.median(first for first, _ in pairs),
        "b_seconds": statistics.median(second for _, second in pairs),
    }
    print(
        f"{name:<42} {results['ratio']:8.3f}   ({results['min']:.3f} to {results['max']:.3f}; "
        f"{results['a_seconds']:.2f} s over {results['b_seconds']:.2f} s)",
        flush=True,
    )
    return results


if __name__ == "__main__":
    main()
