"""What every verb says first of its data."""

from contextlib import suppress

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import softlabels
from softlabels.errors import SourceError
from softlabels.inputs.describing import describe
from softlabels.inputs.opening import open_source
from tests.conftest import Lines


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "d.csv"
    names = ("NA", "SA", "EU", "")
    rows = "".join(f"{i},{(i * 7) % 5},{(i * 3) % 7}.5,{names[i % 4]}\n" for i in range(60))
    path.write_text("id,x,z,label\n" + rows)
    return str(path)


FIRST = (
    "data d, split train: 60 rows, label label: 3 classes EU, NA, SA; "
    "2 inputs x, z (float64, int64); ids are row numbers"
)


def test_the_first_lines_of_a_table(table):
    assert describe(open_source(table)) == [
        FIRST,
        "left out as inputs: 'id', by name an index; --input-column takes them in",
        "15 of 60 rows have no label in 'label'",
    ]


def test_every_verb_says_them(table, tmp_path):
    torch.jit.trace(torch.nn.Linear(2, 3).eval(), torch.zeros(2, 2)).save(tmp_path / "t.pt")
    teacher, out, student = (str(tmp_path / name) for name in ("t.pt", "d", "s.pt"))
    few = {"epochs": 1, "out": student}
    for verb, options in (
        (softlabels.dump, {"teacher": teacher, "data": table, "out": out}),
        (softlabels.plan, {"teacher": teacher, "data": table}),
        (softlabels.verify, {"dump": out, "source": True}),
        (softlabels.train, {"dump": out, "T": 2, "student": "linear", **few}),
        (softlabels.evaluate, {"checkpoint": student, "data": table, "split": "train"}),
        (softlabels.fit, {"data": table, "model": "linear", **few}),
    ):
        heard = Lines()
        with suppress(SourceError):  # fit learns from labels only where every row has one
            verb(progress=heard, **options)
        assert heard.lines.count(FIRST) == 1, heard.lines
        assert "15 of 60 rows have no label in 'label'" in heard.lines


@pytest.mark.parametrize(
    ("values", "shown"),
    [(pa.array([5, 16_777_217, 7]), "16777217"), (pa.array([0.5, 1e9 + 1, None]), "1000000001"),
     (pa.array([[1, 2], [3, 2**40 + 1], [4, 5]]), "1099511627777"),
     (pa.array([16_777_216, 2**40, -7]), None), (pa.array([0.1, 1e9 + 0.1, 1e300]), None),
     (pa.array([1.0, 1e9, 2.0], pa.float32()), None)],
)  # fmt: skip
def test_whole_numbers_that_float32_lacks_are_said(tmp_path, values, shown):
    pq.write_table(pa.table({"a": values, "b": [0.5, 1.5, 0.25]}), tmp_path / "x.parquet")
    source = open_source(str(tmp_path / "x.parquet"), input_column="a")
    warnings = [line for line in describe(source) if line.startswith("warning: the input 'a' has")]
    assert len(warnings) == (shown is not None)
    assert all(f"has {shown}, and models get float32" in line for line in warnings)
