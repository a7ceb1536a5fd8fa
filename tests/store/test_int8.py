"""The codec int8: what it does to soft targets, and what a dump says of that."""

import json
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import softlabels
from softlabels.errors import LogitsError
from softlabels.logits import DenseLogits
from softlabels.store.codecs.int8 import Int8Codec
from softlabels.store.codecs.kinds import Dense
from tests.conftest import Linear, save_script

SHAPES = st.tuples(st.integers(1, 6), st.integers(2, 12))
ROWS = arrays(np.float32, SHAPES, elements=st.floats(-30, 30, width=32))


def stored(z: torch.Tensor, dtype: str = "float16"):
    codec = Int8Codec(z.shape[1], dtype)
    return codec.of_arrays(codec.encode(Dense(z), list(range(len(z)))))


def kl(z: torch.Tensor, logits, T: float) -> torch.Tensor:
    return DenseLogits(z.double()).temper(T).kl(logits.dense().double())


@given(ROWS, st.sampled_from(["float16", "float32"]))
def test_a_logit_moves_by_half_a_step_at_most(values, dtype):
    z = torch.from_numpy(values)
    logits = stored(z, dtype)
    step = logits.scale_M.double()[:, None]
    moved = (logits.dense().double() - z).abs()
    assert bool((moved <= step / 2 + 1e-5).all())
    assert bool((moved <= logits.rounding() + 1e-5).all())
    assert bool((step <= (z.amax(1) - z.amin(1))[:, None] / 255 * 1.002 + 3e-4).all())


def test_masked_classes_cost_the_others_little():
    """At −10,000 a class has no probability at any T of use; its range would take all steps."""
    z = torch.randn(50, 90, generator=torch.Generator().manual_seed(0)) * 4
    z = torch.cat([z, torch.full((50, 10), -1e4)], 1)
    logits = stored(z)
    assert kl(z, logits, 1).mean() < 5e-3
    assert kl(z, logits, 8).mean() < 1e-3
    assert bool(((z - logits.dense()).abs() <= logits.rounding() + 1e-2).all())


@pytest.fixture(scope="module")
def classifier() -> torch.Tensor:
    """The logits that a net, trained to tell 1,000 classes apart, gives for new rows."""
    random = torch.Generator().manual_seed(0)
    centres = torch.randn(1000, 32, generator=random)

    def draw(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.randint(0, 1000, (rows,), generator=random)
        return centres[labels] + 0.8 * torch.randn(rows, 32, generator=random), labels

    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(32, 128), torch.nn.ReLU(), torch.nn.Linear(128, 1000))
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    for _ in range(400):
        inputs, labels = draw(256)
        loss = torch.nn.functional.cross_entropy(net(inputs), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    inputs, labels = draw(1000)
    with torch.no_grad():
        logits = net(inputs)
    assert float((logits.argmax(-1) == labels).float().mean()) > 0.5
    return logits


def test_of_a_trained_classifier_little_is_lost(classifier):
    logits = stored(classifier)
    assert kl(classifier, logits, 1).mean() < 1e-3
    for T, most in ((0.5, 2e-3), (2, 1e-3), (4, 2e-4), (8, 5e-5)):
        assert kl(classifier, logits, T).mean() < most


@pytest.fixture(scope="module")
def dump(teacher, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("int8") / "d"
    softlabels.dump(teacher=teacher, out=str(out), codec="int8", shard_rows=500)
    return out


def test_a_dump_states_its_error(dump, cli):
    manifest = json.loads((dump / "softlabels.json").read_text())
    plan = json.loads((dump / "plan.json").read_text())
    assert plan == manifest["plan"]
    assert plan["codec"] == "int8"
    assert [entry["T"] for entry in plan["pilot"]["kl"]] == [0.5, 1, 2, 4, 8]
    assert plan["pilot"]["rows"] == 1024
    mean = plan["pilot"]["kl"][1]["mean"]
    assert 0 < mean < plan["pilot"]["kl"][1]["p99"] < 1e-3
    assert manifest["statistics"]["kl"] == pytest.approx(mean, rel=0.2)
    assert f"{mean:.1e} at T=1" in cli("info", dump).out
    assert f"{mean:.1e} at T=1" in (dump / "README.md").read_text()


def test_it_is_read_as_it_was_stored(dump, dump_folder):
    exact = softlabels.load(dump_folder, T=4).take(np.arange(1200))
    batch = softlabels.load(dump, T=4).take(np.arange(1200))
    assert batch["logits"].dtype == torch.float32
    assert float((batch["logits"] - exact["logits"].float()).abs().max()) < 0.2
    assert float((batch["soft_target"] - exact["soft_target"]).abs().max()) < 5e-3


def test_others_read_the_codes_by_the_formats_rule(dump, tmp_path):
    table = datasets.load_dataset(str(dump), cache_dir=str(tmp_path))["train"].with_format("arrow")[
        :
    ]
    codes = np.frombuffer(b"".join(table["logits_codes"].to_pylist()), np.uint8).reshape(-1, 10)
    scale, offset = (
        np.array(table[name].to_pylist(), np.float32)[:, None]
        for name in ("logits_scale", "logits_offset")
    )
    expected = softlabels.load(dump).take(np.arange(1200))["logits"].numpy()
    np.testing.assert_allclose(offset + scale * codes, expected, rtol=1e-6)


def test_a_student_learns_from_it(dump, dump_folder, tmp_path):
    """As from the exact logits, but for rounding."""
    words = {"epochs": 3, "student": "linear", "T": 4, "seed": 1, "out": str(tmp_path / "s.pt")}
    ours, exact = (
        softlabels.train(dump=str(one), **words).metrics["held_out"] for one in (dump, dump_folder)
    )
    assert ours["accuracy"] == pytest.approx(exact["accuracy"], abs=0.02)
    assert ours["kl"] == pytest.approx(exact["kl"], rel=0.02)


@pytest.fixture
def uneven(tmp_path) -> dict:
    """Rows whose last 128, a shard, have logits thirty times as large as the others'."""
    x = np.random.default_rng(0).normal(size=(4096, 6)).astype(np.float32)
    x[-128:] *= 30
    features = datasets.Features({"x": datasets.List(datasets.Value("float32"), length=6)})
    datasets.Dataset.from_dict({"x": x.tolist()}, features).to_parquet(tmp_path / "x.parquet")
    return {
        "teacher": save_script(Linear(), tmp_path / "t.pt"),
        "data": str(tmp_path / "x.parquet"),
        "codec": "int8",
        "shard_rows": 128,
    }


def test_a_shard_unlike_the_pilot_stops_the_dump(uneven, tmp_path):
    out = str(tmp_path / "d")
    with pytest.raises(LogitsError, match=r"shard 31 .* more than 2 times .* --allow-codec-error"):
        softlabels.dump(out=out, **uneven)
    done = softlabels.dump(out=out, resume=True, allow_codec_error=True, **uneven)
    assert done.manifest is not None
    assert done.manifest.statistics.kl_most > 10 * done.manifest.statistics.kl
    verdict = softlabels.verify(dump=out)
    assert verdict.good
    assert any("the pilot measured" in warning for warning in verdict.warnings)
