"""What holds for every codec of the registry: a new one is tested by its line in `CODECS`."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import softlabels
from softlabels.errors import LogitsError
from softlabels.logits import DenseLogits
from softlabels.store.codecs.kinds import Dense
from softlabels.store.codecs.registry import CODECS, parse_codec

NAMES = [name for name in CODECS if name != "step"]  # that one is of the tests
SHAPES = st.tuples(st.integers(1, 6), st.integers(2, 13))
ROWS = arrays(np.float32, SHAPES, elements=st.floats(-30, 30, width=32))
every_codec = pytest.mark.parametrize("name", NAMES)


def stored(name: str, z: torch.Tensor, dtype: str = "float16"):
    codec = parse_codec(name, z.shape[1], dtype)
    return codec.of_arrays(codec.encode(Dense(z), list(range(len(z)))))


def kl(z: torch.Tensor, logits, T: float) -> torch.Tensor:
    exact = DenseLogits(z.double()).temper(T)
    return (exact.probs() * (exact.log_probs() - logits.temper(T).log_probs().double())).sum(-1)


@every_codec
@given(ROWS, st.sampled_from(["float16", "float32"]))
def test_logits_are_as_near_as_the_codec_says(name, values, dtype):
    z = torch.from_numpy(values)
    logits = stored(name, z, dtype)
    assert len(logits) == len(z)
    assert logits.classes == z.shape[1]
    if logits.is_dense:
        moved = (logits.dense().double() - z).abs()
        assert bool((moved <= logits.rounding() + 1e-5).all())
    assert logits.check()[1] is None
    assert kl(z, logits, 1).mean() < 5e-2


@every_codec
def test_rows_of_equal_logits_stay_uniform(name):
    z = torch.tensor([[3.7] * 5, [0.0] * 5, [-6e4] * 5])
    assert torch.equal(stored(name, z).temper(1).probs(), torch.full((3, 5), 0.2))


@every_codec
@pytest.mark.parametrize("classes", [2, 3, 91])
def test_few_and_odd_numbers_of_classes(name, classes):
    z = torch.randn(500, classes, generator=torch.Generator().manual_seed(0)) * 8
    assert kl(z, stored(name, z), 1).mean() < 5e-3


@every_codec
def test_masked_classes_cost_the_others_little(name):
    """At −10,000 a class has no probability at any T of use, and its range is that of the row."""
    z = torch.randn(50, 90, generator=torch.Generator().manual_seed(0)) * 4
    z = torch.cat([z, torch.full((50, 10), -1e4)], 1)
    logits = stored(name, z)
    assert kl(z, logits, 1).mean() < 5e-3
    assert kl(z, logits, 8).mean() < 1e-3


@every_codec
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e5])
def test_a_value_that_can_not_be_stored_names_its_row(name, value):
    z = torch.zeros(3, 4)
    z[1, 2] = value
    with pytest.raises(LogitsError, match="'b'"):
        parse_codec(name, 4, "float16").encode(Dense(z), ["a", "b", "c"])


@pytest.fixture(scope="module", params=NAMES)
def dump(request, teacher, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp(request.param) / "d"
    softlabels.dump(teacher=teacher, out=str(out), codec=request.param, shard_rows=500)
    return out


def test_a_dump_is_verified_by_its_teacher(dump, teacher, cli):
    done = cli("verify", dump, "--replay", 50, "--teacher", teacher)
    assert done.code == 0, done.err
    assert "agreement 1.0000" in done.out + done.err


def test_a_stream_gives_what_the_map_gives(dump):
    rows = np.array([1100, 3, 700, 3])
    mapped, streamed = (softlabels.load(dump, T=4, streaming=way).take(rows) for way in (0, 1))
    assert torch.equal(mapped["soft_target"], streamed["soft_target"])


def test_its_error_is_stated_where_it_is_measured(dump, cli):
    codec = json.loads((dump / "plan.json").read_text())["codec"]
    measured = parse_codec(codec, 10, "float16").pilot_rows > 0
    assert ("codec's error" in cli("info", dump).out) == measured
