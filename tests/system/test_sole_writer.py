"""One writer at a time: what the lock does where it is held, removed, refused or unknown."""

import errno
import os

import pytest
from filelock import FileLock

from softlabels.errors import UsageError
from softlabels.system.progress import SILENT
from softlabels.system.sole_writer import sole_writer
from tests.conftest import Lines


def failing(monkeypatch, error: Exception) -> None:
    def acquire(self: FileLock, *given: object, **words: object) -> None:
        raise error

    monkeypatch.setattr(FileLock, "acquire", acquire)


def test_it_is_held_within_the_block_and_leaves_nothing(tmp_path):
    for _ in range(2):
        with sole_writer(tmp_path / "s.pt", "training", SILENT):  # noqa: SIM117
            with pytest.raises(UsageError, match=r"another training is writing .*s\.pt"):
                with sole_writer(tmp_path / "s.pt", "training", SILENT):
                    pytest.fail("held twice")
        assert not os.listdir(tmp_path)


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOSPC, errno.ENAMETOOLONG, errno.EROFS])
def test_a_lock_that_can_not_be_made_is_refused(tmp_path, monkeypatch, number):
    failing(monkeypatch, OSError(number, os.strerror(number)))
    with (
        pytest.raises(UsageError, match=f"can't be made: {os.strerror(number)}.*--out"),
        sole_writer(tmp_path / "s.pt", "training", SILENT),
    ):
        pytest.fail("went on unlocked")


@pytest.mark.parametrize(
    "error",
    [NotImplementedError("flock"), *(OSError(n, "") for n in (errno.ENOLCK, errno.ENOTSUP))],
)
def test_where_there_are_no_locks_it_warns(tmp_path, monkeypatch, error):
    failing(monkeypatch, error)
    lines = Lines()
    with (
        pytest.raises(KeyError) as raised,
        sole_writer(tmp_path / "o", "sweep", lines),
    ):
        raise KeyError("of the work")
    assert raised.value.__context__ is None, "the work's error has nothing to do with the lock"
    assert "o has no locks; start no second sweep" in str(lines)
