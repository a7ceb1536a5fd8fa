"""The hash of an input and the fingerprint of a dataset, as docs/format.md defines them."""

import hashlib
from collections.abc import Iterable

import numpy as np


def hash_bytes(content: bytes) -> int:
    """The input hash of an encoded input (an image file): the first 8 bytes of its SHA-256,
    read as a little-endian unsigned number."""
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "little")


def hash_images(cells: list[bytes]) -> np.ndarray:
    """The input hashes of encoded images, uint64 [N]."""
    return np.fromiter(map(hash_bytes, cells), np.uint64, len(cells))


def hash_arrays(values: np.ndarray) -> np.ndarray:
    """The input hashes of N inputs [N, …] that are numbers, uint64 [N]: each is `hash_bytes` of a
    header such as `float32[8,8]` and the values in C order, little-endian."""
    little = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    header = f"{values.dtype.name}[{','.join(map(str, values.shape[1:]))}]".encode()
    begun = hashlib.sha256(header)
    found = np.empty(len(values), np.uint64)
    for row, cell in enumerate(little):
        digest = begun.copy()
        digest.update(cell.data)
        found[row] = int.from_bytes(digest.digest()[:8], "little")
    return found


def encode_ids(ids: np.ndarray) -> bytes:
    """Ids as the fingerprint sees them: int64 little-endian, or UTF-8 text ended by a zero byte."""
    if ids.dtype.kind == "i":
        return ids.astype("<i8").tobytes()
    return b"".join(str(value).encode() + b"\0" for value in ids)


def dataset_fingerprint(chunks: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> str:
    """SHA-256 over the SHA-256 digests of all ids, all input hashes and all labels, in row order.

    Each chunk is (ids [N], input hashes uint64 [N], labels int64 [N] with −1 for none).
    """
    digests = [hashlib.sha256() for _ in range(3)]
    for ids, hashes, labels in chunks:
        digests[0].update(encode_ids(ids))
        digests[1].update(hashes.astype("<u8").tobytes())
        digests[2].update(labels.astype("<i8").tobytes())
    return "sha256:" + hashlib.sha256(b"".join(d.digest() for d in digests)).hexdigest()
