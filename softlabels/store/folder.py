"""A dump's folder, local or remote through fsspec. A file in it is absent or whole."""

import json
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Any

from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from softlabels.errors import DamagedDump, StoreError
from softlabels.store.json_objects import MAX_JSON_BYTES, parse_object
from softlabels.system.file_systems import make_parent, open_file_system, translated
from softlabels.system.local_files import appearing, make_directory, needing_space, remove_if_empty

PARTIAL = ".partial"
TOKEN = re.compile("[0-9a-f]{12}")
READERS = 16  # small files fetched at a time


@dataclass(frozen=True)
class Origin:
    """Where the files of a folder come from. By default they were made there; whoever opens a copy
    says otherwise.

    remedy: how to repair a damaged or missing file, a clause without a full stop
    command: the command that fetches the missing files; None if they were made there
    shared: whether its card may describe other dumps too, as at the top of a repository
    """

    remedy: str = "run the same softlabels dump or import again with --resume: it redoes only this"
    command: str | None = None
    shared: bool = False


MADE_HERE = Origin()


class Folder:
    """`Folder("data/d")` or `Folder("s3://bucket/d")`; names inside are relative, with `/`.

    token: distinguishes this opening of the folder from every other one
    fs, root: its file system and its path there, where the address alone does not say

    Errors of remote file systems are raised as StoreError, a full disk as DiskFull.
    """

    def __init__(
        self,
        url: str | os.PathLike[str],
        origin: Origin = MADE_HERE,
        fs: AbstractFileSystem | None = None,
        root: str = "",
    ) -> None:
        self.url = os.fspath(url)
        self.origin = origin
        self.token = uuid.uuid4().hex[:12]
        self.fs, self.root = (fs, root) if fs is not None else open_file_system(self.url)

    def __str__(self) -> str:
        return self.url

    @property
    def is_local(self) -> bool:
        return isinstance(self.fs, LocalFileSystem)

    @property
    def remedy(self) -> str:
        """How to repair a damaged or missing file, for the end of a message."""
        return self.origin.remedy

    def reopened(self) -> "Folder":
        """The same folder for a forked process, where the clients of object stores don't work."""
        fs = type(self.fs)(*self.fs.storage_args, **self.fs.storage_options)
        return Folder(self.url, self.origin, fs, self.root)

    def path(self, name: str) -> str:
        """The full path of `name`. Raises DamagedDump for a name that leads outside."""
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or ".." in parts or "\\" in name or "\0" in name:
            raise DamagedDump(
                f"{self.url} names the file {name[:200]!r}, which lies outside its folder"
            )
        return f"{self.root.rstrip('/')}/{name}"

    def exists(self, name: str = "") -> bool:
        path = self.path(name) if name else self.root
        with self._translated(name):
            if not self.is_local:
                return bool(self.fs.exists(path))
            try:
                os.stat(path)
            except PermissionError as error:
                raise StoreError(f"can't read {path}: {error.strerror}") from error
            except OSError:
                return False
            return True

    def names(self, name: str = "") -> list[str]:
        """The names of everything directly in the folder or its subfolder `name`."""
        return sorted(f"{name}/{short}" if name else short for short in self._entries(name))

    def files(self, name: str) -> dict[str, int]:
        """The files directly in the subfolder `name`, and their sizes in bytes."""
        entries = self._entries(name)
        return {
            f"{name}/{short}": int(entry["size"] or 0)
            for short, entry in sorted(entries.items())
            if entry["type"] == "file"
        }

    def size(self, name: str) -> int:
        """The size of a file, in bytes. Raises FileNotFoundError, and DamagedDump for a folder or a
        pipe."""
        with self._translated(name):
            entry = self.fs.info(self.path(name))
        if entry["type"] != "file":
            raise DamagedDump(f"{self.url}/{name} is no file, but a {entry['type']}")
        return int(entry["size"])

    def open(self, name: str) -> IO[bytes]:
        self.size(name)  # opening a pipe in place of a file would block forever
        with self._translated(name):
            file: IO[bytes] = self.fs.open(self.path(name), "rb")
        return file

    @contextmanager
    def local(self, name: str) -> Iterator[str]:
        """The path of a local file with this content: the file itself, or a temporary copy."""
        self.size(name)
        if self.is_local:
            yield self.path(name)
            return
        with tempfile.TemporaryDirectory(prefix="softlabels-") as place:
            self.download(name, f"{place}/copy")
            yield f"{place}/copy"

    def download(self, name: str, path: str) -> None:
        """Fetch a remote file into the local file `path`."""
        with self._translated(name):
            self.fs.get_file(self.path(name), path)

    def read_range(self, name: str, start: int, stop: int) -> bytes:
        """The bytes from `start` up to `stop` of a remote file, by one request."""
        with self._translated(name):
            content: bytes = self.fs.cat_file(self.path(name), start=start, end=stop)
        return content

    def delete(self, name: str) -> None:
        """Remove a file, if it is there."""
        with self._translated(name), suppress(FileNotFoundError):
            self.fs.rm_file(self.path(name))

    def read_json(self, name: str) -> dict[str, Any]:
        """Raises DamagedDump unless the file is a JSON object of sensible size."""
        size = self.size(name)
        with self._translated(name):
            return self._read_json(name, size)

    def read_jsons(self, files: dict[str, int]) -> dict[str, dict[str, Any] | StoreError]:
        """Many JSON objects at once. files: sizes by name. In place of an object that is damaged or
        can't be fetched, the result has its DamagedDump or StoreError."""
        with ThreadPoolExecutor(READERS) as pool:
            values = pool.map(self._try_json, files.keys(), files.values())
            return dict(zip(files, values, strict=True))

    def write_json(self, name: str, value: dict[str, Any]) -> None:
        self.write_text(name, json.dumps(value, indent=2, ensure_ascii=False) + "\n")

    def write_text(self, name: str, text: str) -> None:
        with self.create(name) as file:
            file.write(text.encode())

    @contextmanager
    def create(self, name: str) -> Iterator[IO[bytes]]:
        """A file that takes its name only when the block ends without an exception.

        Local: written under another name, flushed to the disk, renamed. Remote: uploaded whole.
        Raises DiskFull.
        """
        path = self.path(name)
        create = self._create_local if self.is_local else self._create_remote
        place = "" if self.is_local else f" in {tempfile.gettempdir()}, before its upload"
        try:
            with needing_space(f"{self.url}/{name}{place}"), create(path) as file:
                yield file
        except IsADirectoryError as error:
            what = f"{self.url}/{name} is a folder where a file belongs; move it away"
            raise StoreError(what) from error

    def upload(self, name: str, content: bytes) -> None:
        """Write a small object of a remote folder with one request."""
        with self._translated(name, writing=True):
            make_parent(self.fs, self.path(name))
            self.fs.pipe_file(self.path(name), content)

    def remove_partial(self, kept: Collection[str]) -> None:
        """Remove the unfinished files of all writers except those with these tokens."""
        place = self.path(PARTIAL)
        self.refuse_links(PARTIAL)
        with suppress(FileNotFoundError):
            for name in set(os.listdir(place)) - set(kept):
                if TOKEN.fullmatch(name):
                    shutil.rmtree(f"{place}/{name}", ignore_errors=True)
        remove_if_empty(place)

    @contextmanager
    def _create_local(self, path: str) -> Iterator[IO[bytes]]:
        make_directory(os.path.dirname(path))
        self.refuse_links(PARTIAL, os.path.relpath(os.path.dirname(path), self.root))
        waiting = f"{self.path(PARTIAL)}/{self.token}"
        try:
            with appearing(path, f"{waiting}/{os.path.basename(path)}") as file:
                yield file
        finally:
            remove_if_empty(waiting)
            remove_if_empty(self.path(PARTIAL))

    def refuse_links(self, *names: str) -> None:
        """Raises DamagedDump if one of these subfolders is a link that leads outside, where nothing
        may be written or removed."""
        root = os.path.realpath(self.root)
        for name in names if self.is_local else ():
            if os.path.commonpath([root, os.path.realpath(f"{self.root}/{name}")]) != root:
                raise DamagedDump(
                    f"{self.url}/{name} is a link to outside of {self.url}; nothing is written"
                )

    @contextmanager
    def _create_remote(self, path: str) -> Iterator[IO[bytes]]:
        """A temporary local file that is uploaded whole at the end, since not every file system can
        cancel an upload that has begun."""
        with tempfile.NamedTemporaryFile(prefix="softlabels-") as file:
            yield file
            file.flush()
            with self._translated(path[len(self.root) :].lstrip("/"), writing=True):
                make_parent(self.fs, path)
                self.fs.put_file(file.name, path)

    def _entries(self, name: str) -> dict[str, dict[str, Any]]:
        path = self.path(name) if name else self.root
        with self._translated(name):
            try:
                entries = self.fs.ls(path, detail=True)
            except (FileNotFoundError, NotADirectoryError):
                return {}
        # an object store also lists the mark of the folder itself, some the file that `path` is
        inside = [entry for entry in entries if entry["name"].strip("/") != path.strip("/")]
        return {
            entry["name"].rstrip("/").rpartition("/")[2]: self._followed(entry) for entry in inside
        }

    def _followed(self, entry: dict[str, Any]) -> dict[str, Any]:
        """A link as what it leads to: some caches are made of them."""
        if entry.get("islink"):
            with suppress(OSError):
                target: dict[str, Any] = self.fs.info(entry["name"])
                return target
        return entry

    def _try_json(self, name: str, size: int) -> dict[str, Any] | StoreError:
        try:
            with self._translated(name):
                return self._read_json(name, size)
        except StoreError as error:
            return error
        except FileNotFoundError:
            return DamagedDump(f"{self.url}/{name} vanished")
        except OSError as error:
            return StoreError(f"{self.url}/{name} can't be read: {error}")

    def _read_json(self, name: str, size: int) -> dict[str, Any]:
        if size > MAX_JSON_BYTES:
            raise DamagedDump(f"{self.url}/{name} is larger than {MAX_JSON_BYTES} bytes")
        content = self.fs.cat_file(self.path(name), start=0, end=size) if size else b""
        return parse_object(content, f"{self.url}/{name}")

    def _translated(self, name: str, writing: bool = False) -> AbstractContextManager[None]:
        where = f"{self.url}/{name}" if name else self.url
        return translated(self.fs, where, writing)
