"""The records of a dump: one commit a shard, and the manifest made from them and the plan.

These models are the format: `python -m tests.make_schema` writes softlabels-1.schema.json from
them, and the description of a field ends the error message about it. A field of the plan that is
unknown is refused, since all of the plan decides what the rows are; elsewhere it is ignored. A
field with a default is left out of a file where it has that value.
"""

import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Literal, Self

from pydantic import FailFast, Field, model_validator

from softlabels.store.fields import (
    FORMAT,
    Count,
    Hash,
    Int64,
    Number,
    Record,
    Rows,
    Sha256,
    ShardFile,
    ShortHash,
    Size,
    Text,
)
from softlabels.store.plan import Plan
from softlabels.store.plan_parts import MAX_SHARDS
from softlabels.system.humanize import counted, size_words


class Statistics(Record):
    """Statistics of stored logits."""

    rows: Rows = Field(description="the number of these rows")
    labelled: Count = Field(
        description="the number of them, or of their positions where these are given, that have a "
        "label"
    )
    correct: Count = Field(
        description="the number of those whose largest logit is at their label, or at one of them"
    )
    positives: Count | None = Field(
        default=None,
        description="the number of labels that those have in all; left out where each has one",
    )
    min: Number | None = Field(
        default=None, description="the smallest logit; left out where not all are stored"
    )
    max: Number | None = Field(
        default=None, description="the largest logit; left out where not all are stored"
    )
    mean: Number | None = Field(
        default=None, description="the mean of all logits; left out where not all are stored"
    )
    positions: Count | None = Field(
        default=None,
        description="the number of their positions; left out where each row has one",
    )
    entropy: Number = Field(description="the mean entropy of the soft targets at T = 1, in nats")
    accuracy: Number | None = Field(
        default=None, description="correct / labelled; left out where no row is labelled"
    )
    kl: Number | None = Field(
        default=None,
        description="the mean KL(teacher, stored) at T = 1 in nats, where a pilot measured the "
        "codec's; left out elsewhere",
    )
    kl_most: Number | None = Field(
        default=None, description="the largest such mean of a shard; left out where kl is"
    )
    unturned: Count = Field(
        default=0,
        description="the number of pictures that the teacher saw as stored, though their EXIF "
        "orientation says to turn them; left out where there are none",
    )
    unmixed: Count = Field(
        default=0,
        description="the number of rows of mixed views that are not mixed, since their partner "
        "could not be read; left out where there are none",
    )
    truncated: Count = Field(
        default=0,
        description="the number of texts of which the teacher saw the beginning alone; left out "
        "where there are none",
    )
    tokens: Count = Field(
        default=0,
        description="the number of tokens that the teacher read of these rows' texts; left out "
        "where it reads none",
    )
    padding: Count = Field(
        default=0,
        description="the number of positions of padding that filled up their batches; left out "
        "where there are none",
    )

    @property
    def scored(self) -> int:
        """How many positions these are statistics of: one a row, unless `positions` is given."""
        return self.rows if self.positions is None else self.positions

    @property
    def padded(self) -> str:
        """The share of padding that a teacher of texts read, in words."""
        read = self.tokens + self.padding
        return f"{self.padding / read:.1%} of {read:,} positions"

    @property
    def positions_each(self) -> float:
        """How many positions a row has, on average."""
        return self.scored / self.rows

    @property
    def unit(self) -> str:
        """What is counted by `labelled` and `correct`: a `row` or a `position`."""
        return "row" if self.positions is None else "position"

    @classmethod
    def merge(cls, parts: "list[Statistics]") -> "Statistics | None":
        """Those of several disjoint sets of rows as those of all; None for no rows."""
        rows = sum(part.rows for part in parts)
        if not rows:
            return None
        weights = [part.scored for part in parts]
        positions, correct = sum(weights), sum(part.correct for part in parts)
        labelled = sum(part.labelled for part in parts)
        return cls(
            rows=rows,
            positions=positions if positions != rows else None,
            labelled=labelled,
            correct=correct,
            positives=_sum([part.positives for part in parts]),
            min=_all([part.min for part in parts], min),
            max=_all([part.max for part in parts], max),
            mean=_all([part.mean for part in parts], lambda means: _mean(means, weights)),
            entropy=_mean([part.entropy for part in parts], weights),
            accuracy=correct / labelled if labelled else None,
            kl=_all([part.kl for part in parts], lambda means: _mean(means, weights)),
            kl_most=_all([part.kl_most for part in parts], max),
            unturned=sum(part.unturned for part in parts),
            unmixed=sum(part.unmixed for part in parts),
            truncated=sum(part.truncated for part in parts),
            tokens=sum(part.tokens for part in parts),
            padding=sum(part.padding for part in parts),
        )

    def agrees(self, other: "Statistics") -> bool:
        """Whether both are those of the same rows: another program may have added the same numbers
        in another order."""
        ours, theirs = self.as_json, other.as_json
        return ours.keys() == theirs.keys() and all(
            math.isclose(ours[name], theirs[name], rel_tol=1e-6, abs_tol=1e-6) for name in ours
        )


