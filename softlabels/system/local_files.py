"""Files of a local disk that are absent or whole, though the power may fail or the disk be full."""

import errno
import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import psutil

from softlabels.errors import DiskFull


@contextmanager
def appearing(path: str | os.PathLike[str], partial: str | None = None) -> Iterator[IO[bytes]]:
    """A file that takes its name when the block ends without an exception: written to `partial` on
    the same disk, by default beside it, flushed to the disk, then renamed."""
    partial = partial or partial_path(path)
    try:
        with _opened(partial) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        sync_directory(os.path.dirname(path) or ".")
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(partial)
        raise


def _opened(path: str) -> IO[bytes]:
    """A new file, even while others remove its folder because it is empty."""
    for _ in range(20):
        make_directory(os.path.dirname(path) or ".")
        with suppress(FileNotFoundError):
            return open(path, "wb")
    return open(path, "wb")


def partial_path(path: str | os.PathLike[str]) -> str:
    """Where a file is written before it is renamed to `path`: hidden, and this process's own."""
    target = Path(path)
    return str(target.with_name(f".{target.name}.{os.getpid()}.partial"))


def sweep_partials(path: str | os.PathLike[str]) -> None:
    """Remove what processes of this machine that were killed have left of `path`."""
    target = Path(path)
    name = re.compile(rf"\.{re.escape(target.name)}\.(\d+)\.partial")
    for beside in target.parent.iterdir():
        match = name.fullmatch(beside.name)
        if match and not psutil.pid_exists(int(match[1])):
            beside.unlink(missing_ok=True)


def file_fingerprint(path: Path) -> str:
    """`sha256:` and the hex digest of the file, as `sha256sum` prints it."""
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def fold_fingerprint(place: Path, files: Iterable[Path]) -> str:
    """The fingerprint of several files: of the lines `HEX  NAME` that `sha256sum` prints, in the
    order of their names below `place`."""
    whole = hashlib.sha256()
    for name, path in sorted((path.relative_to(place).as_posix(), path) for path in files):
        whole.update(f"{file_fingerprint(path).removeprefix('sha256:')}  {name}\n".encode())
    return "sha256:" + whole.hexdigest()


def is_full(error: BaseException) -> bool:
    """Whether the error means that the disk is full or a quota used up. Libraries written in Rust
    say so only in the message."""
    full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
    return full or f"os error {errno.ENOSPC}" in str(error)


@contextmanager
def needing_space(where: str) -> Iterator[None]:
    """Raise DiskFull where the block found no space; other errors pass."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        if is_full(error):
            raise DiskFull(f"no space left for {where}") from error
        raise


def make_directory(path: str) -> None:
    """Make a directory and its parents, even while other processes or threads remove empty ones on
    the way."""
    for _ in range(20):
        with suppress(FileNotFoundError):
            try:
                os.makedirs(path, exist_ok=True)
            except FileExistsError:  # also where it was there, and is gone when that is looked at
                if os.path.lexists(path) and not os.path.isdir(path):
                    raise
            else:
                return
    os.makedirs(path, exist_ok=True)


@contextmanager
def tidied(directory: str) -> Iterator[None]:
    """When the block ends, remove `directory` and those of its parents that did not exist before,
    as far as they are empty."""
    missing = []
    place = os.path.abspath(directory)
    while not os.path.lexists(place):
        missing.append(place)
        place = os.path.dirname(place)
    try:
        yield
    finally:
        for made in missing:
            remove_if_empty(made)


def remove_if_empty(directory: str) -> None:
    try:
        os.rmdir(directory)
    except OSError:
        return


def sync_directory(path: str) -> None:
    if os.name == "posix":
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
