"""Every kind of teacher's file through `resolve`, and every bad one."""

import os
import pickle
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from softlabels.errors import TeacherError, UntrustedPickle, UsageError
from softlabels.models.exported import is_plain_guard, is_plain_size
from softlabels.teachers import resolve
from tests.conftest import Linear, save_script

INPUTS = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))


def sequential() -> torch.nn.Sequential:
    torch.manual_seed(3)
    return torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))


def export(module: torch.nn.Module, path: Path, dynamic: bool) -> str:
    shapes = ({0: torch.export.Dim("batch")},) if dynamic else None
    torch.export.save(torch.export.export(module, (INPUTS,), dynamic_shapes=shapes), str(path))
    return str(path)


def test_checkpoint_knows_itself(teacher):
    found = resolve(teacher)
    assert (found.kind, found.spec) == ("checkpoint", "mlp:64")
    assert found.preprocess == "upright|scale(255)"
    assert found.data["data"] == "digits"
    assert found.class_names == list("0123456789")
    assert not found.module.training


def test_torchscript(tmp_path):
    module = Linear().eval()
    found = resolve(save_script(module, tmp_path / "any.name"))
    assert found.kind == "torchscript"
    torch.testing.assert_close(found.logits(INPUTS), module(INPUTS))


@pytest.mark.parametrize("dynamic", [True, False])
@pytest.mark.parametrize("rows", [1, 4, 5, 12])
def test_exported_program_at_any_batch_size(tmp_path, dynamic, rows):
    module = sequential()
    found = resolve(export(module, tmp_path / "t.pt2", dynamic))
    inputs = torch.randn(rows, 6)
    assert found.kind == "exported"
    torch.testing.assert_close(found.logits(inputs), module(inputs))


@pytest.mark.parametrize("wrap", [dict, lambda d: {"state_dict": d, "epoch": 3},
                                  lambda d: {"module." + k: v for k, v in d.items()}])  # fmt: skip
def test_bare_state_dict_with_its_model(tmp_path, wrap):
    module = sequential()
    torch.save(wrap(module.state_dict()), tmp_path / "w.pt")
    found = resolve(str(tmp_path / "w.pt"), model="mlp:8", input_shape=lambda: [6])
    torch.testing.assert_close(found.logits(INPUTS), module(INPUTS))


