"""Checks that need CUDA. Alone: python -m pytest tests/gpu"""

import json
import subprocess
import sys

import datasets
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import softlabels
from softlabels.capture import pipeline
from softlabels.errors import OutOfMemory, UsageError
from softlabels.inputs.augmented import Augmented
from softlabels.inputs.views.augment import parse_augment
from softlabels.inputs.views.mixing import Mixing, mixed
from softlabels.store.folder import Folder
from softlabels.store.reader import DumpReader
from tests.conftest import Linear, Lines, every, make_vectors

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


def logits(folder) -> np.ndarray:
    return every(DumpReader(Folder(folder))).astype(np.float32)


@pytest.mark.parametrize(
    ("precision", "tolerance"),
    [("float32", 2e-2), ("tf32", 0.1), ("bf16", 0.5), ("fp16", 0.1)],
)
def test_a_dump_on_the_gpu_is_that_of_the_cpu(teacher, tmp_path, precision, tolerance):
    softlabels.dump(teacher=teacher, out=str(tmp_path / "cpu"), device="cpu")
    softlabels.dump(teacher=teacher, out=str(tmp_path / "gpu"), device="cuda", precision=precision)
    difference = logits(tmp_path / "gpu") - logits(tmp_path / "cpu")
    assert abs(difference).max() < tolerance


class Deep(nn.Module):
    """Twenty narrow convolutions without residuals, whose rounding adds up, and logits that span
    about what those of a trained net do."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, 2, 1)]
        for _ in range(20):
            layers += [
                nn.BatchNorm2d(64, momentum=None),
                nn.ReLU(),
                nn.Conv2d(64, 64, 3, 1, 1, bias=False),
            ]
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(64, 100)
        x = torch.randn(64, 3, 32, 32)
        with torch.no_grad():
            self.layers.train()(x)  # running statistics of such inputs
            z = self.eval()(x)
            self.head.weight *= 3 / (z - z.mean(0)).std()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x))


@pytest.mark.parametrize("precision", ["float32", "tf32", "bf16", "fp16"])
def test_no_precision_makes_a_steady_teacher_depend_on_its_batch(tmp_path, precision):
    torch.save(Deep(), tmp_path / "t.pt")
    inputs = np.random.default_rng(0).standard_normal((256, 3, 32, 32), np.float32)
    datasets.Dataset.from_dict(
        {"x": list(inputs)},
        features=datasets.Features({"x": datasets.Array3D((3, 32, 32), "float32")}),
    ).to_parquet(tmp_path / "d.parquet")
    out = str(tmp_path / "d")
    softlabels.dump(teacher=str(tmp_path / "t.pt"), data=str(tmp_path / "d.parquet"), out=out,
                    device="cuda", precision=precision, trust_pickle=True)  # fmt: skip
    for device in ("cuda",) if precision == "bf16" else ("cuda", "cpu"):
        verdict = softlabels.verify(dump=out, replay=100, teacher=str(tmp_path / "t.pt"),
                                    data=str(tmp_path / "d.parquet"), trust_pickle=True,
                                    device=device)  # fmt: skip
        assert verdict.replay is not None
        print(precision, device, verdict.replay)
        assert verdict.replay.steady


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_convolutional_net_has_its_channels_last_in_less_than_float32(tmp_path, precision):
    torch.save(Deep(), tmp_path / "t.pt")
    words = {"teacher": str(tmp_path / "t.pt"), "data": "digits", "trust_pickle": True,
             "preprocess": "rgb|resize(32)|scale(255)", "device": "cuda", "precision": precision,
             "own_labels": True, "dtype": "float32"}  # fmt: skip
    plans = {}
    for layout in ("auto", "contiguous", "channels_last"):
        out = tmp_path / layout
        done = softlabels.dump(**words, memory_format=layout, out=str(out))
        assert done.manifest is not None
        plans[layout] = done.manifest.plan.memory_format
    expected = None if precision == "float32" else "channels_last"
    assert plans == {"auto": expected, "contiguous": None, "channels_last": "channels_last"}
    apart = logits(tmp_path / "contiguous") - logits(tmp_path / "channels_last")
    spread = logits(tmp_path / "contiguous").std()
    assert abs(apart).max() < (1e-3 if precision == "float32" else 0.2) * spread


class Broad(nn.Module):
    """Vectors of 6 through wide layers, so that a batch computes while others are copied."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(6, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(),
                                    nn.Linear(4096, 100))  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


