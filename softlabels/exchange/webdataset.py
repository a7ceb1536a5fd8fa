"""Exports as WebDataset tars, one a shard: `train-000000.tar`, `train-{000000..000003}.tar`.

A sample is the files of a tar that share a key, which ends at the first dot of their name. Keys
are the rows' numbers, since an id may hold dots and slashes; the id is in the .json.

    000000123.logits.npy   float16 or float32 [C]; with a temperature .soft_targets.npy, float32
    000000123.json         {"id", "input_hash", "label"}
    000000123.cls          the label in decimal digits; absent where there is none
    000000123.png          the image as the dump has it, or .input.npy, numbers
"""

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from softlabels.exchange.rows import Block, Layout

KINDS = {
    b"\x89PNG": "png",
    b"\xff\xd8\xff": "jpg",
    b"GIF8": "gif",
    b"BM": "bmp",
    b"II*\0": "tif",
    b"MM\0*": "tif",
}


def write(place: Path, layout: Layout, blocks: Iterator[Block]) -> None:
    for block in blocks:
        path = place / f"{layout.split}-{block.shard:06d}.tar"
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
            for row in range(len(block)):
                for name, content in _sample(block, row, layout).items():
                    _add(tar, f"{block.start + row:09d}.{name}", content)


def _sample(block: Block, row: int, layout: Layout) -> dict[str, bytes]:
    label = None if block.labels is None else int(block.labels[row])
    about: dict[str, Any] = {
        "id": block.ids[row].item(),
        "input_hash": int(block.hashes[row]),
        "label": label,
    }
    files = {}
    if block.inputs is not None:
        cell = block.inputs[row]
        if isinstance(cell, bytes):
            files[image_kind(cell)] = cell
        else:
            files["input.npy"] = _npy(cell)
    if label is not None and label >= 0:
        files["cls"] = str(label).encode()
    files["json"] = json.dumps(about, ensure_ascii=False).encode()
    files[f"{layout.values}.npy"] = _npy(block.values_NC[row])
    return files


def image_kind(content: bytes) -> str:
    """The usual ending of an encoded image's name, from its first bytes."""
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "webp"
    return next((kind for head, kind in KINDS.items() if content.startswith(head)), "img")


def _npy(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o644
    tar.addfile(entry, io.BytesIO(content))
