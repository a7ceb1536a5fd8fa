"""The records of a dump: its plan, one commit a shard, and the manifest made from them.

The plan is frozen before the first forward pass and hashed; the hash stands in every commit, in
every shard's footer and in the manifest, so that a stray file is known as one.
"""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar, get_origin, get_type_hints

from softlabels.errors import DamagedDump, IncompleteDump, PlanMismatch, StoreError
from softlabels.store.codec import DenseCodec, parse_codec
from softlabels.store.folder import Folder

FORMAT = "softlabels/1"
PLAN, MANIFEST, CARD = "plan.json", "softlabels.json", "README.md"

Record = TypeVar("Record", bound="Plan | Commit | Manifest")


@dataclass(frozen=True)
class Plan:
    """All that decides what a dump holds, and which rows each shard holds.

    teacher: name, kind, fingerprint, model; source: data, split, revision, columns, rows,
    fingerprint, class_names; ids: int64 or string.
    """

    teacher: dict[str, Any]
    source: dict[str, Any]
    preprocess: str
    precision: str
    views: list[str]
    codec: str
    dtype: str
    classes: int
    rows: int
    shard_rows: int
    group_rows: int
    ids: str
    with_inputs: bool
    format: str = FORMAT

    @property
    def shards(self) -> int:
        return max(1, math.ceil(self.rows / self.shard_rows))

    @property
    def hash(self) -> str:
        """`sha256:` of the plan's canonical JSON: sorted keys, no spaces, UTF-8."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()

    def bounds(self, shard: int) -> tuple[int, int]:
        """The source rows [start, stop) of a shard."""
        start = shard * self.shard_rows
        return start, min(start + self.shard_rows, self.rows)

    def file(self, shard: int) -> str:
        split = self.source["split"]
        return f"data/{split}-{shard:05d}-of-{self.shards:05d}.parquet"

    def make_codec(self) -> DenseCodec:
        return parse_codec(self.codec, self.classes, self.dtype)

    def check_same(self, other: "Plan", where: Folder) -> None:
        """Raises PlanMismatch that names each field in which `other`, found there, differs."""
        ours, theirs = _flatten(asdict(self)), _flatten(asdict(other))
        differing = [key for key in ours | theirs if ours.get(key) != theirs.get(key)]
        if differing:
            shown = "; ".join(
                f"{key} is {ours.get(key)!r} and was {theirs.get(key)!r}" for key in differing[:4]
            )
            raise PlanMismatch(
                f"{where} holds a dump made otherwise: {shown}. Choose another folder with --out, "
                f"or remove that one"
            )


@dataclass(frozen=True)
class Commit:
    """One finished shard: its file as written, statistics of its logits, what was left out."""

    shard: int
    plan: str
    file: str
    rows: int
    bytes: int
    sha256: str
    statistics: dict[str, Any]
    skipped: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Manifest:
    """A complete dump. Derived from the plan and the commits, and written last."""

    plan_hash: str
    plan: dict[str, Any]
    rows: int
    bytes: int
    shards: list[dict[str, Any]]
    statistics: dict[str, Any]
    skipped: list[dict[str, Any]]
    created: str
    versions: dict[str, str]
    format: str = FORMAT

    @classmethod
    def derive(cls, plan: Plan, commits: list[Commit], versions: dict[str, str]) -> "Manifest":
        return cls(
            plan_hash=plan.hash,
            plan=asdict(plan),
            rows=sum(c.rows for c in commits),
            bytes=sum(c.bytes for c in commits),
            shards=[
                {"file": c.file, "rows": c.rows, "bytes": c.bytes, "sha256": c.sha256}
                for c in commits
            ],
            statistics=merge_statistics([c.statistics for c in commits]),
            skipped=[entry for c in commits for entry in c.skipped],
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            versions=versions,
        )


def commit_name(shard: int) -> str:
    return f"commits/{shard:05d}.json"


def read_plan(folder: Folder) -> Plan | None:
    """The plan in this folder; None where there is none. Raises DamagedDump if unreadable."""
    if not folder.exists(PLAN):
        return None
    return make_record(Plan, folder.read_json(PLAN), f"{folder}/{PLAN}")


def read_commit(folder: Folder, plan: Plan, shard: int) -> Commit | None:
    """The commit of a shard if it belongs to this plan and its file is there in full size."""
    name = commit_name(shard)
    if not folder.exists(name):
        return None
    commit = make_record(Commit, folder.read_json(name), f"{folder}/{name}")
    belongs = commit.plan == plan.hash and commit.file == plan.file(shard)
    if belongs and folder.exists(commit.file) and folder.size(commit.file) == commit.bytes:
        return commit
    return None


def read_manifest(folder: Folder) -> tuple[Manifest, Plan]:
    """Raises IncompleteDump where shards are missing, StoreError where there is no dump."""
    if not folder.exists(MANIFEST):
        plan = read_plan(folder)
        if plan is None:
            what = "has no dump in it" if folder.exists() else "does not exist"
            raise StoreError(f"{folder} {what}; make one with softlabels dump --out {folder}")
        done = sum(read_commit(folder, plan, i) is not None for i in range(plan.shards))
        raise IncompleteDump(
            f"{folder} holds an unfinished dump: {done} of {plan.shards} shards are committed. "
            f"Finish it with the same softlabels dump command and --resume"
        )
    manifest = make_record(Manifest, folder.read_json(MANIFEST), f"{folder}/{MANIFEST}")
    plan = make_record(Plan, manifest.plan, f"{folder}/{MANIFEST}, plan")
    if plan.hash != manifest.plan_hash:
        raise DamagedDump(f"{folder}/{MANIFEST}: the plan's hash is {plan.hash}, not as recorded")
    return manifest, plan


def make_record(kind: type[Record], value: Any, where: str) -> Record:
    """A record from JSON, its fields checked by name and type. Raises DamagedDump."""
    if not isinstance(value, dict):
        raise DamagedDump(f"{where} is {type(value).__name__}, not an object")
    if kind is not Commit and value.get("format") != FORMAT:
        raise DamagedDump(
            f"{where} has the format {value.get('format')!r}; this softlabels reads {FORMAT}"
        )
    hints = get_type_hints(kind)
    try:
        record = kind(**{name: value[name] for name in hints if name in value})
    except TypeError as error:
        raise DamagedDump(f"{where} lacks fields: {error}") from error
    for name, hint in hints.items():
        held, wanted = getattr(record, name), get_origin(hint) or hint
        if type(held) is not wanted or (wanted is int and held < 0):
            raise DamagedDump(f"{where}: {name} is {held!r}, expected {wanted.__name__}")
    return record


def merge_statistics(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Statistics of several disjoint sets of rows as those of all; see `store.statistics`."""
    parts = [part for part in parts if part["rows"]]
    rows = sum(part["rows"] for part in parts)
    if not rows:
        return {"rows": 0}
    labelled = sum(part["labelled"] for part in parts)
    merged = {
        "rows": rows,
        "labelled": labelled,
        "correct": sum(part["correct"] for part in parts),
        "min": min(part["min"] for part in parts),
        "max": max(part["max"] for part in parts),
        "mean": sum(part["mean"] * part["rows"] for part in parts) / rows,
        "entropy": sum(part["entropy"] * part["rows"] for part in parts) / rows,
    }
    if labelled:
        merged["accuracy"] = merged["correct"] / labelled
    return merged


def _flatten(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, dict):
            flat |= _flatten(item, f"{prefix}{key}.")
        else:
            flat[prefix + key] = item
    return flat