@pytest.mark.parametrize("codec", ["dense", "int8"])
def test_logits_are_the_same_whatever_is_in_flight(tmp_path, monkeypatch, codec):
    data, net = make_vectors(tmp_path / "v.parquet", 5000), Broad().cuda().eval()
    words = {"teacher": net, "data": data, "batch_size": 50, "shard_rows": 1000, "codec": codec}
    for flight in (1, 4, 64):
        monkeypatch.setattr(pipeline, "WRITES_IN_FLIGHT", flight)
        softlabels.dump(**words, out=str(tmp_path / str(flight)))
    one = logits(tmp_path / "1")
    assert (one == logits(tmp_path / "4")).all()
    assert (one == logits(tmp_path / "64")).all()
    with torch.inference_mode():
        exact = net(softlabels.examples(data)["input"].cuda()).cpu().numpy()
    assert abs(one - exact).max() < (2e-2 if codec == "dense" else 0.05)


class Hungry(Linear):
    """Takes 2⁻⁹ of the GPU's memory for each row."""

    def forward(self, x: Tensor) -> Tensor:
        share = torch.cuda.get_device_properties(0).total_memory >> 9
        taken = torch.empty(len(x), share, dtype=torch.uint8, device=x.device)
        return super().forward(x) + 0 * taken[:, :1]


def test_a_batch_size_is_found_below_what_the_gpu_has_no_memory_for(tmp_path):
    data, progress = make_vectors(tmp_path / "v.parquet", 2000), Lines()
    words = {"teacher": Hungry().cuda(), "data": data, "name": "t"}
    softlabels.dump(**words, batch_size="auto", progress=progress, out=str(tmp_path / "found"))
    [line] = [line for line in progress.lines if line.startswith("batches of ")]
    print(line)
    size = int(line.split()[2])
    assert 32 <= size < 512
    softlabels.dump(**words, batch_size=32, out=str(tmp_path / "given"))
    assert abs(logits(tmp_path / "found") - logits(tmp_path / "given")).max() < 2e-2
    commit = json.loads((tmp_path / "found" / "commits" / "00000.json").read_text())
    assert commit["at_once"] <= size
    assert commit["device"] == f"cuda, {torch.cuda.get_device_name()}"
    with pytest.raises(OutOfMemory, match=r"with 1,024 rows at once; use a smaller --batch-size"):
        softlabels.dump(**words, batch_size=1024, out=str(tmp_path / "never"))


def test_two_processes_for_one_gpu_are_refused_in_words(dump_folder, tmp_path):
    gpus = torch.cuda.device_count()
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone",
         f"--nproc-per-node={gpus + 1}", "-m", "softlabels", "train", dump_folder, "--T", "4",
         "--epochs", "1", "--out", str(tmp_path / "s.pt")],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode != 0
    assert f"{gpus + 1} processes train on this machine and it has" in done.stderr
    assert not (tmp_path / "s.pt").exists()


def test_one_process_that_torchrun_starts_leaves_quietly(dump_folder, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1",
         "-m", "softlabels", "train", dump_folder, "--T", "4", "--epochs", "1",
         "--out", str(tmp_path / "s.pt")],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "destroy_process_group" not in done.stderr


@pytest.mark.parametrize("precision", ["float32", "tf32", "bf16", "fp16"])
def test_a_student_learns_on_the_gpu(dump_folder, tmp_path, precision):
    out = str(tmp_path / "s.pt")
    softlabels.train(dump=dump_folder, T=4, student="mlp:64", epochs=10, batch_size=32, lr=3e-3,
                     device="cuda", precision=precision, out=out)  # fmt: skip
    assert softlabels.evaluate(checkpoint=out, device="cuda")["accuracy"] > 0.85
    assert torch.load(out, weights_only=True)["state_dict"]["layers.0.weight"].device.type == "cpu"


