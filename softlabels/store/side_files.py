"""Side files: what all rows of a dump share, such as the basis of a codec. Written once, before the
first shard; the plan names each and its SHA-256.

A process holds one copy of each on a device. They travel to other processes by their names.
"""

import hashlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from softlabels.errors import DamagedDump
from softlabels.store.folder import Folder
from softlabels.store.json_objects import parse_object

SHARED, PILOT = "shared", "shared/pilot.json"
TENSORS = ".safetensors"
PROBE = "probe"  # the answers of rows that a resume asks for again
NOTES = (PILOT, f"{SHARED}/{PROBE}{TENSORS}")  # what a pilot noted; no row is read by them
_HELD: dict[tuple[str, str, str], dict[str, Tensor]] = {}
_LOCK = threading.Lock()


def file_of(name: str) -> str:
    """The file of the tensors that are called `name`."""
    return f"{SHARED}/{name}{TENSORS}"


@dataclass(frozen=True)
class SideFiles:
    """The side files of one dump, by the SHA-256 that its plan has for each."""

    folder: Folder | None = None
    hashes: Mapping[str, str] = field(default_factory=dict)

    def tensors(self, name: str, device: torch.device | str = "cpu") -> dict[str, Tensor]:
        """The tensors of one file, the same objects each time. Raises DamagedDump for one that is
        missing, or has other bytes than the plan's."""
        file = file_of(name)
        key = (file, self.hashes[file], str(device))
        with _LOCK:
            held = _HELD.get(key)
        if held is None:
            held = {n: t.to(device) for n, t in self._load(file).items()}
            with _LOCK:
                held = _HELD.setdefault(key, held)
        return held

    def json(self, file: str) -> dict[str, Any]:
        """A JSON object among them. Raises DamagedDump."""
        return parse_object(self.read(file), f"{self.folder}/{file}")

    @staticmethod
    def hashed(folder: Folder, file: str) -> dict[str, str]:
        """A file by its SHA-256 as it is now."""
        with folder.open(file) as opened:
            return {file: hashlib.sha256(opened.read()).hexdigest()}

    def read(self, file: str) -> bytes:
        """A file's bytes, checked. Raises DamagedDump."""
        assert self.folder is not None, "a plan with side files lies in a folder"
        where = f"{self.folder}/{file}"
        try:
            with self.folder.reopened().open(file) as opened:  # clients don't outlive a fork
                content = opened.read()
        except FileNotFoundError:
            raise DamagedDump(f"{where} is missing; {REMEDY}") from None
        except OSError as error:
            raise DamagedDump(f"{where} can't be read: {error.strerror or error}") from error
        if hashlib.sha256(content).hexdigest() != self.hashes[file]:
            raise DamagedDump(
                f"{where} has other bytes than were written (SHA-256 differs); {REMEDY}"
            )
        return bytes(content)

    def _load(self, file: str) -> dict[str, Tensor]:
        content = self.read(file)
        try:
            tensors: dict[str, Tensor] = safetensors.torch.load(content)
        except (safetensors.SafetensorError, ValueError, KeyError) as error:
            raise DamagedDump(f"{self.folder}/{file} holds no tensors: {error}") from error
        return tensors


REMEDY = (
    "it was made once, before the first shard, and no row can be read without it: bring it back "
    "from a copy, or dump into another folder"
)


def write_side_files(
    folder: Folder,
    files: Mapping[str, Mapping[str, Tensor]],
    objects: Mapping[str, dict[str, Any]] | None = None,
) -> dict[str, str]:
    """Write tensors by the name of their file, then JSON by name; the SHA-256 of each."""
    hashes = {}
    for name, tensors in files.items():
        content = safetensors.torch.save({n: t.contiguous() for n, t in tensors.items()})
        with folder.create(file_of(name)) as file:
            file.write(content)
        hashes[file_of(name)] = hashlib.sha256(content).hexdigest()
    for name, value in (objects or {}).items():
        folder.write_json(name, value)
        hashes |= SideFiles.hashed(folder, name)
    return hashes
