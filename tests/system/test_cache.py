"""Where the cache lies."""

import os

from softlabels.inputs.whereabouts import recall, remember
from softlabels.system.cache import LocalCache


def test_copies_and_notes_lie_in_one_place_that_may_begin_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SOFTLABELS_CACHE", "~/kept here")
    data = tmp_path / "data.csv"
    data.write_text("a\n1\n")
    remember("sha256:0", str(data))
    assert recall("sha256:0") == str(data)
    assert LocalCache().place == tmp_path / "kept here"
    assert [path.name for path in LocalCache().place.iterdir()] == ["sources"]


def test_a_file_whose_time_of_change_was_set_back_is_checked_again(tmp_path):
    file, cache = tmp_path / "shard.parquet", LocalCache(tmp_path / "cache")
    file.write_bytes(b"1234")
    before = file.stat()
    cache.remember_verified(str(file), "00")
    assert cache.is_verified(str(file), "00")
    file.write_bytes(b"4321")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_mtime_ns == before.st_mtime_ns
    assert not cache.is_verified(str(file), "00")
