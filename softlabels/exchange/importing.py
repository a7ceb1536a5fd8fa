"""The verb `import`: a complete dump from logits that another program stored.

The rows are the source's, with its ids, labels and input hashes; the file's rows are matched with
them by id. How an import is planned, resumed and finished is what a dump does, since it is one.
Shapes: N rows of a block, C classes.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from softlabels.capture.pipeline import Job, input_column
from softlabels.capture.planning import Setup, default_name
from softlabels.capture.refusing import refuse_unstorable
from softlabels.capture.resuming import begin, finish, is_complete, look_at, settle, withdraw
from softlabels.errors import (
    DamagedDump,
    DiskFull,
    LogitsError,
    PlanMismatch,
    StoreError,
)
from softlabels.exchange.ids import match
from softlabels.exchange.matching import Match, check_match, tell
from softlabels.exchange.opening import open_foreign
from softlabels.inputs.opening import open_source
from softlabels.inputs.preprocessing import choose
from softlabels.inputs.sources import Rows
from softlabels.logits import check_temperature
from softlabels.options import DumpOptions, ImportOptions, make_options, verb
from softlabels.places.folders import open_folder
from softlabels.reports.doubts import doubts
from softlabels.store.claims import claimed, new_run
from softlabels.store.ledger import Ledger
from softlabels.store.records import Manifest, Plan, Skipped
from softlabels.store.shard_check import check_shards
from softlabels.store.writer import ShardWriter, shard_schema
from softlabels.system.humanize import counted, size_words
from softlabels.system.progress import Progress
from softlabels.teachers import Teacher
from softlabels.teachers.teacher import suggest_name

ENDINGS = (".npy", ".npz", ".pt", ".pth")


@dataclass(frozen=True)
class Imported:
    """Where the dump is, and its manifest."""

    out: str
    manifest: Manifest

    def __repr__(self) -> str:
        size = f"{counted(self.manifest.rows, 'row')}, {size_words(self.manifest.bytes)}"
        return f"Imported({self.out}: {size})"


@verb(ImportOptions)
def import_logits(options: ImportOptions, progress: Progress) -> Imported:
    """A complete dump from a file of logits.

    Raises SourceError or UntrustedPickle for a file that can't be read, AlignmentError where its
    rows are not the source's, LogitsError for values that must not be stored, and StoreError,
    PlanMismatch, FolderInUse or DiskFull for the folder. Shards that were committed before stay,
    and `resume=True` goes on from there.
    """
    check_temperature(options.T)
    source = open_source(
        options.data,
        options.split,
        revision=options.revision,
        input_column=options.input_column,
        label_column=options.label_column,
        id_column=options.id_column,
        progress=progress,
    )
    foreign = open_foreign(options, source.class_names)
    places, how = match(foreign, Path(options.ids) if options.ids else None, source, options.file)
    matched = Match(options, foreign, source, places)
    check_match(matched)
    told = tell(matched, how)
    progress.say(f"{options.file}: {foreign.rows:,} rows of {foreign.classes:,} classes; {told}")
    if foreign.unproven:
        progress.say(
            f"warning: {options.file}: {foreign.unproven}. If augmentation or mixup was on, "
            f"students will learn wrong targets: save the logits again with both off"
        )
    setup = _setup(matched, told)
    refuse_unstorable(setup)
    named = suggest_name(setup.teacher.name) if options.name is None else []
    for remark in (*setup.remarks, *named):
        progress.say(remark)
    try:
        with claimed(setup.folder, new_run(), progress=progress):
            return _import(setup, matched, progress)
    except DiskFull as error:
        raise DiskFull(f"{error}. Make room, then run the same command with --resume") from error


def _setup(matched: Match, told: str) -> Setup:
    """The dump that an import becomes: of a teacher that never runs here. So an import is planned,
    resumed and finished as a dump is."""
    options, foreign, source = matched.options, matched.foreign, matched.source
    name = options.name or _default_name(Path(os.path.expanduser(options.file)).resolve())
    teacher = Teacher(
        name=name,
        kind="imported",
        module=torch.nn.Identity(),
        spec=told,
        fingerprint=foreign.fingerprint,
    )
    chosen = choose(source, options.preprocess)
    return Setup(
        options=make_options(
            DumpOptions,
            {
                "teacher": options.file,
                "name": options.name,
                "shard_rows": options.shard_rows,
                "dtype": options.dtype or ("float32" if options.probabilities else foreign.dtype),
                "store_inputs": options.store_inputs,
            },
        ),
        teacher=teacher,
        source=source,
        preprocess=chosen.preprocess,
        classes=foreign.classes,
        class_names=source.class_names,
        ledger=Ledger(open_folder(options.out or f"data/{default_name(source, teacher)}")),
        device=torch.device("cpu"),
        remarks=[f"{chosen}, for students"],
    )


def _default_name(file: Path) -> str:
    """What is before the ending; other dots belong to the name."""
    name = file.name
    for ending in ENDINGS:
        if name.lower().endswith(ending):
            name = name[: -len(ending)]
    return name or "logits"


def _import(setup: Setup, matched: Match, progress: Progress) -> Imported:
    options, folder = matched.options, setup.folder
    _check_words(setup)
    plan = begin(setup, options.resume, progress)
    job = setup.job(plan)
    missing = _missing(job, options, progress)
    if missing is None:
        progress.say(f"{folder} is complete already; nothing to do")
        return Imported(str(folder), setup.ledger.complete())
    _run(job, matched, missing, progress)
    manifest = finish(job)
    if manifest is None:
        raise StoreError(f"{setup.ledger.state}, the others vanished; use --resume")
    for doubt in doubts(manifest, plan):
        progress.say(f"warning: {doubt}")
    return Imported(str(folder), manifest)


def _check_words(setup: Setup) -> None:
    """Raises PlanMismatch where the folder's plan took the same file in another way. All of the
    ways stand in one field of the plan; here just those that differ are named."""
    with suppress(DamagedDump):
        earlier = setup.ledger.read_plan()
        teacher = setup.teacher
        if earlier is None or earlier.teacher.fingerprint != teacher.fingerprint:
            return
        ours, theirs = str(teacher.spec).split("; "), str(earlier.teacher.model).split("; ")
        if ours == theirs:
            return
        now = "; ".join(part for part in ours if part not in theirs) or "nothing more"
        then = "; ".join(part for part in theirs if part not in ours) or "nothing more"
        raise PlanMismatch(
            f"{setup.folder} holds an import of the same file made otherwise. Now: {now}; then: "
            f"{then}. Give the options that it was made with, or choose another folder with --out"
        )


def _missing(job: Job, options: ImportOptions, progress: Progress) -> list[int] | None:
    """The shards to be written; None where there is nothing to do. Raises StoreError for damage
    that --resume would mend."""
    folder, plan, ledger = job.folder, job.plan, job.ledger
    done = ledger.commits
    redo: list[int] = []
    if options.resume:
        redo = look_at(job, list(done), options.check, progress)
    elif options.check == "full":
        for checked in check_shards(folder, plan, list(done.values()), job.workers):
            for finding in checked.findings:
                raise StoreError(f"{folder}: {finding}. Add --resume to make such shards again")
    missing = settle(job, redo, progress)
    if missing and options.resume:
        progress.say(f"to do: {counted(len(missing), 'shard')} of {plan.shards:,}")
    if not missing:
        if is_complete(ledger):
            return None
        progress.say("every shard is there; card and manifest are written again")
    return missing


def _run(job: Job, matched: Match, missing: list[int], progress: Progress) -> None:
    """Write these shards, and say what is safe where that is cut off."""
    plan = job.plan
    try:
        with progress.bar("import", plan.inputs_of(missing), "rows") as advance:
            for rows in _write(matched, plan, job.ledger, missing):
                advance(rows)
    except LogitsError:
        withdraw(job.ledger)
        raise
    except DiskFull as error:
        raise DiskFull(f"{error}: {job.ledger.state}") from error
    except KeyboardInterrupt:
        progress.say(f"stopped: {job.ledger.state}. Go on with the same command and --resume")
        raise


def _write(matched: Match, plan: Plan, ledger: Ledger, shards: list[int]) -> Iterator[int]:
    """Write these shards, one after the other; yields the source rows done."""
    source = matched.source
    schema = shard_schema(plan, source.input_feature if plan.with_inputs else None)
    for shard in shards:
        start, stop = plan.bounds(shard)
        with ShardWriter(ledger.folder, plan, shard, schema) as writer:
            for rows in source.blocks(start, stop):
                kept, logits_NC = matched.read(rows, start)
                for entry in _left_out(matched, rows, start):
                    writer.skip(entry)
                if len(kept):
                    chosen = rows.select(kept)
                    cells = None
                    if plan.with_inputs:
                        cells = input_column(chosen.cells, schema.field("input").type)
                    values_NC = torch.from_numpy(np.array(logits_NC, order="C"))
                    writer.add(chosen.ids, chosen.labels, chosen.hashes, values_NC, cells)
                start += len(rows)
                yield len(rows)
        assert writer.commit is not None, "it was left without an exception"
        ledger.note(writer.commit)


def _left_out(matched: Match, rows: Rows, start: int) -> Iterator[Skipped]:
    for position in np.flatnonzero(matched.places[start : start + len(rows)] < 0).tolist():
        yield Skipped(
            id=rows.ids[position].item(),
            row=start + position,
            input_hash=int(rows.hashes[position]),
            label=int(rows.labels[position]),
            reason=f"no logits for it in {Path(matched.options.file).name}",
        )
