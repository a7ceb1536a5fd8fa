"""The records of a dump: its plan, one commit a shard, and the manifest made from them.

The plan is frozen before the first forward pass and hashed; the hash stands in every commit, in
every shard's footer and in the manifest, so that a stray file is known as one.
"""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from softlabels.errors import PlanMismatch
from softlabels.store.codecs.codec import Codec
from softlabels.store.codecs.registry import parse_codec
from softlabels.store.statistics import merge_statistics

FORMAT = "softlabels/1"


@dataclass(frozen=True)
class Plan:
    """All that decides what a dump holds, and which rows each shard holds.

    teacher: name, kind, fingerprint, model; source: data, origin, split, revision, columns, rows,
    fingerprint, shards (the short fingerprint of each shard's rows), class_names; ids: int64 or
    string; batch_size: None, or the rows in a batch where the teacher's answers may depend on it.
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
    batch_size: int | None
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

    def rows_of(self, shards: list[int]) -> int:
        """How many source rows these shards hold."""
        return sum(stop - start for start, stop in map(self.bounds, shards))

    def file(self, shard: int) -> str:
        split = self.source["split"]
        return f"data/{split}-{shard:05d}-of-{self.shards:05d}.parquet"

    def make_codec(self) -> Codec:
        return parse_codec(self.codec, self.classes, self.dtype)

    def named_as(self, other: "Plan") -> "Plan":
        """This plan with the other's names for the same teacher and the same data: where a file
        lies, and what it is called, decides nothing."""
        teacher, source = self.teacher, self.source
        if teacher["fingerprint"] == other.teacher["fingerprint"]:
            teacher = teacher | {"name": other.teacher["name"]}
        if source["fingerprint"] == other.source["fingerprint"]:
            kept = {name: other.source[name] for name in ("data", "origin", "revision")}
            source = source | kept
        return replace(self, teacher=teacher, source=source)

    def check_same(self, other: "Plan", where: object) -> None:
        """Raises PlanMismatch that names each field in which `other`, found there, differs."""
        differing = self._differences(other)
        if differing:
            raise PlanMismatch(
                f"{where} holds a dump made otherwise: {'; '.join(differing[:4])}. Give the "
                f"options that it was made with, or choose another folder with --out"
            )

    def _differences(self, other: "Plan") -> list[str]:
        ours, theirs = _flatten(asdict(self)), _flatten(asdict(other))
        mine, found = ours.pop("source.shards"), theirs.pop("source.shards", None)
        told = [
            f"{key} is {_shown(ours.get(key))} and was {_shown(theirs.get(key))}"
            for key in ours | theirs
            if ours.get(key) != theirs.get(key)
        ]
        if mine != found and isinstance(found, list) and self.shard_rows == other.shard_rows:
            shards = [i for i in range(max(len(mine), len(found))) if mine[i:][:1] != found[i:][:1]]
            start, stop = self.bounds(shards[0])
            told.append(
                f"the source's rows {start:,} to {stop - 1:,} differ (shard {shards[0]}"
                + (f", and {len(shards) - 1} more shards)" if shards[1:] else ")")
            )
        return told


@dataclass(frozen=True)
class Commit:
    """One finished shard: its file as written, statistics of its logits, and what was left out
    (id, row in the source, input_hash, label, reason)."""

    shard: int
    plan: str
    file: str
    rows: int
    bytes: int
    sha256: str
    statistics: dict[str, Any]
    skipped: list[dict[str, Any]]

    @property
    def record(self) -> dict[str, Any]:
        """What the manifest keeps of it."""
        return {"file": self.file, "rows": self.rows, "bytes": self.bytes, "sha256": self.sha256}


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
            shards=[c.record for c in commits],
            statistics=merge_statistics([c.statistics for c in commits]),
            skipped=[entry for c in commits for entry in c.skipped],
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            versions=versions,
        )

    def agrees(self, other: "Manifest") -> bool:
        """Whether both tell the same, whenever and by whatever versions they were written. Another
        program may have added the same numbers in another order."""
        ours, theirs = self.statistics, other.statistics
        close = ours.keys() == theirs.keys() and all(
            math.isclose(ours[name], theirs[name], rel_tol=1e-6, abs_tol=1e-6) for name in ours
        )
        others = {name: getattr(other, name) for name in ("created", "versions", "statistics")}
        return close and replace(self, **others) == other


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}…"


def _flatten(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, dict):
            flat |= _flatten(item, f"{prefix}{key}.")
        else:
            flat[prefix + key] = item
    return flat
