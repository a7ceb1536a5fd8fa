"""A dump's logits by row, from where they are kept: the mapped shards, the local cache, memory or
the training device.

What lies in place in its file is mapped and there at once. The rest is decoded in the background,
what a batch waits for first. Files are hashed in the background too, once; damage is raised by the
next batch, at the latest by `settle`. N rows asked for, C classes.
"""

import errno
import os
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from softlabels import filling
from softlabels.errors import DamagedDump, StoreError, UsageError
from softlabels.filling import Filler, cores
from softlabels.memory import free_memory
from softlabels.store.audit import sha256_of
from softlabels.store.codec import DTYPES
from softlabels.store.gathering import RowGroups
from softlabels.store.mapping import allow_open_files, map_logits
from softlabels.store.reader import PARQUET_ERRORS, DumpReader
from softlabels.store.remedies import remedy
from softlabels.targets.cache import LocalCache
from softlabels.targets.shard_rows import DecodedShard, Placed, Publisher, ShardRows
from softlabels.words import size_words

KEEPS = ("auto", "gpu", "ram", "disk")
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
        raise UsageError(f"--keep gpu needs CUDA and this is {device.type}; use --keep ram")
    if keep != "auto":
        return keep
    if device.type != "cuda":
        return "disk"
    return "gpu" if size < SHARE * torch.cuda.mem_get_info(device)[0] else "disk"


def check_memory(size: int, remedy: str) -> None:
    """Raises UsageError where `size` bytes are more than this machine has free."""
    free = free_memory()
    if size > free:
        raise UsageError(
            f"the logits need {size_words(size)} of memory, {size_words(free)} are free; {remedy}"
        )


