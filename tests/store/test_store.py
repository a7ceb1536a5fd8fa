"""The format on disk: values, layout, readers of other kinds, damage."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import softlabels
from softlabels.errors import DamagedDump, DiskFull, IncompleteDump, PlanMismatch, StoreError
from softlabels.inputs.hashing import Fingerprint
from softlabels.logits import DenseLogits
from softlabels.store.codecs.kinds import Dense
from softlabels.store.folder import Folder
from softlabels.store.ledger import read_manifest
from softlabels.store.names import commit_name
from softlabels.store.reader import DumpReader
from softlabels.store.records import Commit, Plan, Statistics
from softlabels.store.statistics import LogitStatistics
from softlabels.store.writer import ShardWriter, shard_schema
from tests.conftest import every
from tests.dumps import copy_to_memory, make_dump, write_shard
from tests.dumps import make_plan as plan


def fail_after(folder: Folder, plan: Plan, rows: int) -> None:
    ids = np.arange(rows)
    with ShardWriter(folder, plan, 0, shard_schema(plan, None)) as writer:
        writer.add(ids, ids % 3, ids.astype(np.uint64), Dense(torch.zeros(rows, 3)))
        raise RuntimeError("boom")


@settings(max_examples=25)
@given(
    rows=st.integers(1, 70), classes=st.integers(1, 20), group=st.sampled_from([1, 4, 16, 64]),
    batch=st.integers(1, 40), dtype=st.sampled_from(["float16", "float32"]),
)  # fmt: skip
def test_what_is_written_is_read_bit_for_bit(tmp_path_factory, rows, classes, group, batch, dtype):
    folder = Folder(tmp_path_factory.mktemp("d"))
    logits = np.random.default_rng(rows).normal(size=(rows, classes)).astype(np.float32) * 9
    made = plan(rows, classes, dtype, group)
    write_shard(folder, made, 0, logits, batch)
    file = pq.ParquetFile(f"{folder}/{made.file(0)}", page_checksum_verification=True)
    column = file.read(columns=["logits"])["logits"]
    found = made.make_codec().columns[0].decode(column)
    assert found.tobytes() == logits.astype(dtype).tobytes()
    sizes = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
    assert sizes == [group] * (rows // group) + ([rows % group] if rows % group else [])


def test_pages_can_be_mapped_in_place(tmp_path):
    """Each row group holds its logits as one run of bytes, as the format promises."""
    folder, made = Folder(tmp_path), plan(100, classes=5, group=32)
    logits = np.random.default_rng(0).normal(size=(100, 5)).astype(np.float16)
    write_shard(folder, made, 0, logits, 7)
    path = tmp_path / made.file(0)
    content, metadata = path.read_bytes(), pq.ParquetFile(path).metadata
    for group in range(metadata.num_row_groups):
        chunk = metadata.row_group(group).column(4)
        assert chunk.path_in_schema == "logits.list.element"
        assert chunk.compression == "UNCOMPRESSED"
        assert not chunk.has_dictionary_page
        page = content[chunk.data_page_offset :][: chunk.total_compressed_size]
        assert page.endswith(logits[group * 32 : group * 32 + 32].tobytes())


def test_schema_is_flat_and_only_labels_are_nullable(dump_folder):
    path = next(Path(dump_folder, "data").iterdir())
    schema = pq.read_schema(path)
    assert schema.names == ["id", "view", "input_hash", "label", "logits"]
    assert [str(schema.field(n).type) for n in schema.names[:4]] == [
        "int64", "int32", "uint64", "int64",
    ]  # fmt: skip
    assert [n for n in schema.names if schema.field(n).nullable] == ["label"]
    assert all(column.null_count == 0 for column in pq.read_table(path).columns)
    type_ = schema.field("logits").type
    assert pa.types.is_fixed_size_list(type_)
    assert type_.list_size == 10
    assert type_.value_type == pa.float16()


def test_another_program_reads_it_with_datasets_alone(dump_folder, tmp_path):
    code = f"""
