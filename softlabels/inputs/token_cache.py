"""The tokens of all texts of a source, made once and mapped from a file of the local cache.

    PLACE/tokens/KEY/about.json      of which data, by which tokenizer
    PLACE/tokens/KEY/tokens.arrow    of each row the hash of its text, how many tokens that has, and
                                     its tokens, which may be cut; of each record batch a CRC-32

KEY tells the source's files and columns, the tokenizer and where texts are cut. Tokens serve only
for a text that has the hash beside them. What that hash can't show, a flipped byte of a token, the
CRC does: all batches are held against theirs when a command opens them, and a damaged file is made
again. Shapes: N rows asked for.
"""

import hashlib
import json
import os
import shutil
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa
from filelock import FileLock

from softlabels.errors import DiskFull
from softlabels.inputs.preprocess import Preprocess
from softlabels.inputs.sources import Source
from softlabels.inputs.tables.table import DatasetTable
from softlabels.inputs.texts import Texts
from softlabels.models.tokens import IDS, Tokens, places_of
from softlabels.system.cache import LocalCache, hold
from softlabels.system.local_files import appearing, needing_space, sweep_partials
from softlabels.system.progress import Advance, Progress

LAYOUT = 2  # of the file; another number is another key
HASH, WHOLE = "input_hash", "whole"
BATCH_ROWS, BATCH_TOKENS = 65_536, 1 << 24  # of a record batch, at most; but for one block's more
FILE = "tokens.arrow"
CRC = b"crc32"  # of a record batch


@dataclass(frozen=True)
class _Batch:
    """Rows of the file, in place. starts: of each row in `columns`, and the end, [N + 1]"""

    hashes: np.ndarray
    whole: np.ndarray
    starts: np.ndarray
    columns: dict[str, np.ndarray]

    @classmethod
    def of(cls, batch: pa.RecordBatch) -> "_Batch":
        batch.validate()  # so that no length of a damaged file leads beyond it
        lists = {name: batch.column(name) for name in batch.schema.names[2:]}
        starts = next(iter(lists.values())).offsets.to_numpy()
        columns = {name: column.values.to_numpy() for name, column in lists.items()}
        return cls(batch[HASH].to_numpy(), batch[WHOLE].to_numpy(), starts, columns)

    @property
    def crc(self) -> bytes:
        arrays = {HASH: self.hashes, WHOLE: self.whole, "starts": self.starts} | self.columns
        total = 0
        for name, array in arrays.items():
            total = zlib.crc32(array.data, zlib.crc32(f"{name} {array.dtype}".encode(), total))
        return b"%d" % total

    def tokens(self, rows: np.ndarray) -> Tokens:
        starts = self.starts[rows].astype(np.int64)
        lengths = self.starts[rows + 1] - starts
        places = places_of(starts, lengths)
        return Tokens({name: values[places] for name, values in self.columns.items()}, lengths)


