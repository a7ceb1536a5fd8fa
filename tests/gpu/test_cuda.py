"""Checks that need CUDA. Alone: python -m pytest tests/gpu"""

import numpy as np
import pytest
import torch

import softlabels
from softlabels.store.folder import Folder
from softlabels.store.reader import DumpReader
from tests.conftest import every

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


def logits(folder) -> np.ndarray:
    return every(DumpReader(Folder(folder))).astype(np.float32)


@pytest.mark.parametrize(
    ("precision", "tolerance"), [("float32", 2e-2), ("bf16", 0.5), ("fp16", 0.1)]
)
def test_a_dump_on_the_gpu_is_that_of_the_cpu(teacher, tmp_path, precision, tolerance):
    softlabels.dump(teacher=teacher, out=str(tmp_path / "cpu"), device="cpu")
    softlabels.dump(teacher=teacher, out=str(tmp_path / "gpu"), device="cuda", precision=precision)
    difference = logits(tmp_path / "gpu") - logits(tmp_path / "cpu")
    assert abs(difference).max() < tolerance


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_student_learns_on_the_gpu(dump_folder, tmp_path, precision):
    out = str(tmp_path / "s.pt")
    softlabels.train(dump=dump_folder, T=4, student="mlp:64", epochs=10, batch_size=32, lr=3e-3,
                     device="cuda", precision=precision, out=out)  # fmt: skip
    assert softlabels.evaluate(checkpoint=out, device="cuda")["accuracy"] > 0.85
    assert torch.load(out, weights_only=True)["state_dict"]["layers.0.weight"].device.type == "cpu"


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
