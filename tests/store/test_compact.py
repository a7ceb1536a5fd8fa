"""Compact dumps: the same logits in fewer bytes, unpacked without Arrow where they are ours."""

import io
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import softlabels
from softlabels.errors import DamagedDump, PlanMismatch
from softlabels.models import build_model
from softlabels.store.compact_pages import unpack_chunk
from softlabels.store.folder import Folder
from softlabels.store.reader import DumpReader
from tests.capture import harm
from tests.conftest import every
from tests.dumps import make_plan as plan
from tests.dumps import write_shard
from tests.store.test_shard_file import drawn, lay


def chunk_of(content: bytes, group: int = 0) -> bytes:
    """The bytes of the column chunk of a row group's logits."""
    found = pq.read_metadata(io.BytesIO(content)).row_group(group)
    chunk = found.column(found.num_columns - 1)
    return content[chunk.data_page_offset :][: chunk.total_compressed_size]


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 90), classes=st.integers(1, 300), group=st.sampled_from([1, 8, 16, 64]),
    dtype=st.sampled_from(["float16", "float32"]),
)  # fmt: skip
def test_a_page_is_unpacked_as_arrow_decodes_it(rows, classes, group, dtype):
    logits = drawn(rows, classes, dtype)
    content, _ = lay("int64", None, logits, group, compact=True)
    with pq.ParquetFile(io.BytesIO(content), page_checksum_verification=True) as file:
        for index in range(file.metadata.num_row_groups):
            column = file.read_row_group(index, columns=["logits"])["logits"]
            found = unpack_chunk(chunk_of(content, index), len(column), classes, dtype)
            assert found is not None
            assert found.dtype == dtype
            assert found.shape == (len(column), classes)
            expected = column.combine_chunks().flatten().to_numpy().tobytes()
            assert found.tobytes() == expected
            room = np.zeros((100, classes), dtype)
            chunk = chunk_of(content, index)
            assert unpack_chunk(chunk, len(column), classes, dtype, room[: len(column)]) is not None
            assert room[: len(column)].tobytes() == expected
            assert not room[len(column) :].any()


@given(
    bits=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=40),
    dtype=st.sampled_from(["float16", "float32"]),
)
def test_any_bits_come_back(bits, dtype):
    words = np.array(bits, np.uint32).astype(f"u{np.dtype(dtype).itemsize}")
    logits = words.view(dtype).reshape(-1, 1)
    content, _ = lay("int64", None, logits, 64, compact=True)
    assert unpack_chunk(chunk_of(content), len(bits), 1, dtype).tobytes() == logits.tobytes()


def test_what_arrow_packs_itself_is_left_to_arrow():
    """Its levels are written otherwise; so are plain pages, other codecs, several pages."""
    logits = drawn(64, 20, "float16")
    _, table = lay("int64", None, logits, 64)
    ways = [
        {"compression": "none", "use_dictionary": False},
        {"compression": "snappy", "use_dictionary": False},
        {"compression": "zstd", "use_dictionary": True},
        {"compression": "zstd", "use_dictionary": False, "data_page_size": 64,
         "write_batch_size": 1},
        {"compression": "zstd", "use_dictionary": False, "data_page_version": "2.0"},
        {"compression": "zstd", "use_dictionary": False, "write_page_checksum": False,
         "column_encoding": {"logits.list.element": "BYTE_STREAM_SPLIT"}},
    ]  # fmt: skip
    for words in ways:
        file = io.BytesIO()
        pq.write_table(table, file, **words)
        assert unpack_chunk(chunk_of(file.getvalue()), 64, 20, "float16") is None, words


@settings(max_examples=300, deadline=None)
@given(place=st.integers(0, 10_000), bit=st.integers(0, 7), cut=st.integers(0, 50))
def test_a_harmed_page_is_never_unpacked_wrongly(place, bit, cut):
    logits = drawn(16, 30, "float16")
    content = chunk_of(lay("int64", None, logits, 16, compact=True)[0])
    harmed = bytearray(content[: len(content) - cut])
    if harmed:
        harmed[place % len(harmed)] ^= 1 << bit
    found = unpack_chunk(bytes(harmed), 16, 30, "float16")
    assert found is None or found.tobytes() == logits.tobytes()


