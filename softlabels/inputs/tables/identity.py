"""What is known of the files below a table without reading its rows: which files they are.

Text files are known by their content, Parquet files by size and footer, folders of images by names.
None of it depends on where the files lie, what they are called, or what their times say.
"""

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from softlabels.errors import SourceError


class Identity(Protocol):
    """Goes through pickle."""

    def hash(self) -> str:
        """`sha256:` and 64 hex digits."""


def hash_lines(lines: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(f"{line}\n".encode("utf-8", "surrogateescape"))
    return "sha256:" + digest.hexdigest()


@dataclass(frozen=True)
class Lines:
    """What was seen at opening, such as names."""

    lines: Sequence[str]

    def hash(self) -> str:
        return hash_lines(self.lines)


@dataclass(frozen=True)
class Contents:
    """Files that were read whole. They are hashed when that is asked for, since most who open data
    don't; size and time tell whether they are still what was read."""

    files: tuple[tuple[Path, tuple[int, int]], ...]

    @classmethod
    def of(cls, paths: Sequence[Path]) -> "Contents":
        """To be made before the files are read."""
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
