"""Inputs that are numbers, kept in memory: read in bulk, each hashed before it is given."""

import errno
import os
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch.utils.data import DataLoader, get_worker_info

import softlabels
from softlabels.errors import AlignmentError, SourceError
from softlabels.inputs import checked, decoded_cache, examples, kept
from softlabels.inputs.opening import open_source
from softlabels.inputs.sources import Source
from softlabels.inputs.tables import parquet
from softlabels.system.cache import LocalCache
from tests.conftest import Firsts, save_script

ROWS = 1000
SAMPLED = 2  # rows, of which a model is tried


def write(path: Path, values: np.ndarray, names: list, group: int = 128) -> None:
    cells = pa.array(list(values))
    pq.write_table(pa.table({"x": cells, "name": names}), path, row_group_size=group)


@pytest.fixture(scope="module")
def values() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(ROWS, 6)).astype(np.float32)


@pytest.fixture(scope="module")
def dump(tmp_path_factory, values) -> str:
    """Of rows that are called r0, r1, …; it has no inputs."""
    place = tmp_path_factory.mktemp("kept")
    write(place / "x.parquet", values, [f"r{i}" for i in range(ROWS)])
    softlabels.dump(teacher=save_script(Firsts(), place / "t.pt"), data=str(place / "x.parquet"),
                    out=str(place / "d"), id_column="name", shard_rows=300)  # fmt: skip
    return str(place / "d")


@pytest.fixture
def source(tmp_path, values) -> Path:
    """The same rows in another order."""
    mixed = np.random.default_rng(1).permutation(ROWS)
    write(tmp_path / "mixed.parquet", values[mixed], [f"r{i}" for i in mixed])
    return tmp_path / "mixed.parquet"


@pytest.fixture
def hashed(monkeypatch) -> list[int]:
    """How many rows were hashed in bulk, block by block."""
    counts, hash_arrays = [], kept.hash_arrays
    monkeypatch.setattr(
        kept, "hash_arrays", lambda cells: (counts.append(len(cells)), hash_arrays(cells))[1]
    )
    return counts


def an_epoch(dataset) -> torch.Tensor:
    """The inputs in the order of the rows, taken from shuffled batches."""
    batches = list(dataset.batches(64, shuffle=True))
    ids = [id for batch in batches for id in batch["id"]]
    order = np.argsort([int(id[1:]) for id in ids])
    return torch.cat([batch["input"] for batch in batches])[torch.from_numpy(order)]


@pytest.mark.parametrize("group", ["kept", "read forwards", "one"])
@pytest.mark.parametrize("shards", [None, "1,3"])
def test_shuffled_batches_are_those_of_the_source(
    dump, source, values, hashed, monkeypatch, group, shards
):
    monkeypatch.setattr(kept, "READ_BYTES", 24 * 300)
    if group == "read forwards":
        monkeypatch.setattr(parquet, "WHOLE_BYTES", 0)
    elif group == "one":
        pq.write_table(pq.read_table(source), source)
    dataset = softlabels.load(dump, source=str(source), shards=shards, cache=False)
    expected = values if shards is None else np.concatenate([values[300:600], values[900:]])
    assert torch.equal(an_epoch(dataset), torch.from_numpy(expected))
    assert sum(hashed) == len(expected)
    assert torch.equal(dataset["input"], torch.from_numpy(expected))
    assert sum(hashed) == len(expected), "each row is read and hashed once"


@pytest.mark.parametrize("of_other", ["value", "length", "empty"])
def test_a_row_that_changed_is_refused_by_its_id(dump, tmp_path, values, of_other):
    cells = list(values.copy())
    cells[700] = {"value": cells[700] * 2, "length": cells[700][:5], "empty": None}[of_other]
    names = [f"r{i}" for i in range(ROWS)]
    path = tmp_path / "changed.parquet"
    pq.write_table(pa.table({"x": pa.array(cells), "name": names}), path, row_group_size=128)
    dataset = softlabels.load(dump, source=str(path))
    with pytest.raises((AlignmentError, SourceError), match="id r700"):
        an_epoch(dataset)
    with pytest.raises((AlignmentError, SourceError), match="id r700"):
        softlabels.train(dump=dump, source=str(path), T=2, alpha=1, student="linear",
                         out=str(tmp_path / "s.pt"))  # fmt: skip


