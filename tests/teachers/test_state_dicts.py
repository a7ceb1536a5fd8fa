"""Weights as training programs leave them: wrapped, prefixed, nested, averaged, reordered."""

from collections import OrderedDict
from itertools import pairwise

import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import nn

import softlabels
from softlabels.errors import PlanMismatch, TeacherError, UntrustedPickle, UsageError
from softlabels.inputs import opening
from softlabels.models.specs import build_model
from softlabels.teachers import resolve
from tests.conftest import Lines, make_vectors, save_script

INPUTS = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
HERE = "tests.teachers.test_state_dicts"


class Net(nn.Module):
    """Names at two depths, a batch norm with its counter, and two names for one tensor."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.trunk = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6))
        self.again = nn.Linear(6, 6)
        self.again.weight = self.trunk[0].weight
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.again(self.trunk(x).relu()))


def other() -> dict[str, torch.Tensor]:
    """Weights of Net that no seed gives again."""
    return {n: t + 1 if t.is_floating_point() else t for n, t in Net().state_dict().items()}


def averaged() -> nn.Module:
    return torch.optim.swa_utils.AveragedModel(Net())


class Compiled(nn.Module):
    """What torch.compile makes of a module's names, without the time that it takes."""

    def __init__(self) -> None:
        super().__init__()
        self._orig_mod = Net()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._orig_mod(x)


def answers(weights: dict[str, torch.Tensor]) -> torch.Tensor:
    module = Net()
    module.load_state_dict(weights)
    return module.eval()(INPUTS).detach()


def load(path, factory="Net", **words):
    return resolve(str(path), model=f"{HERE}:{factory}", **words)


def prefixed(prefix: str, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in weights.items()}


PREFIXES = [
    "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "model.", "net.",
    "backbone.", "model.module.", "student.net._orig_mod.", "_fsdp_wrapped_module.",
]  # fmt: skip


@pytest.mark.parametrize("prefix", PREFIXES)
def test_what_all_names_share_comes_off(tmp_path, prefix):
    torch.save(prefixed(prefix, other()), tmp_path / "w.pt")
    for factory in ("Net", "averaged"):
        torch.testing.assert_close(
            load(tmp_path / "w.pt", factory).logits(INPUTS), answers(other())
        )


@pytest.mark.parametrize("wrapper", ["_orig_mod", "module", "_checkpoint_wrapped_module"])
def test_wrappers_in_the_middle_of_a_name_come_off(tmp_path, wrapper):
    weights = {name.replace(".", f".{wrapper}.", 1): t for name, t in other().items()}
    torch.save(weights, tmp_path / "w.pt")
    torch.testing.assert_close(load(tmp_path / "w.pt").logits(INPUTS), answers(other()))


@pytest.mark.parametrize("factory", ["Net", "averaged", "Compiled"])
def test_weights_of_a_wrapped_model_fit_it_and_the_plain_one(tmp_path, factory):
    module = globals()[factory]()
    inner = getattr(module, "module", getattr(module, "_orig_mod", module))
    inner.load_state_dict(other())
    torch.save(module.state_dict(), tmp_path / "w.pt")
    for reader in ("Net", factory):
        found = load(tmp_path / "w.pt", reader)
        torch.testing.assert_close(found.logits(INPUTS), answers(other()))
        assert found.remarks == []


def test_a_prefix_that_most_names_share_comes_off_and_the_others_are_named(tmp_path):
    weights = prefixed("model.", other()) | {"logit_scale": torch.tensor(2.0),
                                             "criterion.weight": torch.ones(3)}  # fmt: skip
    torch.save({"state_dict": weights, "epoch": 1, "hyper_parameters": {}}, tmp_path / "w.ckpt")
    found = load(tmp_path / "w.ckpt")
    torch.testing.assert_close(found.logits(INPUTS), answers(other()))
    assert [remark.partition(": ")[2] for remark in found.remarks] == [
        "not the model's, left out: logit_scale, criterion.weight"
    ]


