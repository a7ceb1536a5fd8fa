"""Exports as Mosaic Data Shards, version 2, which `streaming.StreamingDataset(local=…)` reads.

    index.json         names, sizes and SHA-1 of the shards, written last
    shard.00000.mds    n, n + 1 offsets (uint32, from the file's begin), the columns as JSON, then n
                       samples: the sizes of the columns that vary (uint32), then all values

Columns: id (int or str), input_hash (uint64), label (int, −1 for none), logits or soft_targets
(ndarray:float16:C or float32), and input (bytes of an encoded image, or ndarray:DTYPE:SHAPE).
Numbers are little-endian. The layout is written here, since the library that defines it brings the
clients of four clouds and an older numpy. A shard ends at 64 MiB, whatever the dump's shards are.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from softlabels.errors import StoreError
from softlabels.exchange.rows import Block, Layout

SHARD_BYTES = 1 << 26
DTYPES = {f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)} | {
    "float16", "float32", "float64",
}  # fmt: skip


@dataclass(frozen=True)
class Column:
    """encode: a row of a block → its bytes; size: of these, None where they vary."""

    name: str
    encoding: str
    size: int | None
    encode: Callable[[Block, int], bytes]


@dataclass
class Shards:
    """Samples become files of at most SHARD_BYTES."""

    place: Path
    columns: list[Column]
    written: list[dict[str, Any]] = field(default_factory=list)
    samples: list[bytes] = field(default_factory=list)
    size: int = 0

    def add(self, sample: bytes) -> None:
        if self.samples and self._head + self.size + len(sample) + 4 > SHARD_BYTES:
            self.flush()
        self.samples.append(sample)
        self.size += len(sample) + 4

    def flush(self) -> None:
        name = f"shard.{len(self.written):05d}.mds"
        count, config = len(self.samples), self._config()
        ends = np.cumsum([4 + 4 * (count + 1) + len(config), *map(len, self.samples)])
        if ends[-1] >= 2**32:
            raise StoreError(
                f"a row of {self.size:,} bytes is too large for MDS, which ends at 4 GiB"
            )
        head = np.array([count, *ends], "<u4").tobytes()
        content = b"".join([head, config, *self.samples])
        (self.place / name).write_bytes(content)
        raw = {
            "basename": name,
            "bytes": len(content),
            "hashes": {"sha1": hashlib.sha1(content, usedforsecurity=False).hexdigest()},
        }
        self.written.append(
            json.loads(config) | {"samples": count, "raw_data": raw, "zip_data": None}
        )
        self.samples, self.size = [], 0

    @property
    def _head(self) -> int:
        return 8 + len(self._config())

    def _config(self) -> bytes:
        told = {
            "version": 2,
            "format": "mds",
            "compression": None,
            "hashes": ["sha1"],
            "size_limit": SHARD_BYTES,
            "column_names": [column.name for column in self.columns],
            "column_encodings": [column.encoding for column in self.columns],
            "column_sizes": [column.size for column in self.columns],
        }
        return json.dumps(told, sort_keys=True).encode()


def write(place: Path, layout: Layout, blocks: Iterator[Block]) -> None:
    shards = None
    for block in blocks:
        if not len(block):
            continue
        if shards is None:
            shards = Shards(place, _columns(layout, block))
        for row in range(len(block)):
            parts = [(column, column.encode(block, row)) for column in shards.columns]
            sizes = [len(content) for column, content in parts if column.size is None]
            shards.add(np.array(sizes, "<u4").tobytes() + b"".join(c for _, c in parts))
    if shards is not None and shards.samples:
        shards.flush()
    index = {"version": 2, "shards": [] if shards is None else shards.written}
    (place / "index.json").write_text(json.dumps(index, sort_keys=True), encoding="utf-8")


def _columns(layout: Layout, block: Block) -> list[Column]:
    """In the order of their names, as readers of the format expect them."""
    text = layout.text_ids
    found = [
        Column("id", "str", None, lambda b, row: str(b.ids[row]).encode())
        if text
        else Column("id", "int", 8, lambda b, row: b.ids[row].astype("<i8").tobytes()),
        Column("input_hash", "uint64", 8, lambda b, row: b.hashes[row].astype("<u8").tobytes()),
        _numbers(layout.values, layout.dtype, (layout.classes,), lambda b: b.values_NC),
    ]
    if layout.labelled:
        found.append(
            Column("label", "int", 8, lambda b, row: _row(b.labels, row).astype("<i8").tobytes())
        )
    if isinstance(block.inputs, list):
        found.append(Column("input", "bytes", None, lambda b, row: _row(b.inputs, row)))
    elif block.inputs is not None:
        dtype, shape = block.inputs.dtype.name, block.inputs.shape[1:]
        found.append(_numbers("input", dtype, shape, lambda b: b.inputs))
    return sorted(found, key=lambda column: column.name)


def _numbers(name: str, dtype: str, shape: tuple[int, ...], of: Callable[[Block], Any]) -> Column:
    if dtype not in DTYPES or 0 in shape or not shape:
        raise StoreError(f"MDS has no {dtype} of the shape {list(shape)}, as the column {name} is")
    little = np.dtype(dtype).newbyteorder("<")
    encoding = f"ndarray:{dtype}:{','.join(map(str, shape))}"
    size = int(np.prod(shape)) * little.itemsize

    def encode(block: Block, row: int) -> bytes:
        content: bytes = of(block)[row].astype(little, copy=False).tobytes()
        return content

    return Column(name, encoding, size, encode)


def _row(column: Any, row: int) -> Any:
    """A cell of a column that this layout has."""
    return column[row]
