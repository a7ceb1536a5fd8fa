"""A dump's folder, local or remote through fsspec. A file in it is absent or whole."""

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import IO, Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from softlabels.errors import DamagedDump, DiskFull, StoreError

PARTIAL = ".partial"
MAX_JSON_BYTES = 64 << 20


class Folder:
    """`Folder("data/d")` or `Folder("memory://d")`; names inside are relative, with `/`."""

    def __init__(self, url: str | os.PathLike[str]) -> None:
        self.url = os.fspath(url)
        try:
            self.fs, self.root = fsspec.core.url_to_fs(os.path.expanduser(self.url))
        except (ImportError, ValueError) as error:
            raise StoreError(f"can't open {self.url!r}: {error}") from error

    def __str__(self) -> str:
        return self.url

    @property
    def is_local(self) -> bool:
        return isinstance(self.fs, LocalFileSystem)

    def path(self, name: str) -> str:
        """The full path of `name`. Raises DamagedDump where a name would lead outside."""
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or ".." in parts or "\\" in name or "\0" in name:
            raise DamagedDump(f"{self.url} names the file {name!r}, which lies outside its folder")
        return f"{self.root.rstrip('/')}/{name}"

    def exists(self, name: str = "") -> bool:
        return bool(self.fs.exists(self.path(name) if name else self.root))

    def names(self) -> list[str]:
        """What lies directly in the folder; empty where there is none."""
        if not self.fs.exists(self.root):
            return []
        found = self.fs.ls(self.root, detail=False)
        return sorted(name.rstrip("/").rpartition("/")[2] for name in found)

    def size(self, name: str) -> int:
        return int(self.fs.size(self.path(name)))

    def open(self, name: str) -> IO[bytes]:
        file: IO[bytes] = self.fs.open(self.path(name), "rb")
        return file

    def read_json(self, name: str) -> dict[str, Any]:
        """Raises DamagedDump unless the file is a JSON object of sensible size."""
        try:
            if self.size(name) > MAX_JSON_BYTES:
                raise DamagedDump(f"{self.url}/{name} is larger than {MAX_JSON_BYTES} bytes")
            with self.open(name) as file:
                value = json.load(file)
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise DamagedDump(f"{self.url}/{name} is not JSON: {error}") from error
        if not isinstance(value, dict):
            raise DamagedDump(f"{self.url}/{name} holds {type(value).__name__}, not an object")
        return value

    def write_json(self, name: str, value: dict[str, Any]) -> None:
        self.write_text(name, json.dumps(value, indent=2, ensure_ascii=False) + "\n")

    def write_text(self, name: str, text: str) -> None:
        with self.create(name) as file:
            file.write(text.encode())

    @contextmanager
    def create(self, name: str) -> Iterator[IO[bytes]]:
        """A file that takes its name only when the block ends without an exception.

        Local: written beside, flushed to the disk, renamed. Elsewhere: a completed upload.
        Raises DiskFull where there is no space.
        """
        path = self.path(name)
        try:
            with self._create_local(path) if self.is_local else self._create_remote(path) as file:
                yield file
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFull(f"no space left for {self.url}/{name}") from error
            raise

    @contextmanager
    def _create_local(self, path: str) -> Iterator[IO[bytes]]:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        waiting = self.path(PARTIAL)
        os.makedirs(waiting, exist_ok=True)
        partial = f"{waiting}/{os.getpid()}-{os.path.basename(path)}"
        try:
            with open(partial, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
            _sync_directory(os.path.dirname(path))
        except BaseException:
            if os.path.exists(partial):
                os.unlink(partial)
            raise

    @contextmanager
    def _create_remote(self, path: str) -> Iterator[IO[bytes]]:
        """Written to a local temporary file, then uploaded whole: not every file system can take
        back a stream that was begun."""
        with tempfile.NamedTemporaryFile(prefix="softlabels-") as file:
            yield file
            file.flush()
            self.fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            self.fs.put_file(file.name, path)

    def sweep(self) -> None:
        """Remove what killed writers left half written."""
        if self.is_local:
            shutil.rmtree(self.path(PARTIAL), ignore_errors=True)


def _sync_directory(path: str) -> None:
    if os.name == "posix":
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
