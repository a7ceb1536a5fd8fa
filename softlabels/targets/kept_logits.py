"""A dump's logits by row, from where they are kept: the mapped shards, memory or the training
device.

What lies in place in its file is mapped and there at once. Pages of other writers are decoded into
memory when the dump is opened. Files are hashed in the background, once; damage is raised by the
next batch, at the latest by `settle`. N rows asked for, C classes.
"""

import errno
import os
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from softlabels.errors import DamagedDump, StoreError, UsageError
from softlabels.logits import DenseLogits
from softlabels.store.audit import sha256_of
from softlabels.store.codec import DTYPES
from softlabels.store.decoding import ShardDecoder
from softlabels.store.gathering import Region, RowGroups
from softlabels.store.mapping import allow_open_files, map_logits
from softlabels.store.reader import PARQUET_ERRORS, DumpReader
from softlabels.system import background
from softlabels.system.background import Filler, cores, in_order
from softlabels.system.cache import LocalCache
from softlabels.system.humanize import counted, size_words
from softlabels.system.memory import free_memory
from softlabels.system.progress import SILENT, Progress

KEEPS = ("auto", "gpu", "disk")
SHARE = 0.4  # of the device's free memory, that `auto` takes at most
MAPPED_SHARE = 0.5  # of the free memory, beyond which mapped files won't stay in it
DECODERS = 8  # threads at most
BLOCK_ROWS = 16_384
NO_DAMAGE = (errno.EMFILE, errno.ENFILE, errno.EACCES, errno.ENOMEM)


def choose_keep(keep: str, size: int, device: torch.device) -> str:
    """`auto` as one of the others: gpu where the device is CUDA and has the room, else disk, which
    for mapped files is the page cache: memory that all processes share.

    Raises UsageError for another word, and for gpu on a device that is none.
    """
    if keep not in KEEPS:
        raise UsageError(f"--keep is {keep!r}; use one of {', '.join(KEEPS)}")
    if keep == "gpu" and device.type != "cuda":
        raise UsageError(f"--keep gpu needs CUDA and this is {device.type}; use --keep disk")
    if keep != "auto":
        return keep
    if device.type != "cuda":
        return "disk"
    return "gpu" if size < SHARE * torch.cuda.mem_get_info(device)[0] else "disk"


