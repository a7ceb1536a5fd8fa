"""Whether the files of a dump are what their records say. Reads everything; writes nothing.

Shapes: N rows of a row group, C classes.
"""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np
import pyarrow.parquet as pq

from softlabels.errors import DamagedDump, SoftlabelsError
from softlabels.inputs.cells import read_ids
from softlabels.inputs.hashing import Fingerprint
from softlabels.store.folder import Folder
from softlabels.store.pages import logits_chunk, plain_values
from softlabels.store.reader import PARQUET_ERRORS, check_footer, read_columns
from softlabels.store.records import Commit, Plan

CHUNK = 1 << 20


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be."""

    file: str
    problem: str
    redone: bool = True  # whether --resume mends it

    def __str__(self) -> str:
        return f"{self.file}: {self.problem}"


@dataclass
class Checked:
    """What one shard's file said. `planned` are ids, input hashes and labels of the source rows
    that the plan gives it, those that were left out among them; None where something is wrong."""

    shard: int
    findings: list[Finding] = field(default_factory=list)
    planned: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
    read: int = 0  # bytes
    labelled: int = 0
    correct: int = 0


def check_shards(
    folder: Folder, plan: Plan, commits: list[Commit], workers: int
) -> Iterator[Checked]:
    """`check_shard` of several shards at once, in order."""
    with ThreadPoolExecutor(workers, thread_name_prefix="check") as pool:
        waiting = []
        for commit in commits:
            waiting.append(pool.submit(check_shard, folder, plan, commit))
            if len(waiting) > 2 * workers:
                yield waiting.pop(0).result()
        for future in waiting:
            yield future.result()


def check_shard(folder: Folder, plan: Plan, commit: Commit) -> Checked:
    """Size, SHA-256, footer, rows against the plan's fingerprint, finite values."""
    found = Checked(commit.shard)

    def report(problem: str) -> Checked:
        found.findings.append(Finding(commit.file, problem))
        return found

    try:
        size = folder.size(commit.file)
        if size != commit.bytes:
            longer = "longer than" if size > commit.bytes else "truncated: less than"
            return report(f"has {size:,} bytes, {longer} the recorded {commit.bytes:,}")
        with folder.local(commit.file) as path:
            digest = sha256_of(path)
            found.read = size
            if digest != commit.sha256:
                return report(_whose(path, plan, commit))
            _check_content(path, plan, commit, found)
    except FileNotFoundError:
        return report("is missing")
    except PermissionError as error:
        found.findings.append(Finding(commit.file, f"can't be read: {error.strerror}", False))
    except (SoftlabelsError, *PARQUET_ERRORS) as error:
        return report(str(error))
    return found


def whose_shard(path: IO[bytes] | str, plan: Plan) -> int | None:
    """The shard of this plan that a file's footer says it is; None for any other file."""
    try:
        footer = pq.read_schema(path).metadata or {}
        if footer.get(b"softlabels.plan") == plan.hash.encode():
            return int(footer.get(b"softlabels.shard", b""))
    except PARQUET_ERRORS:
        pass
    return None


def top_and_finite(values_NC: np.ndarray) -> tuple[np.ndarray, int | None]:
    """The top class of each row, int64 [N], and the first row that is not finite, if any.

    float16 is compared as whole numbers in the same order, since numpy has no fast float16.
    """
    if values_NC.dtype != np.float16:
        bad = np.flatnonzero(~np.isfinite(values_NC).all(-1))
        return values_NC.argmax(-1), int(bad[0]) if len(bad) else None
    bits_NC = values_NC.view(np.int16)
    magnitude_NC = bits_NC & np.int16(0x7FFF)
    first = None
    if magnitude_NC.size and magnitude_NC.max() >= 0x7C00:
        first = int(np.flatnonzero((magnitude_NC >= 0x7C00).any(-1))[0])
    order_NC = bits_NC ^ ((bits_NC >> 15) & np.int16(0x7FFF))
    return order_NC.argmax(-1), first


