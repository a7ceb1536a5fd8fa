"""The hash of an input and the fingerprint of a dataset, as docs/format.md defines them."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from softlabels.inputs.label_lists import Labels, encoded
from softlabels.models.named import row_bytes


def hash_bytes(content: bytes) -> int:
    """The input hash of an encoded input (an image file): the first 8 bytes of its SHA-256,
    read as a little-endian unsigned number."""
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "little")


def hash_images(cells: list[bytes]) -> np.ndarray:
    """The input hashes of encoded images, uint64 [N]."""
    return np.fromiter(map(hash_bytes, cells), np.uint64, len(cells))


def hash_arrays(values: np.ndarray) -> np.ndarray:
    """The input hashes of N inputs [N, …] that are numbers, uint64 [N]: each is `hash_bytes` of a
    header such as `float32[8,8]` and the values in C order, little-endian. Of rows of several
    columns (see `number_cells`) the header says names, dtypes and shapes, in the order of names."""
    if values.dtype.names is not None:
        little, header = row_bytes(values), _header(values.dtype)
    else:
        little = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
        header = f"{values.dtype.name}[{','.join(map(str, values.shape[1:]))}]".encode()
    begin, digests = hashlib.sha256(header).copy, []
    for cell in _rows_of_bytes(little):  # three calls a row: no faster road leads through hashlib
        digest = begin()
        digest.update(cell)
        digests.append(digest.digest())
    return np.frombuffer(b"".join(digests), "<u8")[::4].astype(np.uint64)


def _header(layout: np.dtype) -> bytes:
    """`[["a","float32",[8]],["b","int64",[]]]`: JSON, since a name may hold anything."""
    columns = [(name, layout[name]) for name in layout.names or ()]
    parts = [[name, one.base.name, list(one.shape)] for name, one in columns]
    return json.dumps(parts, separators=(",", ":"), ensure_ascii=False).encode()


def _rows_of_bytes(values: np.ndarray) -> Iterable[Any]:
    """The bytes of each row, as something that hashlib takes."""
    if not values[:1].nbytes:
        return [b""] * len(values)
    return values.reshape(len(values), -1).view(np.uint8)


def hash_texts(columns: Sequence[list[str]]) -> np.ndarray:
    """The input hashes of N texts, or of N pairs of them, uint64 [N]: `hash_bytes` of a text's
    UTF-8; of a pair, of `text[2]`, then of each text the length of its UTF-8 (eight bytes,
    little-endian) and the UTF-8, so that a text that moves across the seam is another input."""
    if len(columns) == 1:
        return hash_images([text.encode() for text in columns[0]])
    header, contents = f"text[{len(columns)}]".encode(), []
    for row in zip(*columns, strict=True):
        parts = [text.encode() for text in row]
        contents.append(header + b"".join(len(p).to_bytes(8, "little") + p for p in parts))
    return hash_images(contents)


def hash_tokens(columns: Mapping[str, np.ndarray], lengths: np.ndarray) -> np.ndarray:
    """The input hashes of N rows of tokens, uint64 [N]: of `input_ids` that of the same numbers as
    an array, int64[L]; other columns follow by name, each with the header ` NAME:int64[L]`.

    columns: `input_ids` first, all rows one after the other; lengths: of each row, int64 [N]
    """
    first, *others = (np.ascontiguousarray(v, "<i8").data for v in columns.values())
    names = [f" {name}:".encode() for name in list(columns)[1:]]
    hashes, start = np.empty(len(lengths), np.uint64), 0
    for row, length in enumerate(lengths.tolist()):
        header, stop = b"int64[%d]" % length, start + length
        digest = hashlib.sha256(header)
        digest.update(first[start:stop])
        for name, values in zip(names, others, strict=True):
            digest.update(name + header)
            digest.update(values[start:stop])
        hashes[row] = int.from_bytes(digest.digest()[:8], "little")
        start = stop
    return hashes


def encode_ids(ids: np.ndarray) -> bytes:
    """Ids as bytes for the fingerprint: little-endian int64, or UTF-8 text that ends in a zero
    byte."""
    if ids.dtype.kind == "i":
        return ids.astype("<i8").tobytes()
    return b"".join(str(value).encode() + b"\0" for value in ids)


class Fingerprint:
    """The fingerprint of rows in their order: SHA-256 over the digests of the ids and of each
    column of numbers beside them.

    Over ids, input hashes and labels it is the fingerprint of the rows; over ids and labels, that
    of their keys, which needs no inputs.
    """

    def __init__(self) -> None:
        self._digests: list[Any] = []

    def update(self, ids: np.ndarray, *numbers: Labels) -> None:
        """Add the next rows: ids [N], and in each call the same columns of numbers (input hashes
        uint64 [N]; labels int64 [N], −1 for none, or lists of them)."""
        parts = [encode_ids(ids), *map(encoded, numbers)]
        self._digests = self._digests or [hashlib.sha256() for _ in parts]
        for digest, part in zip(self._digests, parts, strict=True):
            digest.update(part)

    def hexdigest(self) -> str:
        return hashlib.sha256(b"".join(d.digest() for d in self._digests)).hexdigest()

    def __str__(self) -> str:
        return "sha256:" + self.hexdigest()

    @property
    def short(self) -> str:
        """The first 16 hex digits, which records keep for each shard."""
        return self.hexdigest()[:16]


def ascending(blocks: Iterable[np.ndarray]) -> bool:
    """Whether each id, int64 or str, is larger than the one before, so that none comes twice."""
    last = None
    for ids in blocks:
        if not len(ids):
            continue
        if not (ids[:-1] < ids[1:]).all() or (last is not None and not last < ids[0]):
            return False
        last = ids[-1]
    return True
