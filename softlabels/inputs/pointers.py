"""Git LFS pointers: what a clone made without Git LFS holds in place of its data files."""

from pathlib import Path

from softlabels.errors import SourceError

POINTER = b"version https://git-lfs.github.com/spec/"


def is_pointer(content: bytes) -> bool:
    return content.startswith(POINTER)


def refuse_pointer(path: Path, content: bytes) -> None:
    """Raises SourceError if a file's first bytes are those of a Git LFS pointer."""
    if is_pointer(content):
        raise SourceError(
            f"{path} is a pointer of Git LFS, not the file itself: run `git lfs pull` in its clone"
        )
