"""Published and used through Xet, as real clients do: hf_xet sends and fetches chunks of files."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import softlabels
from softlabels.errors import DamagedDump, DiskFull, StoreError
from tests.conftest import wide_dump
from tests.hub import READER, Hub, client
from tests.processes import wait_for
from tests.publishing import work
from tests.publishing.work import SHARDS, environment, shard, stored

pytestmark = pytest.mark.slow

PLAIN = {"HF_XET_XORB_COMPRESSION_POLICY": "none"}  # so that any byte of a xorb can be another


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    with Hub(tmp_path_factory.mktemp("hub"), xet=True) as found:
        yield found


@pytest.fixture(scope="module")
def owner(hub, tmp_path_factory):
    with client(environment(hub, tmp_path_factory.mktemp("owner")) | PLAIN) as run:
        yield run


@pytest.fixture(scope="module")
def stranger(hub, tmp_path_factory):
    with client(environment(hub, tmp_path_factory.mktemp("stranger"), READER)) as run:
        yield run


def sizes(folder: Path) -> list[int]:
    return [(folder / shard(number)).stat().st_size for number in range(SHARDS)]


def test_a_stranger_trains_from_what_was_pushed(hub, owner, stranger, folder, repo, tmp_path):
    owner(work.push, str(folder), repo)
    assert hub.received["POST", "xorb"] >= sum(sizes(folder))
    assert hub.requests["PUT", "upload"] == 0
    assert stranger(work.first_logits, repo) == stored(folder)
    assert hub.sent["GET", "chunk_range"] >= sum(sizes(folder))
    assert hub.requests["GET", "cdn"] == 0
    stranger(work.pull, repo, out=str(tmp_path / "pulled"))
    assert softlabels.verify(dump=str(tmp_path / "pulled")).good
    assert not hub.elsewhere


def test_what_is_there_is_not_sent_again(hub, owner, stranger, folder, repo):
    owner(work.push, str(folder), repo)
    hub.forget()
    assert owner(work.push, str(folder), repo)["commit"] is None
    assert hub.requests["POST", "xorb"] == hub.requests["POST", "shard"] == 0
    work.redo_shard(folder, 3, lambda logits: logits + 0.125)
    owner(work.push, str(folder), repo)
    assert 0 < hub.received["POST", "xorb"] < 1.1 * sizes(folder)[3], "and the others are not"
    assert stranger(work.first_logits, repo) == stored(folder)


def test_a_push_that_is_killed_goes_on(hub, owner, stranger, folder, repo, tmp_path):
    for number in range(SHARDS):
        work.redo_shard(folder, number, lambda logits: logits + 0.25)
    hub.faults.append(always("hang", "/v1/shards"))
    home = environment(hub, tmp_path / "home") | PLAIN
    process = work.command(home, "push", folder, repo, cwd=tmp_path)
    wait_for(lambda: hub.requests["POST", "shard"])
    process.kill()
    process.communicate()
    assert hub.received["POST", "xorb"] >= sum(sizes(folder)), "chunks are there, and no file"
    assert set(hub.files(repo)) == {".gitattributes"}
    hub.forget()
    owner(work.push, str(folder), repo)
    assert stranger(work.first_logits, repo) == stored(folder)


def test_chunks_that_were_tampered_with_are_refused(hub, owner, stranger, folder, repo):
    """hf_xet doesn't look at hashes."""
    work.redo_shard(folder, 2, lambda logits: logits + 0.5)
    owner(work.push, str(folder), repo)
    hub.tamper(repo, shard(2), flipped)
    with pytest.raises(DamagedDump, match="train-00002-of-00006"):
        stranger(work.first_logits, repo)
    with pytest.raises(DamagedDump, match=r"train-00002.* has other bytes than recorded"):
        stranger(work.pull, repo)
    hub.tamper(repo, shard(2), flipped)
    stranger(work.pull, repo)


def test_a_copy_that_is_bad_is_fetched_anew(hub, owner, stranger, folder, repo):
    """It is one for all repositories with the same file."""
    owner(work.push, str(folder), repo)
    stranger(work.pull, repo)
    stranger(work.spoil_the_cached, repo, shard(1))
    hub.forget()
    stranger(work.pull, repo)
    assert 0 < hub.sent["GET", "chunk_range"] < 1.1 * sizes(folder)[1]
    assert stranger(work.first_logits, repo) == stored(folder)


def test_chunks_that_can_not_be_unpacked_are_told(hub, owner, stranger, folder, repo):
    work.redo_shard(folder, 2, lambda logits: logits - 0.5)
    owner(work.push, str(folder), repo)
    hub.tamper(repo, shard(2), lambda chunk: chunk[:4] + b"\x09" + chunk[5:])
    with pytest.raises(StoreError, match=f"{repo}: the Hub's client gave up: .*Format error"):
        stranger(work.first_logits, repo)


def test_a_storage_that_does_not_answer_is_told(hub, owner, stranger, folder, repo):
    work.redo_shard(folder, 4, lambda logits: logits + 1)
    hub.faults.append(always(503, "/v1/"))
    with pytest.raises(StoreError, match=f"{repo}: the Hub can't be reached: .*503"):
        owner(work.push, str(folder), repo)
    hub.forget()
    owner(work.push, str(folder), repo)
    for part, status in (("/v1/reconstructions/", 503), ("/xorbs/", 403), ("/xorbs/", "lost")):
        hub.faults[:] = [always(status, part)]
        with pytest.raises(StoreError, match=f"{repo}: the Hub's client gave up: .*{part}") as told:
            stranger(work.first_logits, repo)
        assert "signature" not in str(told.value)
    hub.forget()
    assert stranger(work.first_logits, repo) == stored(folder)


def test_ctrl_c_ends_a_pull_that_gets_no_answer(hub, owner, folder, repo, tmp_path):
    owner(work.push, str(folder), repo)
    hub.faults.append(always("hang", "/xorbs/"))
    process = work.command(environment(hub, tmp_path / "home"), "pull", repo, cwd=tmp_path)
    wait_for(lambda: hub.requests["GET", "chunk_range"])
    process.send_signal(signal.SIGINT)
    said, errors = process.communicate(timeout=30)
    assert (process.returncode, said, errors) == (130, "", "")


def test_a_full_disk_is_told(hub, owner, repo, small_disk, tmp_path):
    wide_dump(tmp_path, str(tmp_path / "d"), store_inputs="original")
    owner(work.push, str(tmp_path / "d"), repo, include_inputs=True)
    with pytest.raises(DiskFull, match="no space left"):
        owner(work.pull, repo, out=str(small_disk / "p"))


def always(harm: Any, part: str) -> Callable[[str, str], Any]:
    return lambda _, path: harm if part in path else None


def flipped(content: bytes) -> bytes:
    at = len(content) // 2
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