def _all(values: list[float | None], combine: Callable[[list[float]], float]) -> float | None:
    known = [value for value in values if value is not None]
    return combine(known) if len(known) == len(values) else None


def _sum(values: list[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _mean(values: list[float], weights: list[int]) -> float:
    total = sum(value * weight for value, weight in zip(values, weights, strict=True))
    return total / sum(weights)


class Skipped(Record):
    """A row that was left out."""

    id: Int64 | Text = Field(description="the row's id")
    row: Rows = Field(description="the row's number in the source")
    input_hash: int = Field(
        ge=0, lt=2**64, description="the input's hash, a whole number from 0 to 2^64 - 1"
    )
    label: Int64 | list[Int64] | None = Field(
        description="the row's label or label_source, -1 for none; where rows have several, a list "
        "of their numbers, null where they are unknown"
    )
    reason: Text = Field(description="the reason why it was left out")


class ShardRecord(Record):
    """A shard, as its commit has it."""

    file: ShardFile
    rows: Rows = Field(description="the number of rows in it")
    bytes: Count = Field(description="the file's size in bytes")
    sha256: Sha256
    fingerprint: ShortHash = Field(
        description="the short fingerprint of the source's rows that it was made from"
    )


class Commit(ShardRecord):
    """commits/NNNNN.json: one finished shard."""

    shard: Count = Field(description="the shard's number, from 0")
    plan: Hash = Field(description="the plan's hash")
    statistics: Statistics | None = Field(
        description="statistics of its logits: an object, or null where it has no rows"
    )
    skipped: Annotated[list[Skipped], FailFast()] = Field(
        description="the rows that were left out: a list"
    )
    at_once: Size | None = Field(
        default=None,
        description="the most rows that went through the teacher at once, the fewest where memory "
        "ran out in between; left out where no teacher ran",
    )
    device: Text | None = Field(
        default=None, description="what the teacher ran on; left out where none ran"
    )

    @property
    def record(self) -> ShardRecord:
        """What the manifest keeps of it."""
        return ShardRecord(**{name: getattr(self, name) for name in ShardRecord.model_fields})


class Manifest(Record):
    """softlabels.json: a complete dump. Derived from the plan and the commits, and written last."""

    plan_hash: Hash = Field(description="the plan's hash")
    plan: Plan = Field(description="the plan: an object")
    rows: Rows = Field(description="the rows of all shards")
    bytes: Count = Field(description="the bytes of all shards")
    shards: Annotated[list[ShardRecord], FailFast()] = Field(
        max_length=MAX_SHARDS, description="the shards in order: a list, of 200,000 at most"
    )
    statistics: Statistics | None = Field(
        description="statistics of all logits: an object, or null where there are no rows"
    )
    skipped: Annotated[list[Skipped], FailFast()] = Field(
        description="the rows that were left out: a list"
    )
    created: str = Field(
        pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}"
        r"(T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?(Z|\+00:00))?$",
        max_length=40,
        description="the date, or the time in UTC, such as 2026-01-31T12:00:00+00:00",
    )
    versions: dict[str, Text] = Field(
        max_length=100, description="versions of the programs that made it, by name: an object"
    )
    format: Literal["softlabels/1"] = Field(description="the version of the format: softlabels/1")

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        """Numbers that a schema can't hold against each other."""
        for name in ("rows", "bytes"):
            value, total = getattr(self, name), sum(getattr(shard, name) for shard in self.shards)
            if value != total:
                raise ValueError(f"{name} is {value}, and that of all shards is {total}")
        views = len(self.plan.views)
        for index, shard in enumerate(self.shards):
            if shard.rows % views:
                raise ValueError(
                    f"shards[{index}].rows is {shard.rows}, of {views} views no whole number of "
                    f"inputs"
                )
        return self

    def __repr__(self) -> str:
        rows = f"{counted(self.rows, 'row')} × {self.plan.classes:,} classes"
        return f"Manifest({rows}, {counted(len(self.shards), 'shard')}, {size_words(self.bytes)})"

    @property
    def inputs(self) -> int:
        """The inputs whose views the rows are."""
        return self.rows // len(self.plan.views)

    @property
    def accuracy(self) -> float | None:
        """The teacher's, of the labelled rows; None where there are none."""
        return self.statistics.accuracy if self.statistics else None

    @classmethod
    def derive(cls, plan: Plan, commits: list[Commit], versions: dict[str, str]) -> "Manifest":
        return cls(
            plan_hash=plan.hash,
            plan=plan,
            rows=sum(c.rows for c in commits),
            bytes=sum(c.bytes for c in commits),
            shards=[c.record for c in commits],
            statistics=Statistics.merge([c.statistics for c in commits if c.statistics]),
            skipped=[entry for c in commits for entry in c.skipped],
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            versions=versions,
            format=FORMAT,
        )

    def agrees(self, other: "Manifest") -> bool:
        """Whether both tell the same, whenever and by whatever versions they were written."""
        ours, theirs = self.statistics, other.statistics
        close = ours.agrees(theirs) if ours and theirs else ours == theirs
        others = {name: getattr(other, name) for name in ("created", "versions", "statistics")}
        return close and self.model_copy(update=others) == other
