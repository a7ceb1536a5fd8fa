"""Where logits are read from: mapped files, memory. And that they are the right ones."""

import gc
import mmap
import multiprocessing
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

import softlabels
from softlabels.errors import DamagedDump, DiskFull, UsageError
from softlabels.places import remote_copies
from softlabels.store.codecs.dense import DenseCodec
from softlabels.store.pages.places import chunk_of, plain_values
from softlabels.system.cache import LocalCache, remove
from softlabels.targets import mapped_rows
from tests.conftest import Lines, whole
from tests.dumps import OTHER_WRITERS, change, copy_to_memory, make_dump
from tests.processes import start

LOGITS = np.random.default_rng(3).normal(size=(1000, 10)).astype(np.float16)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> LocalCache:
    monkeypatch.setenv("SOFTLABELS_CACHE", str(tmp_path / "cache"))
    return LocalCache()


def load(folder: Path, **words):
    return softlabels.load(folder, T=2, inputs=False, **words)


def same(a: torch.Tensor, b: np.ndarray) -> bool:
    return a.dtype == torch.from_numpy(b).dtype and np.array_equal(a.numpy(), b)


@settings(max_examples=30)
@given(
    rows=st.integers(1, 90), classes=st.integers(1, 40), group=st.sampled_from([1, 4, 16, 64]),
    shard_rows=st.integers(1, 100), dtype=st.sampled_from(["float16", "float32"]),
    writer=st.sampled_from([None, *OTHER_WRITERS]), seed=st.integers(0, 99),
)  # fmt: skip
def test_whatever_the_pages_the_values_are_those_that_pyarrow_reads(
    tmp_path_factory, rows, classes, group, shard_rows, dtype, writer, seed
):
    folder = tmp_path_factory.mktemp("d")
    random = np.random.default_rng(seed)
    logits = random.normal(size=(rows, classes)).astype(dtype)
    make_dump(folder, logits, group, max(shard_rows, rows // 8), OTHER_WRITERS.get(writer))
    dataset = load(folder)
    chosen = random.integers(0, rows, random.integers(1, 300))
    batch = dataset.take(chosen)
    parts = [pq.read_table(path) for path in sorted((folder / "data").iterdir())]
    flat = [part["logits"].combine_chunks().flatten().to_numpy() for part in parts]
    stored = np.concatenate(flat).reshape(rows, classes)
    assert same(batch["logits"], stored[chosen])
    assert batch["id"].tolist() == chosen.tolist()
    assert same(whole(dataset), logits)
    shutil.rmtree(folder)


def test_what_lies_in_place_is_mapped_and_nothing_is_copied(tmp_path, cache):
    listener = Lines()
    dataset = load(make_dump(tmp_path / "d", LOGITS, shard_rows=300), progress=listener)
    assert same(whole(dataset), LOGITS)
    assert cache.entries() == []
    owners = [region.owner for region in dataset.rows.regions]
    assert [type(owner) for owner in owners] == [mmap.mmap] * 4
    assert listener.lines == []


@pytest.mark.parametrize("writer", OTHER_WRITERS)
def test_other_pages_are_decoded_into_memory_which_is_said(tmp_path, cache, writer, monkeypatch):
    folder = make_dump(tmp_path / "d", LOGITS, 16, 300, OTHER_WRITERS[writer])
    listener = Lines()
    dataset = load(folder, progress=listener)
    [line] = listener.lines
    assert line.startswith(f"4 shards of {folder} can't be used in place")
    assert line.endswith("decoded they take 20 kB of memory")
    monkeypatch.setattr("softlabels.store.shard_reader.ShardReader.decode", None)
    assert same(whole(dataset), LOGITS)
    assert cache.entries() == []


def test_pages_that_memory_has_no_room_for_are_refused_and_may_be_streamed(
    tmp_path, cli, monkeypatch
):
    folder = make_dump(tmp_path / "d", LOGITS, 16, 300, OTHER_WRITERS["zstd"])
    monkeypatch.setattr(mapped_rows, "free_memory", lambda: LOGITS.nbytes - 1)
    with pytest.raises(UsageError, match=r"take 20 kB of memory, and 20 kB are free.*--streaming"):
        load(folder)
    batches = load(folder, streaming=True).batches(100, shuffle=False)
    assert same(torch.cat([batch["logits"] for batch in batches]), LOGITS)
    monkeypatch.setattr(mapped_rows, "free_memory", lambda: LOGITS.nbytes)
    assert same(whole(load(folder)), LOGITS)


def flip_a_logit(path: Path) -> None:
    with pq.ParquetFile(path) as parquet:
        chunk = chunk_of(parquet.metadata.row_group(0), "logits")
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    place = start + chunk.total_compressed_size - 9
    change(path, lambda b: b.__setitem__(place, b[place] ^ 4))


def test_a_flipped_bit_is_told_before_the_first_epoch_ends_and_again_next_time(tmp_path):
    folder = make_dump(tmp_path / "d", LOGITS, shard_rows=300)
    damaged = folder / "data" / "train-00002-of-00004.parquet"
    flip_a_logit(damaged)
    for _ in range(2):
        with pytest.raises(DamagedDump, match=r"train-00002-of-.* \(SHA-256 .*--resume"):
            list(load(folder).batches(100, shuffle=True))
        with pytest.raises(DamagedDump, match="SHA-256"):
            list(load(folder).batches(100, workers=2))
        assert multiprocessing.active_children() == [], "no worker is left"


def test_damage_to_other_pages_is_told_too(tmp_path):
    folder = make_dump(tmp_path / "d", LOGITS, 16, 300, OTHER_WRITERS["zstd"])
    damaged = folder / "data" / "train-00001-of-00004.parquet"
    flip_a_logit(damaged)
    with pytest.raises(DamagedDump, match=r"train-00001-of-00004\.parquet is damaged"):
        load(folder)
    damaged.unlink()
    with pytest.raises(DamagedDump, match=r"train-00001-of-00004\.parquet is missing"):
        load(folder)


def test_other_pages_without_a_checksum_are_told_by_their_file(tmp_path):
    words = {"compression": "none", "data_page_version": "2.0", "write_page_checksum": False}
    folder = make_dump(tmp_path / "d", LOGITS, 1000, None, words | {"use_dictionary": False})
    [path] = (folder / "data").iterdir()
    place = path.read_bytes().index(LOGITS[400].tobytes())
    change(path, lambda b: b.__setitem__(place, b[place] ^ 4))
    for _ in range(2):
        dataset = load(folder)
        with pytest.raises(DamagedDump, match=r"train-00000-of-00001\.parquet.*SHA-256"):
            list(dataset.batches(100))


def test_a_good_file_is_hashed_once_and_a_changed_one_again(tmp_path, monkeypatch):
    folder = make_dump(tmp_path / "d", LOGITS, shard_rows=300)
    hashed = []
    real = mapped_rows.sha256_of
    monkeypatch.setattr(mapped_rows, "sha256_of", lambda p: hashed.append(Path(p).name) or real(p))
    whole(load(folder))
    assert len(hashed) == 4
    whole(load(folder))
    assert len(hashed) == 4
    path = folder / "data" / "train-00001-of-00004.parquet"
    path.write_bytes(path.read_bytes())
    whole(load(folder))
    assert hashed[4:] == [path.name]
    whole(load(folder, cache=False))
    assert len(hashed) == 9, "without a cache nothing is remembered"


def test_no_cache_writes_nothing(tmp_path):
    folder = make_dump(tmp_path / "d", LOGITS, 16, 300, OTHER_WRITERS["zstd"])
    before = sorted(tmp_path.rglob("*"))
    assert same(whole(load(folder, cache=False)), LOGITS)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_cache_that_can_not_be_written_is_no_obstacle(tmp_path, monkeypatch):
    folder = make_dump(tmp_path / "d", LOGITS, shard_rows=300)
    (tmp_path / "file").write_text("")
    assert same(whole(load(folder, cache=tmp_path / "file" / "below")), LOGITS)


def test_the_budget_holds_and_the_oldest_make_room(tmp_path, cache, monkeypatch):
    folders = [make_dump(tmp_path / name, LOGITS + i) for i, name in enumerate("abc")]
    addresses = [copy_to_memory(folder, f"budget-{folder.name}") for folder in folders]
    load(addresses[0])
    monkeypatch.setenv("SOFTLABELS_CACHE_GB", str(2.5 * cache.bytes / 1e9))
    for i, address in enumerate(addresses):
        gc.collect()
        assert same(whole(load(address)), LOGITS + i)
    assert sorted(e.description for e in cache.entries()) == [f"copy of {a}" for a in addresses[1:]]
    monkeypatch.setenv("SOFTLABELS_CACHE_GB", "0.000001")
    with pytest.raises(DiskFull, match=r"may hold 1 kB.*SOFTLABELS_CACHE_GB.*--no-cache"):
        load(addresses[0])
    monkeypatch.setenv("SOFTLABELS_CACHE_GB", "much")
    with pytest.raises(UsageError, match="'much'"):
        load(addresses[0])


@pytest.mark.skipif(sys.platform == "win32", reason="it takes flock")
def test_a_copy_that_is_in_use_makes_no_room(tmp_path, cache, monkeypatch):
    folders = [make_dump(tmp_path / n, LOGITS + i, shard_rows=500) for i, n in enumerate("ab")]
    addresses = [copy_to_memory(folder, f"kept-{folder.name}") for folder in folders]
    size = sum(path.stat().st_size for path in (folders[0] / "data").iterdir())
    monkeypatch.setenv("SOFTLABELS_CACHE_GB", str(1.5 * size / 1e9))
    first = load(addresses[0])
    with pytest.raises(DiskFull, match="SOFTLABELS_CACHE_GB"):
        load(addresses[1])
    assert cache.clear() == 0
    assert first.take([3, 999])["id"].tolist() == [3, 999]
    first.settle()  # the thread that hashes its files holds them, too
    del first
    gc.collect()
    assert load(addresses[1]).take([3, 999])["id"].tolist() == [3, 999]
    assert [entry.description for entry in cache.entries()] == [f"copy of {addresses[1]}"]


def test_a_copy_that_goes_just_before_it_is_held_is_fetched_again(tmp_path, cache, monkeypatch):
    address = copy_to_memory(make_dump(tmp_path / "d", LOGITS), "kept-again")
    load(address)
    gc.collect()
    real = remote_copies.hold

    def late(place, user) -> None:
        assert all(remove(entry) for entry in cache.entries())
        real(place, user)

    monkeypatch.setattr(remote_copies, "hold", late)
    assert same(whole(load(address)), LOGITS)


def test_what_mends_a_copy_is_to_remove_it(tmp_path, cache):
    address = copy_to_memory(make_dump(tmp_path / "d", LOGITS), "kept-damaged")
    load(address)
    (copy,) = cache.entries()
    shard = next(Path(copy.path, "data").iterdir())
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(DamagedDump, match=rf"a copy of {address}: remove {copy.path}, and it is"):
        load(address)
    shutil.rmtree(copy.path)
    assert same(whole(load(address)), LOGITS)


@pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc")
@pytest.mark.parametrize("large", [False, True])
def test_of_a_dump_beyond_memory_only_what_is_asked_for_is_read(tmp_path, monkeypatch, large):
    """A row would bring megabytes around it, which push out what is needed next."""
    monkeypatch.setattr(mapped_rows, "free_memory", lambda: LOGITS.nbytes * (1 if large else 9))
    folder = make_dump(tmp_path / "d", LOGITS, shard_rows=500)
    dataset = load(folder)
    flags = [
        part.partition("VmFlags:")[2].split("\n")[0].split()
        for part in Path("/proc/self/smaps").read_text().split(str(folder / "data"))[1:]
    ]
    assert len(flags) == 2
    assert all(("rr" in found) == large for found in flags)  # MADV_RANDOM
    for shuffle in (False, True, "blocks(4, 8)"):
        rows = [b["id"] for b in dataset.batches(64, shuffle=shuffle)]
        assert sorted(torch.cat(rows).tolist()) == list(range(1000))
    assert same(whole(dataset), LOGITS)


def test_workers_of_a_dataloader_share_what_was_decoded(tmp_path):
    folder = make_dump(tmp_path / "d", LOGITS, 16, 300, OTHER_WRITERS["zstd"])
    dataset = load(folder)
    for _ in range(2):
        loader = DataLoader(dataset, batch_size=100, num_workers=2)
        assert same(torch.cat([batch["logits"] for batch in loader]), LOGITS)
    assert same(whole(dataset), LOGITS)


@pytest.mark.slow
def test_a_spawned_worker_opens_the_dump_again(dump_folder):
    dataset = softlabels.load(dump_folder, T=2)
    loader = DataLoader(dataset, batch_size=600, num_workers=1, multiprocessing_context="spawn")
    inputs = torch.cat([batch["input"] for batch in loader])
    assert torch.equal(inputs, dataset.take(np.arange(1200))["input"])


def test_words_that_can_not_be(tmp_path):
    folder = make_dump(tmp_path / "d", LOGITS)
    with pytest.raises(UsageError, match=r"--keep is 'tape'; use one of auto, gpu, disk"):
        load(folder, keep="tape")
    with pytest.raises(UsageError, match=r"--keep gpu needs CUDA and this is cpu; use --keep disk"):
        load(folder, keep="gpu")


def test_the_cache_command(tmp_path, cli, cache):
    address = copy_to_memory(make_dump(tmp_path / "d", LOGITS, shard_rows=500), "listed")
    assert same(whole(load(address)), LOGITS)
    gc.collect()
    said = cli("cache")
    assert f"copy of {address}" in said.out
    assert f"{cache.place}: " in said.out
    assert cli("cache", "--json").value["entries"][0]["bytes"] > 0
    assert "removed" in cli("cache", "--clear").out
    assert cli("cache", "--json").value["entries"] == []
    assert same(whole(load(address)), LOGITS)
    assert len(cache.entries()) == 1


@pytest.mark.parametrize("what", ["list", "element"])
def test_a_page_with_a_null_is_not_mapped(tmp_path, what):
    folder = make_dump(tmp_path / "d", LOGITS, 1000)
    path = next((folder / "data").iterdir())
    table = pq.read_table(path)
    rows = table["logits"].to_pylist()
    rows[400] = None if what == "list" else [None, *rows[400][1:]]
    nullable = table.schema.field("logits").with_type(pa.list_(pa.float16(), 10))
    column = pa.array(rows, nullable.type)
    schema = table.schema.set(table.schema.names.index("logits"), nullable.with_nullable(True))
    arrays = [column if n == "logits" else table[n] for n in table.column_names]
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), path, compression="none",
                   use_dictionary=False, data_page_size=1 << 30)  # fmt: skip
    with pq.ParquetFile(path) as parquet:
        group = parquet.metadata.row_group(0)
    with open(path, "rb") as file:
        assert plain_values(file, group, DenseCodec(10, "float16").columns[0]) is None


