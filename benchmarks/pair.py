"""A ResNet-50-sized teacher and a ResNet-18-sized student on images, on the GPU where there is one.

    python -m benchmarks.pair [--rows 8192] [--repeats 3] [--tiny] [--json FILE]

Interleaved: a dump over the bare forward pass of the same uint8 images that lie on the device
already; an epoch of the student from the store (inputs and logits kept where `auto` puts them, and
mapped from the disk) over one from tensors on the device; and over one with its teacher in the
loop. 224 pixels, 1,000 classes, bf16, batches of 256, random weights and images. --tiny tries it on
a CPU. Nothing here is a test. N rows of a batch.
"""

import argparse
import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import datasets
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import relu

import softlabels
from softlabels.system.devices import autocast, resolve_device

CLASSES, BATCH, T = 1000, 256, 4.0
DRAWN = 512  # different images; more repeat them

Pairs = Iterator[tuple[Tensor, Tensor]]


class Block(nn.Module):
    """He et al. 2015, "Deep Residual Learning", figure 5: two 3×3 convolutions, or a bottleneck."""

    def __init__(self, inner: int, before: int, after: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        steps = [(before, inner, 1, 1), (inner, inner, 3, stride), (inner, after, 1, 1)]
        if not bottleneck:
            steps = [(before, inner, 3, stride), (inner, after, 3, 1)]
        self.steps = nn.ModuleList(normed(*step) for step in steps)
        same = stride == 1 and before == after
        self.short = nn.Identity() if same else normed(before, after, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = x
        for step in self.steps[:-1]:
            out = relu(step(out))
        return relu(self.steps[-1](out) + self.short(x))


def normed(before: int, after: int, size: int, stride: int) -> nn.Module:
    convolution = nn.Conv2d(before, after, size, stride, size // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after))


def resnet(counts: list[int], width: int, bottleneck: bool) -> nn.Module:
    wider = 4 if bottleneck else 1
    layers: list[nn.Module] = [normed(3, width, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    before = width
    for stage, count in enumerate(counts):
        inner = width << stage
        for number in range(count):
            stride = 2 if stage and number == 0 else 1
            layers.append(Block(inner, before, inner * wider, stride, bottleneck))
            before = inner * wider
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, CLASSES))


def resnet50() -> nn.Module:
    return resnet([3, 4, 6, 3], 64, True)


def resnet18() -> nn.Module:
    return resnet([2, 2, 2, 2], 64, False)


def tiny_teacher() -> nn.Module:
    return resnet([1, 1], 8, True)


def tiny_student() -> nn.Module:
    return resnet([1, 1], 4, False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=8192)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    datasets.disable_progress_bars()
    device = resolve_device("auto")
    name = torch.cuda.get_device_name() if device.type == "cuda" else device
    rows, pixels = (1024, 32) if options.tiny else (options.rows, 224)
    teacher, student = (
        ("tiny_teacher", "tiny_student") if options.tiny else ("resnet50", "resnet18")
    )
    print(f"torch {torch.__version__}, {name}, {teacher} and {student}, {rows:,} images")
    with tempfile.TemporaryDirectory() as place:
        pair = Pair(Path(place), rows, pixels, teacher, student, device)
        results = pair.dumping(options.repeats) | pair.training(options.repeats)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


class Pair:
    def __init__(
        self, place: Path, rows: int, pixels: int, teacher: str, student: str, device: torch.device
    ) -> None:
        self.place, self.rows, self.device = place, rows, device
        self.spec = f"benchmarks.pair:{teacher}"
        self.data, self.weights = place / "data.parquet", place / "t.pt"
        torch.manual_seed(0)
        self.teacher = globals()[teacher]().eval()
        torch.save(self.teacher.state_dict(), self.weights)
        self.teacher.to(device)
        self.student = globals()[student]
        datasets.config.HF_DATASETS_CACHE = place / "hf"
        drawn = np.random.default_rng(0).integers(0, 256, (DRAWN, pixels, pixels, 3), np.uint8)
        cells = [{"bytes": encoded(image), "path": None} for image in drawn]
        features = datasets.Features(
            image=datasets.Image(), label=datasets.ClassLabel(num_classes=CLASSES)
        )
        columns = {
            "image": [cells[i % DRAWN] for i in range(rows)],
            "label": [i % CLASSES for i in range(rows)],
        }
        datasets.Dataset.from_dict(columns, features=features).to_parquet(self.data)

    def dump(self, turn: int) -> str:
        out = str(self.place / f"dump-{turn}")
        softlabels.dump(teacher=str(self.weights), model=self.spec, data=str(self.data), out=out,
                        precision="bf16", device=str(self.device))  # fmt: skip
        return out

    def dumping(self, repeats: int) -> dict:
        """Of the whole command and of the bare forward pass, seconds."""
        self.out = self.dump(0)
        dataset = softlabels.load(self.out, T=T, device=str(self.device))
        batch = dataset.take(np.arange(min(DRAWN, self.rows)))
        self.input_RX = batch.to(self.device).columns["input"]
        self.on_numbers = dataset.preprocess.on_numbers
        pairs = []
        for turn in range(1, repeats + 1):
            began = time.perf_counter()
            self.dump(turn)
            whole = time.perf_counter() - began
            began = time.perf_counter()
            for start in range(0, self.rows, BATCH):
                self.forward(self.at(np.arange(start, start + BATCH)))
            self.wait()
            pairs.append((whole, time.perf_counter() - began))
        ratio = spread([a / b for a, b in pairs])
        speed = self.rows / statistics.median(a for a, _ in pairs)
        print(f"dump (the whole command, JPEG decoding included) over bare forward: {ratio}, "
              f"{speed:,.0f} rows/s")  # fmt: skip
        return {"dump over forward": ratio}

    def at(self, rows: np.ndarray) -> Tensor:
        """These rows' images on the device, as the model takes them."""
        where = torch.from_numpy(rows % len(self.input_RX)).to(self.device)
        return self.on_numbers(self.input_RX.index_select(0, where))

    def forward(self, input_NX: Tensor) -> Tensor:
        with torch.inference_mode(), autocast(self.device, "bf16"):
            return self.teacher(input_NX).float()

    def training(self, repeats: int) -> dict:
        """Epochs of the student, over those from tensors on the device."""
        here = {"device": str(self.device)}
        kept = softlabels.load(self.out, T=T, **here)
        disk = softlabels.load(self.out, T=T, keep="disk", **here)
        logits_RC = kept.take(np.arange(self.rows)).to(self.device)["logits"]

        def tensors(epoch: int) -> Pairs:
            order = np.random.default_rng(epoch).permutation(self.rows)
            for start in range(0, self.rows, BATCH):
                rows = order[start : start + BATCH]
                where = torch.from_numpy(rows).to(self.device)
                yield self.at(rows), logits_RC.index_select(0, where)

        def online(epoch: int) -> Pairs:
            for input_NX, _ in tensors(epoch):
                yield input_NX, self.forward(input_NX).clone()

        def stored(dataset: softlabels.SoftDataset) -> Callable[[int], Pairs]:
            def read(epoch: int) -> Pairs:
                for batch in dataset.batches(BATCH, shuffle=True, epoch=epoch):
                    moved = batch.to(self.device, non_blocking=True)
                    yield moved["input"], moved["logits"]

            return read

        ways = {
            "tensors": tensors, "auto": stored(kept), "disk": stored(disk),
            "teacher in the loop": online,
        }  # fmt: skip
        taken: dict[str, list[float]] = {way: [] for way in ways}
        for epoch in range(repeats + 1):
            for way, source in ways.items():
                seconds = self.epoch(source(epoch))
                taken[way] += [seconds] if epoch else []
        results = {}
        for way, seconds in taken.items():
            results[way] = spread([a / b for a, b in zip(taken["tensors"], seconds, strict=True)])
            speed = self.rows / statistics.median(seconds)
            print(f"student from {way}: {results[way]} of tensors' speed, {speed:,.0f} rows/s")
        return {"training": results}

    def epoch(self, pairs: Pairs) -> float:
        torch.manual_seed(0)
        model = self.student().to(self.device).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        self.wait()
        began = time.perf_counter()
        for input_NX, logits_NC in pairs:
            with autocast(self.device, "bf16"):
                student_NC = model(input_NX)
            loss = softlabels.kd_loss(student_NC.float(), logits_NC, T=T, alpha=1)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        self.wait()
        return time.perf_counter() - began

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def encoded(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG")
    return file.getvalue()


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


if __name__ == "__main__":
    main()
