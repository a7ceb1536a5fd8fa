"""What a person writes for a teacher: paths, names, and what could be both."""

import hashlib

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import softlabels
from softlabels.errors import MissingExtra, PlanMismatch, TeacherError, UsageError
from softlabels.models.model import Model
from softlabels.teachers import resolve
from softlabels.teachers.fingerprints import fingerprint_of
from tests.conftest import make_vectors, save_script

INPUTS = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
CODE = """
import torch

def fixed():
    torch.manual_seed(5)
    return torch.nn.Linear(6, 3)

def other():
    torch.manual_seed(6)
    return torch.nn.Linear(6, 3)

def drawn():
    return torch.nn.Sequential(torch.nn.Linear(6, 3))
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a module of factories, of a name that no other test imports."""
    name = "nets_" + hashlib.sha256(str(tmp_path).encode()).hexdigest()[:8]
    (tmp_path / f"{name}.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    return name


def test_a_factory_is_a_teacher_with_its_own_weights(here, cli):
    found = resolve(f"{here}:fixed")
    torch.manual_seed(5)
    assert torch.equal(found.logits(INPUTS), nn.Linear(6, 3)(INPUTS))
    assert (found.kind, found.name, found.spec) == ("factory", "fixed", f"{here}:fixed")
    data = make_vectors("v.parquet")
    done = cli("dump", "--teacher", f"{here}:fixed", "--data", data, "--out", "d")
    assert done.code == 0, done.err
    assert f"teacher fixed (factory, {here}:fixed, 3 classes)" in done.err
    told = cli("info", "d", "--json").value["facts"]
    assert told["teacher"] == f"fixed (factory, {here}:fixed)"
    assert told["teacher's fingerprint"] == found.fingerprint
    again = cli("verify", "d", "--replay", "20", "--teacher", f"{here}:fixed", "--data", data)
    assert again.code == 0, again.err
    with pytest.raises(TeacherError, match="is not this dump's teacher: its fingerprint is"):
        softlabels.verify(dump="d", replay=20, teacher=f"{here}:other", data=data)
    with pytest.raises(PlanMismatch, match=r"teacher.fingerprint is"):
        softlabels.dump(teacher=f"{here}:other", data=data, out="d")


def test_the_command_of_the_card_names_the_factory(here):
    softlabels.dump(teacher=f"{here}:fixed", data=make_vectors("v.parquet"), out="d")
    with open("d/README.md") as file:
        page = file.read()
    assert f"--teacher {here}:fixed" in page
    assert "TEACHER" not in page
    assert "--model" not in page


def test_a_factory_that_draws_its_weights_is_no_teacher(here):
    with pytest.raises(TeacherError, match=r"drawn makes other weights each time \(0.weight, 0.bi"):
        resolve(f"{here}:drawn")


def test_weights_of_a_factory_come_from_a_file(here):
    weights = {"0.weight": torch.ones(3, 6), "0.bias": torch.arange(3.0)}
    save_file(weights, "w.safetensors")
    named = resolve(f"{here}:drawn", weights="w.safetensors")
    filed = resolve("w.safetensors", model=f"{here}:drawn")
    expected = INPUTS @ torch.ones(6, 3) + torch.arange(3.0)
    torch.testing.assert_close(named.logits(INPUTS), expected)
    assert named.fingerprint == filed.fingerprint
    assert (named.kind, named.spec) == (filed.kind, filed.spec) == ("state_dict", f"{here}:drawn")
    data = make_vectors("v.parquet")
    softlabels.dump(teacher=f"{here}:drawn", weights="w.safetensors", data=data, out="d")
    softlabels.dump(teacher="w.safetensors", model=f"{here}:drawn", data=data, out="d")
    replay = {"dump": "d", "replay": 20, "data": data}
    words = {"teacher": f"{here}:drawn", "weights": "w.safetensors"}
    assert softlabels.verify(**replay, **words).good
    with pytest.raises(UsageError, match=rf"built by {here}:drawn, .* say so with --model {here}"):
        softlabels.verify(**replay, teacher="w.safetensors")  # a plan may be a stranger's
    words = {"teacher": "w.safetensors", "model": f"{here}:drawn"}
    assert softlabels.verify(**replay, **words).good


def test_what_may_be_a_path_and_a_name_is_answered_with_both_spellings(here, tmp_path):
    path = tmp_path / f"{here}:fixed"
    path.mkdir()
    ways = rf"write ./{here}:fixed for the path, python://{here}:fixed for the name"
    with pytest.raises(UsageError, match=ways):
        resolve(f"{here}:fixed")
    path.rmdir()
    save_script(nn.Linear(6, 3), path)
    with pytest.raises(UsageError, match=ways):
        resolve(f"{here}:fixed")
    assert resolve(f"./{here}:fixed").kind == resolve(str(path)).kind == "torchscript"
    assert resolve(f"python://{here}:fixed").kind == "factory"
    save_script(nn.Linear(6, 3), tmp_path / "no_such_module:net")
    assert resolve("no_such_module:net").kind == "torchscript"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"teacher": "nets"}, r"nets does not exist. A model is a file \(a checkpoint, .*:factory"),
        ({"teacher": "nowhere.at_all:net"}, "nowhere.at_all:net: can't import nowhere"),
        ({"teacher": "HERE:none"}, "HERE has no 'none'"),
        ({"teacher": "HERE:torch"}, "HERE:torch can't be built: TypeError, 'module' object is not"),
        ({"teacher": "HERE:fixed", "model": "linear"}, "--model is linear, .* HERE:fixed is a mod"),
        ({"teacher": "HERE:fixed", "key": "ema"}, "--key is 'ema', for a file .* name the file"),
        ({"teacher": "t.pt", "weights": "w.pt"}, "--weights is 'w.pt', a file for a model by n"),
        (
            {"teacher": "HERE:fixed", "weights": "none.pt"},
            "--weights is 'none.pt', which is no f",
        ),
        (
            {"teacher": "HERE:fixed", "weights": "t.pt"},
            "--weights is 't.pt', a torchscript; give",
        ),
        ({"teacher": "folder"}, r"folder is a folder without config.json. A model is a file"),
    ],
)
def test_names_and_options_that_do_not_fit(here, tmp_path, given, message):
    save_script(nn.Linear(6, 3), tmp_path / "t.pt")
    (tmp_path / "folder").mkdir()
    words = {name: value.replace("HERE", here) for name, value in given.items()}
    with pytest.raises((TeacherError, UsageError), match=message.replace("HERE", here)):
        resolve(**words)


