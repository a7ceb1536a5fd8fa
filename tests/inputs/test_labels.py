"""Hard labels: their numbers, their names, and those that are missing."""

import json

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from softlabels.errors import LabelSpaceMismatch, SourceError
from softlabels.inputs.describing import describe
from softlabels.inputs.opening import open_source


def write(path, labels):
    rows = len(labels)
    pq.write_table(pa.table({"x": [[1.0, 2.0]] * rows, "label": labels}), path)
    return str(path)


@pytest.mark.parametrize(
    ("texts", "names"),
    [
        ([str(n) for n in range(12)], [str(n) for n in range(12)]),
        (["10", "9", "-1"], ["-1", "9", "10"]),
        (["01", "1", "10"], ["01", "1", "10"]),
        (["10", "9", "b"], ["10", "9", "b"]),
        (["1.5", "10", "9"], ["1.5", "10", "9"]),
        (["b", "A", "a"], ["A", "a", "b"]),
    ],
)
def test_texts_are_numbered_by_value_if_all_are_whole_numbers(tmp_path, texts, names):
    source = open_source(write(tmp_path / "d.parquet", texts))
    assert source.class_names == names
    assert source.labels.tolist() == [names.index(text) for text in texts]


@pytest.mark.parametrize(
    ("column", "labels"),
    [
        (pa.array([1.0, 2.0, None]), [1, 2, -1]),
        (pa.array([1.0, float("nan"), 0.0]), [1, -1, 0]),
        (pa.array([1, -100, -1]), [1, -1, -1]),
        (pa.array([1.0, -100.0, 2.0]), [1, -1, 2]),
        (pa.array([True, False, None]), [1, 0, -1]),
        (pa.array([1, 0, None], pa.uint8()), [1, 0, -1]),
        (pa.array([1, 2, 3]).cast(pa.decimal128(22, 2)), [1, 2, 3]),
        (pa.array(["b", None, "a"]).dictionary_encode(), [1, -1, 0]),
    ],
    ids=["float", "nan", "ignored", "ignored-float", "bool", "uint8", "decimal", "categorical"],
)
def test_types_of_labels(tmp_path, column, labels):
    source = open_source(write(tmp_path / "d.parquet", column))
    assert source.labels.tolist() == source.read(0, 3).labels.tolist() == labels
    missing = labels.count(-1)
    lines = [line for line in describe(source) if "no label" in line]
    assert lines == ([f"{missing} of 3 rows have no label in 'label'"] if missing else [])


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([0.5, 1.0]), "double values that are no classes .such as 0.5"),
        (pa.array([[1, 0], [0, 1]]), "lists of 2 values, .*say --task multilabel; .*argmax"),
        (pa.array([b"secret", b"b"]), "values that are no classes"),
        (pa.array([2**63, 1], pa.uint64()), "values that are no classes"),
        (pa.array([0, 1], pa.timestamp("s")), r"timestamp\[.+\] values that are no classes"),
        (pa.array([0, 1], pa.duration("s")), r"duration\[.+\] values that are no classes"),
    ],
    ids=["fraction", "list", "bytes", "wide", "time", "duration"],
)
def test_labels_that_can_not_be(tmp_path, column, message):
    with pytest.raises(SourceError, match=message) as caught:
        _ = open_source(write(tmp_path / "d.parquet", column), label_column="label").labels
    assert "secret" not in str(caught.value)


def test_other_negative_labels_are_refused_at_opening(tmp_path):
    for labels in ([0, -2, 1], [-100, 0, -101]):
        with pytest.raises(LabelSpaceMismatch, match=f"holds {min(labels)}; classes are numbered"):
            _ = describe(open_source(write(tmp_path / "d.parquet", labels)))


def test_a_label_beyond_the_names_is_refused(tmp_path):
    names = datasets.Features({"label": datasets.ClassLabel(names=["a", "b"])}).arrow_schema
    table = pa.table({"x": [[1.0]] * 3, "label": [0, 7, -1]})
    pq.write_table(table.replace_schema_metadata(names.metadata), tmp_path / "d.parquet")
    with pytest.raises(LabelSpaceMismatch, match="'label' holds 7, but the data name 2 classes"):
        _ = open_source(str(tmp_path / "d.parquet")).labels


def test_minus_one_beside_one_other_label_is_doubted(tmp_path):
    for labels, doubted in (([-1, 1], True), ([-1, 0, 1], False), ([1, 1], False)):
        lines = describe(open_source(write(tmp_path / "d.parquet", labels)))
        begin = "warning: the labels in 'label' are −1, which means none, and 1; "
        assert any(line.startswith(begin) for line in lines) == doubted


def test_long_names_are_shortened_in_words(tmp_path):
    source = open_source(write(tmp_path / "d.parquet", ["A" * 5000, "b\nc"]))
    assert f"2 classes {'A' * 59}…, b c;" in describe(source)[0]
    assert source.class_names == ["A" * 5000, "b\nc"]


def test_what_is_odd_about_names_is_said(tmp_path):
    def warnings(*texts, **options):
        lines = describe(open_source(write(tmp_path / "d.parquet", list(texts)), **options))
        return [line for line in lines if line.startswith("warning")]

    assert warnings("cat", "dog") == []
    assert "'cat' and ' cat'" in warnings("cat", " cat")[0].replace(
        "' cat' and 'cat'", "'cat' and ' cat'"
    )
    assert "'Cat' and 'cat'" in warnings("cat", "Cat")[0]
    assert "numbered by value (9, 10)" in warnings("10", "9")[0]
    assert warnings("10", "9", class_names=["9", "10"]) == []
    assert warnings("1", "2") == []


def test_the_classes_of_a_model_number_texts(tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_text("".join(json.dumps({"x": [1], "label": n}) + "\n" for n in ("c", "a")))
    source = open_source(str(path), class_names=["a", "b", "c"])
    assert source.labels.tolist() == [2, 0]
    with pytest.raises(SourceError, match=r"'c' .* none of the model's 1 classes"):
        _ = open_source(str(path), class_names=["a"]).labels


@pytest.mark.parametrize(
    ("categories", "said"), [("cba", True), ("ba", True), ("abc", True), ("ab", False)]
)
def test_the_own_order_of_categories_is_said_where_it_is_not_taken(tmp_path, categories, said):
    codes = [categories.index(text) for text in "bab"]
    column = pa.DictionaryArray.from_arrays(pa.array(codes, pa.int8()), list(categories))
    path = write(tmp_path / "d.parquet", column)
    source = open_source(path)
    assert source.class_names == ["a", "b"]
    assert source.labels.tolist() == [1, 0, 1]
    begin = f"warning: the categories of 'label' have the order {', '.join(categories)} in the file"
    assert any(line.startswith(begin) for line in describe(source)) == said
    known = open_source(path, class_names=["b", "a"])
    assert known.labels.tolist() == [0, 1, 0]
    assert len(describe(known)) == 1
