"""Some of a published dump: some shards, some columns, what was cut off."""

import json
import shutil
import signal
from pathlib import Path

import datasets
import pytest

import softlabels
from softlabels.errors import DamagedDump, DiskFull, IncompleteDump, UsageError
from tests.conftest import wide_dump
from tests.hub import READER
from tests.loopback import once
from tests.processes import wait_for
from tests.publishing import work
from tests.publishing.work import SHARDS, environment, shard, stored


def shards_in(folder: Path) -> list[str]:
    return sorted(f"data/{path.name}" for path in (folder / "data").glob("*"))


def test_only_the_shards_that_are_asked_for_are_fetched(hub, owner, stranger, folder, repo):
    owner(work.push, str(folder), repo)
    size = (folder / shard(0)).stat().st_size
    for words in ({}, {"streaming": True}):
        hub.forget()
        found = stranger(work.first_logits, repo, shards="1,4", inputs=False, **words)
        assert found == [*stored(folder)[200:400], *stored(folder)[800:1000]]
        assert hub.sent["GET", "cdn"] < 4.2 * size, "a stream takes footers too"
    assert stranger(work.pull, repo, shards="1-2")["shards"] == [1, 2]
    hub.forget()
    assert stranger(work.pull, repo)["shards"] == list(range(SHARDS))
    assert hub.requests["GET", "cdn"] == 3, "the others"
    with pytest.raises(UsageError, match="the dump has 6 shards"):
        stranger(work.pull, repo, shards="6")


def test_a_folder_grows_by_shards(hub, owner, stranger, folder, repo, tmp_path):
    owner(work.push, str(folder), repo)
    out = tmp_path / "p"
    stranger(work.pull, repo, out=str(out), shards="0-1")
    assert shards_in(out) == [shard(0), shard(1)]
    found = softlabels.load(out, T=1, inputs=False, shards="0-1")
    assert found.take(range(400))["logits"].tolist() == stored(folder)[:400]
    again = rf"softlabels pull {repo} --out {out} fetches it; or use what is here, with --shards"
    with pytest.raises(DamagedDump, match=rf"{shard(2)} is missing; {again}"):
        softlabels.load(out, T=1, inputs=False)
    hub.forget()
    stranger(work.pull, repo, out=str(out), shards="1-3")
    assert shards_in(out) == [shard(number) for number in range(4)]
    assert hub.requests["GET", "cdn"] == 2
    (out / shard(3)).write_bytes(b"bad")
    stranger(work.pull, repo, out=str(out))
    assert softlabels.verify(dump=str(out)).good
    assert stored(out) == stored(folder)
    assert not (out / ".pulling").exists()
    work.redo_shard(folder, 3, lambda logits: logits + 0.125)
    owner(work.push, str(folder), repo)
    hub.forget()
    stranger(work.pull, repo, out=str(out))
    assert stored(out) == stored(folder)
    assert hub.requests["GET", "cdn"] == 1


@pytest.mark.slow
def test_a_pull_that_is_killed_goes_on(hub, owner, folder, repo, tmp_path):
    owner(work.push, str(folder), repo)
    out, home = tmp_path / "p", environment(hub, tmp_path / "home", READER)
    hub.faults.append(once("hang", "GET", "/cdn/"))
    cut = work.command(home, "pull", repo, "--out", out, cwd=tmp_path)
    wait_for(lambda: hub.requests["GET", "cdn"] >= SHARDS)
    wait_for(lambda: len(shards_in(out)) == SHARDS - 1)
    cut.send_signal(signal.SIGKILL)
    cut.communicate(timeout=30)
    hub.faults.clear()
    with pytest.raises(IncompleteDump, match=rf"Finish it with softlabels pull {repo} --out"):
        softlabels.load(out, T=1)
    hub.forget()
    done = work.command(home, "pull", repo, "--out", out, cwd=tmp_path)
    said, errors = done.communicate(timeout=60)
    assert (done.returncode, "1,200 rows" in said) == (0, True), errors
    assert hub.requests["GET", "cdn"] == 1
    assert softlabels.verify(dump=str(out)).good


