"""Dumps in an object store: a real S3 server on loopback, which fails and is slow when told to."""

import gc
import json
import mmap
import os
import subprocess
import sys
import time
from unittest.mock import patch

import numpy as np
import pytest
import torch

import softlabels
from softlabels.errors import DamagedDump, FolderInUse, StoreError, UsageError
from softlabels.store import claims, lives
from softlabels.store.folder import Folder
from softlabels.store.reader import DumpReader
from softlabels.system.cache import LocalCache
from tests import s3
from tests.capture.test_trust import slow_words
from tests.conftest import every, whole, wide_dump
from tests.processes import kill, start, wait_for

NAME = [0]


@pytest.fixture(scope="module")
def server():
    """Its clients in this process try as often as ever, with a twentieth of the pauses."""
    with s3.running() as found:
        before = {name: os.environ.get(name) for name in found.environment}
        os.environ.update(found.environment)
        import botocore.retryhandler as retries
        import s3fs

        s3fs.S3FileSystem.clear_instance_cache()
        delay = retries.delay_exponential
        with patch.object(retries, "delay_exponential", lambda *a, **w: delay(*a, **w) / 20):
            # moto's buckets outlive its server: this module may begin twice in a process
            s3fs.S3FileSystem().makedirs(s3.BUCKET, exist_ok=True)
            yield found
        s3fs.S3FileSystem.clear_instance_cache()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


@pytest.fixture
def out(server) -> str:
    server.faults.clear()
    NAME[0] += 1
    return f"s3://{s3.BUCKET}/dumps/d{NAME[0]}"


@pytest.fixture
def quick(monkeypatch) -> None:
    """Claims that are seen to be dead soon."""
    monkeypatch.setattr(lives, "BEAT", 0.5)
    monkeypatch.setattr(lives, "LEASE", 4.0)


def objects(out: str) -> set[str]:
    folder = Folder(out)
    found = folder.fs.find(folder.root)
    return {path.removeprefix(folder.root + "/") for path in found}


def test_dump_load_verify_and_resume(teacher, dump_folder, out):
    softlabels.dump(teacher=teacher, out=out, shard_rows=500, batch_size=100)
    local, remote = DumpReader(Folder(dump_folder)), DumpReader(Folder(out))
    assert remote.plan == local.plan
    assert remote.manifest.shards == local.manifest.shards
    assert (every(remote) == every(local)).all()
    assert objects(out) == {str(p) for p in Folder(dump_folder).fs.find(dump_folder)
                            for p in [p.removeprefix(dump_folder + "/")]}  # fmt: skip
    dataset = softlabels.load(out, T=4)
    assert float(dataset[7]["soft_target"].sum()) == pytest.approx(1, abs=1e-6)
    assert softlabels.verify(dump=out, source=True).good
    folder = Folder(out)
    name = remote.plan.file(1)
    content = bytearray(folder.open(name).read())
    content[len(content) // 2] ^= 4
    folder.fs.pipe_file(folder.path(name), bytes(content))
    folder.delete(remote.plan.file(2))
    verdict = softlabels.verify(dump=out)
    assert [finding.file for finding in verdict.findings] == [name, remote.plan.file(2)]
    result = softlabels.dump(teacher=teacher, out=out, batch_size=100, resume=True)
    assert result.rows_run == 700
    assert softlabels.verify(dump=out).good
    assert DumpReader(Folder(out)).manifest.shards == local.manifest.shards


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    [s3.sometimes(500, 3), s3.sometimes(503, 4), s3.sometimes(0.3, 2),
     s3.sometimes(500, 2, "PUT"), s3.sometimes(503, 2, "GET")],
    ids=["errors", "slow down", "slow", "puts fail", "gets fail"],
)  # fmt: skip
def test_a_store_that_fails_now_and_then(teacher, dump_folder, out, server, fault):
    server.faults.append(fault)
    softlabels.dump(teacher=teacher, out=out, shard_rows=500, batch_size=100)
    found = DumpReader(Folder(out)).manifest
    server.faults.clear()
    assert found.shards == DumpReader(Folder(dump_folder)).manifest.shards
    assert softlabels.verify(dump=out).good


