"""Checks that need CUDA. Alone: python -m pytest tests/gpu"""

import numpy as np
import pytest
import torch

import softlabels
from softlabels.store.folder import Folder
from softlabels.store.reader import DumpReader

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


def logits(folder) -> np.ndarray:
    return DumpReader(Folder(folder)).logits.astype(np.float32)


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
