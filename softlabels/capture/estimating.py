"""What a dump will be, before it is begun: rows, shards and bytes by arithmetic, for `dump`; and
time too, from a measured sample, for `plan`."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from softlabels.capture.bottleneck import advice
from softlabels.capture.measuring import Left, sample_of
from softlabels.capture.planning import (
    Setup,
    make_plan,
    mean_input_bytes,
)
from softlabels.capture.preparing import prepare, prepare_siblings
from softlabels.capture.refusing import refuse_unstorable
from softlabels.capture.siblings import passes, with_common_shards
from softlabels.capture.timing import PARTS, READING, TEACHER, THE, WRITING
from softlabels.options import PlanOptions, verb
from softlabels.store.folder import Folder
from softlabels.store.records import Plan
from softlabels.system.humanize import counted, size_words, time_words
from softlabels.system.progress import Progress, Titled

SAMPLE_SECONDS, SAMPLE_BATCHES = 1.0, 8
PACKED_BYTES = 11  # of a row beside its logits: 8 of the input's hash; id, view and label, packed
PACKED_VIEWS = {
    "bool": 1 / 7, "uint8": 1, "int16": 1, "int32": 2, "float32": 4, "uint64": 0.2, "int64": 3,
    "string": 8, "list": 3,
}  # fmt: skip
CHUNK_BYTES = 100  # of what a footer says of a column in a row group
FOOTER_BYTES = 2600  # of a shard's file: the footer and the page index


@dataclass(frozen=True)
class Estimate:
    """What a dump would be.

    batch_size: rows in a forward pass
    rows, shards: to be dumped; shard_rows: the source's rows in a shard, each with all its views
    bytes: on disk; free: where they shall go, None for a remote folder
    seconds, rows_per_second: of the work, by this process
    reading, teacher, writing: rows/s of each alone
    bound: the slowest of them
    advice: what would make it faster, if an option does
    dumps: of several teachers the estimate of each, by its name, whose time is that of the pass
        which it shares; `out` is then the folder that holds their dumps, rows, shards, bytes and
        seconds are sums, and the rest is of the longest pass. Of one that is complete rows, shards,
        bytes and seconds are 0
    """

    out: str
    batch_size: int
    rows: int
    shards: int
    shard_rows: int
    bytes: int
    seconds: float
    rows_per_second: float
    free: int | None
    reading: float
    teacher: float
    writing: float
    bound: str
    advice: list[str]
    dumps: "dict[str, Estimate]" = field(default_factory=dict)

    def __repr__(self) -> str:
        return (
            f"Estimate({self.out}: {counted(self.rows, 'row')}, {counted(self.shards, 'shard')}, "
            f"{size_words(self.bytes)}, {time_words(self.seconds)}, bound by {self.bound})"
        )

    @property
    def facts(self) -> dict[str, str]:
        """For people, in the order in which they ask."""
        shards = f"{self.shards:,} of up to {self.shard_rows:,} source rows"
        facts = {"folder": self.out, "rows": f"{self.rows:,}"}
        for one in self.dumps.values():
            facts[one.out] = f"{counted(one.rows, 'row')}, about {size_words(one.bytes)}"
        facts |= {
            "batches": f"of {self.batch_size:,} rows",
            "shards": shards,
            "size": f"about {size_words(self.bytes)}",
            "time": f"{time_words(self.seconds)}, {self.rows_per_second:,.0f} rows/s",
        }
        alone = ", ".join(f"{part} {getattr(self, part):,.0f}" for part in PARTS)
        facts["alone"] = f"{alone} rows/s"
        facts["bound by"] = "; ".join([THE[self.bound], *self.advice])
        if self.free is not None:
            facts["free there"] = size_words(self.free)
        return facts

    @property
    def warnings(self) -> list[str]:
        return _too_small(self.bytes, self.free)


@verb(PlanOptions)
def plan(options: PlanOptions, progress: Progress) -> Estimate:
    """What `dump` with these options would be; nothing is written where it would go.

    A few batches are read, run through the teacher and encoded; of a dump that is there already,
    what is left counts. Raises what `dump` would raise.
    """
    if options.several:
        return _plan_several(options, progress)
    setup = prepare(options, progress)
    refuse_unstorable(setup)
    return _estimate([_left(setup, progress)])[0]


def _plan_several(options: PlanOptions, progress: Progress) -> Estimate:
    place, setups = prepare_siblings(options, progress)
    left: dict[str, Left] = {}
    for name, setup in with_common_shards(setups).items():
        refuse_unstorable(setup)
        left[name] = _left(setup, Titled(progress, name))
    todo = {name: one for name, one in left.items() if one.missing} or left
    jobs = {name: one.setup.job(one.plan) for name, one in todo.items()}
    groups = passes(jobs, "local", progress)
    by_pass = [_estimate([left[name] for name in names]) for names in groups]
    found = {
        name: estimate
        for names, estimates in zip(groups, by_pass, strict=True)
        for name, estimate in zip(names, estimates, strict=True)
    }
    longest = max((estimates[0] for estimates in by_pass), key=lambda one: one.seconds)
    dumps = {name: found.get(name) or _nothing(left[name], longest) for name in setups}
    return replace(
        longest,
        out=place,
        rows=sum(one.rows for one in dumps.values()),
        shards=sum(one.shards for one in dumps.values()),
        bytes=sum(one.bytes for one in dumps.values()),
        seconds=sum(estimates[0].seconds for estimates in by_pass),
        dumps=dumps,
    )


def _nothing(left: Left, beside: Estimate) -> Estimate:
    """Of a complete dump, beside others that are to be made."""
    return replace(
        beside, out=str(left.setup.folder), batch_size=left.setup.pace.batch_size, rows=0, shards=0,
        shard_rows=left.plan.shard_inputs, bytes=0, seconds=0.0,
    )  # fmt: skip


def _left(setup: Setup, progress: Progress) -> Left:
    folder, ledger = setup.folder, setup.ledger
    earlier = ledger.read_plan()
    plan = make_plan(setup, earlier)
    if earlier is None:
        return Left(setup, plan, list(range(plan.shards)))
    plan.check_same(earlier, folder)
    ledger.plan = plan
    missing = ledger.missing
    done = plan.shards - len(missing)
    progress.say(f"{folder} holds {done:,} of its {counted(plan.shards, 'shard')} already")
    return Left(setup, plan, missing)


def tell_sizes(lefts: Sequence[Left], progress: Progress) -> None:
    """Say what each of these dumps takes, before they begin, and whether there is room for all: by
    arithmetic, their bars tell the time."""
    sizes = [_tell_size(left, progress) for left in lefts if left.missing]
    for warning in _too_small(sum(sizes), _free(lefts[0].setup.folder)) if sizes else ():
        progress.say(warning)


def _tell_size(left: Left, progress: Progress) -> int:
    setup, plan, missing = left.setup, left.plan, left.missing
    inputs, free = plan.inputs_of(missing), _free(setup.folder)
    rows = inputs * len(plan.views)
    size = rows * _row_bytes(setup, plan) + len(missing) * _footer_bytes(plan)
    if plan.with_inputs:
        steps = setup.answers.preprocess
        size += inputs * mean_input_bytes(setup.source, plan.stored, steps)
    what = counted(rows, "row") + f" of {counted(inputs, 'input')}" * plan.has_views
    parts = [what, counted(len(missing), "shard"), f"about {size_words(size)}"]
    about = Titled(progress, setup.title) if setup.sibling else progress
    about.say(", ".join(parts) + (f", {size_words(free)} free" if free else ""))
    return size


def _row_bytes(setup: Setup, plan: Plan) -> int:
    """Of a row, in all columns but the input. Text ids, which pack to a third, are the first
    rows'."""
    texts = setup.source.ids[:64].tolist() if plan.ids == "string" else []
    ids = sum(map(len, texts)) // max(1, 3 * len(texts))
    views = sum(PACKED_VIEWS[kind] for kind in plan.view_columns.values())
    return round(plan.make_codec().row_bytes + PACKED_BYTES + views + ids)