@pytest.mark.slow
@pytest.mark.parametrize("status", [403, 500])
def test_a_store_that_goes_away_stops_the_dump_and_a_resume_goes_on(
    teacher, out, server, status, cli, monkeypatch
):
    """From the third shard on nothing can be written."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    fault = s3.sometimes(status, 1, "PUT", "train-00002")
    server.faults.append(fault)
    done = cli("dump", "--teacher", teacher, "--out", out, "--shard-rows", 200)
    assert done.code == 1
    assert "Traceback" not in done.err
    assert f"{out}/data/train-00002-of-00006.parquet" in done.err
    assert "What is committed is safe" in done.err
    assert "--resume" in done.err
    found = objects(out)
    assert {"plan.json", "commits/00000.json", "commits/00001.json"} <= found
    assert (
        not {"softlabels.json", "commits/00002.json", "data/train-00002-of-00006.parquet"} & found
    )
    server.faults.clear()
    result = softlabels.dump(teacher=teacher, out=out, shard_rows=200, resume=True)
    assert result.rows_run == 800
    assert softlabels.verify(dump=out).good


def dump_quickly(**words) -> None:
    lives.BEAT, lives.LEASE = 0.5, 4.0
    softlabels.dump(**words)


@pytest.mark.slow
def test_a_kill_publishes_no_shorter_object_and_the_claim_runs_out(out, server, quick, tmp_path):
    words = slow_words(tmp_path)
    for _ in range(3):
        process = start(dump_quickly, server.environment, **words, out=out, resume=True)
        before = len(Folder(out).files("commits"))
        wait_for(lambda b=before: len(Folder(out).files("commits")) >= b + 2)
        assert kill(process)
        folder = Folder(out)
        for name in folder.files("commits"):
            record = folder.read_json(name)
            assert folder.size(record["file"]) == record["bytes"]
    began = time.monotonic()
    softlabels.dump(**words, out=out, resume=True)
    assert time.monotonic() - began > 1, "it waited for the claim to run out"
    assert softlabels.verify(dump=out).good
    assert not [name for name in objects(out) if name.startswith(".")]


@pytest.mark.slow
def test_of_two_dumps_one_goes_on_and_the_other_is_told(out, server, quick, tmp_path):
    words = slow_words(tmp_path) | {"out": out}
    first = start(dump_quickly, server.environment, **words)
    wait_for(lambda: len(Folder(out).files("commits")) >= 2)
    with pytest.raises(FolderInUse, match=rf"another dump \(process {first.pid} on"):
        softlabels.dump(**words, resume=True)
    first.join(60)
    assert first.exitcode == 0
    assert softlabels.verify(dump=out).good


@pytest.mark.slow
def test_two_dumps_at_the_same_moment(out, server, tmp_path):
    words = slow_words(tmp_path) | {"out": out}
    both = [start(dump_quickly, server.environment, **words) for _ in range(2)]
    for process in both:
        process.join(90)
    assert sorted(process.exitcode for process in both) == [0, 3]
    assert softlabels.verify(dump=out).good


def test_many_who_write_cost_a_sweep_no_time(out, quick):
    """Sweeping is for local folders; it asked each claim for a sign of life."""
    folder = Folder(out)
    for rank in range(20):
        folder.upload(f".claims/run-{rank}-{rank:012x}.json", b"{}")
    began = time.monotonic()
    claims.sweep(folder)
    assert time.monotonic() - began < 1


@pytest.mark.slow
def test_ranks_share_a_dump_in_a_store(out, server, tmp_path):
    from tests.capture.test_engines import finish, free_port

    words = slow_words(tmp_path) | {"out": out}
    meeting = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    both = [
        start(dump_quickly, server.environment | meeting | {"RANK": str(rank)}, **words)
        for rank in range(2)
    ]
    assert finish(both) == [0, 0]
    assert softlabels.verify(dump=out).good
    local = str(tmp_path / "calm")
    softlabels.dump(**(words | {"out": local}))
    assert DumpReader(Folder(out)).manifest.shards == DumpReader(Folder(local)).manifest.shards


def test_records_are_found_by_listing_not_one_by_one(teacher, out, server):
    softlabels.dump(teacher=teacher, out=out, shard_rows=20)
    server.requests.clear()
    softlabels.dump(teacher=teacher, out=out)
    assert server.requests["HEAD"] < 30, "none for a shard or a record"
    assert server.requests["GET"] < 2 * 60 + 30


def test_a_bucket_that_is_not_there(teacher, server, cli):
    done = cli("dump", "--teacher", teacher, "--out", "s3://nowhere/d")
    assert done.code == 1
    assert "s3://nowhere/d" in done.err
    assert "Traceback" not in done.err


def test_a_remote_shard_that_was_swapped_is_refused_when_read(teacher, out):
    softlabels.dump(teacher=teacher, out=out, shard_rows=600)
    folder = Folder(out)
    first, second = (folder.path(name) for name in folder.files("data"))
    folder.fs.copy(first, second)
    with pytest.raises(DamagedDump, match="another shard of this dump"):
        every(DumpReader(folder))


def test_what_is_not_installed_is_named():
    code = """