def test_fingerprints(tmp_path):
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3).half())

    def mark(files=(), spec="a", module=module):
        return fingerprint_of(
            Model(name="m", kind="k", module=module, spec=spec, files=[tmp_path / f for f in files])
        )

    for name, content in {"a": b"1", "b": b"2", "deep/c": b"3"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    assert mark(["a"]) == "sha256:" + hashlib.sha256(b"1").hexdigest()
    lines = "".join(
        f"{hashlib.sha256(content).hexdigest()}  {name}\n"
        for name, content in [("a", b"1"), ("b", b"2"), ("deep/c", b"3")]
    )
    whole = "sha256:" + hashlib.sha256(lines.encode()).hexdigest()
    assert mark(["a", "b", "deep/c"]) == mark(["deep/c", "b", "a"]) == whole
    (tmp_path / "b").rename(tmp_path / "d")
    assert mark(["a", "d", "deep/c"]) != whole
    before = mark()
    assert before == mark() != mark(spec="b")
    assert before not in (mark(module=nn.Sequential(module[0])), mark(module=module[:1]))
    module[1].num_batches_tracked += 1
    assert before != mark()


def test_a_missing_library_names_its_extra():
    error = MissingExtra("timm", "timm", "timm:resnet50")
    assert str(error).endswith("pip install 'softlabels[timm]'")
