"""Programs that take another dtype, or only so many rows at once."""

import pytest
import torch
from torch import Tensor, nn

import softlabels
from softlabels.errors import TeacherError
from tests.conftest import Lines, make_vectors
from tests.teachers.modules import Plain, trace

ROWS = 30


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    return make_vectors(tmp_path_factory.mktemp("data") / "vectors.parquet", ROWS)


class ForRows(Plain):
    """It runs with as many rows as it was traced with."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.rows = rows

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.view(self.rows, -1))


class Squeezing(Plain):
    """A row alone loses its dimension."""

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).squeeze()


def logits(teacher: str, data: str, out, **words) -> tuple[Tensor, Tensor, Lines]:
    """What was stored, what is right, and what was said."""
    lines = Lines()
    softlabels.dump(
        progress=lines, teacher=teacher, data=data, out=str(out), dtype="float32", **words
    )
    rows = softlabels.load(str(out), T=1).take(list(range(ROWS)))
    return rows["logits"], Plain()(rows["input"]).detach(), lines


def export(module: nn.Module, path, dtype: torch.dtype = torch.float32, most: int = 0) -> str:
    inputs = torch.randn(4, 6).to(dtype)
    rows = torch.export.Dim("rows", max=most) if most else torch.export.Dim("rows")
    torch.export.save(
        torch.export.export(module, (inputs,), dynamic_shapes=({0: rows},)), str(path)
    )
    return str(path)


@pytest.mark.parametrize("rows", [1, 4, 7, 16])
@pytest.mark.parametrize("batch_size", [4, 7, 256])
def test_a_program_traced_for_a_number_of_rows_is_run_with_so_many(
    tmp_path, data, rows, batch_size
):
    teacher = trace(ForRows(rows), tmp_path / "t.pt", rows)
    stored, right, lines = logits(teacher, data, tmp_path / "d", batch_size=batch_size)
    torch.testing.assert_close(stored, right)
    told = "it runs with" in str(lines)
    assert told == (rows != batch_size or batch_size > 1)
    found = softlabels.verify(dump=str(tmp_path / "d"), replay=9, teacher=teacher)
    assert found.good
    assert found.replay.steady


@pytest.mark.parametrize("most", [5, 16])
def test_a_program_exported_for_at_most_so_many_rows(tmp_path, data, most):
    teacher = export(Plain(), tmp_path / "t.pt2", most=most)
    stored, right, lines = logits(teacher, data, tmp_path / "d")
    torch.testing.assert_close(stored, right)
    assert f"it runs with {most} rows at once" in str(lines)


def test_a_program_that_fails_with_one_row(tmp_path, data):
    """29 of 30 rows in a batch leave one."""
    teacher = trace(Squeezing(), tmp_path / "t.pt")
    stored, right, _ = logits(teacher, data, tmp_path / "d", batch_size=29)
    torch.testing.assert_close(stored, right)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("kind", ["torchscript", "frozen", "exported", "pickle"])
def test_inputs_are_given_in_the_weights_dtype(tmp_path, data, dtype, kind):
    module, path = Plain().to(dtype).eval(), tmp_path / "t.pt"
    words = {}
    if kind == "torchscript":
        trace(module, path, dtype=dtype)
    elif kind == "frozen":
        traced = torch.jit.trace(module, torch.randn(2, 6).to(dtype))
        torch.jit.freeze(traced).save(str(path))
    elif kind == "exported":
        export(module, path, dtype)
    else:
        torch.save(module, path)
        words = {"trust_pickle": True}
    stored, right, _ = logits(str(path), data, tmp_path / "d", **words)
    torch.testing.assert_close(stored, right, atol=4e-2, rtol=2e-2)
    assert softlabels.verify(dump=str(tmp_path / "d"), replay=20, teacher=str(path),
                             **words).good  # fmt: skip


def half() -> nn.Module:
    return Plain().half()


def test_a_factory_that_gives_a_half_model(tmp_path, data):
    torch.save(Plain().state_dict(), tmp_path / "t.pt")
    spec = "tests.teachers.test_feeding:half"
    stored, right, _ = logits(str(tmp_path / "t.pt"), data, tmp_path / "d", model=spec)
    torch.testing.assert_close(stored, right, atol=1e-2, rtol=1e-2)


class Wrong(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.reshape(x.shape[0], 2, 3))


def test_a_cause_is_dug_out_of_torchscripts_message(tmp_path, data):
    torch.jit.script(Wrong()).save(str(tmp_path / "t.pt"))
    with pytest.raises(TeacherError) as told:
        logits(str(tmp_path / "t.pt"), data, tmp_path / "d")
    text = str(told.value)
    assert "can't take inputs of shape [30, 6]: mat1 and mat2 shapes cannot be multiplied" in text
    assert "interpreter" not in text
    assert "--batch-size" in text