def test_what_was_checked_is_remembered_by_the_files(
    dump, source, values, hashed, tmp_path, monkeypatch
):
    cache = str(tmp_path / "cache")

    def opened(**words) -> int:
        hashed.clear()
        dataset = softlabels.load(dump, source=str(source), **{"cache": cache} | words)
        assert torch.equal(an_epoch(dataset), torch.from_numpy(values))
        dataset.examples._kept.filler.wait()
        return sum(hashed)

    assert opened() == opened() == ROWS, "a file that was written just now may yet change"
    monkeypatch.setattr(checked, "SETTLED_SECONDS", 0)
    assert [opened(), opened(), opened(cache=False), opened()] == [ROWS, 0, ROWS, 0]
    assert opened(shards="0-3") == 0
    source.touch()
    assert [opened(), opened()] == [ROWS, 0]
    copy = source.read_bytes()
    source.unlink()
    source.write_bytes(copy)
    assert [opened(), opened()] == [ROWS, 0]
    LocalCache(cache).clear()
    assert [opened(), opened()] == [ROWS, 0]
    table = pq.read_table(source)
    other = pa.array(list(table["x"].to_numpy() * 2))
    pq.write_table(table.set_column(0, "x", other), source, row_group_size=128)
    with pytest.raises(AlignmentError, match="not what the teacher saw"):
        opened()


@pytest.mark.parametrize("same_inode", [True, False])
def test_another_file_is_read_anew_though_size_and_time_of_change_are_those_of_the_first(
    dump, values, hashed, tmp_path, monkeypatch, same_inode
):
    """As `cp -p`, `rsync --times` and `tar` leave it, of files that were packed with one time."""
    monkeypatch.setattr(checked, "SETTLED_SECONDS", 0)
    source, other = tmp_path / "x.parquet", tmp_path / "other.parquet"
    changed = values.copy()
    changed[700, 2] = -changed[700, 2]
    for path, cells in ((source, values), (other, changed)):
        table = pa.table({"x": pa.array(list(cells)), "name": [f"r{i}" for i in range(ROWS)]})
        pq.write_table(table, path, compression="none", use_dictionary=False,
                       write_statistics=False)  # fmt: skip
        os.utime(path, (1e9, 1e9))
    words = {"source": str(source), "cache": str(tmp_path / "cache")}
    for expected in (ROWS, ROWS):  # hashed once, then known
        dataset = softlabels.load(dump, **words)
        dataset[:]
        dataset.examples._kept.filler.wait()
        assert sum(hashed) == expected
    before, content = source.stat(), other.read_bytes()
    if not same_inode:
        source.unlink()  # file systems give its inode to the next file
    with source.open("r+b" if same_inode else "xb") as file:
        file.write(content)
    os.utime(source, (1e9, 1e9))
    after = source.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    with pytest.raises(AlignmentError, match=r"not what the teacher saw, .* id r700"):
        softlabels.load(dump, **words)[:]


def test_half_an_epoch_is_not_remembered(dump, source, hashed, tmp_path, monkeypatch):
    words = {"source": str(source), "cache": str(tmp_path / "cache")}
    with monkeypatch.context() as patch:
        patch.setattr("softlabels.system.background.Filler.start", lambda self: None)
        dataset = softlabels.load(dump, **words)
        for row in range(20):
            assert dataset[row]["id"] == f"r{row}", "a row waits for no others"
    softlabels.load(dump, **words)[:]
    assert sum(hashed) == ROWS


def test_inputs_go_to_a_device_while_training_begins(dump_folder, dump, source, monkeypatch):
    """Pictures are given, on the device, before all are decoded; then they lie there."""
    expected = softlabels.load(dump_folder).take(np.arange(1200))["input"]
    held, decode = threading.Event(), softlabels.inputs.kept.Kept._fill
    monkeypatch.setattr(kept.Kept, "_fill", lambda *a: (held.wait(10), decode(*a)))
    dataset = softlabels.load(dump_folder)
    dataset.examples.keep_on(torch.device("cpu"))
    rows = np.arange(1200)[::-1][:100].copy()
    began = time.monotonic()
    assert torch.equal(dataset.take(rows)["input"], expected[rows])
    assert time.monotonic() - began < 9
    assert dataset.examples._kept._copied is None
    held.set()
    dataset.examples._kept.filler.wait()
    assert dataset.examples._kept._copied is not None
    assert torch.equal(dataset.take(rows)["input"], expected[rows])


def test_workers_read_numbers_in_bulk(dump, source, values, monkeypatch):
    """A shuffled batch has rows of all row groups: gathered on their own, each would be decoded for
    each batch."""
    take = Source.take

    def few(self, positions):
        assert get_worker_info() is None or len(positions) <= kept.FEW_ROWS
        return take(self, positions)

    monkeypatch.setattr(Source, "take", few)
    monkeypatch.setattr(kept, "READ_BYTES", 24 * 300)
    dataset = softlabels.load(dump, source=str(source))
    expected = torch.from_numpy(values)
    for _ in range(2):
        for batch in DataLoader(dataset, 64, shuffle=True, num_workers=2):
            rows = [int(id[1:]) for id in batch["id"]]
            assert torch.equal(batch["input"], expected[rows])
    assert dataset.examples._kept.done.all()