def _check_content(path: str, plan: Plan, commit: Commit, found: Checked) -> None:
    labelled = plan.source["columns"]["label"] is not None
    columns = ["id", "view", "input_hash"] + ["label"] * labelled
    table = read_columns(path, plan, commit.shard, commit.rows, columns)
    ids = read_ids(table["id"], "id")
    labels = table["label"].to_numpy() if labelled else np.full(len(ids), -1)
    strange = np.flatnonzero((labels < -1) | (labels >= plan.classes))
    if len(strange):
        row = strange[0]
        raise DamagedDump(
            f"the label of the row with id {ids[row]!s} is {labels[row]}; expected is one of the "
            f"{plan.classes} classes, from 0 on, or -1 for none"
        )
    if table["view"].to_numpy().any():
        raise DamagedDump("it has rows of other views than the plan's")
    start = 0
    for values_NC in _row_groups(path, plan, commit):
        top_N, bad = top_and_finite(values_NC)
        if bad is not None:
            raise DamagedDump(f"the logits of the row with id {ids[start + bad]!s} are not finite")
        known_N = labels[start : start + len(top_N)]
        found.labelled += int((known_N >= 0).sum())
        found.correct += int((known_N == top_N).sum())
        start += len(values_NC)
    if start != commit.rows:
        raise DamagedDump(f"it has the logits of {start} rows, expected are {commit.rows}")
    planned = _planned(plan, commit, ids, table["input_hash"].to_numpy(), labels)
    told = commit.statistics
    if told.get("rows") and (told["labelled"], told["correct"]) != (found.labelled, found.correct):
        raise DamagedDump(
            f"its record tells of {told['correct']:,} right answers of {told['labelled']:,}; the "
            f"logits give {found.correct:,} of {found.labelled:,}"
        )
    found.planned = planned


def _planned(
    plan: Plan, commit: Commit, ids: np.ndarray, hashes: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Stored rows and those that were left out, in the source's order. Raises DamagedDump where
    they are not the ones of which the plan keeps a fingerprint."""
    start, stop = plan.bounds(commit.shard)
    skipped = commit.skipped
    if len(ids) + len(skipped) != stop - start:
        raise DamagedDump(
            f"it has {len(ids)} rows and {len(skipped)} left out; the plan gives it {stop - start}"
        )
    places = {entry["row"] for entry in skipped}
    if len(places) < len(skipped) or any(not start <= row < stop for row in places):
        raise DamagedDump("the rows that were left out of it are not rows of it")
    planned = (
        _put_back(ids, skipped, start, "id"),
        _put_back(hashes, skipped, start, "input_hash"),
        _put_back(labels, skipped, start, "label"),
    )
    fingerprint = Fingerprint()
    fingerprint.update(*planned)
    if fingerprint.short != plan.source["shards"][commit.shard]:
        raise DamagedDump(
            f"its ids, input hashes or labels are not those of the source's rows {start:,} to "
            f"{stop - 1:,}"
        )
    return planned


def _row_groups(path: str, plan: Plan, commit: Commit) -> Iterator[np.ndarray]:
    """The logits of each row group, [N, C]: read in place where they lie as one run of bytes,
    decoded elsewhere."""
    codec = plan.make_codec()
    with pq.ParquetFile(path, page_checksum_verification=True) as parquet, open(path, "rb") as file:
        check_footer(parquet, plan, commit.shard, commit.rows)
        for index in range(parquet.metadata.num_row_groups):
            group = parquet.metadata.row_group(index)
            offset = plain_values(file, logits_chunk(group), group.num_rows, codec.row_bytes)
            if offset is None:
                yield codec.decode(parquet.read_row_group(index, columns=["logits"])["logits"])
                continue
            file.seek(offset)
            values = np.fromfile(file, plan.dtype, group.num_rows * plan.classes)
            yield values.reshape(group.num_rows, plan.classes)


def sha256_of(path: str) -> str:
    """Of a file's bytes, in hex."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(CHUNK))
    with open(path, "rb", buffering=0) as file:
        while read := file.readinto(buffer):
            digest.update(buffer[:read])
    return digest.hexdigest()


def _whose(path: str, plan: Plan, commit: Commit) -> str:
    """What a file of the right size and the wrong hash is."""
    try:
        with pq.ParquetFile(path) as parquet:
            check_footer(parquet, plan, commit.shard, commit.rows)
    except (DamagedDump, *PARQUET_ERRORS) as error:
        return f"is not the file that was written: {error}"
    return "has other bytes than were written (SHA-256 differs)"


def _put_back(
    stored: np.ndarray, skipped: list[dict[str, Any]], start: int, name: str
) -> np.ndarray:
    """Stored values with those of the rows that were left out, in the source's order."""
    if not skipped:
        return stored
    entries = sorted(skipped, key=lambda entry: int(entry["row"]))
    kind = np.str_ if stored.dtype.kind == "U" else stored.dtype
    values = np.array([entry[name] for entry in entries], dtype=kind)
    places = np.array([entry["row"] - start for entry in entries])
    whole = np.empty(len(stored) + len(values), np.result_type(stored.dtype, values.dtype))
    kept = np.ones(len(whole), bool)
    kept[places] = False
    whole[places], whole[kept] = values, stored
    return whole
