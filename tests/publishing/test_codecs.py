"""A dump with side files on the Hub: they go and come with it."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import softlabels
from softlabels.errors import DamagedDump
from tests import codecs
from tests.publishing import work

assert codecs.CODECS["step"]


@pytest.fixture(scope="module")
def original(teacher, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("step") / "d"
    softlabels.dump(
        teacher=teacher, out=str(folder), shard_rows=200, codec="step:0.05", store_inputs="original"
    )
    return folder


def push(dump: str, repo: str) -> dict:
    """In a process that knows the codec, since it knows this module."""
    return work.push(dump, repo, include_inputs=True)


def pull(repo: str, **words) -> dict:
    return work.pull(repo, **words)


def shared(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "shared").iterdir())}


def targets(folder: Path) -> torch.Tensor:
    rows = np.arange(0, 1200, 7)
    return softlabels.load(folder, T=4, inputs=False).take(rows)["soft_target"]


@pytest.mark.slow
def test_side_files_go_and_come_with_a_dump(hub, owner, stranger, original, repo, tmp_path):
    owner(push, str(original), repo)
    assert hub.files(repo)["shared/mean.safetensors"] == shared(original)["mean.safetensors"]
    hub.forget()
    again = owner(push, str(original), repo)
    assert (again["files"], again["bytes"]) == ([], 0)
    whole, bare = tmp_path / "whole", tmp_path / "bare"
    stranger(pull, repo, out=str(whole))
    assert shared(whole) == shared(original)
    assert softlabels.verify(dump=str(whole)).good
    stranger(pull, repo, out=str(bare), labels_only=True)
    assert shared(bare) == shared(original)
    assert softlabels.verify(dump=str(bare)).good
    assert torch.equal(targets(bare), targets(original))
    assert torch.equal(targets(whole), targets(original))


def test_a_side_file_that_was_changed_is_not_pushed(owner, original, repo, tmp_path):
    folder = Path(shutil.copytree(original, tmp_path / "d"))
    file = folder / "shared" / "mean.safetensors"
    file.write_bytes(file.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(DamagedDump):
        owner(push, str(folder), repo)
