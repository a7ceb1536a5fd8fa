"""Inputs at speed: decoded once where they fit, as they are asked for where not; tokens, too."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import softlabels
from softlabels.inputs import decoding, examples
from softlabels.inputs.decoding import decode_image
from tests.conftest import save_script


@pytest.fixture
def decoded(monkeypatch) -> list:
    """The ids of the images that were decoded in this process."""
    seen: list = []

    def decode(cell, preprocess, id):
        seen.append(int(id))
        return decode_image(cell, preprocess, id)

    monkeypatch.setattr(decoding, "decode_image", decode)
    return seen


def test_each_image_is_decoded_about_once(dump_folder, decoded):
    dataset = softlabels.load(dump_folder, T=4)
    for epoch in range(3):
        for batch in dataset.batches(100, shuffle=True, epoch=epoch):
            assert batch.columns["input"].dtype == torch.uint8
    dataset.examples._kept.filler.wait()
    assert set(decoded) == set(range(1200))
    assert len(decoded) < 1.5 * 1200, "a few are decoded by both who ask and who fill"


def test_the_first_batch_waits_for_its_own_images_only(dump_folder, decoded, monkeypatch):
    dataset = softlabels.load(dump_folder, T=4)
    monkeypatch.setattr("softlabels.system.background.Filler.start", lambda self: None)
    next(iter(dataset.batches(16, shuffle=True)))
    assert len(decoded) < 30


def test_workers_decode_into_memory_that_the_next_ones_find(dump_folder, decoded, monkeypatch):
    dataset = softlabels.load(dump_folder, T=4)
    expected = softlabels.load(dump_folder, T=4).take(np.arange(1200))["input"]
    for _ in range(2):
        found = torch.cat([b["input"] for b in DataLoader(dataset, 100, num_workers=2)])
        assert torch.equal(found, expected)
    assert dataset.examples._kept.done.all()


@pytest.mark.parametrize("workers", [0, 2])
def test_images_that_do_not_fit_are_decoded_as_they_come(dump_folder, monkeypatch, workers):
    expected = softlabels.load(dump_folder, T=4).take(np.arange(1200))["input"]
    monkeypatch.setattr(examples, "CACHE_BYTES", 1000)
    monkeypatch.setattr(decoding, "PARALLEL_BYTES", 1000)
    monkeypatch.setenv("SOFTLABELS_CACHE_GB", "0")
    dataset = softlabels.load(dump_folder, T=4)
    assert not dataset.examples.kept
    for batch in dataset.batches(100, shuffle=True, workers=workers):
        assert torch.equal(batch["input"], expected[batch["id"]])


class Words(nn.Module):
    """A teacher of token ids: it fails on anything but whole numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.EmbeddingBag(50, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.words(x)


def student() -> nn.Module:
    return Words()


def test_tokens_reach_teacher_and_student_as_whole_numbers(tmp_path):
    import datasets

    tokens = np.random.default_rng(0).integers(0, 50, (200, 8))
    features = datasets.Features({"tokens": datasets.List(datasets.Value("int32"), length=8)})
    data = str(tmp_path / "tokens.parquet")
    datasets.Dataset.from_dict({"tokens": tokens.tolist()}, features=features).to_parquet(data)
    script = save_script(Words(), tmp_path / "words.pt")
    out = str(tmp_path / "d")
    softlabels.dump(teacher=script, data=data, out=out, preprocess="tokens")
    batch = softlabels.load(out, T=2).take(np.array([5, 3]))
    assert batch["input"].tolist() == tokens[[5, 3]].tolist()
    assert batch["input"].dtype == torch.int64
    result = softlabels.train(
        dump=out, T=2, alpha=1, student="tests.targets.test_inputs:student", epochs=3, lr=0.1,
        out=str(tmp_path / "s.pt"),
    )  # fmt: skip
    assert result.metrics["held_out"]["kl"] < 1
