"""Several teachers' dumps on the Hub, streamed and mixed: nothing is fetched but what is read."""

from pathlib import Path

import numpy as np
import pytest
import torch

import softlabels
from softlabels.errors import DamagedDump
from tests.capture import harm
from tests.publishing import work
from tests.targets.test_several import two_teachers


@pytest.fixture
def places(owner, repo, tmp_path) -> dict[str, str]:
    """Two dumps of the same 60 rows, in another order the second, each in a folder of one
    repository and on this disk."""
    for path in two_teachers(tmp_path):
        owner(work.push, path, f"{repo}/{Path(path).name}")
    return {name: f"{repo}/{name}" for name in "ab"}


@pytest.mark.slow
def test_the_mixture_of_two_addresses(stranger, strangers_home, places, tmp_path):
    local = {name: tmp_path / name for name in places}
    teachers = softlabels.load(local, T=2, inputs=False)
    expected = teachers.mix("prob", {"a": 0.25, "b": 0.75}).take(np.arange(60))
    before = list(Path(strangers_home).rglob("*.parquet"))
    mixed = places | {"b": str(local["b"])}
    for where, words in ((places, {"streaming": True}), (mixed, {"cache": False})):
        ids, targets, said = stranger(work.mixed_epoch, where, inputs=False, **words)
        assert sorted(ids) == sorted(expected["id"]) != ids
        rows = [int(id[1:]) for id in ids]
        torch.testing.assert_close(torch.tensor(targets), expected["soft_target"][rows])
        assert not said
    assert list(Path(strangers_home).rglob("*.parquet")) == before


@pytest.mark.slow
def test_damage_is_told_with_the_name_of_the_teacher(owner, stranger, places, repo, tmp_path):
    (name,) = harm.flip_a_logit(tmp_path / "b")
    owner(work.upload, repo, (tmp_path / "b" / "data" / name).read_bytes(), f"b/data/{name}")
    with pytest.raises(DamagedDump, match=rf"^b: hf://datasets/{repo}@\w+/b/data/train-00001"):
        stranger(work.mixed_epoch, places, inputs=False, streaming=True)
