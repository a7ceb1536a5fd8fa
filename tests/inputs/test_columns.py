"""Inputs that are not named: what counts or names rows is never one in silence."""

import json

import pytest

from softlabels.errors import SourceError
from softlabels.inputs.describing import describe
from softlabels.inputs.opening import open_source


def write(path, header, rows=8, first=None):
    """A table of a, b and label, and before them a column of another name and values."""
    lines = [header]
    for row in range(rows):
        begin = [] if first is None else [str(first(row))]
        lines.append(",".join([*begin, f"{(row * 7) % 5}.5", str((row * 3) % 4), str(row % 2)]))
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.mark.parametrize(
    "name",
    ["", "Unnamed: 0", "Unnamed: 0.1", "__index_level_0__", "level_0", "id", "Id", "ID", "idx",
     "index", "uid", "user_id", "rowid", "row_number", "PassengerId", "customerID", "uuid"],
)  # fmt: skip
def test_a_column_that_is_an_index_by_name_is_left_out_and_said(tmp_path, name):
    path = write(tmp_path / "d.csv", f"{name},a,b,label", first=lambda row: (row * 5) % 8)
    source = open_source(path)
    assert source.columns.inputs == ("a", "b")
    assert any(
        repr(name or "Unnamed: 0") in line and "left out" in line for line in describe(source)
    )
    named = open_source(path, input_column=f"a,{name or 'Unnamed: 0'}")
    assert named.columns.inputs == ("a", name or "Unnamed: 0")


@pytest.mark.parametrize(
    "name", ["a", "width", "humid", "valid", "y", "grid", "heat_index", "ideal", "IDEAL"]
)
def test_other_names_are_inputs(tmp_path, name):
    path = write(tmp_path / "d.csv", f"{name},x,b,label", first=lambda row: (row * 5) % 8)
    assert open_source(path).columns.inputs == (name, "x", "b")


@pytest.mark.parametrize(
    "value", [lambda row: row, lambda row: row + 1, lambda row: 10 * row, lambda row: f"{row}.0"]
)
def test_a_column_that_rises_from_row_to_row_is_asked_for(tmp_path, value):
    path = write(tmp_path / "d.csv", "n,a,b,label", first=value)
    with pytest.raises(SourceError, match=r"'n' rises .*--input-column a,b, or .*n,a,b") as caught:
        open_source(path)
    assert "\n" not in str(caught.value)
    assert open_source(path, input_column="a,b").columns.inputs == ("a", "b")
    assert open_source(path, input_column="n,a,b").columns.inputs == ("n", "a", "b")
    assert open_source(path, id_column="n").columns.inputs == ("a", "b")


def test_where_all_inputs_rise_that_is_said(tmp_path):
    path = tmp_path / "d.csv"
    path.write_text("x,z,label\n" + "".join(f"{i},{i},{i % 2}\n" for i in range(9)))
    source = open_source(str(path))
    assert source.columns.inputs == ("x", "z")
    assert any(line.startswith("warning: the inputs x, z rise") for line in describe(source))


@pytest.mark.parametrize("name", ["fold", "kfold", "cv_fold", "split", "weight", "sample_weight",
                                  "is_train", "partition", "target", "Y"])  # fmt: skip
def test_folds_weights_and_second_labels_are_asked_for(tmp_path, name):
    path = write(tmp_path / "d.csv", f"{name},a,b,label", first=lambda row: (row * 5) % 3)
    with pytest.raises(SourceError, match=f"'{name}' looks like .*--input-column a,b, or"):
        open_source(path)


@pytest.mark.parametrize("name", ["Label", " label", "CLASS"])
def test_a_label_is_known_in_capitals_and_with_blanks(tmp_path, name):
    source = open_source(write(tmp_path / "d.csv", f"a,b,{name}"))
    assert (source.columns.inputs, source.columns.label) == (("a", "b"), name)


def test_a_name_with_a_comma_is_one_name_and_comes_back(tmp_path):
    path = write(tmp_path / "d.csv", '"a,b",c,label')
    assert open_source(path).columns.inputs == ("a,b", "c")
    assert open_source(path, input_column="a,b").columns.inputs == ("a,b",)
    assert open_source(path, input_column=["a,b", "c"]).columns.inputs == ("a,b", "c")


def test_names_that_a_shell_would_split_are_quoted(tmp_path):
    path = write(tmp_path / "d.csv", "fold,a b,c,label", first=lambda row: (row * 5) % 3)
    with pytest.raises(SourceError, match="--input-column 'a b,c', or"):
        open_source(path)


@pytest.mark.parametrize(
    ("cells", "hint"),
    [
        (['"1,5"', '"2,25"'], "'x' holds numbers as text, such as '1,5'; write them as 1234.5"),
        (["10%", "5 %"], "'x' holds numbers as text, such as '10%'"),
        (['"1,500.0"', "2"], "'x' is text because of row 1, '1,500.0'"),
        (["a/1.JPG", "a/2.jpeg"], "'x' names images. For their pixels, put this table as metadata"),
    ],
)
def test_text_that_stands_for_numbers_or_images_is_told(tmp_path, cells, hint):
    path = tmp_path / "d.csv"
    path.write_text("x,label\n" + "".join(f"{cell},a\n" for cell in cells))
    with pytest.raises(SourceError, match=hint) as caught:
        open_source(str(path))
    assert "tokenise" not in str(caught.value)


def test_an_input_that_is_named_twice(tmp_path):
    with pytest.raises(SourceError, match="--input-column names 'a' twice"):
        open_source(write(tmp_path / "d.csv", "a,b,label"), input_column="a,b,a")


@pytest.mark.parametrize(
    ("row", "values"),
    [
        ({"x": [1.0, 2.0], "label": [0, 1, 0]}, 3),
        ({"label": [[1], [2]], "x": [1.0, 2.0]}, 2),
        ({"a": 1.0, "b": 2.0, "labels": ["cat", "dog"]}, 2),
        ({"a": 1.0, "b": 2.0, "Target": [0.5]}, 1),
    ],
)
def test_labels_that_are_lists_are_said_and_are_no_inputs(tmp_path, row, values):
    path = tmp_path / "d.jsonl"
    path.write_text(3 * (json.dumps(row) + "\n"))
    source = open_source(str(path))
    listed = next(name for name in row if name not in ("x", "a", "b"))
    assert source.columns.inputs == tuple(name for name in row if name != listed)
    assert not source.labelled
    begin = f"warning: the column {listed!r} holds lists of {values} values"
    assert [line for line in describe(source) if line.startswith(begin)]
    named = open_source(str(path), input_column=list(source.columns.inputs))
    assert describe(named) == describe(source)