def test_weights_that_are_less_than_half_are_taken_only_where_they_are_named(tmp_path):
    teachers = prefixed("teacher.a.", Net().state_dict()) | {
        f"teacher.b.{name}": tensor * 2 for name, tensor in other().items()
    }
    weights = prefixed("student.", other()) | teachers
    torch.save(weights | {f"teacher.c.{i}": torch.ones(2) for i in range(9)}, tmp_path / "w.pt")
    with pytest.raises(TeacherError, match=r"several weights.*student, teacher.a, teacher.b.*--k"):
        load(tmp_path / "w.pt")
    assert load(tmp_path / "w.pt", key="teacher.a").key == "teacher.a"
    one = prefixed("student.", other()) | {f"teacher.c.{i}": torch.ones(2) for i in range(99)}
    torch.save(one, tmp_path / "w.pt")
    with pytest.raises(TeacherError, match=r"student fits the model, but is less than half"):
        load(tmp_path / "w.pt")
    torch.testing.assert_close(
        load(tmp_path / "w.pt", key="student").logits(INPUTS), answers(other())
    )


NESTED = {
    "net": lambda w: {"net": w, "acc": 93.1, "epoch": 9},
    "params": lambda w: {"params": w},
    "ema": lambda w: {"ema": w, "epoch": 9},
    "deep": lambda w: {"checkpoint": {"model": {"state_dict": prefixed("module.", w)}}},
    "averaged": lambda w: {"model_ema": {"module": w, "decay": 0.99}},
    "optimizer": lambda w: {"weights": w, "optimizer": {"state": {0: {"exp_avg": w["head.bias"]}}}},
    "twice": lambda w: {"model": w, "state_dict": dict(w)},
    "half": lambda w: {"model": {n: t.half() if t.ndim else t for n, t in w.items()}},
}  # fmt: skip


@pytest.mark.parametrize("wrap", NESTED.values(), ids=NESTED)
def test_the_one_dict_of_weights_is_found(tmp_path, wrap):
    torch.save(wrap(other()), tmp_path / "w.pt")
    found = load(tmp_path / "w.pt")
    torch.testing.assert_close(found.logits(INPUTS), answers(other()), atol=2e-2, rtol=2e-3)
    assert found.remarks == []


@pytest.mark.parametrize("key", ["state_dict_ema", "model_ema", "ema", "swa_state_dict"])
def test_raw_weights_are_taken_beside_averaged_ones_and_both_are_named(tmp_path, key):
    torch.save({"state_dict": other(), key: Net().state_dict()}, tmp_path / "w.pt")
    found = load(tmp_path / "w.pt")
    torch.testing.assert_close(found.logits(INPUTS), answers(other()))
    (remark,) = found.remarks
    assert remark.endswith(f"state_dict is taken; it also holds {key} (--key {key})")
    chosen = load(tmp_path / "w.pt", key=key)
    torch.testing.assert_close(chosen.logits(INPUTS), answers(Net().state_dict()))
    assert (chosen.key, chosen.remarks) == (key, [])


def test_averaged_weights_beside_raw_ones_in_the_same_dict(tmp_path):
    both = prefixed("model.", other()) | prefixed("ema_model.module.", Net().state_dict())
    torch.save({"state_dict": both}, tmp_path / "w.pt")
    found = load(tmp_path / "w.pt")
    assert found.key == "state_dict.model"
    assert "it also holds state_dict.ema_model" in found.remarks[0]
    for key in ("ema_model", "state_dict.ema_model"):
        torch.testing.assert_close(
            load(tmp_path / "w.pt", key=key).logits(INPUTS), answers(Net().state_dict())
        )