@pytest.mark.slow
def test_many_threads_may_ask_first(tmp_path):
    for _ in range(5):
        dataset = load(make_dump(tmp_path / "d", LOGITS, 4, 20))
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda i, d=dataset: d.take([i])["logits"], range(64)))
        assert np.array_equal(torch.cat(found).numpy(), LOGITS[:64])
        shutil.rmtree(tmp_path / "d")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_plain_dataloader_tells_of_damage_within_about_an_epoch(tmp_path, workers, monkeypatch):
    folder = make_dump(tmp_path / "d", LOGITS, shard_rows=300)
    damaged = folder / "data" / "train-00003-of-00004.parquet"
    flip_a_logit(damaged)
    real = mapped_rows.sha256_of
    monkeypatch.setattr(mapped_rows, "sha256_of", lambda p: time.sleep(0.2) or real(p))
    loader = DataLoader(load(folder, cache=False), batch_size=50, num_workers=workers)
    with pytest.raises(DamagedDump, match="SHA-256"):
        list(loader)


@pytest.mark.slow
def test_too_many_open_files_are_no_damage(tmp_path):
    folder, said = make_dump(tmp_path / "d", LOGITS[:400], 4, 4), tmp_path / "said"
    for most, code in ((60, 3), (2000, 0)):
        process = start(load_with, folder=folder, files=(60, most), said=said)
        process.join(60)
        assert process.exitcode == code
        assert ("StoreError" in said.read_text()) == (code == 3)
        assert ("Too many open files" in said.read_text()) == (code == 3)
        assert "damaged" not in said.read_text()


def load_with(folder: Path, files: tuple[int, int], said: Path) -> None:
    """A hundred shards, `files` open at once and at most."""
    import resource

    with said.open("w") as file:
        resource.setrlimit(resource.RLIMIT_NOFILE, files)
        try:
            load(folder)
        except Exception as error:
            file.write(f"{type(error).__name__}: {error}")
            raise
