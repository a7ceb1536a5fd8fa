"""Which files a table is read from, as one hash, without reading its rows.

Text files count by their content, Parquet files by size and footer, folders of images by the names
in them. Where the files lie, what they are called and when they were changed does not matter.
"""

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from softlabels.errors import SourceError

Files = tuple[tuple[Path, tuple[int, int]], ...]  # each with size and time of change (ns)


class Identity(Protocol):
    """Which files these are. Can be pickled."""

    def hash(self) -> str:
        """`sha256:` and 64 hex digits."""


def hash_lines(lines: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(f"{line}\n".encode("utf-8", "surrogateescape"))
    return "sha256:" + digest.hexdigest()


@dataclass(frozen=True)
class Lines:
    """Lines of text that were collected at opening, such as names."""

    lines: Sequence[str]

    def hash(self) -> str:
        return hash_lines(self.lines)


@dataclass(frozen=True)
class Contents:
    """Files that were read whole. They are hashed only on demand, since most callers never ask.
    Size and time of change show whether they are still the files that were read."""

    files: Files

    @classmethod
    def of(cls, paths: Sequence[Path]) -> "Contents":
        """Call it before the files are read."""
        return cls(tuple((path.absolute(), _mark(path)) for path in paths))

    def hash(self) -> str:
        return hash_lines(self._hash_file(path, mark) for path, mark in self.files)

    def _hash_file(self, path: Path, mark: tuple[int, int]) -> str:
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            changed = _mark(path) != mark
        except OSError as error:
            raise SourceError(f"{path} can't be read again: {error.strerror or error}") from error
        if changed:
            raise SourceError(f"{path} was written again while it was open; start again")
        return digest


def _mark(path: Path) -> tuple[int, int]:
    state = os.stat(path)
    return state.st_size, state.st_mtime_ns