@pytest.mark.parametrize("place", ["ema.shadow_params", "ema_weights", "extra"])
def test_averaged_weights_in_a_list_are_named_though_they_can_not_be_taken(tmp_path, place):
    """What torch_ema keeps: the parameters in their order, without names."""
    outer, _, inner = place.partition(".")
    shadow = [parameter.detach() for parameter in Net().parameters()]
    state = {inner: shadow, "decay": 0.99, "collected_params": None} if inner else shadow
    torch.save({"model": other(), outer: state, "moments": [torch.ones(2)]}, tmp_path / "w.pt")
    found = load(tmp_path / "w.pt")
    torch.testing.assert_close(found.logits(INPUTS), answers(other()))
    (remark,) = found.remarks
    assert f"it also holds {place} ({len(shadow)} tensors), averaged weights" in remark
    with pytest.raises(TeacherError, match=rf"is '{place}', .* a list of 7 .*copy_to of torch_ema"):
        load(tmp_path / "w.pt", key=place)
    torch.save({outer: state}, tmp_path / "w.pt")
    with pytest.raises(TeacherError, match=rf"don't fit .*; it also holds {place} \(7 tensors"):
        load(tmp_path / "w.pt")


def test_of_two_raw_ones_none_is_taken_in_silence(tmp_path):
    torch.save({"model": other(), "best": Net().state_dict()}, tmp_path / "w.pt")
    with pytest.raises(TeacherError, match=r"several weights.*model, best.*--key"):
        load(tmp_path / "w.pt")
    with pytest.raises(TeacherError, match=r"--key is 'worst'; .* fit the model as model, best"):
        load(tmp_path / "w.pt", key="worst")
    assert load(tmp_path / "w.pt", key="best").key == "best"
    script = save_script(nn.Linear(6, 3), tmp_path / "script.pt")
    with pytest.raises(UsageError, match="--key is for files of several weights"):
        resolve(script, key="best")


def test_modules_in_a_dict(tmp_path):
    torch.save({"model": Net(), "ema": averaged(), "epoch": 3}, tmp_path / "w.pt")
    found = resolve(str(tmp_path / "w.pt"), trust_pickle=True)
    assert not found.module.training
    assert "model is taken; it also holds ema" in found.remarks[0]
    assert resolve(str(tmp_path / "w.pt"), trust_pickle=True, key="ema").key == "ema"


def test_the_data_that_a_models_shape_is_read_off_are_opened_once(tmp_path, monkeypatch):
    opened, real = [], opening.open_data
    monkeypatch.setattr(
        opening, "open_data", lambda *given: (opened.append(given), real(*given))[1]
    )
    torch.save(build_model("mlp:4", [6], 3).state_dict(), tmp_path / "w.pt")
    data = make_vectors(tmp_path / "v.parquet")
    softlabels.dump(teacher=str(tmp_path / "w.pt"), model="mlp:4", data=data,
                    out=str(tmp_path / "d"))  # fmt: skip
    assert len(opened) == 1


def test_a_misfit_is_told_in_one_line(tmp_path):
    weights = prefixed("encoder.", {f"blocks.{i}.weight": torch.ones(2) for i in range(200)})
    torch.save(weights, tmp_path / "w.pt")
    with pytest.raises(TeacherError) as told:
        load(tmp_path / "w.pt")
    text = str(told.value)
    assert len(text) < 500
    assert "10 of the model's 11 tensors are missing (trunk.0.weight, trunk.0.bias," in text
    assert "200 of the file's 200 are not the model's" in text
    assert "all of the file's names begin with encoder." in text
    wrong = other() | {"head.weight": torch.ones(7, 6), "head.bias": torch.ones(7)}
    torch.save(wrong, tmp_path / "w.pt")
    with pytest.raises(TeacherError, match=r"head.weight is \[7, 6\] in the file, \[3, 6\] in the"):
        load(tmp_path / "w.pt")
    torch.save(other() | {"extra.weight": torch.ones(2)}, tmp_path / "w.pt")
    with pytest.raises(TeacherError, match=r"1 of the file's 12 are not the model's \(extra"):
        load(tmp_path / "w.pt")


