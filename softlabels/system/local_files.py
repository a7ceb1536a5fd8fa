"""Files of a local disk that are absent or whole, though the power may fail."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO


@contextmanager
def appearing(path: str, waiting: str) -> Iterator[IO[bytes]]:
    """A file that is written in the directory `waiting`, flushed to the disk, and renamed to `path`
    when the block ends without an exception."""
    make_directory(waiting)
    partial = f"{waiting}/{os.path.basename(path)}"
    try:
        with open(partial, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        sync_directory(os.path.dirname(path))
    except BaseException:
        if os.path.exists(partial):
            os.unlink(partial)
        raise


def make_directory(path: str) -> None:
    """Make it and what is above it, though others remove the empty ones that they pass."""
    for _ in range(20):
        with suppress(FileNotFoundError):
            os.makedirs(path, exist_ok=True)
            return
    os.makedirs(path, exist_ok=True)


@contextmanager
def tidied(directory: str) -> Iterator[None]:
    """In the end, what is made in this block of `directory` and of those above it is removed again
    if it is empty; what was there before stays."""
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
