"""Shards as a standard reader sees them: laid together by hand, read by everyone."""

import hashlib
import io

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from softlabels.errors import LogitsError
from softlabels.store.codecs.dense import DenseCodec
from softlabels.store.codecs.kinds import Dense
from softlabels.store.folder import Folder
from softlabels.store.names import commit_name
from softlabels.store.pages.levels import page_levels
from softlabels.store.pages.places import plain_values, read_page_header
from softlabels.store.pages.shard_file import ShardFile
from softlabels.store.pages.thrift import read_struct, write_struct
from softlabels.store.writer import ShardWriter, shard_schema
from tests.dumps import make_plan as plan
from tests.dumps import write_shard

INPUTS = {
    "numbers": (datasets.List(datasets.Value("float32"), length=3), [[1.0, 2.5, -3.0], None]),
    "matrix": (datasets.Array2D((2, 2), "uint8"), [[[1, 2], [3, 4]]]),
    "image": (datasets.Image(), [{"bytes": b"png", "path": None}, {"bytes": None, "path": "x"}]),
}


def features(ids: str, inputs: str | None, classes: int, dtype: str) -> datasets.Features:
    found = {"id": datasets.Value(ids), "input_hash": datasets.Value("uint64")}
    if inputs:
        found["input"] = INPUTS[inputs][0]
    found["logits"] = datasets.List(datasets.Value(dtype), length=classes)
    return datasets.Features(found)


def lay(ids: str, inputs: str | None, logits: np.ndarray, group: int) -> tuple[bytes, pa.Table]:
    """A file laid together, and the table that it holds."""
    rows, classes = logits.shape
    schema = features(ids, inputs, classes, str(logits.dtype)).arrow_schema
    element = pa.field("element", pa.from_numpy_dtype(logits.dtype), nullable=False)
    type_ = pa.list_(element, classes)
    schema = schema.set(len(schema) - 1, pa.field("logits", type_, nullable=False))
    schema = schema.set(1, pa.field("input_hash", pa.uint64(), nullable=False))
    numbers = np.arange(rows)
    columns = {
        "id": pa.array([f"row {i}" for i in numbers] if ids == "string" else numbers),
        "input_hash": pa.array(numbers.astype(np.uint64) * 7919),
        "logits": pa.FixedSizeListArray.from_arrays(pa.array(logits.reshape(-1)), type=type_),
    }
    if inputs:
        cells = INPUTS[inputs][1]
        cells = [cells[i % len(cells)] for i in range(rows)]
        kind = schema.field("input").type
        storage = kind.storage_type if isinstance(kind, pa.ExtensionType) else kind
        array = pa.array(cells, storage)
        columns["input"] = (
            pa.ExtensionArray.from_storage(kind, array) if storage is not kind else array
        )
    table = pa.table([columns[name] for name in schema.names], schema=schema)
    file = io.BytesIO()
    column = DenseCodec(classes, str(logits.dtype)).columns[0]
    shard = ShardFile(file, schema, group, [column])
    for start in range(0, rows, group):
        part = table.slice(start, group)
        others = part.drop_columns("logits").combine_chunks()
        shard.write(others, {"logits": logits[start : start + group]})
    shard.close()
    assert shard.file.size == len(file.getvalue())
    return file.getvalue(), table


def drawn(rows: int, classes: int, dtype: str) -> np.ndarray:
    return np.random.default_rng(rows).normal(size=(rows, classes)).astype(dtype)


