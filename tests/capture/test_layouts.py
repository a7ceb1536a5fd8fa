"""The memory format of pictures and torch.compile: how a teacher is run stands in the plan."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import softlabels
from softlabels.capture import layouts
from softlabels.errors import PlanMismatch, TeacherError, UsageError
from softlabels.store.folder import Folder
from softlabels.store.reader import DumpReader
from softlabels.teachers import resolve
from tests.conftest import Linear, every, save_script

SEEN: list[bool] = []


class Net(nn.Module):
    """A convolution over the digits, which notes how its pictures lie."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        SEEN.append(x.is_contiguous(memory_format=torch.channels_last))
        return self.head(x.mean((2, 3)))


def net() -> nn.Module:
    return Net()


def flat() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


HERE = "tests.capture.test_layouts:net"


def dumped(out: Path, **words) -> tuple[np.ndarray, dict]:
    """The logits of a dump of the digits and its plan."""
    SEEN.clear()
    steps = "rgb|scale(255)"
    softlabels.dump(**{"teacher": HERE, "data": "digits", "preprocess": steps, "out": str(out)}
                    | words)  # fmt: skip
    plan = json.loads((out / "plan.json").read_text())
    return every(DumpReader(Folder(str(out)))).astype(np.float32), plan


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("plain") / "d"
    dumped(out)
    return out


def test_channels_last_is_seen_by_the_net_stands_in_the_plan_and_rounds_otherwise_at_most(
    plain, tmp_path
):
    logits, plan = dumped(tmp_path / "d", memory_format="channels_last")
    assert all(SEEN)
    assert plan["memory_format"] == "channels_last"
    assert "memory_format" not in json.loads((plain / "plan.json").read_text())
    np.testing.assert_allclose(logits, every(DumpReader(Folder(str(plain)))), atol=1e-2)
    assert "channels_last" in softlabels.info(str(tmp_path / "d")).readable["logits"]
    card = (tmp_path / "d" / "README.md").read_text()
    assert "--memory-format channels_last" in card
    SEEN.clear()
    found = softlabels.verify(dump=str(tmp_path / "d"), replay=20, teacher=HERE)
    assert found.good
    assert all(SEEN)


def test_a_resume_keeps_the_memory_format_and_refuses_another(tmp_path):
    dumped(tmp_path / "d", memory_format="channels_last", shard_rows=500)
    (tmp_path / "d" / "commits" / "00001.json").unlink()
    with pytest.raises(PlanMismatch, match="memory_format is 'contiguous' and was 'channels_last'"):
        dumped(tmp_path / "d", memory_format="contiguous", resume=True)
    dumped(tmp_path / "d", resume=True)  # auto, which is contiguous on a CPU
    assert all(SEEN)


def test_auto_is_channels_last_where_tensor_cores_gain_from_it(plain, tmp_path):
    def chosen(teacher: str, precision: str, folder: Path) -> bool:
        layout = layouts.Layout("auto", precision, False)
        here = resolve(teacher, input_shape=lambda: [3, 8, 8])
        layouts.lay_out(here, layout, [3, 8, 8], torch.device("cuda"), Folder(str(folder)))
        return here.channels_last

    assert chosen(HERE, "bf16", tmp_path / "new")
    assert not chosen(HERE, "float32", tmp_path / "new")
    assert not chosen(HERE, "bf16", plain)  # as that dump began
    assert not chosen("tests.capture.test_layouts:flat", "bf16", tmp_path / "new")


def test_a_module_in_memory_is_given_them_and_stays_as_it_is(tmp_path):
    mine = Net()
    dumped(tmp_path / "d", teacher=mine, name="mine", memory_format="channels_last")
    assert all(SEEN)
    assert mine.first.weight.is_contiguous()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"memory_format": "channels_last"}, r"is about pictures \[C, H, W\], and .* are \[6\]"),
        ({"compile": True}, "for modules of torch, and the teacher s is a program of TorchScript"),
        ({"compile": True, "teacher": lambda x: x[:, :3], "version": "1", "name": "f"},
         "the teacher f is a callable"),
        ({"memory_format": "last"}, "'last'; use auto, contiguous or channels_last"),
    ],
)  # fmt: skip
def test_what_can_not_be_is_refused(tmp_path, vectors, words, message):
    teacher = save_script(Linear(), tmp_path / "s.pt")
    with pytest.raises(UsageError, match=message):
        softlabels.dump(**{"teacher": teacher, "data": vectors, "out": str(tmp_path / "d")} | words)


def test_a_compiled_teacher_is_what_runs_and_stands_in_the_plan(plain, tmp_path, monkeypatch):
    runs: list[int] = []

    def compiled(module: nn.Module):
        def run(x: Tensor) -> Tensor:
            runs.append(len(x))
            return module(x)

        return run

    monkeypatch.setattr(torch, "compile", compiled)
    logits, plan = dumped(tmp_path / "d", compile=True)
    assert sum(runs) > 1200
    assert plan["compile"] is True
    assert (logits == every(DumpReader(Folder(str(plain))))).all()
    with pytest.raises(PlanMismatch, match="compile is True and was False"):
        dumped(plain, compile=True, resume=True)
    assert "--compile" in (tmp_path / "d" / "README.md").read_text()


@pytest.mark.slow
def test_a_teacher_is_compiled_and_a_missing_compiler_is_named(plain, tmp_path, monkeypatch):
    logits, _ = dumped(tmp_path / "d", compile=True, batch_size=100)
    np.testing.assert_allclose(logits, every(DumpReader(Folder(str(plain)))), atol=1e-2)
    torch._dynamo.reset()
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("no-such-compiler",))
    monkeypatch.setattr(torch._inductor.config, "force_disable_caches", True)
    with pytest.raises(TeacherError, match=r"net can't be compiled here: .* Leave --compile out"):
        dumped(tmp_path / "never", compile=True)
