"""Parquet files, read where they lie: any order, any writer, any process."""

import multiprocessing
import os
import pickle
import shutil

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import softlabels
from softlabels.errors import SourceError
from softlabels.inputs.opening import open_source
from softlabels.inputs.tables import parquet
from tests.conftest import png

ROWS = 100
VALUES = np.arange(ROWS * 2, dtype=np.float32).reshape(ROWS, 2)


def write(path, x=None, group=7, **columns):
    lists = pa.array(VALUES.tolist(), pa.list_(pa.float32()))
    columns = {"x": lists if x is None else x, "label": [0, 1] * (ROWS // 2)} | columns
    pq.write_table(pa.table(columns), path, row_group_size=group)
    return str(path)


def test_rows_in_any_order_and_from_several_files(tmp_path):
    for number in range(3):
        start = number * 100
        lists = pa.array((VALUES + start * 2).tolist(), pa.list_(pa.float32()))
        write(tmp_path / f"train-{number:05d}-of-00003.parquet", lists, group=7 + number)
    source = open_source(str(tmp_path))
    expected = np.arange(600, dtype=np.float32).reshape(300, 2)
    assert source.read(95, 205).cells.tolist() == expected[95:205].tolist()
    for _ in range(3):
        wished = np.random.default_rng(0).integers(0, 300, 50)
        assert source.take(wished).cells.tolist() == expected[wished].tolist()
    assert source.take(np.array([], dtype=np.int64)).ids.tolist() == []


def test_reading_in_order_decodes_each_row_group_once(tmp_path, monkeypatch):
    source = open_source(write(tmp_path / "d.parquet"))
    seen = []
    real = pq.ParquetFile.read_row_group

    def counted(self, group, columns):
        seen.append((group, tuple(columns)))
        return real(self, group, columns=columns)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
    for start in range(0, ROWS, 3):
        source.read(start, min(start + 3, ROWS))
    assert [s for s in seen if "x" in s[1]] == [
        (group, ("x", "label")) for group in range(-(-ROWS // 7))
    ]


def test_a_large_row_group_is_read_forwards_and_again(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "WHOLE_BYTES", 0)
    for name in ("LEAST_ROWS", "MOST_ROWS"):
        monkeypatch.setattr(parquet, name, 4)
    source = open_source(write(tmp_path / "d.parquet", group=60))
    for rows in (range(10, 70), [90, 3, 3, 61, 59], range(5)):
        assert source.take(np.array(rows)).cells.tolist() == VALUES[list(rows)].tolist()
    assert source.read(50, 70).cells.tolist() == VALUES[50:70].tolist()


@pytest.mark.parametrize(
    "layout",
    [
        pa.large_list(pa.float32()),
        pa.list_(pa.float32(), 2),
        pa.large_list(pa.float64()),
        pa.list_(pa.float16()),
        pa.fixed_shape_tensor(pa.float32(), (2,)),
    ],
    ids=str,
)
def test_lists_of_every_layout_are_found_by_themselves(tmp_path, layout):
    storage = layout.storage_type if isinstance(layout, pa.BaseExtensionType) else layout
    array = pa.array(VALUES.tolist(), storage)
    if isinstance(layout, pa.BaseExtensionType):
        array = pa.ExtensionArray.from_storage(layout, array)
    source = open_source(write(tmp_path / "d.parquet", array))
    assert source.columns.inputs == ("x",)
    assert source.read(3, 9).cells.tolist() == VALUES[3:9].tolist()


def test_a_tensor_column_keeps_its_shape(tmp_path):
    values = np.arange(ROWS * 6, dtype=np.float32).reshape(ROWS, 2, 3)
    array = pa.FixedShapeTensorArray.from_numpy_ndarray(values)
    source = open_source(write(tmp_path / "d.parquet", array))
    assert source.take(np.array([8, 2])).cells.tolist() == values[[8, 2]].tolist()


def test_matrices_of_datasets(tmp_path):
    values = np.arange(24, dtype=np.float32).reshape(4, 2, 3)
    features = datasets.Features({"m": datasets.Array2D((2, 3), "float32")})
    path = str(tmp_path / "d.parquet")
    datasets.Dataset.from_dict({"m": values.tolist()}, features=features).to_parquet(path)
    assert open_source(path).read(1, 3).cells.tolist() == values[1:3].tolist()


def test_pictures_of_numbers_in_any_order(tmp_path):
    """Of which pyarrow takes others where they are a part of a row group."""
    rows = pa.list_(pa.list_(pa.list_(pa.float32(), 4), 5), 3)
    values = np.random.default_rng(0).normal(size=(40, 3, 5, 4)).astype(np.float32)
    pq.write_table(pa.table({"x": pa.array(values.tolist(), rows)}), tmp_path / "x.parquet")
    examples = softlabels.examples(tmp_path / "x.parquet")
    for chosen in ([20, 21, 22], [39, 7, 23], [5]):
        assert np.array_equal(examples.take(chosen)["input"], values[chosen])


@pytest.mark.parametrize(
    "type", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())], ids=str
)
def test_texts_of_every_layout_are_labels_and_ids(tmp_path, type):
    names = [f"c{i % 3}" for i in range(ROWS)]
    label = pa.array(names, pa.string()).cast(type)
    ids = pa.array([f"r{i}" for i in range(ROWS)], pa.string()).cast(type)
    path = write(tmp_path / "d.parquet", label=label, name=ids)
    source = open_source(path, id_column="name", input_column="x")
    assert source.class_names == ["c0", "c1", "c2"]
    assert source.read(98, 100).labels.tolist() == [2, 0]
    assert source.take(np.array([4])).ids.tolist() == ["r4"]


@pytest.mark.parametrize("kind", ["binary", "large", "view", "struct", "bytes", "named"])
def test_images_as_bytes_or_as_structs(tmp_path, kind):
    cells = [png(np.full((4, 4), i)) for i in range(ROWS)]
    column = {
        "binary": pa.array(cells, pa.binary()),
        "large": pa.array(cells, pa.large_binary()),
        "view": pa.array(cells, pa.binary_view()),
        "struct": pa.array([{"bytes": c, "path": "a.png"} for c in cells]),
        "bytes": pa.array([{"bytes": c} for c in cells]),
        "named": pa.array(cells, pa.binary()),
    }[kind]
    path = write(tmp_path / "d.parquet", pa.nulls(ROWS) if kind != "named" else None, pic=column)
    source = open_source(path, input_column="pic" if kind == "named" else None)
    assert (source.kind, source.columns.inputs) == ("image", ("pic",))
    assert source.take(np.array([7, 3])).cells == [cells[7], cells[3]]


def test_a_label_that_may_not_be_null_keeps_its_classes(tmp_path):
    features = datasets.Features(
        {"x": datasets.List(datasets.Value("float32")), "label": datasets.ClassLabel(2, ["n", "p"])}
    )
    schema = features.arrow_schema
    fields = [f.with_nullable(False) if f.name == "label" else f for f in schema]
    table = pa.table({"x": VALUES.tolist(), "label": [0, 1] * 50}, schema=schema)
    path = tmp_path / "d.parquet"
    pq.write_table(table.cast(pa.schema(fields, schema.metadata)), path)
    assert open_source(str(path)).class_names == ["n", "p"]


def test_processes_read_for_themselves(tmp_path):
    source = open_source(write(tmp_path / "d.parquet"))
    source.read(0, 50)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        parts = pool.map(source.take, [np.array([50, 3]), np.array([99])])
    assert [p.cells.tolist() for p in parts] == [VALUES[[50, 3]].tolist(), VALUES[[99]].tolist()]
    again = pickle.loads(pickle.dumps(source))
    assert again.take(np.array([41])).cells.tolist() == VALUES[[41]].tolist()


@pytest.mark.parametrize("how", ["replaced", "time kept", "cut", "gone"])
def test_a_file_that_changes_under_the_reader_is_refused(tmp_path, how):
    path = write(tmp_path / "d.parquet")
    source = open_source(path)
    source.read(0, 5)
    before = os.stat(path)
    if how == "gone":
        os.remove(path)
    elif how == "cut":
        os.truncate(path, before.st_size // 2)
    else:
        other = write(tmp_path / "other", pa.array((VALUES + 1).tolist()), group=9)
        shutil.copy(other, path)
    if how == "time kept":
        os.truncate(path, before.st_size) if os.stat(path).st_size > before.st_size else None
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(SourceError, match=r"written again|can't be read"):
        pickle.loads(pickle.dumps(source)).read(50, 60)
    with pytest.raises(SourceError, match=r"written again|can't be read"):
        source.read(90, 100) if how != "time kept" else pickle.loads(pickle.dumps(source)).read(
            0, 9
        )


def test_a_column_that_is_empty_in_one_file_is_what_it_is_in_another(tmp_path):
    for name, label in (("a", pa.nulls(ROWS)), ("b", pa.array(["p", "q"] * (ROWS // 2)))):
        write(tmp_path / f"train-{name}.parquet", label=label)
    assert open_source(str(tmp_path)).labels[ROWS - 2 : ROWS + 2].tolist() == [-1, -1, 0, 1]


def test_two_columns_of_one_name(tmp_path):
    table = pa.Table.from_arrays([pa.array([[1.0]]), pa.array([[2.0]])], names=["x", "x"])
    pq.write_table(table, tmp_path / "d.parquet")
    with pytest.raises(SourceError, match="several columns called 'x'"):
        open_source(str(tmp_path / "d.parquet"))


def test_images_that_are_paths(tmp_path):
    (tmp_path / "a.png").write_bytes(png(np.zeros((4, 4))))
    type = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    cells = pa.array([{"bytes": None, "path": str(tmp_path / "a.png")}], type)
    pq.write_table(pa.table({"pic": cells}), tmp_path / "d.parquet")
    source = open_source(str(tmp_path / "d.parquet"))
    assert source.read(0, 1).cells == [(tmp_path / "a.png").read_bytes()]


def test_files_of_one_split_have_the_same_columns(tmp_path):
    write(tmp_path / "train-a.parquet")
    write(tmp_path / "train-b.parquet", pa.array(["t"] * ROWS))
    with pytest.raises(SourceError, match=r"'x' is list<.*float> in train-a.parquet and string in"):
        open_source(str(tmp_path))


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([2**63 + i for i in range(ROWS)], pa.uint64()), "beyond 64 bits .* ids text"),
        (pa.array([i + 0.5 for i in range(ROWS)]), "is double; ids are whole numbers or text"),
        (pa.array([b"1234567812345678"] * ROWS, pa.uuid()), "is fixed_size_binary.*; ids are"),
        (pa.array([None] + ["a"] * (ROWS - 1)), "has empty cells"),
        (pa.array(["a\0"] + ["b"] * (ROWS - 1)), "NUL"),
        (pa.array(["secret" * 50] * ROWS), "the id 'secret.{74}' comes 100 times"),
    ],
    ids=["wide", "float", "uuid", "null", "nul", "twice"],
)
def test_ids_that_can_not_be(tmp_path, column, message):
    path = write(tmp_path / "d.parquet", uid=column)
    with pytest.raises(SourceError, match=message):
        _ = open_source(path, input_column="x", id_column="uid").ids


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([["secret"]] * ROWS), "join the texts of a list to one"),
        (pa.array([{"a": 1}] * ROWS), "inputs are images, numbers"),
        (pa.array([[("k", 1)]] * ROWS, pa.map_(pa.string(), pa.int64())), "inputs are images, num"),
        (pa.array([0] * ROWS, pa.timestamp("s")), "inputs are images, numbers"),
        (pa.array([b"no picture"] * ROWS), "inputs are images, numbers"),
        (pa.nulls(ROWS), "inputs are images, numbers"),
        (pa.array([[1.0, None]] * ROWS), "id 0 has an empty number"),
        (pa.array([[1.0]] + [None] * (ROWS - 1)), "id 1 has an empty cell in the input column"),
    ],
    ids=["texts", "struct", "map", "time", "bytes", "null", "gap", "missing"],
)
def test_inputs_that_can_not_be(tmp_path, column, message):
    path = write(tmp_path / "d.parquet", odd=column)
    with pytest.raises(SourceError, match=message) as caught:
        open_source(path, input_column="odd").read(0, ROWS)
    assert "secret" not in str(caught.value)
