"""The dumps of several teachers by name."""

import os
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from softlabels.errors import UsageError
from softlabels.places.siblings import named_dumps
from tests.conftest import Lines
from tests.dumps import make_dump

PART = st.sampled_from(["a", "b", "vit@v1", "d-1"])
PATHS = st.lists(st.lists(PART, min_size=1, max_size=4).map("/".join), min_size=1, unique=True)


@given(PATHS.filter(lambda paths: len(paths) > 1))
def test_each_path_has_a_name_of_its_own_that_is_its_end(paths):
    names = named_dumps(paths)
    assert list(names.values()) == paths
    assert all(path.endswith(name) for name, path in names.items())


def test_names_are_as_short_as_they_can_be(tmp_path, monkeypatch):
    assert named_dumps(["x/a/", "s3://y/b"]) == {"a": "x/a/", "b": "s3://y/b"}
    assert list(named_dumps(["x/a", "s3://y/a"])) == ["x/a", "y/a"]
    assert named_dumps({"one": tmp_path}) == {"one": str(tmp_path)}
    for twice in (["a", "b", "a"], ["a", "a/"], ["./a", "a"], ["a", os.path.abspath("a")]):
        with pytest.raises(UsageError, match="a is named twice; name each dump once"):
            named_dumps(twice)
    for name in ("", " ", 3):
        with pytest.raises(UsageError, match=f"a teacher is called {name!r}"):
            named_dumps({name: "a", "b": "b"})
    monkeypatch.chdir(tmp_path)
    assert named_dumps([".", "../x"]) == {tmp_path.name: ".", "x": "../x"}
    with pytest.raises(UsageError, match="no dump is named"):
        named_dumps([])


def test_a_folder_stands_for_the_complete_dumps_in_it(tmp_path, monkeypatch):
    made = make_dump(tmp_path / "all" / "cnn", np.zeros((4, 3), np.float16))
    for name in ("vit", "begun", "deep/er"):
        shutil.copytree(made, tmp_path / "all" / name)
    (tmp_path / "all" / "begun" / "softlabels.json").unlink()
    said = Lines()
    assert named_dumps(tmp_path / "all", said) == {
        name: str(tmp_path / "all" / name) for name in ("cnn", "vit")
    }
    assert "warning: begun in " in str(said)
    assert "is not complete and left out" in str(said)
    assert named_dumps(made, said) == {"cnn": str(made)}
    monkeypatch.chdir(tmp_path)
    assert named_dumps("all/deep") == {"er": "all/deep/er"}
    assert len(said.lines) == 1
