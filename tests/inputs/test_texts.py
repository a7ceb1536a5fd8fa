"""Columns of texts as inputs: found by type or named, hashed as UTF-8, missing ones refused."""

import hashlib
import json
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import softlabels
from softlabels.errors import SourceError, UsageError
from softlabels.inputs.opening import open_source
from tests.conftest import Lines

TEXTS = ["garlic on bread", "ein Bär, 熊", 'she said "no",\nthen left', "0012"]


def write(path: Path, **columns: list) -> str:
    """The columns as the file's ending says."""
    table = pa.table(columns)
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    elif path.suffix == ".jsonl":
        lines = [json.dumps(row, ensure_ascii=False) for row in table.to_pylist()]
        path.write_text("\n".join(lines), encoding="utf-8")
    else:
        table.to_pandas().to_csv(path, index=False)
    return str(path)


def first8(content: bytes) -> int:
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "little")


def of_pair(one: str, other: str) -> int:
    """As docs/format.md has it."""
    parts = [text.encode() for text in (one, other)]
    return first8(b"text[2]" + b"".join(len(p).to_bytes(8, "little") + p for p in parts))


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_the_only_column_of_texts_is_the_input_whatever_the_file(tmp_path, ending):
    path = write(tmp_path / f"d.{ending}", uid=[7, 5, 6, 4], text=TEXTS, label=["a", "b", "a", "b"])
    source = open_source(path, id_column="uid")
    assert source.kind == "text"
    rows = source.read(0, 4)
    assert list(rows.cells) == TEXTS
    assert rows.hashes.tolist() == [first8(text.encode()) for text in TEXTS]
    assert rows.ids.tolist() == [7, 5, 6, 4]
    assert rows.labels.tolist() == [0, 1, 0, 1]
    assert source.fingerprint == open_source(path, id_column="uid").fingerprint
    assert list(source.take(np.array([2, 0])).cells) == [TEXTS[2], TEXTS[0]]


def test_sets_in_memory_have_texts_too(tmp_path):
    rows = [(text, number % 2) for number, text in enumerate(TEXTS)]
    saved = datasets.Dataset.from_dict({"text": TEXTS, "label": [0, 1, 0, 1]})
    saved.save_to_disk(tmp_path / "saved")
    expected = open_source(write(tmp_path / "d.parquet", text=TEXTS, label=[0, 1, 0, 1]))
    for data in (rows, saved, str(tmp_path / "saved")):
        source = open_source(data)
        assert source.kind == "text"
        assert source.fingerprint == expected.fingerprint


def test_a_pair_is_hashed_so_that_its_seam_counts(tmp_path):
    path = write(tmp_path / "d.csv", a=["ab", "a"], b=["c", "bc"], label=[0, 1])
    source = open_source(path, input_column="a,b")
    rows = source.read(0, 2)
    assert list(rows.cells) == [{"a": "ab", "b": "c"}, {"a": "a", "b": "bc"}]
    assert rows.hashes.tolist() == [of_pair("ab", "c"), of_pair("a", "bc")]
    assert len(set(rows.hashes.tolist())) == 2


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": TEXTS, "b": TEXTS}, "Texts are in a, b: choose with --input-column a, or a pair "
                                   "with --input-column a,b"),
        ({"text": TEXTS, "age": [1.5, 2, 1, 3]}, "--input-column text; the numbers are "
                                                 "--input-column age"),
        ({"split": TEXTS}, "Texts are in split"),
    ],
    ids=["two", "beside numbers", "a use"],
)  # fmt: skip
def test_a_choice_is_left_to_the_user(tmp_path, columns, message):
    path = write(tmp_path / "d.parquet", **columns, label=[0, 1, 0, 1])
    with pytest.raises(SourceError, match=message) as caught:
        open_source(path)
    assert "garlic" not in str(caught.value)


def test_named_texts_beside_numbers_and_more_than_a_pair_are_refused(tmp_path):
    path = write(tmp_path / "d.parquet", a=TEXTS, b=TEXTS, c=TEXTS, age=[1, 2, 3, 4])
    with pytest.raises(SourceError, match="'a' is text, and 'age' is int64"):
        open_source(path, input_column="a,age")
    with pytest.raises(SourceError, match="names 3 columns of texts, a, b, c"):
        open_source(path, input_column="a,b,c")


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_missing_text_is_refused_with_its_row_and_what_to_do(tmp_path, ending, cli):
    path = write(tmp_path / f"d.{ending}", text=["garlic", None, "oil"], label=[0, 1, 0])
    with pytest.raises(SourceError, match="row with id 1 has no text in the column 'text'"):
        open_source(path).read(0, 3)
    np.save(tmp_path / "l.npy", np.float32([[4, -3], [-2, 5], [1, -1]]))
    said = cli("import", "l.npy", "--data", path, "--out", "d")
    assert said.code == 1
    assert "row 2 of 3" in said.err
    assert "leave out the row" in said.err
    assert not (tmp_path / "d").exists()


def test_empty_texts_are_counted(tmp_path):
    path = write(tmp_path / "d.jsonl", text=["garlic", "", " \n"], label=[0, 1, 0])
    said = Lines()
    source = open_source(path, progress=said)
    assert "warning: 2 of 3 texts in 'text' are empty" in said.lines
    assert list(source.read(0, 3).cells) == ["garlic", "", " \n"]


