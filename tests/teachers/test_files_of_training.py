"""Files as training programs leave them: beside options of a run and other objects, in shards, in
half precision."""

import argparse
import json
import pathlib
import sys
import types
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import softlabels
from softlabels.errors import TeacherError, UntrustedPickle
from tests.conftest import make_vectors
from tests.teachers.test_resolving import Bomb
from tests.teachers.test_state_dicts import (
    INPUTS,
    Net,
    answers,
    load,
    other,
    prefixed,
)


class Options(dict):
    """Such as omegaconf's: a class of a library that is not installed."""


@pytest.fixture
def strange(monkeypatch):
    """An object whose module is gone when the file is read."""
    module = types.ModuleType("nowhere_to_be_imported")
    made = type("Config", (), {"__module__": module.__name__})
    module.Config = made
    monkeypatch.setitem(sys.modules, module.__name__, module)
    config = made()
    config.lr = torch.ones(3)
    yield config
    assert module.__name__ not in sys.modules, "reading a file imports nothing"


def lightning(**more) -> dict:
    """What Lightning saves, by its keys."""
    return {
        "epoch": 3, "global_step": 120, "pytorch-lightning_version": "2.5.0",
        "state_dict": prefixed("model.", other()),
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"current": {"ready": 4}}}},
        "callbacks": {"ModelCheckpoint{'monitor': 'val'}": {
            "best_model_score": torch.tensor(0.9), "best_model_path": "a.ckpt", "kth_value": None}},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(6, 6)}}, "param_groups": []}],
        "lr_schedulers": [], "hparams_name": "kwargs", "hyper_parameters": {"lr": 0.1},
        **more,
    }  # fmt: skip


OBJECTS = {
    "a run's options": (lambda: argparse.Namespace(lr=0.1, data=Path("x")), "argparse.Namespace"),
    "a path": (lambda: pathlib.PurePosixPath("a/b"), "pathlib"),
    "a number of numpy": (lambda: np.float64(0.93), "numpy"),
    "a function": (lambda: partial(torch.optim.SGD, lr=0.1), "functools.partial"),
    "an array": (lambda: np.arange(3), "numpy"),
}


def test_a_lightning_checkpoint(tmp_path):
    torch.save(lightning(), tmp_path / "last.ckpt")
    found = load(tmp_path / "last.ckpt")
    torch.testing.assert_close(found.logits(INPUTS), answers(other()))
    assert (found.key, found.remarks) == ("state_dict.model", [])


def test_the_averaged_weights_of_lightnings_callback_are_named(tmp_path):
    swa = {
        "StochasticWeightAveraging": {"average_model_state": prefixed("model.", Net().state_dict())}
    }
    torch.save(lightning(callbacks=swa), tmp_path / "last.ckpt")
    found = load(tmp_path / "last.ckpt")
    torch.testing.assert_close(found.logits(INPUTS), answers(other()))
    key = "callbacks.StochasticWeightAveraging.average_model_state.model"
    assert f"it also holds {key} (--key {key})" in found.remarks[0]


def test_a_misfit_is_told_of_the_weights_and_not_of_the_optimizer(tmp_path):
    momenta = {str(i): {"exp_avg": torch.ones(100, 100)} for i in range(9)}
    weights = prefixed("model.", other()) | {"model.head.weight": torch.ones(7, 6)}
    torch.save(lightning(state_dict=weights, optimizer_states=[momenta]), tmp_path / "last.ckpt")
    with pytest.raises(TeacherError, match=r"head.weight is \[7, 6\] in the file, \[3, 6\] in the"):
        load(tmp_path / "last.ckpt")


@pytest.mark.parametrize("kind", OBJECTS)
def test_weights_beside_objects_are_read_without_these(tmp_path, kind):
    make, name = OBJECTS[kind]
    torch.save(lightning(hyper_parameters={"x": make()}), tmp_path / "last.ckpt")
    found = load(tmp_path / "last.ckpt")
    torch.testing.assert_close(found.logits(INPUTS), answers(other()))
    (remark,) = found.remarks
    assert "objects that could run code were left out" in remark
    assert name in remark


def test_objects_of_code_that_is_not_here_do_no_harm(tmp_path, strange, monkeypatch):
    torch.save(lightning(hyper_parameters=strange), tmp_path / "last.ckpt")
    monkeypatch.delitem(sys.modules, "nowhere_to_be_imported")
    torch.testing.assert_close(load(tmp_path / "last.ckpt").logits(INPUTS), answers(other()))
    with pytest.raises(UntrustedPickle, match=r"nowhere_to_be_imported.Config.*--trust-pickle"):
        softlabels.dump(teacher=str(tmp_path / "last.ckpt"), data="digits",
                        out=str(tmp_path / "d"))  # fmt: skip