class KeptLogits:
    """`gather(rows)` gives their logits. Made for one local dump; `cache` None remembers nothing.

    Safe in forked processes, such as a DataLoader's workers. Raises DamagedDump, and UsageError
    where shards have to be decoded and memory lacks.
    """

    def __init__(
        self,
        reader: DumpReader,
        cache: LocalCache | None,
        keep: str,
        device: torch.device,
        progress: Progress = SILENT,
    ) -> None:
        self.reader, self.cache, self.device = reader, cache, device
        self.records, plan = reader.records, reader.plan
        self.dtype, row_bytes = DTYPES[plan.dtype][0], reader.codec.row_bytes
        self.keep = choose_keep(keep, len(reader) * row_bytes, device)
        self.groups = RowGroups([r["rows"] for r in self.records], plan.group_rows, row_bytes)
        self._large = len(reader) * row_bytes > MAPPED_SHARE * free_memory()
        allow_open_files(len(self.records))
        self._decode([s for s in range(len(self.records)) if not self._map(s)], progress)
        self._on_device: Tensor | None = None
        self._process: int | None = None

    def __len__(self) -> int:
        return len(self.reader)

    def gather(self, rows: np.ndarray) -> DenseLogits:
        """The logits of these rows in the stored dtype; on the device with keep gpu."""
        self._ready()
        self._checker.check()
        if self._to_settle > 0:
            self._to_settle -= len(rows)
            if self._to_settle <= 0:  # about an epoch, whoever asks: damage is told by now
                self._checker.wait()
        if self._on_gpu:
            chosen = torch.from_numpy(rows).to(self.device)
            return DenseLogits(self._device_rows().index_select(0, chosen))
        return DenseLogits(self.groups.gather(rows).view(self.dtype))

    def columns(self, rows: np.ndarray) -> dict[str, Any]:
        """These rows, in their order: id, label and targets. Few look at ids, and with α = 1 nobody
        at labels, so these are looked up when they are read: a tenth of a batch's time."""
        return {
            "id": lambda: self._ids(rows),
            "label": lambda: self._labels(rows),
            "targets": self.gather(rows),
        }

    def _ids(self, rows: np.ndarray) -> Tensor | list[str]:
        ids = self.reader.ids[rows]
        return torch.from_numpy(ids) if ids.dtype.kind == "i" else ids.tolist()

    def _labels(self, rows: np.ndarray) -> Tensor:
        labels = self.reader.labels
        return torch.from_numpy(np.full(len(rows), -1) if labels is None else labels[rows])

    def order_text(self, text: str) -> str:
        """Every order is possible here."""
        return text

    def settle(self) -> None:
        """Return when the files of all that was read have been hashed. Raises DamagedDump."""
        if self._process == os.getpid():
            self._checker.wait()

    def read_ahead(self, rows: np.ndarray) -> None:
        """Bring these rows, ascending, from the disk into memory, where they are mapped."""
        self._ready()
        if not self._on_gpu:
            self.groups.advise(rows)

    def _map(self, shard: int) -> bool:
        """Whether its logits lie in place in its file, and are mapped now."""
        reader = self.reader
        path = reader.checked_path(shard)
        try:
            mapped = map_logits(
                path, reader.plan, reader.numbers[shard], self.records[shard]["rows"]
            )
        except (DamagedDump, *PARQUET_ERRORS) as error:
            if getattr(error, "errno", None) in NO_DAMAGE:
                raise StoreError(f"{path} can't be mapped: {error}") from error
            raise DamagedDump(f"{path} is damaged: {error}; {reader.folder.remedy}") from error
        if mapped is None:
            return False
        region, addresses = mapped
        if self._large:
            region.expect_random()
        self.groups.place(shard, addresses, region)
        return True

    def _decode(self, shards: list[int], progress: Progress) -> None:
        """Decode these shards into memory: their pages are compressed, have dictionaries, or are
        several a row group."""
        if not shards:
            return
        rows = [self.records[shard]["rows"] for shard in shards]
        size, free = sum(rows) * self.groups.row_bytes, free_memory()
        what = (
            f"{counted(len(shards), 'shard')} of {self.reader.folder} can't be used in place: "
            f"another program wrote them otherwise; decoded they take {size_words(size)} of memory"
        )
        if size > free:
            raise UsageError(
                f"{what}, and {size_words(free)} are free. Read them as they are needed: "
                f"--streaming, in Python streaming=True"
            )
        progress.say(what)
        parts = [part for shard, count in zip(shards, rows, strict=True)
                 for part in self._room(shard, count)]  # fmt: skip
        with progress.bar("decode", sum(rows), "row") as advance:
            for count in in_order(_decode_group, parts, min(DECODERS, cores())):
                advance(count)

    def _room(self, shard: int, rows: int) -> list[tuple[ShardDecoder, int, np.ndarray]]:
        """Memory for a shard's logits, placed: the part [N, C] that each row group fills."""
        reader, step = self.reader, self.groups.group_rows
        values = np.empty((rows, reader.plan.classes), reader.plan.dtype)
        region = Region.of(values.view(np.uint8))
        starts = range(0, rows, step)
        addresses = region.address + np.array(starts, np.int64) * self.groups.row_bytes
        self.groups.place(shard, addresses, region)
        decoder = ShardDecoder(reader.folder, reader.plan, reader.numbers[shard], rows)
        return [(decoder, i, values[s : s + step]) for i, s in enumerate(starts)]

    def __reduce__(self) -> tuple:
        return KeptLogits, (self.reader, self.cache, self.keep, self.device)

    def _ready(self) -> None:
        if self._process != os.getpid():
            with background.opening:
                if self._process != os.getpid():
                    self._begin()

    def _begin(self) -> None:
        """In this process: what remains to be hashed."""
        worker = get_worker_info()
        self._on_gpu = self.keep == "gpu" and worker is None
        alone = worker is None or worker.id == 0  # of several workers, one hashes
        self._to_check = [s for s in range(len(self.records)) if alone and not self._is_verified(s)]
        self._checker = Filler(
            lambda item: self._verify(self._to_check[item]), len(self._to_check), 1
        )
        self._to_settle = len(self) // (worker.num_workers if worker else 1)
        self._checker.start()
        self._process = os.getpid()

    def _device_rows(self) -> Tensor:
        if self._on_device is None:
            shape = len(self), self.reader.plan.classes
            whole = torch.empty(shape, dtype=self.dtype, device=self.device)
            for start in range(0, len(self), BLOCK_ROWS):
                rows = np.arange(start, min(start + BLOCK_ROWS, len(self)))
                part = self.groups.gather(rows).view(self.dtype)
                whole[start : start + len(rows)] = part.to(self.device)
            self._on_device = whole
        return self._on_device

    def _is_verified(self, shard: int) -> bool:
        record = self.records[shard]
        path = self.reader.folder.path(record["file"])
        return self.cache is not None and self.cache.is_verified(path, record["sha256"])

    def _verify(self, shard: int) -> None:
        if self._is_verified(shard):
            return  # by another process, meanwhile
        record = self.records[shard]
        path = self.reader.folder.path(record["file"])
        if sha256_of(path) != record["sha256"]:
            raise DamagedDump(
                f"{path} has other bytes than were written (SHA-256 differs); batches since it was "
                f"opened may hold wrong rows; {self.reader.folder.remedy}"
            )
        if self.cache is not None:
            self.cache.remember_verified(path, record["sha256"])


def _decode_group(part: tuple[ShardDecoder, int, np.ndarray]) -> int:
    """Decode a row group into its room; its rows."""
    decoder, group, room_NC = part
    return len(decoder.decode(group, room_NC))
