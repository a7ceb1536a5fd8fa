"""A dump's rows, gathered from mapped shards, from memory or from the training device.

Values that lie in place in their files are mapped. Pages of other writers and decoded columns are
unpacked into memory when the dump is opened. Files are hashed once, in the background; damage is
raised with the next batch, at the latest by `settle`. N rows asked for.
"""

import errno
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from softlabels.errors import DamagedDump, StoreError, UsageError
from softlabels.inputs.label_lists import Labels, as_tensor
from softlabels.inputs.views.mixing import PARTNER_LABEL, WEIGHT
from softlabels.logits import Logits
from softlabels.store.codecs.codec import MASK, POSITIONS, Codec
from softlabels.store.footers import PARQUET_ERRORS
from softlabels.store.gathering import Region, RowGroups
from softlabels.store.mapping import allow_open_files, map_columns
from softlabels.store.plan import Plan
from softlabels.store.reader import DumpReader
from softlabels.store.shard_check import sha256_of
from softlabels.store.shard_reader import ShardReader
from softlabels.system import background
from softlabels.system.background import Filler, cores, in_order
from softlabels.system.cache import LocalCache
from softlabels.system.humanize import counted, size_words
from softlabels.system.memory import free_memory
from softlabels.system.progress import SILENT, Progress

KEEPS = ("auto", "gpu", "disk")
SHARE = 0.4  # of the device's free memory, which `auto` takes at most
MAPPED_SHARE = 0.5  # of the free memory; larger mapped files won't stay in the page cache
DECODERS = 8  # threads at most
BLOCK_ROWS = 16_384
NO_DAMAGE = (errno.EMFILE, errno.ENFILE, errno.EACCES, errno.ENOMEM)