def test_fit_reads_numbers_once(tmp_path, values, monkeypatch):
    read, counts = parquet.ParquetTable.read, []

    def counted(self, names, start, stop):
        counts.append((stop - start) * ("x" in names))
        return read(self, names, start, stop)

    labels = (values[:, 0] > 0).astype(int)
    table = pa.table({"x": pa.array(list(values)), "label": labels})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=128)
    monkeypatch.setattr(parquet.ParquetTable, "read", counted)
    result = softlabels.fit(data=str(tmp_path / "x.parquet"), model="linear", epochs=3,
                            out=str(tmp_path / "t.pt"))  # fmt: skip
    assert ROWS <= sum(counts) < 1.2 * ROWS, "some rows are a sample, or were counted by their type"
    again = open_source(str(tmp_path / "x.parquet"))
    assert result.checkpoint.data["fingerprint"] == again.fingerprint


@pytest.fixture
def mapped(monkeypatch, tmp_path) -> Path:
    """A cache that keeps few numbers, and believes young files: runs of 32 rows have a check."""
    monkeypatch.setattr(checked, "SETTLED_SECONDS", 0)
    monkeypatch.setattr(examples, "SAVED_BYTES", 0)
    monkeypatch.setattr(decoded_cache, "CHECKED_BYTES", 32 * 24)
    return tmp_path / "cache"


def run(dump: str, source: Path, values: np.ndarray, cache: Path) -> kept.Kept:
    """A training's reading, until its numbers are saved."""
    dataset = softlabels.load(dump, source=str(source), cache=str(cache))
    assert torch.equal(an_epoch(dataset), torch.from_numpy(values))
    dataset.examples._kept.filler.wait()
    for thread in threading.enumerate():
        if thread.name == "softlabels-save":
            thread.join()
    return dataset.examples._kept


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_second_run_maps_the_numbers_of_the_first(
    dump, source, values, hashed, mapped, monkeypatch, in_memory
):
    if not in_memory:
        monkeypatch.setattr(examples, "CACHE_BYTES", 1000)
        monkeypatch.setattr(examples, "LOOK_SECONDS", 0.0)
    assert not run(dump, source, values, mapped).is_made
    assert sum(hashed) == ROWS
    (entry,) = LocalCache(mapped).entries()
    assert entry.description.startswith("decoded numbers of ")
    with monkeypatch.context() as patch:
        patch.setattr(Source, "numbers", lambda self, positions: 1 / 0)
        assert run(dump, source, values, mapped).is_made
    assert sum(hashed) == ROWS
    source.touch()
    again = run(dump, source, values, mapped)
    assert not again.is_made, "the file does not stand for a source that may have changed"
    assert sum(hashed) == 2 * ROWS
    changed = values.copy()
    changed[700] *= 2
    write(source, changed, [f"r{i}" for i in range(ROWS)])
    with pytest.raises(AlignmentError, match="id r700"):
        run(dump, source, values, mapped)


def flip(folder: Path) -> None:
    content = bytearray((folder / "inputs").read_bytes())
    content[777 * 24 + 5] ^= 8
    (folder / "inputs").write_bytes(content)


def exchange(folder: Path) -> None:
    """With the numbers of another source, of as many rows."""
    content = np.fromfile(folder / "inputs", np.float32)
    (folder / "inputs").write_bytes(content[::-1].tobytes())


def cut(folder: Path) -> None:
    os.truncate(folder / "inputs", 777 * 24)


def change_a_check(folder: Path) -> None:
    checks = np.load(folder / "checks.npy")
    checks[24] += 1
    np.save(folder / "checks.npy", checks)


@pytest.mark.parametrize("writable", [True, False])
@pytest.mark.parametrize(("harm", "anew"), [(flip, 32), (exchange, ROWS), (cut, 0)])
def test_damaged_numbers_are_never_given(
    dump, source, values, mapped, monkeypatch, harm, anew, writable
):
    run(dump, source, values, mapped)
    (folder,) = mapped.glob("decoded/*/")
    intact = (folder / "inputs").read_bytes()
    harm(folder)
    read, take = [], examples.Examples.gather_uncached
    monkeypatch.setattr(
        examples.Examples, "gather_uncached", lambda *a: (read.append(len(a[1])), take(*a))[1]
    )
    if not writable:
        opened = open

        def only_read(path, mode="r", *others, **words):
            if set(mode) & set("wax+") and str(path).startswith(str(mapped)):
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return opened(path, mode, *others, **words)

        monkeypatch.setattr("builtins.open", only_read)
    assert run(dump, source, values, mapped).is_made == (harm is not cut)
    first = sum(n for n in read if n > SAMPLED)
    assert anew <= first <= 2 * anew, "two threads may read the same rows"
    assert run(dump, source, values, mapped).is_made == (harm is not cut or writable)
    assert sum(n for n in read if n > SAMPLED) - first >= (0 if writable else anew)
    if writable:
        assert sum(n for n in read if n > SAMPLED) == first
        assert (folder / "inputs").read_bytes() == intact, "it is mended"


def test_a_wrong_check_of_numbers_costs_reading_them_again(dump, source, values, mapped):
    run(dump, source, values, mapped)
    (folder,) = mapped.glob("decoded/*/")
    change_a_check(folder)
    for _ in range(2):
        assert run(dump, source, values, mapped).is_made
