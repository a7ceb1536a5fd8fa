"""Files that stand for others: what a clone without Git LFS has in the place of data."""

from pathlib import Path

from softlabels.errors import SourceError

POINTER = b"version https://git-lfs.github.com/spec/"


def is_pointer(content: bytes) -> bool:
    return content.startswith(POINTER)


def refuse_pointer(path: Path, content: bytes) -> None:
    """Raises SourceError where a file's first bytes are those of a Git LFS pointer."""
    if is_pointer(content):
        raise SourceError(
            f"{path} is a pointer of Git LFS, not the file itself: run `git lfs pull` in its clone"
        )