def test_texts_that_look_like_numbers_are_taken_where_they_are_named(tmp_path):
    path = write(tmp_path / "d.parquet", x=["1", "2", "oops", "3"], label=[0, 1, 0, 1])
    with pytest.raises(SourceError, match="'x' is text because of row 3") as caught:
        open_source(path)
    assert "say --input-column x" in str(caught.value)
    said = Lines()
    source = open_source(path, input_column="x", progress=said)
    assert list(source.read(0, 4).cells) == ["1", "2", "oops", "3"]
    assert any(line.startswith("warning: The column 'x' is text because") for line in said.lines)


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["007", "10", "-0"], "numbers"),
        (["1.0", "1", " 2"], "numbers"),
        (["true", "FALSE", "true"], "true and false"),
        (["NA", "null", "1e3"], "numbers"),
        (["NA", "null", "nan"], "missing values"),
        (["2026-01-02", "2026-01-03", "2026-11-27"], ""),
        (['"1', "2", "3"], ""),
    ],
)
def test_cells_of_csv_are_read_as_written_where_texts_are_asked_for(tmp_path, cells, kind):
    """A classifier of texts may be asked about postcodes."""
    lines = [",".join(('"' + cell.replace('"', '""') + '"', "a" * (n + 1), "ab"[n % 2]))
             for n, cell in enumerate(cells)]  # fmt: skip
    (tmp_path / "d.csv").write_text("\n".join(["zip,other,label", *lines]))
    (tmp_path / "e.tsv").write_text((tmp_path / "d.csv").read_text().replace(",", "\t"))
    for data in ("d.csv", "e.tsv"):
        said = Lines()
        source = open_source(str(tmp_path / data), input_column="zip", texts=True, progress=said)
        rows = source.read(0, 3)
        assert list(rows.cells) == cells
        assert rows.hashes.tolist() == [first8(cell.encode()) for cell in cells]
        notes = [line for line in said.lines if "is read as texts" in line]
        note = f"'zip' is read as texts, as written, and not as {kind}"
        assert notes == ([note] if kind else [])
    pair = open_source(str(tmp_path / "d.csv"), input_column="zip,other", texts=True)
    assert list(pair.take(np.array([1])).cells) == [{"zip": cells[1], "other": "aa"}]


def test_an_empty_cell_is_missing_also_where_texts_look_like_numbers(tmp_path):
    (tmp_path / "d.csv").write_text("zip,label\n1,a\n,b\n")
    with pytest.raises(SourceError, match=r"row 2 of 2 in .* has no text in the column 'zip'"):
        open_source(str(tmp_path / "d.csv"), input_column="zip", texts=True, progress=Lines())


def test_files_of_a_split_whose_texts_look_like_numbers_in_one_of_them(tmp_path):
    (tmp_path / "train-1.csv").write_text("text,label\n007,a\nNA,b\n")
    (tmp_path / "train-2.csv").write_text("text,label\nseven,a\n8,b\n")
    source = open_source(str(tmp_path), input_column="text")
    assert list(source.read(0, 4).cells) == ["007", "NA", "seven", "8"]


def test_texts_that_are_spelled_like_missing_values_are_counted(tmp_path):
    texts = ["garlic", "None", "nan", "oil"]
    path = write(tmp_path / "d.jsonl", text=texts, label=[0, 1, 0, 1])
    said = Lines()
    source = open_source(path, progress=said)
    assert any(
        line.startswith("warning: 2 of 4 texts in 'text' are spelled") for line in said.lines
    )
    assert list(source.read(0, 4).cells) == texts


def test_examples_of_texts(tmp_path):
    path = write(tmp_path / "d.csv", a=["x", "y", "z"], b=["1a", "2a", "3a"], label=[0, 1, 0])
    ones = softlabels.examples(path, input_column="a")
    assert ones[:2]["input"] == ["x", "y"]
    assert ones[2]["input"] == "z"
    pairs = softlabels.examples(path, input_column="a,b")
    batch = pairs.take([2, 0])
    assert batch["input"] == {"a": ["z", "x"], "b": ["3a", "1a"]}
    assert batch["b"] == ["3a", "1a"]  # a dict's keys stand at top level too
    assert "b" in batch
    assert pairs[1]["input"] == {"a": "y", "b": "2a"}


def letters(text: str) -> np.ndarray:
    return np.float32([text.count(letter) for letter in "abcdefgh"])


def test_a_function_makes_numbers_of_texts(tmp_path):
    path = write(tmp_path / "d.csv", text=["a bad cab", "feed"], label=[0, 1])
    rows = softlabels.examples(path, preprocess=letters)
    assert rows[:]["input"].tolist() == [[3, 2, 1, 1, 0, 0, 0, 0], [0, 0, 0, 1, 2, 1, 0, 0]]


def test_what_takes_numbers_refuses_texts(tmp_path):
    path = write(tmp_path / "d.csv", text=TEXTS, label=[0, 1, 0, 1])
    options = {"data": path, "out": str(tmp_path / "out")}
    with pytest.raises(UsageError, match=r"inputs of .* are texts, in text, and numbers are need"):
        softlabels.dump(teacher=lambda batch: batch, name="t", version="1", **options)
    with pytest.raises(UsageError, match=r"inputs are texts, and the model linear takes numbers"):
        softlabels.fit(model="linear", **options)
    with pytest.raises(UsageError, match=r"--preprocess is 'scale\(255\)', and the inputs"):
        softlabels.examples(path, preprocess="scale(255)")
