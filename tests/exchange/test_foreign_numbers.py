"""`softlabels import`: numbers that are not what they seem are refused, and what can't be proved is
said."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given as drawn
from hypothesis import strategies as st

import softlabels
from softlabels.errors import LabelSpaceMismatch, LogitsError, UsageError
from softlabels.exchange import import_logits
from softlabels.exchange.logarithms import check_logits
from tests.conftest import make_vectors
from tests.exchange.foreign_files import soft, write_fkd, write_tinyvit

ROWS = 20


@pytest.fixture
def words(tmp_path):
    names = [f"n{row:02d}" for row in range(ROWS)]
    data = make_vectors(tmp_path / "v.parquet", ROWS, name=names)
    return {"data": data, "id_column": "name", "out": str(tmp_path / "d")}


def unnamed(words: dict, classes: int, path) -> dict:
    """The same, of a source that does not name its classes."""
    import datasets

    table = datasets.Dataset.from_parquet(words["data"])
    table = table.cast_column("label", datasets.Value("int64"))
    table.to_parquet(str(path))
    return words | {"data": str(path), "classes": classes}


def refused(words: dict, error, match: str) -> None:
    with pytest.raises(error, match=match):
        import_logits(**words)


def test_tinyvit_and_fkd_always_hold_probabilities(words, tmp_path):
    names = [f"n{row:02d}" for row in range(ROWS)]
    p = soft(ROWS, 3)[1] * 0.9  # as nothing that sums to 1
    tinyvit = write_tinyvit(tmp_path, names, p, kept=3)
    fkd = write_fkd(tmp_path / "f", names, [p[row : row + 1] for row in range(ROWS)])
    for folder in (tinyvit, fkd):
        given = words | {"file": str(folder)}
        refused(given, LogitsError, "holds probabilities, as all files of .*--probabilities")


@pytest.mark.parametrize("how", ["one row off", "rounded", "float16", "bfloat16"])
def test_probabilities_are_known_by_most_rows(words, tmp_path, how):
    p = soft(ROWS, 3)[1]
    if how == "one row off":
        p[3] = [0.2, 0.1, 0.1]
    held = torch.from_numpy(np.round(p, 3) if how == "rounded" else p)
    dtype = {"float16": torch.float16, "bfloat16": torch.bfloat16}.get(how, torch.float32)
    torch.save(held.to(dtype), tmp_path / "p.pt")
    given = words | {"file": str(tmp_path / "p.pt"), "dtype": "float32"}
    refused(given, LogitsError, "holds probabilities .*--probabilities")


def test_logits_that_are_never_negative_are_no_probabilities(words, tmp_path):
    np.save(tmp_path / "z.npy", np.abs(soft(ROWS, 3)[0]))
    import_logits(**words, file=str(tmp_path / "z.npy"))


def test_row_numbers_of_tinyvit_are_said_to_be_unproven(words, tmp_path):
    folder = write_tinyvit(tmp_path, [str(row) for row in range(ROWS)], soft(ROWS, 3)[1], kept=3)
    given = words | {"id_column": None, "file": str(folder)}
    found = import_logits(**given, probabilities=True)
    said = "positions in the order of the data that the file was made of, which nothing proves"
    assert said in softlabels.info(found.out)["facts"]["teacher"]
    table = tmp_path / "keys.json"
    table.write_text(json.dumps({str(row): row for row in range(ROWS)}))
    given |= {"ids": str(table), "out": str(tmp_path / "e")}
    found = import_logits(**given, probabilities=True)
    assert said not in softlabels.info(found.out)["facts"]["teacher"]


def test_labels_of_the_source_are_classes_of_the_file(words, tmp_path):
    np.save(tmp_path / "z.npy", soft(ROWS, 2)[0])
    given = unnamed(words, 2, tmp_path / "u.parquet") | {"file": str(tmp_path / "z.npy")}
    refused(given, LabelSpaceMismatch, "has the label 2 for the row with id .n.*2 classes, 0 to 1")


@pytest.mark.parametrize("dtype", ["complex64", "int64", "bool", "U4", "M8[s]", "f4,f4"])
def test_probabilities_are_floats(words, tmp_path, dtype):
    np.save(tmp_path / "p.npy", np.zeros((ROWS, 3), dtype))
    given = words | {"file": str(tmp_path / "p.npy"), "probabilities": True}
    refused(given, LogitsError, "holds .*; probabilities are floats")


def test_an_overflow_speaks_of_the_file_and_not_of_a_teacher(words, tmp_path):
    z = soft(ROWS, 3)[0].astype(np.float64)
    given = words | {"file": str(tmp_path / "z.npy")}
    for dtype, value in (("float16", 7e4), ("float32", 1e39)):
        z[3, 1] = value
        np.save(tmp_path / "z.npy", z)
        with pytest.raises(LogitsError, match=f"logit .* id 'n03'.*; {dtype} ends at") as error:
            import_logits(**given | {"out": str(tmp_path / dtype)}, dtype=dtype)
        assert "teacher" not in str(error.value)


def test_probabilities_that_were_rounded_away_from_1_are_refused(words, tmp_path):
    p = np.round(soft(ROWS, 100)[1], 2)
    assert np.abs(p.sum(1) - 1).max() > 0.01
    np.save(tmp_path / "p.npy", p.astype(np.float32))
    given = unnamed(words, 100, tmp_path / "u.parquet") | {"file": str(tmp_path / "p.npy")}
    given |= {"probabilities": True, "floor": 1e-7}
    refused(given, LogitsError, "sum to 1, give or take 0.005. Save them unrounded")


@drawn(
    rows=st.integers(20, 120),
    classes=st.integers(2, 1000),
    dtype=st.sampled_from(["float16", "float32", "float64"]),
    seed=st.integers(0, 99),
)
def test_logits_after_a_relu_are_no_probabilities(rows, classes, dtype, seed):
    z = np.maximum(0, np.random.default_rng(seed).normal(0, 5, (rows, classes)))
    check_logits(z.astype(dtype), np.arange(rows), "z.npy")


def test_an_odd_row_at_the_end_of_logits_is_no_file_of_probabilities(words, tmp_path):
    z = soft(ROWS, 3)[0]
    z[-1] = [0.25, 0.75, 0]
    np.save(tmp_path / "z.npy", z)
    import_logits(**words, file=str(tmp_path / "z.npy"), shard_rows=ROWS - 1)


def test_a_temperature_that_no_teacher_had_is_refused(words, tmp_path):
    np.save(tmp_path / "p.npy", soft(ROWS, 3)[1])
    given = words | {"file": str(tmp_path / "p.npy"), "probabilities": True, "T": 1e300}
    refused(given, UsageError, r"T is 1e\+300")