def _footer_bytes(plan: Plan) -> int:
    names = plan.source.class_names or []
    groups = len(plan.group_sizes(min(plan.shard_inputs, plan.inputs) * len(plan.views)))
    of_views = CHUNK_BYTES * groups * len(plan.view_columns)
    return FOOTER_BYTES + of_views + 3 * sum(map(len, names))  # twice, and once in base64


def _estimate(lefts: Sequence[Left]) -> list[Estimate]:
    """Of dumps that are made in one pass."""
    batch = max(left.setup.pace.batch_size for left in lefts)
    source = lefts[0].setup.source
    sample = sample_of(lefts, batch)
    count = int(min(SAMPLE_BATCHES, SAMPLE_SECONDS / max(sample.seconds, 1e-6)))
    if count > 1 and len(source) > batch:
        sample = sample_of(lefts, batch * count)
    speed = sample.rows / max(sample.seconds, 1e-9)
    alone = {part: sample.rows / max(sample.alone[part], 1e-9) for part in PARTS}
    bound = min(alone, key=lambda part: alone[part])
    every = sorted({shard for left in lefts for shard in left.missing})
    plan = lefts[0].plan
    seconds = plan.inputs_of(every) * len(plan.views) / speed
    helps = advice(lefts[0].setup.job(plan), bound)
    estimates = []
    for left, (row_bytes, shard_bytes) in zip(lefts, sample.sizes, strict=True):
        rows = left.plan.inputs_of(left.missing) * len(left.plan.views)
        estimates.append(
            Estimate(
                out=str(left.setup.folder),
                batch_size=batch,
                rows=rows,
                shards=len(left.missing),
                shard_rows=left.plan.shard_inputs,
                bytes=round(rows * row_bytes + len(left.missing) * shard_bytes),
                seconds=seconds,
                rows_per_second=speed,
                free=_free(left.setup.folder),
                reading=alone[READING],
                teacher=alone[TEACHER],
                writing=alone[WRITING],
                bound=bound,
                advice=helps,
            )
        )
    return estimates


def _too_small(size: int, free: int | None) -> list[str]:
    if free is None or size <= free:
        return []
    return [
        f"warning: about {size_words(size)} are needed and {size_words(free)} are free; a dump "
        f"that fills the disk stops, and goes on with --resume"
    ]


def _free(folder: Folder) -> int | None:
    if not folder.is_local:
        return None
    place = Path(folder.root).absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free