class KeptLogits:
    """`gather(rows)` gives their logits. Made for one local dump; `cache` None writes nothing.

    Safe in forked processes, such as a DataLoader's workers. Raises DamagedDump, and DiskFull where
    the cache has no room.
    """

    def __init__(
        self, reader: DumpReader, cache: LocalCache | None, keep: str, device: torch.device
    ) -> None:
        self.reader, self.cache, self.device = reader, cache, device
        self.records, plan = reader.records, reader.plan
        self.dtype, row_bytes = DTYPES[plan.dtype][0], reader.codec.row_bytes
        self.keep = choose_keep(keep, len(reader) * row_bytes, device)
        self.groups = RowGroups([r["rows"] for r in self.records], plan.group_rows, row_bytes)
        self._large = len(reader) * row_bytes > MAPPED_SHARE * free_memory()
        self.in_place: list[int] = []
        self.shards: dict[int, ShardRows] = {}
        allow_open_files(len(self.records))
        for shard in range(len(self.records)):
            self._open(shard)
        ours = sum(shard.bytes for shard in self.shards.values())
        if self.keep == "ram":
            check_memory(ours, "use --keep disk")
        elif self.cache is None and ours:
            check_memory(ours, "leave out --no-cache, or use --streaming")
        self._on_device: Tensor | None = None
        self._process: int | None = None

    def __len__(self) -> int:
        return len(self.reader)

    def gather(self, rows: np.ndarray) -> Tensor:
        """The logits of these rows, [N, C] in the stored dtype; on the device with keep gpu."""
        self._ready()
        if self._to_settle > 0:
            self._to_settle -= len(rows)
            if self._to_settle <= 0:  # about an epoch, whoever asks: damage is told by now
                self._checker.wait()
        if self._on_gpu:
            return self._device_rows().index_select(0, torch.from_numpy(rows).to(self.device))
        return self._from_memory(rows)

    def columns(self, rows: np.ndarray) -> dict[str, Any]:
        """These rows, in their order: id, label and logits. Few look at ids, and with α = 1 nobody
        at labels, so these are looked up when they are read: a tenth of a batch's time."""
        return {
            "id": lambda: self._ids(rows),
            "label": lambda: self._labels(rows),
            "logits": self.gather(rows),
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
        """Return when all that was read has been checked: mapped files by their hash, decoded pages
        by their checksums. Raises DamagedDump."""
        if self._process == os.getpid():
            self._checker.wait()
            self._filler.check()
        for shard in self.shards.values():
            if shard.problem is not None:
                raise shard.problem

    def read_ahead(self, rows: np.ndarray) -> None:
        """Bring these rows, ascending, from the disk into memory, where they are mapped."""
        self._ready()
        if self._all_here and not self._on_gpu:
            self.groups.advise(rows)

    def _open(self, shard: int) -> None:
        """Place what lies in its file, or in the cache, where it lies."""
        reader, record = self.reader, self.records[shard]
        path = reader.checked_path(shard)
        try:
            found = map_logits(path, reader.plan, reader.numbers[shard], record["rows"])
        except (DamagedDump, *PARQUET_ERRORS) as error:
            if getattr(error, "errno", None) in NO_DAMAGE:
                raise StoreError(f"{path} can't be mapped: {error}") from error
            raise DamagedDump(f"{path} is damaged: {error}; {remedy(reader.folder)}") from error
        if found is None:
            memory_only = self.keep in ("ram", "gpu")
            decoded = DecodedShard(reader, shard, None if memory_only else self.cache)
            if (cached := decoded.find()) is not None:
                self._place(shard, cached)
            else:
                self.shards[shard] = decoded
            return
        region, addresses = found
        groups = self.groups.of_shard(shard)
        self._place(shard, (slice(None), region, addresses))
        self.in_place.append(shard)
        if self.keep == "ram":
            count, row_bytes = record["rows"], self.groups.row_bytes
            self.shards[shard] = ShardRows(
                count,
                self.groups.group_rows,
                row_bytes,
                lambda i, out: np.copyto(out, self.groups.bytes_of(groups[i])),
            )

    def _place(self, shard: int, placed: Placed) -> None:
        which, region, addresses = placed
        if self._large:
            region.expect_random()
        self.groups.place(self.groups.of_shard(shard)[which], addresses, region)

    def __reduce__(self) -> tuple:
        return KeptLogits, (self.reader, self.cache, self.keep, self.device)

    def _ready(self) -> None:
        if self._process != os.getpid():
            with filling.opening:
                if self._process != os.getpid():
                    self._begin()

    def _begin(self) -> None:
        """In this process: what remains to be hashed, and to be decoded or copied."""
        worker = get_worker_info()
        self._on_gpu = self.keep == "gpu" and worker is None
        alone = worker is None or worker.id == 0  # of several workers, one hashes
        self._to_check = [s for s in self.in_place if alone and not self._is_verified(s)]
        self._checker = Filler(
            lambda item: self._verify(self._to_check[item]), len(self._to_check), 1
        )
        publisher = Publisher(lambda: self._filler.over)
        for shard in self.shards.values():
            shard.renew(publisher)
        pending = [g for shard in self.shards for g in self.groups.of_shard(shard)]
        self._pending = sorted(pending, key=lambda g: (self.groups.addresses[g] > 0, g))
        self._items = {group: item for item, group in enumerate(self._pending)}
        threads = min(DECODERS, cores())
        self._filler = Filler(self._fill, len(self._pending), threads)
        self._all_here = self.groups.all_here
        self._to_settle = len(self) // (worker.num_workers if worker else 1)
        self._checker.start()
        if worker is None:
            self._filler.start()
        self._process = os.getpid()

    def _from_memory(self, rows: np.ndarray) -> Tensor:
        self._checker.check()
        self._filler.check()
        if not self._all_here:
            absent = self.groups.absent(rows).tolist()
            self._filler.need([self._items[group] for group in absent])
            self._all_here = self.groups.all_here
        return self.groups.gather(rows).view(self.dtype)

    def _device_rows(self) -> Tensor:
        if self._on_device is None:
            shape = len(self), self.reader.plan.classes
            whole = torch.empty(shape, dtype=self.dtype, device=self.device)
            for start in range(0, len(self), BLOCK_ROWS):
                rows = np.arange(start, min(start + BLOCK_ROWS, len(self)))
                whole[start : start + len(rows)] = self._from_memory(rows).to(self.device)
            self._on_device = whole
        self._checker.check()
        return self._on_device

    def _fill(self, item: int) -> None:
        group = self._pending[item]
        shard = self.groups.shard_of(group)
        if shard in self.in_place or not self.groups.addresses[group]:
            local = group - self.groups.of_shard(shard).start
            try:
                self._place(shard, self.shards[shard].fill(local))
            except BaseException:
                for begun in self.shards.values():
                    begun.abandon()
                raise

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
                f"opened may hold wrong rows; {remedy(self.reader.folder)}"
            )
        if self.cache is not None:
            self.cache.remember_verified(path, record["sha256"])
