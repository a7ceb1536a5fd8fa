"""Directories that come and go while others use them."""

import os

import pytest

from softlabels.system.local_files import appearing, make_directory


def test_a_directory_that_others_remove_as_it_is_made_is_made_again(tmp_path, monkeypatch):
    """As `.partial/` is, where one shard is closed while the next one is begun."""
    place, real, removed = tmp_path / "a" / "b", os.mkdir, []
    place.mkdir(parents=True)

    def mkdir(name, *more):
        try:
            real(name, *more)
        except FileExistsError:
            if len(removed) < 3:
                removed.append(os.rmdir(name))
            raise

    monkeypatch.setattr(os, "mkdir", mkdir)
    make_directory(str(place))
    assert place.is_dir()
    with appearing(tmp_path / "file", str(place / "partial")) as file:
        file.write(b"x")
    assert len(removed) >= 2
    assert (tmp_path / "file").read_bytes() == b"x"


def test_a_file_in_the_place_of_a_directory_is_an_error_at_once(tmp_path):
    (tmp_path / "a").write_text("x")
    with pytest.raises(FileExistsError):
        make_directory(str(tmp_path / "a"))
    with pytest.raises(NotADirectoryError):
        make_directory(str(tmp_path / "a" / "b"))