SHARDS = {
    "rows": st.integers(0, 90), "classes": st.integers(1, 70),
    "group": st.sampled_from([1, 8, 16, 64]), "dtype": st.sampled_from(["float16", "float32"]),
    "ids": st.sampled_from(["int64", "string"]), "inputs": st.sampled_from([None, *INPUTS]),
}  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(**SHARDS)
def test_arrow_reads_what_was_laid_together(rows, classes, group, dtype, ids, inputs):
    logits = drawn(rows, classes, dtype)
    content, table = lay(ids, inputs, logits, group)
    with pq.ParquetFile(io.BytesIO(content), page_checksum_verification=True) as file:
        found, metadata = file.read(), file.metadata
    whole = io.BytesIO()
    pq.write_table(table, whole)
    expected = pq.read_table(whole)
    assert found.schema.equals(expected.schema, check_metadata=True)
    assert found.equals(expected)
    assert lay(ids, inputs, logits, group)[0] == content
    assert metadata.num_rows == rows
    for index in range(metadata.num_row_groups):
        group_ = metadata.row_group(index)
        chunks = [group_.column(i) for i in range(group_.num_columns)]
        assert group_.total_byte_size == sum(c.total_uncompressed_size for c in chunks)
        assert all(c.has_offset_index for c in chunks)
        assert chunks[0].has_column_index
        assert [c.compression for c in chunks[:2]] == ["ZSTD", "UNCOMPRESSED"]  # id, input_hash
        last = chunks[-1]
        assert last.path_in_schema == "logits.list.element"
        assert last.compression == "UNCOMPRESSED"
        at = plain_values(io.BytesIO(content), group_, DenseCodec(classes, dtype).columns[0])
        assert at is not None
        assert at % 64 == 0
        part = logits[index * group : (index + 1) * group]
        assert content[at : at + part.nbytes] == part.tobytes()


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 60), classes=st.integers(1, 300), group=st.sampled_from([1, 8, 32]))
def test_the_footer_is_the_one_that_arrow_would_write(rows, classes, group):
    """But for places and sizes; so that nothing that a reader may look for is missing."""
    content, table = lay("int64", None, drawn(rows, classes, "float16"), group)
    file = io.BytesIO()
    pack = {"id": "zstd", "input_hash": "none", "logits.list.element": "none"}
    pq.write_table(table, file, row_group_size=group, compression=pack, use_dictionary=False,
                   write_statistics=["id"], write_page_index=True, write_page_checksum=True,
                   write_batch_size=group, max_rows_per_page=group)  # fmt: skip
    ours, theirs = footer(content), footer(file.getvalue())
    assert shape(ours) == shape(theirs)
    assert {k: v for k, v in ours.items() if k != 4} == {k: v for k, v in theirs.items() if k != 4}


def footer(content: bytes) -> dict:
    length = int.from_bytes(content[-8:-4], "little")
    found, end = read_struct(content, len(content) - 8 - length)
    assert end == len(content) - 8
    assert write_struct(found) == content[-8 - length : -8]
    return found


def shape(value):
    """A struct without its whole numbers of 64 bits and the lengths of the page index."""
    if isinstance(value, dict):
        return {k: shape(v) for k, v in value.items() if v[0] != 6 and k not in (5, 7)}
    if isinstance(value, tuple | list):
        return [shape(v) for v in value]
    return value


@pytest.mark.parametrize(
    ("classes", "dtype", "pages"),
    [(3, "float16", ["fab751a6b9b3a3e1", "83765cfb2c32be24"]),
     (40, "float32", ["694a188d82e36520", "8e92c7f7032c15e9"])],
)  # fmt: skip
def test_the_bytes_of_a_page_of_logits_stay_as_they_are(classes, dtype, pages):
    """Header, levels and values, as the first shards had them."""
    logits = (np.arange(6 * classes).reshape(6, classes) / 8 - 5).astype(dtype)
    content, _ = lay("int64", None, logits, 4)
    metadata = pq.read_metadata(io.BytesIO(content))
    chunks = [metadata.row_group(index).column(2) for index in range(2)]
    parts = [content[c.data_page_offset :][: c.total_compressed_size] for c in chunks]
    assert [hashlib.sha256(part).hexdigest()[:16] for part in parts] == pages


def test_every_flipped_bit_of_levels_and_values_is_noticed():
    content, _ = lay("int64", None, drawn(32, 9, "float16"), 32)
    chunk = pq.read_metadata(io.BytesIO(content)).row_group(0).column(2)
    start = chunk.data_page_offset
    header, length = read_page_header(content[start : start + 128])
    for place in range(start + length, start + length + header["compressed"]):
        harmed = bytearray(content)
        harmed[place] ^= 1 << place % 8
        with (
            pq.ParquetFile(io.BytesIO(harmed), page_checksum_verification=True) as file,
            pytest.raises(OSError, match="CRC"),
        ):
            file.read(columns=["logits"])


def test_a_teacher_that_changes_its_mind_about_the_classes(tmp_path):
    made = plan(20, classes=3)
    ids = np.arange(10)

    def change() -> None:
        with ShardWriter(Folder(tmp_path), made, 0, shard_schema(made, None)) as writer:
            writer.add(ids, ids % 3, ids.astype(np.uint64), Dense(torch.zeros(10, 3)))
            writer.add(ids + 10, ids % 3, ids.astype(np.uint64), Dense(torch.zeros(10, 1)))

    with pytest.raises(LogitsError, match="gave 1 logits for the row with id 10; before, it gave"):
        change()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@settings(max_examples=15, deadline=None)
