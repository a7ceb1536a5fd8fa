"""Where the cache lies."""

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