@pytest.mark.parametrize("compile", [False, True])
def test_a_step_that_overflows_fp16_on_the_gpu_is_skipped_and_counted(
    dump_folder, tmp_path, monkeypatch, compile
):
    from tests.students.test_half_precision import HERE, Net
    from tests.students.test_resume import history

    monkeypatch.setattr(Net, "bad", frozenset() if compile else frozenset([2, 9]))
    words = {"dump": dump_folder, "T": 4, "student": f"{HERE}:Net", "epochs": 10, "lr": 1e-2,
             "batch_size": 200, "device": "cuda", "compile": compile}  # fmt: skip
    softlabels.train(**words, precision="fp16", clip_norm=1.0, out=str(tmp_path / "half.pt"))
    softlabels.train(**words, clip_norm=1.0, out=str(tmp_path / "whole.pt"))
    skipped = [line["skipped_steps"] for line in history(tmp_path / "half.pt")]
    assert skipped[:2] == ([0, 0] if compile else [1, 1])
    assert not any(skipped[2:])
    half, whole = (
        torch.load(tmp_path / name, weights_only=True) for name in ("half.pt", "whole.pt")
    )
    assert {value.dtype for value in half["state_dict"].values()} == {torch.float32}
    scores = [one["metrics"]["held_out"]["nll"] for one in (half, whole)]
    assert abs(scores[0] - scores[1]) < 0.1


def test_the_gpus_answers_are_those_that_the_cpu_stored(dump_folder, teacher):
    verdict = softlabels.verify(dump=dump_folder, replay=300, teacher=teacher, device="cuda")
    assert verdict.good
    assert verdict.replay is not None
    assert verdict.replay.steady


def test_ranks_take_their_own_gpus(teacher, tmp_path):
    from tests.capture.test_engines import finish, ranks

    words = {"teacher": teacher, "shard_rows": 100, "device": "cuda"}
    assert finish(ranks(2, **words, out=str(tmp_path / "two"))) == [0, 0]
    softlabels.dump(**words, out=str(tmp_path / "one"))
    difference = logits(tmp_path / "two") - logits(tmp_path / "one")
    assert abs(difference).max() < 2e-2
    assert softlabels.verify(dump=str(tmp_path / "two")).good


@pytest.mark.parametrize("keep", ["auto", "gpu", "disk"])
def test_batches_are_the_same_wherever_they_are_kept(dump_folder, keep):
    kept = softlabels.load(dump_folder, T=4, keep=keep, device="cuda")
    expected = softlabels.load(dump_folder, T=4)
    on_gpu = keep in ("auto", "gpu")
    pairs = zip(kept.batches(100, shuffle=True), expected.batches(100, shuffle=True), strict=True)
    for batch, other in pairs:
        assert batch["logits"].is_cuda == on_gpu
        assert batch["input"].is_cuda == on_gpu
        moved = batch.to("cuda", non_blocking=True)
        for name in ("id", "label", "logits", "input", "soft_target"):
            torch.testing.assert_close(moved[name].cpu(), other[name])


def test_pinned_batches_of_workers(dump_folder):
    dataset = softlabels.load(dump_folder, T=4)
    loader = torch.utils.data.DataLoader(dataset, batch_size=100, num_workers=2, pin_memory=True)
    for batch in loader:
        assert batch["logits"].is_pinned()
        assert batch.to("cuda", non_blocking=True)["soft_target"].is_cuda
    assert next(iter(dataset.batches(9, workers=1, pin_memory=True)))["logits"].is_pinned()


@pytest.mark.parametrize("augment", ["jitter(2)", "random_resized_crop(8)|random_crop(8, 1)|flip"])
def test_views_are_shown_alike_on_both(teacher, tmp_path, augment):
    words = {"teacher": teacher, "views": 2, "augment": augment}
    for device in ("cpu", "cuda"):
        softlabels.dump(**words, device=device, out=str(tmp_path / device))
    both = softlabels.load({name: tmp_path / name for name in ("cpu", "cuda")}, inputs=False)
    stored = both[:]["logits"]
    torch.testing.assert_close(stored["cuda"].float(), stored["cpu"].float(), rtol=0, atol=2e-2)
    rows = np.random.default_rng(0).permutation(3600)[:500]
    kept = softlabels.load(tmp_path / "cuda", keep="gpu", device="cuda").take(rows)
    # what is cut from source pictures is decoded for each batch
    assert kept["input"].is_cuda == (augment == "jitter(2)")
    drawn = [DumpReader(Folder(tmp_path / name)) for name in ("cpu", "cuda")]
    assert np.array_equal(drawn[0].view_hashes, drawn[1].view_hashes)
    here = softlabels.load(tmp_path / "cuda").take(rows)
    for name in ("id", "view", "logits"):
        assert torch.equal(kept[name].cpu(), here[name]), name
    # CUDA divides by a number by multiplying with its inverse: a bit of rounding, no other pixel
    torch.testing.assert_close(kept["input"].cpu(), here["input"], rtol=0, atol=1e-6)
    found = softlabels.verify(
        dump=str(tmp_path / "cpu"), replay=300, teacher=teacher, device="cuda"
    )
    assert found.good
    trained = softlabels.train(dump=str(tmp_path / "cuda"), T=4, student="mlp:64", epochs=30,
                               lr=3e-3, device="cuda", out=str(tmp_path / "s.pt"))  # fmt: skip
    assert trained.metrics["held_out"]["accuracy"] > 0.5


