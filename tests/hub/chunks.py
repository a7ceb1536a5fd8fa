"""Files as Xet keeps them: chunks in xorbs, and for each file the list of its chunks.

A xorb is chunks one behind the other, each behind 8 bytes that say how it is packed. A shard tells
of files in entries of 48 bytes. Numbers are little-endian, and a hash is written as four of 64 bits
in hexadecimal. Chunks are not hashed here: a whole file is, by SHA-256.
"""

import hashlib
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa

from tests.hub.repository import Store
from tests.hub.rules import Refused

ENTRY = 48
LAST = b"\xff" * 32  # the hash of an entry that ends a section
VERIFIED, DESCRIBED = 1 << 31, 1 << 30  # flags: hashes of ranges follow; so does a SHA-256
PLAIN, LZ4, GROUPED = range(3)  # how a chunk is packed; in the last, every fourth byte together


@dataclass(frozen=True)
class Term:
    """The chunks from `start` to before `end` of a xorb, and how long they are unpacked."""

    xorb: str
    start: int
    end: int
    size: int


@dataclass(frozen=True)
class Recipe:
    """What a file is made of."""

    xet_hash: str
    sha256: str
    terms: tuple[Term, ...]

    @property
    def size(self) -> int:
        return sum(term.size for term in self.terms)


def name_of(stored: bytes) -> str:
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", stored))


def heads(xorb: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Of each chunk: where it begins, its size here, how it is packed, its size unpacked."""
    at = 0
    while at + 8 <= len(xorb) and xorb[at] == 0:  # what else may follow begins with another byte
        packed, unpacked = (int.from_bytes(xorb[at + n : at + n + 3], "little") for n in (1, 5))
        yield at, packed, xorb[at + 4], unpacked
        at += 8 + packed
    if at > len(xorb):
        raise Refused(400, "a xorb that is cut off")
    yield at, 0, PLAIN, 0


def edges(xorb: bytes) -> list[int]:
    """Where the chunks begin, and where the last of them ends."""
    return [at for at, *_ in heads(xorb)]


def unpack(xorb: bytes, start: int, end: int) -> bytes:
    found = list(heads(xorb))[:-1][start:end]
    if len(found) != end - start:
        raise Refused(400, "a xorb that has fewer chunks")
    return b"".join(
        unpack_chunk(xorb[at + 8 : at + 8 + packed], how, size) for at, packed, how, size in found
    )


def unpack_chunk(packed: bytes, how: int, size: int) -> bytes:
    if how == PLAIN:
        return packed
    try:
        chunk = bytes(pa.decompress(packed, size, codec="lz4", asbytes=True))
    except OSError as error:
        raise Refused(400, f"a chunk that is no LZ4: {error}") from None
    if how == LZ4:
        return chunk
    bytes_ = np.empty(size, np.uint8)
    ends = np.cumsum([0, *(len(range(n, size, 4)) for n in range(4))])
    for n, (begin, end) in enumerate(pairwise(ends)):
        bytes_[n::4] = np.frombuffer(chunk, np.uint8)[begin:end]
    return bytes_.tobytes()


def read_shard(shard: bytes) -> list[Recipe]:
    """The files that it tells of. What it tells of xorbs, for others to find them, is not read."""
    at, found = ENTRY, []
    while shard[at : at + 32] != LAST:
        name, flags, count = struct.unpack_from("<32sII", shard, at)
        if not flags & DESCRIBED:
            raise Refused(400, "a file without its SHA-256")
        terms = []
        for n in range(1, count + 1):
            xorb, _, size, start, end = struct.unpack_from("<32s4I", shard, at + n * ENTRY)
            terms.append(Term(name_of(xorb), start, end, size))
        at += (1 + count * (2 if flags & VERIFIED else 1)) * ENTRY
        found.append(Recipe(name_of(name), name_of(shard[at : at + 32]), tuple(terms)))
        at += ENTRY
    return found


class ChunkStore(Store):
    """Also has files in chunks, and builds them again from these whenever one is asked for."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.recipes: dict[str, Recipe] = {}  # by Xet's hash
        self.by_sha256: dict[str, Recipe] = {}
        self.edges: dict[str, list[int]] = {}  # of xorbs, as they came

    def path(self, key: str) -> Path:
        if key not in self.by_sha256:
            return super().path(key)
        built = f"{key}.built"
        self.put(built, [self.build(self.by_sha256[key])], lambda _: None)
        return super().path(built)

    def tamper(self, key: str, change: Callable[[bytes], bytes]) -> None:
        if key not in self.by_sha256:
            super().tamper(key, change)
            return
        term = self.by_sha256[key].terms[0]
        start, end = (self.edges[term.xorb][n] for n in (term.start, term.end))
        whole = self.xorb(term.xorb).read_bytes()
        changed = whole[:start] + change(whole[start:end]) + whole[end:]
        self.xorb(term.xorb).write_bytes(changed)

    def xet_hash(self, key: str) -> str | None:
        return self.by_sha256[key].xet_hash if key in self.by_sha256 else None

    def xorb(self, name: str) -> Path:
        return self.folder / f"{name}.xorb"

    def add_xorb(self, name: str, content: bytes) -> bool:
        """False for one that is here already."""
        if name in self.edges:
            return False
        found = edges(content)
        if len(found) < 2:
            raise Refused(400, "a xorb without chunks")
        self.put(self.xorb(name).name, [content], lambda _: None)
        self.edges[name] = found
        return True

    def build(self, recipe: Recipe) -> bytes:
        return b"".join(
            unpack(self.xorb(term.xorb).read_bytes(), term.start, term.end) for term in recipe.terms
        )

    def add(self, recipe: Recipe) -> None:
        """Keeps a file of which all chunks are here and are what they are said to be."""
        for term in recipe.terms:
            if term.xorb not in self.edges:
                raise Refused(400, f"no xorb {term.xorb}")
        content = self.build(recipe)
        if len(content) != recipe.size or hashlib.sha256(content).hexdigest() != recipe.sha256:
            raise Refused(400, f"these chunks are not the file with SHA-256 {recipe.sha256}")
        self.recipes[recipe.xet_hash] = self.by_sha256[recipe.sha256] = recipe