def choose_keep(keep: str, size: int, device: torch.device) -> str:
    """Resolves `auto`: gpu if the device is CUDA and has the room, else disk, whose page cache all
    processes share.

    Raises UsageError for an unknown value, and for gpu on another device than CUDA.
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


class MappedRows:
    """The rows of one local dump: `gather` gives logits, `columns` ids and labels too.

    cache: notes which files were verified; None for no notes. Works in forked processes, such as a
    DataLoader's workers. Raises DamagedDump, and UsageError if shards have to be decoded and don't
    fit into memory.
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
        self.records, self.codec, plan = reader.records, reader.codec, reader.plan
        size = len(reader) * self.codec.row_bytes
        self.keep = choose_keep(keep, size, device)
        if self.codec.decoded and keep == "gpu":
            raise UsageError(
                f"--keep is gpu, and the codec {plan.codec} packs its rows, which are unpacked on "
                f"the CPU; use --keep disk"
            )
        self.keep = "disk" if self.codec.decoded else self.keep
        shard_rows = [record.rows for record in self.records]
        views, self._viewed = len(plan.views), plan.has_views
        self._mixed = plan.mixing is not None
        self._own_labels = plan.label_column == "label_source"
        self.layout = RowGroups(shard_rows, plan.group_rows, 0, views)
        self._mapped = [
            (column, RowGroups(shard_rows, plan.group_rows, column.row_bytes, views))
            for column in self.codec.mapped
        ]
        self._values: dict[str, list[bytes | None]] = {
            column.name: [None] * len(reader) for column in self.codec.decoded
        }
        self._large = size > MAPPED_SHARE * free_memory()
        allow_open_files(len(self.records))
        self._decode([s for s in range(len(self.records)) if not self._map(s)], progress)
        self._on_device: dict[str, Tensor] | None = None
        self._process: int | None = None

    def __len__(self) -> int:
        return len(self.reader)

    @property
    def row_bounds(self) -> np.ndarray:
        """The row at which each row group begins, and the end."""
        return self.layout.row_bounds

    @property
    def regions(self) -> list[Region]:
        """The memory that rows are gathered from."""
        return [region for _, groups in self._mapped for region in groups.regions]

    def gather(self, rows: np.ndarray) -> Logits:
        """The stored logits of these rows; on the device if `keep` is gpu."""
        return self.codec.wrap(self._stored(rows))

    def _stored(self, rows: np.ndarray) -> dict[str, Any]:
        """The codec's columns of these rows."""
        self._ready()
        self._checker.check()
        if self._to_settle > 0:
            self._to_settle -= len(rows)
            if self._to_settle <= 0:  # after about an epoch of rows, damage has to be reported
                self._checker.wait()
        if self._on_gpu:
            chosen = torch.from_numpy(rows).to(self.device)
            return {n: v.index_select(0, chosen) for n, v in self._device_rows().items()}
        return self._gathered(rows)

    def _gathered(self, rows: np.ndarray) -> dict[str, Any]:
        stored: dict[str, Any] = {}
        for column, groups in self._mapped:
            stored[column.name] = column.of_bytes(groups.gather(rows))
        for name, values in self._values.items():
            stored[name] = [values[row] for row in rows]
        return stored

    def columns(self, rows: np.ndarray) -> dict[str, Any]:
        """These rows, in their order: id, view (if there are several), label and targets. Training
        rarely reads ids, nor labels if α = 1, so these are looked up only when they are read, which
        saves a tenth of a batch's time."""
        columns = target_columns(self.codec, self._stored(rows))
        columns["id"] = lambda: self._ids(rows)
        columns["label"] = lambda: self._labels(self.reader.labels, rows)
        if self._own_labels:
            columns["label_source"] = lambda: self._labels(self.reader.source_labels, rows)
        if self._mixed:
            columns |= self._partners(rows)
        if self._viewed:
            columns["view"] = lambda: torch.from_numpy(self.reader.views[rows])
        return columns

    def _partners(self, rows: np.ndarray) -> dict[str, Any]:
        """What the hard labels of mixed inputs need."""
        reader, columns = self.reader, {}
        if reader.plan.labelled:
            columns[PARTNER_LABEL] = lambda: self._labels(reader.partner_labels, rows)
        columns[WEIGHT] = lambda: torch.from_numpy(reader.drawn[WEIGHT][rows])
        return columns

    def _ids(self, rows: np.ndarray) -> Tensor | list[str]:
        ids = self.reader.ids[rows]
        return torch.from_numpy(ids) if ids.dtype.kind == "i" else ids.tolist()

    def _labels(self, labels: Labels | None, rows: np.ndarray) -> Tensor:
        plan = self.reader.plan
        if labels is None:
            return no_labels(len(rows), plan)
        return as_tensor(labels[rows], plan.classes)

    def order_text(self, text: str) -> str:
        """Accepts any order."""
        return text

    def settle(self) -> None:
        """Return when the files of all rows that were read have been hashed. Raises DamagedDump."""
        if self._process == os.getpid():
            self._checker.wait()

    def read_ahead(self, rows: np.ndarray) -> None:
        """Bring mapped rows (ascending) from the disk into memory."""
        self._ready()
        if not self._on_gpu:
            for _, groups in self._mapped:
                groups.advise(rows)

    def _map(self, shard: int) -> bool:
        """Map a shard; returns False if its values don't lie in place and have to be decoded."""
        reader = self.reader
        path = reader.checked_path(shard)
        try:
            mapped = map_columns(path, reader.plan, reader.numbers[shard], self.records[shard].rows)
        except (DamagedDump, *PARQUET_ERRORS) as error:
            if getattr(error, "errno", None) in NO_DAMAGE:
                raise StoreError(f"{path} can't be mapped: {error}") from error
            raise DamagedDump(f"{path} is damaged: {error}; {reader.folder.remedy}") from error
        # a row group is mapped or unpacked as a whole, so a decoded column unpacks the others too
        if mapped is None or self.codec.decoded:
            return False
        region, addresses = mapped
        if self._large:
            region.expect_random()
        for column, groups in self._mapped:
            groups.place(shard, addresses[column.name], region)
        return True

    def _decode(self, shards: list[int], progress: Progress) -> None:
        """Unpack these shards into memory: their pages are compressed, have dictionaries, or there
        are several a row group; or the codec has decoded columns."""
        if not shards:
            return
        readers = [self.reader.shard(shard) for shard in shards]
        rows = sum(reader.rows for reader in readers)
        packed = [column.name for column in self.codec.decoded]
        size = rows * self.codec.row_bytes
        size += sum(reader.unpacked_bytes(packed) for reader in readers if packed)
        free = free_memory()
        why = "another program wrote them otherwise" * (not self.codec.decoded)
        why = why or f"their codec {self.reader.plan.codec} packs its rows"
        what = (
            f"{counted(len(shards), 'shard')} of {self.reader.folder} can't be used in place: "
            f"{why}; decoded they take {size_words(size)} of memory"
        )
        if size > free:
            raise UsageError(
                f"{what}, and {size_words(free)} are free. Read them as they are needed: "
                f"--streaming, in Python streaming=True"
            )
        progress.say(what)
        parts = [
            part for shard, reader in zip(shards, readers, strict=True)
            for part in self._room(shard, reader)
        ]  # fmt: skip
        with progress.bar("decode", rows, "row") as advance:
            for count in in_order(self._decode_group, parts, min(DECODERS, cores())):
                advance(count)

    def _room(self, shard: int, reader: ShardReader) -> list["_Part"]:
        """Allocate and place memory for a shard's mapped columns; the part of each row group."""
        sizes = self.reader.plan.group_sizes(reader.rows)
        starts = np.cumsum(sizes) - sizes
        rooms = {column.name: column.empty(reader.rows) for column in self.codec.mapped}
        for column, groups in self._mapped:
            room = rooms[column.name]
            region = Region.of(room.reshape(reader.rows, -1).view(np.uint8))
            addresses = region.address + starts * column.row_bytes
            groups.place(shard, addresses, region)
        first = int(self.layout.first_rows[shard])
        return [
            _Part(reader, i, first + s, {n: room[s : s + size] for n, room in rooms.items()})
            for i, (s, size) in enumerate(zip(starts.tolist(), sizes.tolist(), strict=True))
        ]

    def _decode_group(self, part: "_Part") -> int:
        """Unpack a row group into its part of the memory; returns its rows."""
        stored = part.reader.stored(part.group, part.rooms)
        rows = len(next(iter(stored.values())))
        for name, values in self._values.items():
            values[part.start : part.start + rows] = stored[name]
        return rows

    def __reduce__(self) -> tuple:
        return MappedRows, (self.reader, self.cache, self.keep, self.device)

    def _ready(self) -> None:
        if self._process != os.getpid():
            with background.opening:
                if self._process != os.getpid():
                    self._begin()

    def _begin(self) -> None:
        """Start hashing, in this process, the files that are not verified yet."""
        worker = get_worker_info()
        # a forked worker can't use its parent's CUDA context, so it gathers from the map
        self._on_gpu = self.keep == "gpu" and worker is None
        alone = worker is None or worker.id == 0  # only one of several workers hashes
        self._to_check = [s for s in range(len(self.records)) if alone and not self._is_verified(s)]
        self._checker = Filler(
            lambda item: self._verify(self._to_check[item]), len(self._to_check), 1
        )
        self._to_settle = len(self) // (worker.num_workers if worker else 1)
        self._checker.start()
        self._process = os.getpid()

    def _device_rows(self) -> dict[str, Tensor]:
        if self._on_device is None:
            first = self._gathered(np.zeros(1, np.int64))
            whole = {
                name: torch.empty(len(self), *part.shape[1:], dtype=part.dtype, device=self.device)
                for name, part in first.items()
            }
            for start in range(0, len(self), BLOCK_ROWS):
                rows = np.arange(start, min(start + BLOCK_ROWS, len(self)))
                for name, part in self._gathered(rows).items():
                    whole[name][start : start + len(rows)] = part.to(self.device)
            self._on_device = whole
        return self._on_device

    def _is_verified(self, shard: int) -> bool:
        record = self.records[shard]
        path = self.reader.folder.path(record.file)
        return self.cache is not None and self.cache.is_verified(path, record.sha256)

    def _verify(self, shard: int) -> None:
        if self._is_verified(shard):
            return  # another process has verified it meanwhile
        record = self.records[shard]
        path = self.reader.folder.path(record.file)
        if sha256_of(path) != record.sha256:
            raise DamagedDump(
                f"{path} has other bytes than were written (SHA-256 differs); batches since it was "
                f"opened may hold wrong rows; {self.reader.folder.remedy}"
            )
        if self.cache is not None:
            self.cache.remember_verified(path, record.sha256)


@dataclass(frozen=True)
class _Part:
    """A row group to be unpacked: its first row in the dump, and the memory for each mapped
    column."""

    reader: ShardReader
    group: int
    start: int
    rooms: dict[str, np.ndarray]


def no_labels(rows: int, plan: Plan) -> Tensor:
    """The column `label` of rows without one."""
    if plan.task == "multilabel":
        return torch.full((rows, plan.classes), -1, dtype=torch.int8)
    return torch.full((rows,), -1)


def target_columns(codec: Codec, stored: dict[str, Any]) -> dict[str, Any]:
    """The columns of a batch from stored rows: `targets`, and `positions` and `loss_mask` if rows
    have several."""
    columns: dict[str, Any] = {"targets": codec.wrap(stored)}
    if codec.positions is None:
        columns[POSITIONS] = stored[POSITIONS].long()
    elif codec.positions != 1:
        rows = len(next(iter(stored.values())))
        columns[POSITIONS] = torch.full((rows,), codec.positions)
    if MASK in stored:
        columns[MASK] = stored[MASK].bool()
    return columns