def test_pictures_in_the_memory_of_a_gpu_are_augmented_as_those_of_the_cpu(dump_folder, tmp_path):
    augment = parse_augment("random_crop(8, 2)|flip|jitter(1)|color_jitter(0.9, 0.9)|erase(0.5)")
    rows = np.arange(1200)[::-1].copy()
    shown = {}
    for keep in ("gpu", "disk"):
        dataset = softlabels.load(dump_folder, keep=keep, device="cuda")
        augmented = Augmented(dataset.examples, augment, 3, dataset.ids)
        shown[keep] = augmented.gather(rows, 2)
    assert shown["gpu"].is_cuda
    assert torch.equal(shown["gpu"].cpu(), shown["disk"])
    trained = softlabels.train(
        dump=dump_folder, T=4, student="mlp:64", epochs=30, lr=3e-3, device="cuda",
        augment="random_crop(8, 1)", out=str(tmp_path / "s.pt"),
    )  # fmt: skip
    assert trained.metrics["held_out"]["accuracy"] > 0.5


@pytest.mark.parametrize("size", [9, 224])
def test_colours_and_parts_are_the_same_on_a_gpu(size):
    """Levels are whole, and every operation is rounded in one way only."""
    pictures = np.random.default_rng(0).integers(0, 256, (48, 3, size, size), np.uint8)
    pictures[24:] = pictures[24:] // 8 + 100
    batch = torch.from_numpy(pictures)
    text = "color_jitter(1, 1, 1, 0.5)|grey(0.3)|erase(0.5, 0.1, 0.4, (9, 90, 200))"
    augment = parse_augment(text).on([3, size, size], "it")
    drawn = augment.draw(0, np.arange(48), 1)
    there = batch.cuda()
    shown = augment.apply(there, drawn)
    assert shown.is_cuda
    assert torch.equal(shown.cpu(), augment.apply(batch, drawn))
    assert torch.equal(there.cpu(), batch), "what is given stays"


def test_a_module_in_memory_runs_where_it_lies_and_a_callable_gets_what_was_asked(
    vectors, tmp_path
):
    net, seen = Linear().cuda(), []
    softlabels.dump(teacher=net, data=vectors, out=str(tmp_path / "module"), dtype="float32")
    assert next(net.parameters()).is_cuda
    expected = Linear()(softlabels.examples(vectors)["input"]).detach().numpy()
    np.testing.assert_allclose(logits(tmp_path / "module"), expected, atol=1e-4)
    with pytest.raises(UsageError, match=r"--device is 'cpu', and the teacher Linear lies on cuda"):
        softlabels.dump(teacher=net, data=vectors, out=str(tmp_path / "never"), device="cpu")

    def api(batch: Tensor) -> Tensor:
        seen.append(batch.device.type)
        return batch[:, :3]

    words = {"teacher": api, "name": "api", "version": "1", "data": vectors}
    softlabels.dump(**words, out=str(tmp_path / "cpu"))
    assert set(seen) == {"cpu"}
    seen.clear()
    softlabels.dump(**words, out=str(tmp_path / "cuda"), device="cuda")
    assert set(seen) == {"cuda"}
    assert (logits(tmp_path / "cpu") == logits(tmp_path / "cuda")).all()


def test_pictures_are_mixed_as_on_the_cpu():
    chance = np.random.default_rng(0)
    own, partners = (
        torch.from_numpy(chance.integers(0, 256, (64, 3, 9, 7), "uint8")) for _ in "ab"
    )
    drawn = Mixing(0.5, 1.0).on([3, 9, 7]).draw(0, np.arange(64, dtype=np.uint64), 1)
    for kind in (torch.uint8, torch.float32):
        here, there = own.to(kind), partners.to(kind)
        found = mixed(here.cuda(), there.cuda(), drawn)
        assert torch.equal(found.cpu(), mixed(here, there, drawn))