def test_what_else_is_in_a_folder_is_not_touched(hub, owner, folder, repo, teacher, tmp_path):
    owner(work.push, str(folder), repo)
    owner(work.push, str(folder), f"{repo}-two")
    out = tmp_path / "p"
    owner(work.pull, repo, out=str(out))
    with pytest.raises(UsageError, match=rf"to which {repo} was pulled; choose another"):
        owner(work.pull, f"{repo}-two", out=str(out))
    other = tmp_path / "other"
    softlabels.dump(teacher=teacher, out=str(other), shard_rows=700)
    owner(work.push, str(other), repo, replace=True)
    with pytest.raises(UsageError, match="another dump has taken its place on the Hub"):
        owner(work.pull, repo, out=str(out))
    assert stored(out) == stored(folder)


def test_labels_are_pulled_without_the_inputs(hub, owner, repo, tmp_path):
    folder, out = tmp_path / "d", tmp_path / "p"
    values = wide_dump(tmp_path, str(folder), store_inputs="original")
    owner(work.push, str(folder), repo, include_inputs=True)
    for words in ({}, {"out": str(out), "shards": "0"}):
        with pytest.raises(UsageError, match="--labels-only needs --out, and all shards"):
            owner(work.pull, repo, labels_only=True, **words)
    second = "data/train-00001-of-00002.parquet"
    hub.tamper(repo, second, lambda content: content[:-1] + b"?")
    with pytest.raises(DamagedDump, match=f"{second} is damaged.* ask its owner"):
        owner(work.pull, repo, labels_only=True, out=str(out))
    hub.tamper(repo, second, lambda content: content[:-1] + b"1")
    hub.forget()
    assert owner(work.pull, repo, labels_only=True, out=str(out))["manifest"]["rows"] == 200
    assert hub.sent["GET", "cdn"] < 100_000 < (folder / second).stat().st_size / 10
    assert softlabels.verify(dump=str(out), source=True).good
    assert softlabels.load(out, T=1).take(range(200))["logits"].tolist() == values.tolist()
    assert "input" not in datasets.load_dataset(str(out), split="train").column_names
    with pytest.raises(UsageError, match="was pulled without its inputs"):
        owner(work.pull, repo, out=str(out))
    owner(work.push, str(folder), f"{repo}-bare", labels_only=True)
    assert hub.files(f"{repo}-bare")[second] == (out / second).read_bytes()


def test_a_damaged_copy_is_fetched_again_by_a_pull(hub, owner, stranger, folder, repo):
    owner(work.push, str(folder), repo)
    stranger(work.first_logits, repo)
    stranger(work.spoil_the_cached, repo, shard(2))
    with pytest.raises(DamagedDump, match=rf"softlabels pull {repo} fetches it again"):
        stranger(work.first_logits, repo)
    stranger(work.pull, repo)
    assert stranger(work.first_logits, repo) == stored(folder)


def test_a_push_goes_to_a_branch(hub, owner, folder, repo):
    commit = owner(work.push, str(folder), repo)["commit"]
    owner(work.tag, repo, "v1")
    for revision, what in ((commit, "is a commit"), ("v1", "is a tag of")):
        with pytest.raises(UsageError, match=rf"--revision {revision} {what}"):
            owner(work.push, str(folder), repo, revision=revision)
    assert json.loads(hub.files(repo, "v1")["softlabels.json"])["rows"] == 1200


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["pull", "train"])
def test_ctrl_c_ends_the_wait_for_a_server_that_hangs(hub, owner, folder, repo, tmp_path, verb):
    owner(work.push, str(folder), repo)
    hub.faults.append(lambda _, path: "hang" if "/cdn/" in path else None)
    words = ["--T", "8"] * (verb == "train")
    process = work.command(
        environment(hub, tmp_path / "home", READER), verb, repo, *words, cwd=tmp_path
    )
    wait_for(lambda: hub.requests["GET", "cdn"] >= SHARDS)
    process.send_signal(signal.SIGINT)
    said, errors = process.communicate(timeout=30)
    assert (process.returncode, said, errors) == (130, "", "")
    hub.faults.clear()


def test_a_full_disk_is_told_and_the_pull_goes_on(hub, owner, repo, small_disk, tmp_path):
    wide_dump(tmp_path, str(tmp_path / "d"), store_inputs="original")
    owner(work.push, str(tmp_path / "d"), repo, include_inputs=True)
    with pytest.raises(DiskFull, match="no space left"):
        owner(work.pull, repo, out=str(small_disk / "p"))
    shutil.move(small_disk / "p", tmp_path / "p")
    owner(work.pull, repo, out=str(tmp_path / "p"))
    assert softlabels.verify(dump=str(tmp_path / "p")).good