import sys
sys.modules["s3fs"] = sys.modules["gcsfs"] = None
from softlabels.store.folder import Folder
for url in ("s3://bucket/d", "gs://bucket/d", "nonsense://x"):
    try:
        Folder(url)
    except Exception as error:
        print(type(error).__name__, error)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.splitlines()[:2] == [
        "MissingExtra s3:// needs s3fs, which is not installed: pip install 'softlabels[s3]'",
        "MissingExtra gs:// needs gcsfs, which is not installed: pip install 'softlabels[gcs]'",
    ]
    assert said.stdout.splitlines()[2].startswith("StoreError can't open 'nonsense://x'")


def test_a_record_that_can_not_be_fetched_is_named_and_not_taken_for_lost(teacher, out, server):
    softlabels.dump(teacher=teacher, out=out, shard_rows=600)
    server.faults.append(s3.sometimes(403, 1, "GET", "commits/00001"))
    before = objects(out)
    with pytest.raises(StoreError, match=r"commits/00001\.json"):
        softlabels.dump(teacher=teacher, out=out, shard_rows=600, resume=True)
    assert objects(out) == before
    verdict = softlabels.verify(dump=out)
    assert [finding.file for finding in verdict.findings] == ["commits/00001.json"]
    server.faults.clear()
    assert softlabels.verify(dump=out).good
    assert np.isfinite(every(DumpReader(Folder(out))).astype(np.float32)).all()
    assert json.loads(Folder(out).open("softlabels.json").read())["rows"] == 1200


def test_a_remote_dump_is_fetched_once_and_then_mapped(teacher, out, server, tmp_path, monkeypatch):
    monkeypatch.setenv("SOFTLABELS_CACHE", str(tmp_path / "cache"))
    softlabels.dump(teacher=teacher, out=out, shard_rows=500)
    expected = every(DumpReader(Folder(out)))
    assert np.array_equal(whole(softlabels.load(out, T=4)).numpy(), expected)
    server.requests.clear()
    dataset = softlabels.load(out, T=4)
    assert np.array_equal(whole(dataset).numpy(), expected)
    assert server.requests["GET"] <= 2, "the manifest alone"
    owners = {type(region.owner) for region in dataset.rows.regions}
    assert owners == {mmap.mmap}, "mapped in place"
    assert [entry.description for entry in LocalCache().entries()] == [f"copy of {out}"]
    folder = Folder(out)
    name = folder.fs.find(folder.path("data"))[1]
    content = bytearray(folder.fs.cat_file(name))
    content[700] ^= 1
    folder.fs.pipe_file(name, bytes(content))
    del dataset
    gc.collect()  # a copy in use stays
    LocalCache().clear()
    with pytest.raises(DamagedDump, match=r"s3://.*00001-of-00003.* other bytes than recorded"):
        softlabels.load(out, T=4)
    folder.fs.rm_file(name)
    with pytest.raises(DamagedDump, match=r"00001-of-00003\.parquet is missing"):
        softlabels.load(out, T=4)


def test_processes_fetch_a_remote_dump_once_between_them(teacher, out, server, tmp_path):
    softlabels.dump(teacher=teacher, out=out, shard_rows=100)
    place, fetched = str(tmp_path / "cache"), []
    server.faults.append(lambda method, path: fetched.append(path) if method == "GET" else None)
    words = {"out": out, "place": place, "environment": server.environment}
    processes = [start(load_with_cache, **words) for _ in range(3)]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len([path for path in fetched if path.endswith(".parquet")]) == 12


def load_with_cache(out: str, place: str) -> None:
    assert len(whole(softlabels.load(out, T=4, cache=place))) == 1200