import datasets, json, sys
d = datasets.load_dataset({dump_folder!r}, cache_dir={str(tmp_path)!r})
print(json.dumps([list(d), len(d["train"]), str(d["train"].features["logits"]),
                  d["train"].features["label"].names, "softlabels" in sys.modules]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    splits, rows, feature, names, ours = json.loads(done.stdout.splitlines()[-1])
    assert (splits, rows, ours) == (["train"], 1200, False)
    assert feature == "List(Value('float16'), length=10)"
    assert names == list("0123456789")


def test_datasets_notices_a_missing_shard(dump_folder, tmp_path):
    import datasets

    copy = shutil.copytree(dump_folder, tmp_path / "copy")
    next((copy / "data").iterdir()).unlink()
    with pytest.raises(datasets.exceptions.NonMatchingSplitsSizesError):
        datasets.load_dataset(str(copy), cache_dir=str(tmp_path / "cache"))


def test_records_agree_with_the_files(dump_folder):
    manifest, made = read_manifest(Folder(dump_folder))
    assert manifest.rows == 1200 == sum(s.rows for s in manifest.shards)
    assert len(manifest.shards) == 3 == made.shards
    for index, shard in enumerate(manifest.shards):
        content = Path(dump_folder, shard.file).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (
            shard.bytes, shard.sha256,
        )  # fmt: skip
        footer = pq.read_schema(Path(dump_folder, shard.file)).metadata
        assert footer[b"softlabels.plan"].decode() == manifest.plan_hash
        assert footer[b"softlabels.shard"] == str(index).encode()
    reader = DumpReader(Folder(dump_folder))
    keys, rows = Fingerprint(), Fingerprint()
    keys.update(reader.ids, reader.labels)
    assert made.source.fingerprint == str(keys)
    rows.update(reader.ids[500:1000], reader.hashes[500:1000], reader.labels[500:1000])
    assert manifest.shards[1].fingerprint == rows.short
    assert len(made.source.shards) == 3


def test_statistics_are_those_of_all_rows(dump_folder):
    reader = DumpReader(Folder(dump_folder))
    whole = LogitStatistics()
    whole.add(DenseLogits(torch.from_numpy(every(reader))), reader.labels)
    found = reader.manifest.statistics
    assert found.agrees(whole.merged)
    z = every(reader).astype(np.float64)
    p = np.exp(z - z.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    assert found.entropy == pytest.approx(-(p * np.log(p)).sum(-1).mean(), rel=1e-4)
    assert found.accuracy == (z.argmax(-1) == reader.labels).mean()
    assert Statistics.merge([]) is None


def test_rows_without_a_position_count_as_rows():
    logits, labels = DenseLogits(torch.eye(3)), np.array([0, 1, 0])
    some = LogitStatistics()
    some.add(logits, labels, rows=2)
    some.add(logits.select(torch.empty(0, dtype=torch.long)), labels[:0], rows=4)  # a row group
    assert some.rows == 6
    assert (some.merged.rows, some.merged.positions, some.merged.correct) == (6, 3, 2)


def test_an_exception_leaves_no_file_and_no_commit(tmp_path):
    folder, made = Folder(tmp_path), plan(100)
    with pytest.raises(RuntimeError, match="boom"):
        fail_after(folder, made, 64)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_a_folder_that_is_not_local():
    folder, made = Folder("memory://dumps/one"), plan(40)
    logits = np.random.default_rng(1).normal(size=(40, 3)).astype(np.float16)
    with pytest.raises(RuntimeError, match="boom"):
        fail_after(folder, made, 20)
    assert not folder.exists(made.file(0))
    write_shard(folder, made, 0, logits, 7)
    with folder.open(made.file(0)) as file:
        table = pq.read_table(file, columns=["logits"])
    assert made.make_codec().columns[0].decode(table["logits"]).tobytes() == logits.tobytes()
    assert folder.read_json(commit_name(0))["rows"] == 40


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "..", "", "a\\b", "a\0b"])
def test_names_that_lead_outside(tmp_path, name):
    with pytest.raises(DamagedDump, match="outside"):
        Folder(tmp_path).path(name)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": "other/9"}', "[" * 100_000, "\xff"])
def test_a_manifest_that_is_none(tmp_path, text):
    (tmp_path / "softlabels.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(DamagedDump):
        read_manifest(Folder(tmp_path))


def test_a_manifest_with_other_names_or_types(dump_folder, tmp_path):
    original = json.loads(Path(dump_folder, "softlabels.json").read_text())
    for change in (
        {"rows": "many"}, {"rows": -1}, {"shards": {}}, {"plan": []}, {"plan_hash": "sha256:0"},
        {"plan": original["plan"] | {"classes": 11}},
    ):  # fmt: skip
        copy = tmp_path / "softlabels.json"
        copy.write_text(json.dumps(original | change))
        with pytest.raises(DamagedDump):
            read_manifest(Folder(tmp_path))
    copy = shutil.copytree(dump_folder, tmp_path / "copy")
    for file, problem in (
        ("../../../etc/passwd", r"shards\[0\].file is .*passwd\", expected data/SPLIT"),
        ("data/train-00001-of-00003.parquet", "shard 0 is named"),
    ):
        original["shards"][0]["file"] = file
        (copy / "softlabels.json").write_text(json.dumps(original))
        with pytest.raises(DamagedDump, match=problem):
            DumpReader(Folder(copy))


def test_damage_is_found_when_read(dump_folder, tmp_path):
    def damaged(name: str, change) -> DumpReader:
        copy = shutil.copytree(dump_folder, tmp_path / name)
        change(sorted((copy / "data").iterdir()))
        return DumpReader(Folder(copy))

    def flip(files: list[Path]) -> None:
        chunk = pq.ParquetFile(files[1]).metadata.row_group(0).column(4)
        content = bytearray(files[1].read_bytes())
        content[chunk.data_page_offset + chunk.total_compressed_size // 2] ^= 1
        files[1].write_bytes(content)

    def swap(files: list[Path]) -> None:
        kept = files[0].read_bytes()
        files[0].write_bytes(files[1].read_bytes())
        files[1].write_bytes(kept)

    cases = {
        "flipped": (flip, "00001-of-00003.parquet is damaged"),
        "cut": (lambda f: f[2].write_bytes(f[2].read_bytes()[:-9]), "00002-of-00003"),
        "gone": (lambda f: f[0].unlink(), "00000-of-00003.parquet is missing"),
        "swapped": (swap, "another shard of this dump"),
    }
    for name, (change, message) in cases.items():
        with pytest.raises(DamagedDump, match=message):
            every(damaged(name, change))


def test_plans_that_differ_say_in_what():
    made = plan(10)
    with pytest.raises(PlanMismatch, match="dtype is 'float32' and was 'float16'"):
        plan(10, dtype="float32").check_same(made, Folder("somewhere"))
    assert plan(10).hash == made.hash != plan(11).hash


def test_a_record_keeps_no_unknown_field_and_a_plan_has_none():
    plain = {
        "shard": 0, "plan": plan(10).hash, "file": plan(10).file(0), "rows": 0, "bytes": 9,
        "sha256": "0" * 64, "fingerprint": "0" * 16, "statistics": None, "skipped": [],
    }  # fmt: skip
    record = Commit.parse(plain | {"later": 1}, "commit")
    assert record == Commit.parse(plain, "commit")
    with pytest.raises(DamagedDump, match="plan: later is unknown to this softlabels"):
        Plan.parse(plan(10).as_json | {"later": 1}, "plan")


def test_unfinished_and_absent(tmp_path):
    with pytest.raises(StoreError, match="does not exist; make one"):
        read_manifest(Folder(tmp_path / "none"))
    folder = Folder(tmp_path)
    folder.write_json("plan.json", plan(10).as_json)
    with pytest.raises(IncompleteDump, match="0 of 1 shards"):
        read_manifest(folder)


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    import errno

    folder = Folder(tmp_path)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DiskFull, match=r"no space left for .*x\.json"):
        folder.write_json("x.json", {})
    assert not (tmp_path / "x.json").exists()


@pytest.mark.parametrize("where", ["memory://threads/d", "local"])
def test_arrows_threads_never_hold_what_belongs_to_python(teacher, tmp_path, monkeypatch, where):
    """They let go of it while the interpreter ends, and the process aborted after a good answer."""
    out = str(tmp_path / "d") if where == "local" else where
    softlabels.dump(teacher=teacher, out=out)
    seen = []
    real = pq.ParquetFile

    class Noted(real):
        def __init__(self, source, **words):
            self.named = isinstance(source, str)
            super().__init__(source, **words)

        def read(self, columns, use_threads=True):
            seen.append(self.named or not use_threads)
            return super().read(columns=columns, use_threads=use_threads)

        def read_row_groups(self, groups, columns, use_threads=True):
            seen.append(self.named or not use_threads)
            return super().read_row_groups(groups, columns=columns, use_threads=use_threads)

    monkeypatch.setattr(pq, "ParquetFile", Noted)
    reader = DumpReader(Folder(out))
    assert len(reader.ids) == len(every(reader)) == 1200
    assert len(seen) >= 2
    assert all(seen)


def test_of_a_remote_dump_little_more_than_the_asked_for_is_read(tmp_path, monkeypatch):
    """Row groups of half a megabyte, in two shards."""
    logits = np.zeros((2048, 1000), np.float16)
    made, read = make_dump(tmp_path / "d", logits, group=256, shard_rows=1024), []
    real = Folder.read_range

    def noted(folder, name, start, stop):
        read.append(stop - start)
        return real(folder, name, start, stop)

    monkeypatch.setattr(Folder, "read_range", noted)
    reader = DumpReader(Folder(copy_to_memory(made, "asked-for")))
    reader.fetch(["id", "input_hash"])
    assert sum(read) < 0.1 * logits.nbytes
    requests = len(read)
    assert reader.ids.tolist() == reader.hashes.tolist() == list(range(2048))
    assert len(read) == requests == 2 * (1 + 4)  # the footer, and the two columns of each row group
    assert reader.labels.tolist() == [n % 1000 for n in range(2048)]