def test_safetensors_and_a_factory(tmp_path, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    module = sequential()
    save_file(module.state_dict(), tmp_path / "w.safetensors")
    spec = "tests.teachers.test_resolving:sequential"
    found = resolve(str(tmp_path / "w.safetensors"), model=spec)
    torch.testing.assert_close(found.logits(INPUTS), module(INPUTS))


@pytest.mark.parametrize("kind", ["torchscript", "exported", "safetensors"])
def test_a_name_that_is_no_utf8_is_told_in_words(tmp_path, kind):
    plain = str(tmp_path / "t.pt")
    if kind == "torchscript":
        save_script(Linear(), Path(plain))
    elif kind == "exported":
        export(sequential(), Path(plain), dynamic=True)
    else:
        save_file(sequential().state_dict(), plain)
    path = tmp_path / os.fsdecode(b"t-\xff.pt")
    path.write_bytes(Path(plain).read_bytes())
    with pytest.raises(TeacherError, match=rf"udcff.pt': a {kind} file .* no UTF-8; rename it"):
        resolve(str(path), model="mlp:8", input_shape=lambda: [6])


def test_state_dict_without_or_with_another_model(tmp_path):
    path = str(tmp_path / "w.pt")
    torch.save(sequential().state_dict(), path)
    with pytest.raises(TeacherError, match=r"bare state dict.*add --model"):
        resolve(path)
    with pytest.raises(TeacherError, match="4 tensors, not 6"):
        resolve(path, model="mlp:8x8", input_shape=lambda: [6])
    with pytest.raises(TeacherError, match="don't fit --model mlp:9: size mismatch"):
        resolve(path, model="mlp:9", input_shape=lambda: [6])
    with pytest.raises(UsageError, match="can't import nowhere"):
        resolve(path, model="nowhere.at_all:factory")


class Bomb:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("how", ["torch", "legacy", "plain"])
def test_a_pickle_is_refused_and_never_run(tmp_path, how):
    path, mark = tmp_path / "t.pt", tmp_path / "ran"
    if how == "plain":
        path.write_bytes(pickle.dumps(Bomb(mark)))
    else:
        torch.save(Bomb(mark), path, _use_new_zipfile_serialization=how == "torch")
    with pytest.raises(UntrustedPickle, match="--trust-pickle"):
        resolve(str(path))
    assert not mark.exists()


def test_a_whole_pickled_model_loads_when_trusted(tmp_path):
    path = tmp_path / "t.pt"
    torch.save(Linear(), path)
    with pytest.raises(UntrustedPickle, match=r"Linear"):
        resolve(str(path))
    assert resolve(str(path), trust_pickle=True).logits(INPUTS).shape == (5, 3)


def repack(source: str, target: Path, change) -> str:
    """A copy of a zip archive with some members replaced."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return str(target)


def test_a_hostile_exported_program_is_refused_and_never_run(tmp_path):
    good = export(sequential(), tmp_path / "good.pt2", True)
    mark = tmp_path / "ran"
    code = f"__import__('os').mkdir({str(mark)!r})"
    guards = f'"guards_code": ["{code}"]'.encode()
    bomb, old = pickle.dumps(Bomb(mark)), pickle.dumps(Bomb(mark), protocol=0)
    attacks = {
        "pickle": lambda n, c: bomb if "sample_inputs" in n else c,
        "old pickle": lambda n, c: old if "sample_inputs" in n else c,
        "flag": lambda n, c: c.replace(b'"use_pickle": false', b'"use_pickle": true'),
        "operator": lambda n, c: c.replace(b"torch.ops.aten.relu.default", b"torch.os.system"),
        "guard": lambda n, c: c.replace(b'"guards_code": []', guards),
    }
    for name, change in attacks.items():
        path = repack(good, tmp_path / f"{name}.pt2", change)
        with pytest.raises(UntrustedPickle, match="--trust-pickle"):
            resolve(path)
    assert not mark.exists()


def test_weights_whose_bytes_begin_like_a_pickle(tmp_path):
    """One tensor in 256 begins with the byte 0x80. Where torch would read a pickle, such a member
    is refused as before."""
    module = sequential()
    with torch.no_grad():
        module[0].weight[0, 0] = torch.tensor(0x3F800080, dtype=torch.int32).view(torch.float32)
    path = export(module, tmp_path / "t.pt2", True)
    torch.testing.assert_close(resolve(path).logits(INPUTS), module(INPUTS))
    mark = tmp_path / "ran"
    bomb = pickle.dumps(Bomb(mark))
    hidden = repack(path, tmp_path / "h.pt2", lambda n, c: bomb if n.endswith("weight_0") else
                    c.replace(b'"use_pickle": false', b'"use_pickle": true'))  # fmt: skip
    renamed = repack(path, tmp_path / "r.pt2",
                     lambda n, c: c.replace(b'"weight_0"', b'"opaque_obj_0"'))  # fmt: skip
    attacks = [hidden]
    for protocol in (0, 4):
        attacks.append(str(tmp_path / f"r{protocol}.pt2"))
        shutil.copy(renamed, attacks[-1])
        with zipfile.ZipFile(attacks[-1], "a") as archive:
            names = archive.namelist()
            folder = next(n for n in names if n.endswith("weight_0")).rpartition("/")[0]
            bomb = pickle.dumps(Bomb(mark), protocol=protocol)
            archive.writestr(f"{folder}/opaque_obj_0", bomb)
    for attack in attacks:
        with pytest.raises(UntrustedPickle, match="--trust-pickle"):
            resolve(attack)
    assert not mark.exists()


def test_sizes_and_guards_that_are_code():
    assert is_plain_size("Symbol('s31', positive=True, integer=True)")
    assert is_plain_size("s0*2 + Max(1, s1)")
    assert is_plain_guard("L['x'].size()[0] >= 2")
    for code in ("__import__('os').system('x')", "exec('x')", "().__class__", "[c for c in 'x']",
                 "lambda: 1", "Symbol('__import__')"):  # fmt: skip
        assert not is_plain_size(code)
        assert code == "Symbol('__import__')" or not is_plain_guard(code)


@pytest.mark.parametrize("kind", ["checkpoint", "torchscript", "exported", "safetensors"])
@pytest.mark.parametrize("kept", [0, 1, 10, 0.5, 0.99])
def test_truncated_files(tmp_path, teacher, kind, kept):
    path = tmp_path / "whole"
    if kind == "checkpoint":
        path = Path(teacher)
    elif kind == "torchscript":
        save_script(Linear(), path)
    elif kind == "exported":
        path = tmp_path / "whole.pt2"
        export(sequential(), path, True)
    else:
        save_file(sequential().state_dict(), path)
    content = path.read_bytes()
    cut = tmp_path / "cut"
    cut.write_bytes(content[: kept if isinstance(kept, int) else int(kept * len(content))])
    with pytest.raises(TeacherError):
        resolve(str(cut), model="mlp:8", input_shape=lambda: [6])


def test_files_that_are_no_teacher(tmp_path):
    with pytest.raises(TeacherError, match="does not exist"):
        resolve(str(tmp_path / "none.pt"))
    with pytest.raises(TeacherError, match="is a folder"):
        resolve(str(tmp_path))
    (tmp_path / "note.pt").write_text("these are not weights")
    with pytest.raises(TeacherError, match="no model that can be read"):
        resolve(str(tmp_path / "note.pt"))
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(TeacherError, match="holds list"):
        resolve(str(tmp_path / "list.pt"))