def test_names_that_share_memory_may_be_left_out(tmp_path):
    module = Net()
    module.load_state_dict(other())
    save_model(module, str(tmp_path / "w.safetensors"))
    found = load(tmp_path / "w.safetensors")
    torch.testing.assert_close(found.logits(INPUTS), module.eval()(INPUTS))


def test_counters_of_old_files_may_be_missing(tmp_path):
    weights = {n: t for n, t in other().items() if not n.endswith("num_batches_tracked")}
    torch.save(weights, tmp_path / "w.pt")
    torch.testing.assert_close(load(tmp_path / "w.pt").logits(INPUTS), answers(other()))


def test_a_state_dict_that_ends_in_a_scalar(tmp_path):
    weights = OrderedDict(other())
    weights.move_to_end("trunk.1.num_batches_tracked")
    torch.save(weights, tmp_path / "w.pt")
    torch.testing.assert_close(load(tmp_path / "w.pt").logits(INPUTS), answers(other()))


def sequential(*widths: int) -> nn.Sequential:
    torch.manual_seed(4)
    layers: list[nn.Module] = [nn.Flatten()]
    for a, b in pairwise(widths):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


MANY = [6] * 13 + [3]  # layers whose numbers sort otherwise as text, all but one of the same shape


@pytest.mark.parametrize("widths", [[6, 8, 3], [6, 6, 6, 3], MANY], ids=str)
@pytest.mark.parametrize("ending", ["pt", "safetensors"])
def test_layers_are_paired_by_number_whatever_their_order_in_the_file(tmp_path, widths, ending):
    module, path = sequential(*widths), str(tmp_path / f"w.{ending}")
    weights = {f"net.{name}": tensor for name, tensor in module.state_dict().items()}
    torch.save(weights, path) if ending == "pt" else save_file(weights, path)
    spec = "mlp:" + "x".join(map(str, widths[1:-1]))
    found = resolve(path, model=spec, input_shape=lambda: [6])
    torch.testing.assert_close(found.logits(INPUTS), module(INPUTS))


def test_layers_without_numbers(tmp_path):
    module = sequential(6, 8, 3)
    names = {"1": "out", "3": "head"}
    weights = {f"{names[n[0]]}.{n[2:]}": t for n, t in module.state_dict().items()}
    for path in (str(tmp_path / "w.pt"), str(tmp_path / "w.safetensors")):
        torch.save(weights, path) if path.endswith("pt") else save_file(weights, path)
        found = resolve(path, model="mlp:8", input_shape=lambda: [6])
        torch.testing.assert_close(found.logits(INPUTS), module(INPUTS))
    flat = dict(zip(("w1", "b1", "w2", "b2"), module.state_dict().values(), strict=True))
    torch.save(flat, tmp_path / "w.pt")
    found = resolve(str(tmp_path / "w.pt"), model="mlp:8", input_shape=lambda: [6])
    torch.testing.assert_close(found.logits(INPUTS), module(INPUTS))
    equal = sequential(6, 6, 6, 3).state_dict()
    names = {"1": "b", "3": "a", "5": "c"}
    save_file({f"{names[n[0]]}.{n[2:]}": t for n, t in equal.items()}, tmp_path / "w.safetensors")
    with pytest.raises(TeacherError, match="do not tell the order of the layers: a, b, c"):
        resolve(str(tmp_path / "w.safetensors"), model="mlp:6x6", input_shape=lambda: [6])