@pytest.mark.parametrize(
    ("rows", "classes", "dtype"),
    [(15, 30, "float16"), (16, 31, "float16"), (16, 15, "float32"), (32, 15, "float16")],
)
def test_another_shape_than_promised_is_not_unpacked(rows, classes, dtype):
    content = chunk_of(lay("int64", None, drawn(16, 30, "float16"), 16, compact=True)[0])
    assert unpack_chunk(content, rows, classes, dtype) is None


@pytest.mark.parametrize("size", [0, 10, 959, 961, 5000])
def test_a_page_that_unpacks_to_another_size_is_refused(size):
    """Rightly summed and headed, but not what the header says."""
    from softlabels.store import logits_chunk

    logits = drawn(16, 30, "float16")
    body = memoryview(pa.Codec("zstd").compress(bytes(size)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logits_chunk, "pack_page", lambda *_: body)
        content = chunk_of(lay("int64", None, logits, 16, compact=True)[0])
    assert unpack_chunk(content, 16, 30, "float16") is None


@pytest.fixture(scope="module")
def pair(teacher, tmp_path_factory):
    """The same dump, plain and compact."""
    place = tmp_path_factory.mktemp("pair")
    for compact in (False, True):
        softlabels.dump(teacher=teacher, out=str(place / f"{compact}"), shard_rows=500,
                        compact=compact)  # fmt: skip
    return place / "False", place / "True"


def test_a_compact_dump_holds_the_same(pair):
    plain, compact = (DumpReader(Folder(path)) for path in pair)
    assert compact.plan.compact
    assert not plain.plan.compact
    assert every(compact).tobytes() == every(plain).tobytes()
    assert (compact.ids == plain.ids).all()
    assert compact.manifest.statistics == plain.manifest.statistics
    assert compact.manifest.bytes < 0.95 * plain.manifest.bytes
    assert "compact" in softlabels.info(str(pair[1]))["facts"]["logits"]


def test_a_compact_dump_is_verified_resumed_and_trained_on(pair, teacher, tmp_path):
    copy = Path(shutil.copytree(pair[1], tmp_path / "copy"))
    kept = {path.name: path.read_bytes() for path in (copy / "data").iterdir()}
    assert softlabels.verify(dump=str(copy), source=True, replay=20, teacher=teacher).good
    harm.flip_a_logit(copy)
    assert not softlabels.verify(dump=str(copy)).good
    with pytest.raises(DamagedDump, match="00001-of-00003"):
        every(DumpReader(Folder(copy)))
    words = {"teacher": teacher, "out": str(copy), "shard_rows": 500, "resume": True}
    with pytest.raises(PlanMismatch, match="compact is False and was True"):
        softlabels.dump(**words)
    assert softlabels.dump(**words, compact=True).rows_run == 500
    assert kept == {path.name: path.read_bytes() for path in (copy / "data").iterdir()}
    weights = []
    for path in (pair[0], copy):
        softlabels.train(dump=str(path), epochs=1, student="linear", out=str(tmp_path / "s.pt"))
        weights.append(torch.load(tmp_path / "s.pt", weights_only=True)["state_dict"])
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name])


def test_a_begun_plain_dump_is_not_gone_on_with_as_a_compact_one(pair, teacher):
    before = {path: path.read_bytes() for path in pair[0].rglob("*") if path.is_file()}
    with pytest.raises(PlanMismatch, match="compact is True and was False"):
        softlabels.dump(teacher=teacher, out=str(pair[0]), shard_rows=500, resume=True,
                        compact=True)  # fmt: skip
    assert before == {path: path.read_bytes() for path in before}


def test_bytes_of_a_row(tmp_path):
    """A thousand classes, from a network of random weights on Gaussian inputs."""
    torch.manual_seed(0)
    with torch.no_grad():
        logits = build_model("mlp:256", [64], 1000)(torch.randn(2048, 64)).numpy() * 20
    sizes = {}
    for compact in (False, True):
        folder = Folder(tmp_path / str(compact))
        made = plan(2048, 1000, group=1024, compact=compact)
        write_shard(folder, made, 0, logits.astype(np.float16), 256)
        sizes[compact] = folder.size(made.file(0)) / 2048 / 2000
    assert sizes[False] < 1.02
    assert sizes[True] < 0.87