class TokenCache:
    """The rows of such a file, in the source's order. Can be pickled and forked. Raises OSError or
    ArrowException where it can't be read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        hold(path.parent, self)
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        read = reader.get_batch_with_custom_metadata
        batches = [read(number) for number in range(reader.num_record_batches)]
        self._batches = [_Batch.of(one.batch) for one in batches]
        self._crcs = [(one.custom_metadata or {}).get(CRC) for one in batches]
        self._starts = np.cumsum([0, *(len(batch.hashes) for batch in self._batches)])

    def __reduce__(self) -> tuple:
        return TokenCache, (self.path,)

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def is_sound(self) -> bool:
        """Whether it has the checksums that it was written with; reads all of it."""
        pairs = zip(self._batches, self._crcs, strict=True)
        return all(batch.crc == crc for batch, crc in pairs)

    def hashes(self, rows: np.ndarray) -> np.ndarray:
        """Of the texts that had these tokens, uint64 [N]."""
        hashes = np.empty(len(rows), np.uint64)
        for places, batch, own in self._of(rows):
            hashes[places] = batch.hashes[own]
        return hashes

    def whole(self, rows: np.ndarray) -> np.ndarray:
        """How many tokens each text has before it is cut, int64 [N]."""
        whole = np.empty(len(rows), np.int64)
        for places, batch, own in self._of(rows):
            whole[places] = batch.whole[own]
        return whole

    def tokens(self, rows: np.ndarray) -> Tokens:
        """Raises IndexError for no rows."""
        parts = [(places, batch.tokens(own)) for places, batch, own in self._of(rows)]
        joined = Tokens.joined([tokens for _, tokens in parts])
        back = np.argsort(np.concatenate([places for places, _ in parts]))
        return joined if (back[1:] > back[:-1]).all() else joined[back]

    def _of(self, rows: np.ndarray) -> Iterator[tuple[np.ndarray, _Batch, np.ndarray]]:
        """Of each batch that has some of the rows: where in `rows`, and which they are in it."""
        numbers = np.searchsorted(self._starts, rows, "right") - 1
        for number in np.unique(numbers).tolist():
            places = np.flatnonzero(numbers == number)
            yield places, self._batches[number], rows[places] - self._starts[number]


def encode(texts: Texts, preprocess: Preprocess) -> tuple[Tokens, np.ndarray]:
    """The tokens of these rows, cut where texts are to be cut, and how many each has before that,
    int64 [N]."""
    tokenizer, most, cuts = preprocess.tokenization
    columns = list(texts.columns.values())
    tokens: Tokens = tokenizer.encode(columns)
    whole = tokens.lengths
    longer = np.flatnonzero(whole > most) if cuts and most is not None else np.empty(0, np.int64)
    if len(longer):
        some = tokenizer.encode([[column[row] for row in longer] for column in columns], most)
        order = np.arange(len(whole))
        order[longer] = len(whole) + np.arange(len(longer))
        tokens = Tokens.joined([tokens, some])[order]
    return tokens, whole


def open_cache(source: Source, preprocess: Preprocess, progress: Progress) -> TokenCache | None:
    """The tokens of all texts of a source, made now where the cache has none: one process makes
    them, others wait for it. None where the source can't be known again without reading it, such as
    a data set in memory; and, with a warning, where there is no room for them.

    Raises SourceError for a row without a text.
    """
    key = _key(source, preprocess)
    if key is None:
        return None
    cache = LocalCache()
    place = cache.place / "tokens" / key
    try:
        os.makedirs(place.parent, exist_ok=True)
        lock = FileLock(f"{place}.lock")
        hold(place, lock)  # first of all, so that no other process removes it meanwhile
        with lock:
            kept = _opened(place, source, progress)
            if kept is None:
                _make(place, source, preprocess, cache, progress)
            os.utime(place / "about.json", (time.time(),) * 2)
            return kept or TokenCache(place / FILE)
    except (DiskFull, OSError) as error:
        progress.say(
            f"warning: texts are tokenised again whenever they are read, since their tokens can't "
            f"be kept: {error}"
        )
        return None


def _key(source: Source, preprocess: Preprocess) -> str | None:
    identity, table = source.table.identity, source.table
    if identity is not None:
        rows = identity.hash()
    elif isinstance(table, DatasetTable) and not source.live:
        rows = table.dataset._fingerprint  # of the Hub or save_to_disk: it is kept with the rows
    else:
        return None
    tokenizer, most, cuts = preprocess.tokenization
    known = [LAYOUT, rows, source.columns.inputs, tokenizer.hash, most if cuts else None,
             version("tokenizers"), version("transformers")]  # fmt: skip
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()[:32]


def _opened(place: Path, source: Source, progress: Progress) -> TokenCache | None:
    """What is there already; None where it is not whole."""
    if not (place / FILE).exists() or not (place / "about.json").exists():
        return None
    try:
        kept = TokenCache(place / FILE)
        if len(kept) == len(source) and kept.is_sound:
            return kept
    except Exception:  # of a damaged schema any kind
        pass
    progress.say(f"the tokens of {source.name} in the cache are damaged: they are made again")
    return None


def _make(
    place: Path, source: Source, preprocess: Preprocess, cache: LocalCache, progress: Progress
) -> None:
    place.mkdir(exist_ok=True)
    sweep_partials(place / FILE)
    name = preprocess.tokenization[0].name
    about = {"tokens": source.name, "tokenizer": name, "rows": len(source)}
    with appearing(place / "about.json") as file:  # first: what it is beside counts as the cache's
        file.write(json.dumps(about).encode())
    with _tidied(place), needing_space(str(place)), appearing(place / FILE) as file:
        room, done, writer = 0, 0, None
        with progress.bar("tokenise", len(source), "texts") as advance:
            for batch in _batches(source, preprocess, advance):
                writer = writer or pa.ipc.new_file(file, batch.schema)
                writer.write_batch(batch, {CRC: _Batch.of(batch).crc})
                done += len(batch)
                file.flush()  # for what is written to count
                if (written := file.tell()) > room:
                    room = max(2 * room, written * len(source) // done)
                    cache.make_room(room - written, f"tokens of {source.name}", [str(place)])
        assert writer is not None, "a source has at least one row"
        writer.close()


@contextmanager
def _tidied(place: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise


def _batches(source: Source, preprocess: Preprocess, advance: Advance) -> Iterator[pa.RecordBatch]:
    kinds = {IDS: pa.uint16() if preprocess.tokenization[0].largest < 1 << 16 else pa.int32()}
    blocks: list[tuple[np.ndarray, np.ndarray, Tokens]] = []
    rows = tokens = 0
    for block in source.blocks():
        assert isinstance(block.cells, Texts), "the source's kind says so"
        made, whole = encode(block.cells, preprocess)
        advance(len(block))
        more = int(made.lengths.sum())
        if blocks and (rows + len(block) > BATCH_ROWS or tokens + more > BATCH_TOKENS):
            yield _record(blocks, kinds)
            blocks, rows, tokens = [], 0, 0
        blocks.append((block.hashes, whole, made))
        rows, tokens = rows + len(block), tokens + more
    yield _record(blocks, kinds)


def _record(
    blocks: list[tuple[np.ndarray, np.ndarray, Tokens]], kinds: dict[str, pa.DataType]
) -> pa.RecordBatch:
    hashes, whole, made = zip(*blocks, strict=True)
    tokens = Tokens.joined(made)
    starts = pa.array(np.concatenate([[0], np.cumsum(tokens.lengths)]), pa.int32())
    columns = {HASH: pa.array(np.concatenate(hashes)), WHOLE: pa.array(np.concatenate(whole))}
    for name, values in tokens.columns.items():
        kept = pa.array(values).cast(kinds.get(name, pa.uint8()))  # which refuses what does not fit
        columns[name] = pa.ListArray.from_arrays(starts, kept)
    return pa.record_batch(columns)
