"""The ledger of a folder: every record is read once a run, whoever asks for it."""

from collections import Counter

import pytest

import softlabels
from softlabels.store.folder import Folder
from softlabels.store.ledger import Ledger
from softlabels.store.names import MANIFEST, PLAN


@pytest.fixture
def reads(monkeypatch) -> Counter:
    """How often each JSON file is read, in any folder of this process."""
    counted: Counter = Counter()
    read = Folder._read_json

    def counting(self: Folder, name: str, size: int):
        counted[name] += 1
        return read(self, name, size)

    monkeypatch.setattr(Folder, "_read_json", counting)
    return counted


COMMITS = {f"commits/{shard:05d}.json": 1 for shard in range(3)}


def test_a_run_reads_each_record_once(teacher, tmp_path, reads):
    words = {"teacher": teacher, "out": str(tmp_path / "d"), "shard_rows": 500}
    softlabels.dump(**words)
    assert reads == {}, "what a run commits itself it knows"
    softlabels.dump(**words)
    assert reads == COMMITS | {PLAN: 1, MANIFEST: 1}, "nothing to do"
    reads.clear()
    softlabels.verify(dump=words["out"])
    assert reads == COMMITS | {PLAN: 1, MANIFEST: 1}
    reads.clear()
    (tmp_path / "d" / "data" / "train-00001-of-00003.parquet").unlink()
    assert softlabels.dump(**words, resume=True).rows_run == 500
    assert reads == COMMITS | {PLAN: 1, MANIFEST: 1}


def test_what_others_commit_is_read_when_it_is_there(dump_folder, tmp_path):
    """As a rank sees the shards of another."""
    theirs = Ledger(Folder(dump_folder))
    theirs.plan = theirs.read_plan()
    ours = Ledger(Folder(tmp_path), theirs.plan)
    assert ours.missing == [0, 1, 2]
    assert not ours.is_recorded()
    for shard, commit in theirs.commits.items():
        content = theirs.folder.open(commit.file).read()
        with ours.folder.create(commit.file) as file:
            file.write(content)
        name = f"commits/{shard:05d}.json"
        ours.folder.write_json(name, commit.as_json)
    assert ours.missing == [0, 1, 2]
    assert ours.state == "3 of 3 shards are committed and safe"
    assert (ours.commits, ours.is_recorded()) == (theirs.commits, True)
    ours.withdraw([1])
    assert (ours.missing, list(ours.refresh())) == ([1], [0, 2])