@pytest.mark.parametrize("store_inputs", ["none", "original"])
def test_streaming_from_a_store_takes_a_request_a_row_group(
    teacher, out, server, tmp_path, monkeypatch, store_inputs
):
    monkeypatch.setenv("SOFTLABELS_CACHE", str(tmp_path / "cache"))
    softlabels.dump(teacher=teacher, out=out, shard_rows=300, store_inputs=store_inputs)
    groups = 4 * -(-300 // DumpReader(Folder(out)).plan.group_rows)
    expected = softlabels.load(out, T=4).take(np.arange(1200))
    for words in ({"streaming": True}, {"cache": False}):
        dataset = softlabels.load(out, T=4, **words)
        server.requests.clear()
        batches = list(dataset.batches(100, shuffle=True))
        assert server.requests["GET"] <= groups + 4, "and a footer of each shard"
        for batch in batches:
            for name in ("input", "label", "logits"):
                assert torch.equal(batch[name], expected[name][batch["id"]])
    result = softlabels.train(dump=out, T=4, epochs=1, streaming=True, out=str(tmp_path / "s.pt"))
    assert result.metrics["trained_rows"] == 1080


def test_inputs_that_nobody_asks_for_are_not_fetched(out, server, tmp_path):
    """They lie between the other columns."""
    values = wide_dump(tmp_path, out, store_inputs="original")
    for words, most in (({"inputs": False}, 80_000), ({}, 4_000_000)):
        server.sent.clear()
        dataset = softlabels.load(out, T=4, streaming=True, shards="1", **words)
        (batch,) = dataset.batches(100)
        assert torch.equal(batch["logits"], values[100:])
        assert most / 20 < sum(server.sent.values()) < most


def flip(folder: Folder, name: str) -> bytes:
    """Change a byte of an object; returns what it was."""
    content = folder.open(name).read()
    changed = bytearray(content)
    changed[len(content) // 2] ^= 4
    folder.fs.pipe_file(folder.path(name), bytes(changed))
    return content


def test_pull_brings_a_dump_to_this_disk_checked_and_only_what_is_missing(
    teacher, out, server, tmp_path, cli
):
    softlabels.dump(teacher=teacher, out=out, shard_rows=500, batch_size=100)
    own, folder = tmp_path / "own", Folder(out)
    part = softlabels.pull(repo=out, out=str(own), shards="0")
    assert (part.shards, part.commit) == ([0], None)
    with pytest.raises(DamagedDump, match=rf"missing; softlabels pull {out} --out {own}"):
        softlabels.load(own, inputs=False)
    assert len(softlabels.load(own, inputs=False, shards="0")) == 500
    last = DumpReader(folder).plan.file(2)
    whole_last = flip(folder, last)
    with pytest.raises(DamagedDump, match=rf"{last} has other bytes than recorded .*--resume"):
        softlabels.pull(repo=out, out=str(own))
    folder.fs.pipe_file(folder.path(last), whole_last)
    (own / DumpReader(folder).plan.file(0)).write_bytes(b"x")
    server.requests.clear()
    pulled = cli("pull", out, "--out", own, "--json")
    assert pulled.code == 0
    assert pulled.value["commit"] is None
    assert pulled.value["shards"] == [0, 1, 2]
    assert sorted(p.name for p in own.iterdir() if p.name[0] != ".") == [
        "README.md", "commits", "data", "plan.json", "softlabels.json"
    ]  # fmt: skip
    assert softlabels.verify(dump=str(own), source=True).good
    assert (every(DumpReader(Folder(own))) == every(DumpReader(folder))).all()
    softlabels.pull(repo=out, out=str(own))  # nothing is left to do


def test_pull_without_inputs_from_a_store(out, tmp_path):
    wide_dump(tmp_path, out, store_inputs="original")
    softlabels.pull(repo=out, out=str(tmp_path / "own"), labels_only=True)
    reader = DumpReader(Folder(tmp_path / "own"))
    assert not reader.plan.with_inputs
    assert (every(reader) == every(DumpReader(Folder(out)))).all()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"out": None}, UsageError, "with --out DIR"),
        ({"revision": "v1"}, UsageError, "--revision is of the Hub"),
        ({"repo": "file:///tmp"}, UsageError, "is on this disk already"),
        ({"repo": f"s3://{s3.BUCKET}/nothing"}, StoreError, "does not exist"),
    ],
)
def test_what_pull_from_a_store_refuses(server, tmp_path, options, error, message):
    words = {"repo": f"s3://{s3.BUCKET}/d", "out": str(tmp_path / "own")} | options
    with pytest.raises(error, match=message):
        softlabels.pull(**words)
    assert not (tmp_path / "own").exists()
