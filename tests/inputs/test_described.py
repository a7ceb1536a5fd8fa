"""What every verb says first of its data."""

from contextlib import suppress

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