@given(batch=st.integers(1, 50))
def test_the_size_of_batches_changes_no_byte(tmp_path_factory, batch):
    """Nor a digit of the statistics, so that a shard that is done again is the same shard."""
    logits = drawn(50, 3, "float16")
    commits = []
    for size in (7, batch):
        folder = Folder(tmp_path_factory.mktemp("d"))
        write_shard(folder, plan(50), 0, logits, size)
        commits.append(folder.read_json(commit_name(0)))
    assert commits[0] == commits[1]


@pytest.fixture(scope="module")
def wide_dump(tmp_path_factory):
    """Three row groups of 50 classes in one shard, and the logits."""
    folder = Folder(tmp_path_factory.mktemp("wide"))
    logits = drawn(150, 50, "float16")
    write_shard(folder, plan(150, 50, group=64), 0, logits, 7)
    return f"{folder}/data/train-00000-of-00001.parquet", logits


def test_datasets_reads_it(wide_dump, tmp_path):
    path, logits = wide_dump
    found = datasets.load_dataset(
        "parquet", data_files=path, split="train", cache_dir=str(tmp_path)
    ).with_format("arrow")[:]
    assert found["logits"].combine_chunks().flatten().to_numpy().tobytes() == logits.tobytes()
    assert found["id"].to_pylist() == list(range(150))


def test_polars_reads_it(wide_dump):
    polars = pytest.importorskip("polars")
    path, logits = wide_dump
    found = polars.read_parquet(path)
    assert found["logits"].to_numpy().astype(np.float16).tobytes() == logits.tobytes()
    assert found["id"].to_list() == list(range(150))
    assert polars.scan_parquet(path).filter(polars.col("id") > 140).collect().height == 9


def test_duckdb_reads_it(wide_dump):
    duckdb = pytest.importorskip("duckdb")
    path, logits = wide_dump
    rows = duckdb.sql(f"select id, logits from '{path}' order by id").fetchall()
    assert [row[0] for row in rows] == list(range(150))
    assert np.array([row[1] for row in rows], np.float16).tobytes() == logits.tobytes()
    assert duckdb.sql(f"select count(*) from '{path}' where id > 140").fetchall() == [(9,)]


FIELDS = st.deferred(
    lambda: st.one_of(
        st.tuples(st.sampled_from([1, 2]), st.none()),
        st.tuples(st.sampled_from([4, 5, 6]), st.integers(-(2**31), 2**31 - 1)),
        st.tuples(st.just(8), st.binary(max_size=20)),
        st.tuples(st.just(7), st.binary(min_size=8, max_size=8)),
        st.tuples(st.just(9), st.tuples(st.just(6), st.lists(st.integers(-9, 9), max_size=20))),
        st.tuples(st.just(12), STRUCTS),
        st.tuples(st.just(9), st.tuples(st.just(12), st.lists(STRUCTS, max_size=3))),
    )
)
STRUCTS = st.dictionaries(st.integers(1, 40), FIELDS, max_size=4)


@given(STRUCTS)
def test_what_thrift_writes_it_reads(fields):
    content = write_struct(fields)
    assert read_struct(content) == (fields, len(content))
    with pytest.raises(IndexError):
        read_struct(content[:-1])


@given(rows=st.integers(1, 50), classes=st.integers(1, 2000))
def test_levels_are_counted_once(rows, classes):
    """Eight at a time or in runs, there are as many as values, and a 0 where each list begins."""
    levels = page_levels(rows, classes)
    length = int.from_bytes(levels[:4], "little")
    assert unpacked(levels[4 : 4 + length])[: rows * classes] == ([0] + [1] * (classes - 1)) * rows
    rest = levels[4 + length :]
    assert int.from_bytes(rest[:4], "little") == len(rest) - 4
    assert unpacked(rest[4:]) == [1] * rows * classes


def unpacked(content: bytes) -> list[int]:
    """Parquet's hybrid of runs and packed bits, one bit wide, read as its specification says."""
    found, at = [], 0
    while at < len(content):
        head = shift = 0
        while True:
            byte = content[at]
            head |= (byte & 127) << shift
            shift, at = shift + 7, at + 1
            if byte < 128:
                break
        if head & 1:
            eights = content[at : at + (head >> 1)]
            found += [byte >> bit & 1 for byte in eights for bit in range(8)]
            at += head >> 1
        else:
            found += [content[at]] * (head >> 1)
            at += 1
    return found