def test_which_weights_were_taken_is_in_the_plan_and_known_to_replay(tmp_path):
    two = {key: nn.Linear(6, 3).state_dict() for key in ("state_dict", "state_dict_ema")}
    torch.save(two, tmp_path / "w.pt")
    data = make_vectors(tmp_path / "v.parquet", 60)
    words = {"teacher": str(tmp_path / "w.pt"), "model": "linear", "data": data}
    lines = Lines()
    softlabels.dump(progress=lines, **words, out=str(tmp_path / "raw"))
    assert lines.lines[2].endswith(
        "w.pt: state_dict is taken; it also holds state_dict_ema (--key state_dict_ema)"
    )
    softlabels.dump(**words, out=str(tmp_path / "ema"), key="state_dict_ema")
    for out, key in (("raw", "state_dict"), ("ema", "state_dict_ema")):
        rows = softlabels.load(str(tmp_path / out), T=1).take(list(range(60)))
        right = rows["input"] @ two[key]["weight"].T + two[key]["bias"]
        torch.testing.assert_close(rows["logits"].float(), right, atol=2e-2, rtol=1e-2)
        verdict = softlabels.verify(dump=str(tmp_path / out), replay=20, teacher=words["teacher"])
        assert verdict.good
    with pytest.raises(PlanMismatch, match=r"teacher.key is 'state_dict' and was"):
        softlabels.dump(**words, out=str(tmp_path / "ema"), resume=True)


KINDS = {
    "sparse": lambda t: t.to_sparse() if t.ndim == 2 else t,
    "meta": lambda t: t.to("meta"),
    "int8": lambda t: (t * 50).round().to(torch.int8),
    "quantized": lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:.*TypedStorage is deprecated")
def test_tensors_without_the_models_numbers_are_refused(tmp_path, kind):
    weights = {n: KINDS[kind](t) if t.is_floating_point() else t for n, t in other().items()}
    torch.save(weights, tmp_path / "w.pt")
    with pytest.raises(TeacherError, match=r"weight is a tensor of .*which the model can't take"):
        load(tmp_path / "w.pt")


def test_weights_in_lists_and_of_numpy(tmp_path):
    torch.save(([other(), {"lr": 0.1}], 3), tmp_path / "w.pt")
    torch.testing.assert_close(load(tmp_path / "w.pt").logits(INPUTS), answers(other()))
    torch.save({"params": {n: t.numpy() for n, t in other().items()}}, tmp_path / "n.pt")
    with pytest.raises(UntrustedPickle, match=r"numpy arrays: save tensors .* --trust-pickle"):
        load(tmp_path / "n.pt")
    found = load(tmp_path / "n.pt", trust_pickle=True)
    torch.testing.assert_close(found.logits(INPUTS), answers(other()))
    for content, told in [({"shadow": 1}, "a dict with shadow, not a model"), (Net(), "leave out")]:
        torch.save(content, tmp_path / "x.pt")
        with pytest.raises(TeacherError, match=told):
            load(tmp_path / "x.pt", trust_pickle=True)


def test_a_place_may_be_named_as_the_file_has_it(tmp_path):
    both = prefixed("module.q.", other()) | prefixed("module.k.", Net().state_dict())
    torch.save({"state_dict": both}, tmp_path / "w.pt")
    for key in ("q", "state_dict.q", "state_dict.module.q"):
        found = load(tmp_path / "w.pt", key=key)
        torch.testing.assert_close(found.logits(INPUTS), answers(other()))


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyLinear(3))


def on_meta() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 3, device="meta"))


class Stateful(nn.Linear):
    def get_extra_state(self) -> dict[str, int]:
        return {"step": 1}


def stateful() -> nn.Module:
    return Stateful(6, 3)


@pytest.mark.parametrize("factory", ["lazy", "on_meta", "stateful"])
def test_a_model_that_no_weights_can_be_laid_into_is_told(tmp_path, factory):
    told = {"lazy": "0.weight of .* without a shape",
            "on_meta": "0.weight of .* on the device meta",
            "stateful": "_extra_state of .* is no tensor"}  # fmt: skip
    torch.save(nn.Linear(6, 3).state_dict(), tmp_path / "w.pt")
    with pytest.raises(UsageError, match=told[factory]):
        load(tmp_path / "w.pt", factory)