def test_a_bomb_beside_weights_is_refused_and_never_run(tmp_path):
    mark = tmp_path / "ran"
    torch.save(lightning(hyper_parameters=Bomb(mark)), tmp_path / "last.ckpt")
    with pytest.raises(UntrustedPickle, match="mkdir"):
        load(tmp_path / "last.ckpt")
    torch.save(lightning(hyper_parameters=partial(eval, "1")), tmp_path / "last.ckpt")
    with pytest.raises(UntrustedPickle, match=r"builtins.eval|eval"):
        load(tmp_path / "last.ckpt")
    assert not mark.exists()


def test_weights_within_an_object_are_not_claimed_to_be_absent(tmp_path):
    torch.save({"model": Net(), "optimizer": {"state": {0: {"m": torch.ones(2)}}}}, tmp_path / "m")
    with pytest.raises(TeacherError, match=r"don't fit .* left out.*Net.*if weights are in them"):
        load(tmp_path / "m")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_in_half_precision_run_in_float32(tmp_path, dtype):
    weights = {n: t.to(dtype) if t.is_floating_point() else t for n, t in other().items()}
    torch.save({"state_dict": weights}, tmp_path / "w.pt")
    save_file({n: t.clone() for n, t in weights.items()}, tmp_path / "w.safetensors")
    right = answers({n: t.float() if t.is_floating_point() else t for n, t in weights.items()})
    for name in ("w.pt", "w.safetensors"):
        assert torch.equal(load(tmp_path / name).logits(INPUTS), right)


def shard(folder: Path, ending: str) -> Path:
    """Weights of `other` in two files and their index, as transformers names them."""
    folder.mkdir(exist_ok=True)
    stem = {"safetensors": "model", "bin": "pytorch_model"}[ending]
    weights, weight_map = list(other().items()), {}
    for number, part in enumerate((dict(weights[:5]), dict(weights[5:])), 1):
        name = f"{stem}-{number:05d}-of-00002.{ending}"
        part = {key: tensor.clone() for key, tensor in part.items()}
        save_file(part, folder / name) if ending == "safetensors" else torch.save(
            part, folder / name
        )
        weight_map |= dict.fromkeys(part, name)
    index = folder / f"{stem}.{ending}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return index


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
@pytest.mark.parametrize("given", ["index", "folder"])
def test_weights_in_shards(tmp_path, ending, given):
    index = shard(tmp_path / "big", ending)
    found = load(index if given == "index" else index.parent)
    torch.testing.assert_close(found.logits(INPUTS), answers(other()))
    assert found.name == "big"
    before = found.fingerprint
    part = sorted(index.parent.glob(f"*2-of*.{ending}"))[0]
    part.write_bytes(part.read_bytes() + b" ")
    if ending == "bin":
        assert load(index).fingerprint != before
    part.unlink()
    with pytest.raises(
        TeacherError, match=rf"lists 2 files, of which 1 missing: .*2-of-00002.{ending}"
    ):
        load(index)


def test_a_shard_of_other_weights_is_named(tmp_path):
    index = shard(tmp_path / "big", "safetensors")
    save_file({"head.bias": torch.ones(3)}, index.parent / "model-00002-of-00002.safetensors")
    with pytest.raises(TeacherError, match=r"2-of-00002.* lacks \d+ of the \d+ tensors .* lists"):
        load(index)


@pytest.mark.parametrize("text", ["{", "{}", '{"weight_map": 3}', '{"weight_map": {}}',
                                  '{"weight_map": {"a": "../a.safetensors"}}'])  # fmt: skip
def test_an_index_that_is_none(tmp_path, text):
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(TeacherError, match=r"no index of weights|lists"):
        load(tmp_path / "model.safetensors.index.json")


def test_a_dump_from_shards_is_replayed(tmp_path, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    index = shard(tmp_path / "big", "safetensors")
    data, out = make_vectors(tmp_path / "v.parquet", 40), str(tmp_path / "d")
    model = "tests.teachers.test_state_dicts:Net"
    softlabels.dump(teacher=str(index.parent), model=model, data=data, out=out)
    assert softlabels.verify(dump=out, replay=20, teacher=str(index), model=model).good
