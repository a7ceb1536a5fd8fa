"""The verb `import`: a complete dump from logits that another program stored.

The rows are the source's, with its ids, labels and input hashes; the file's rows are matched with
them by id. The plan is made before anything is written, and the manifest comes last, as in a dump.
Shapes: N rows of a block, C classes.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from softlabels.capture.ledger import is_complete, write_last
from softlabels.capture.pipeline import input_column
from softlabels.capture.planning import group_rows, mean_input_bytes, shard_rows, source_record
from softlabels.checkpoint import library_versions
from softlabels.config.exchange import ImportOptions
from softlabels.errors import AlignmentError, StoreError
from softlabels.exchange.ids import match
from softlabels.exchange.matching import Match, check_match, tell
from softlabels.exchange.opening import open_foreign
from softlabels.inputs.examples import default_preprocess
from softlabels.inputs.hashing import Fingerprint
from softlabels.inputs.preprocess import Preprocess
from softlabels.inputs.sources import Rows, open_source
from softlabels.progress import SILENT, Progress
from softlabels.store.audit import check_shards
from softlabels.store.claims import claimed, new_run
from softlabels.store.codec import parse_codec
from softlabels.store.folder import Folder
from softlabels.store.manifest import MANIFEST, PLAN, read_commits, read_manifest, read_plan
from softlabels.store.records import Manifest, Plan
from softlabels.store.writer import ShardWriter, shard_schema


@dataclass(frozen=True)
class Imported:
    """Where the dump is, and its manifest."""

    out: str
    manifest: Manifest


def import_logits(progress: Progress = SILENT, **options: Any) -> Imported:
    """A complete dump from a file of logits.

    Options are those of `softlabels import` (see `config.exchange.ImportOptions`): file, data, ids,
    out, probabilities, …

    Raises SourceError or UntrustedPickle for a file that can't be read, AlignmentError where its
    rows are not the source's, LogitsError for values that must not be stored, and StoreError,
    FolderInUse or DiskFull for the folder. Nothing counts as a dump before all rows are there.
    """
    words = ImportOptions(**options)
    source = open_source(
        words.data,
        words.split,
        revision=words.revision,
        input_column=words.input_column,
        label_column=words.label_column,
        id_column=words.id_column,
    )
    foreign = open_foreign(words, source.class_names)
    places, how = match(foreign, Path(words.ids) if words.ids else None, source, words.file)
    job = Match(words, foreign, source, places)
    check_match(job)
    told = tell(job, how)
    progress.say(f"{words.file}: {foreign.rows:,} rows of {foreign.classes:,} classes; {told}")
    name = words.name or Path(words.file).resolve().name.partition(".")[0]
    folder = Folder(words.out or f"data/{source.name}-{name}")
    with claimed(folder, new_run(), progress=progress):
        plan = _plan(job, name, told)
        manifest = _begin(folder, plan)
        if manifest is not None:
            progress.say(f"{folder} is complete already; nothing to do")
            return Imported(str(folder), manifest)
        with progress.bar("import", len(source), "rows") as advance:
            for rows in _write(job, plan, folder):
                advance(rows)
        commits = list(read_commits(folder, plan).values())
        if len(commits) < plan.shards:
            raise StoreError(f"{folder}: shards vanished while they were written; import again")
        manifest = Manifest.derive(plan, commits, library_versions())
        write_last(folder, manifest, plan, source)
    _warn(manifest, plan, progress)
    return Imported(str(folder), manifest)


def _plan(job: Match, name: str, told: str) -> Plan:
    words, foreign, source = job.options, job.foreign, job.source
    dtype = words.dtype or ("float32" if words.probabilities else foreign.dtype)
    codec = parse_codec("dense", foreign.classes, dtype)
    input_bytes = mean_input_bytes(source) if words.with_inputs else 0
    groups = group_rows(codec.row_bytes, input_bytes)
    shard = words.shard_rows or shard_rows(codec.row_bytes + input_bytes, groups)
    text = words.preprocess
    preprocess = default_preprocess(source) if text is None else Preprocess.parse(text)
    teacher = {"name": name, "kind": "imported", "fingerprint": foreign.fingerprint, "model": told}
    source.check_ids()
    fingerprint, shards = source.fingerprints(shard)
    found = source_record(source, source.class_names)
    return Plan(
        teacher=teacher,
        source=found | {"fingerprint": fingerprint, "shards": shards},
        preprocess=str(preprocess),
        precision="unknown",
        views=["clean"],
        codec="dense",
        dtype=dtype,
        classes=foreign.classes,
        rows=len(source),
        shard_rows=shard,
        group_rows=groups,
        ids="string" if source.ids_are_text else "int64",
        with_inputs=words.with_inputs,
        compact=words.compact,
    )


def _begin(folder: Folder, plan: Plan) -> Manifest | None:
    """Write the plan; the manifest where this import was complete already.

    What an interrupted one left, or what was damaged since, is written anew, all of it. Raises
    PlanMismatch or StoreError for anything else in the folder.
    """
    earlier = read_plan(folder)
    if earlier is not None:
        plan.check_same(earlier, folder)
        if is_complete(folder, plan) and _is_whole(folder, plan):
            return read_manifest(folder)[0]
        folder.delete(MANIFEST)
        return None
    others = [name for name in folder.names() if not name.startswith(".")]
    if others:
        raise StoreError(
            f"{folder} is not empty and holds no dump (there is {others[0]!r}); choose another "
            f"folder with --out"
        )
    folder.write_json(PLAN, asdict(plan))
    return None


def _is_whole(folder: Folder, plan: Plan) -> bool:
    """Whether every shard is what its commit says; each is read."""
    commits = list(read_commits(folder, plan).values())
    return not any(checked.findings for checked in check_shards(folder, plan, commits, 1))


def _write(job: Match, plan: Plan, folder: Folder) -> Iterator[int]:
    """Write every shard; yields the source rows done."""
    feature = job.source.input_feature if plan.with_inputs else None
    schema = shard_schema(plan, feature)
    for shard in range(plan.shards):
        start, stop = plan.bounds(shard)
        fingerprint = Fingerprint()
        with ShardWriter(folder, plan, shard, schema) as writer:
            for rows in job.source.blocks(start, stop):
                fingerprint.update(rows.ids, rows.hashes, rows.labels)
                kept, logits_NC = job.read(rows, start)
                for entry in _left_out(job, rows, start):
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
            if fingerprint.short != plan.source["shards"][shard]:
                raise AlignmentError(
                    f"{job.source.data!r} changed while it was read; nothing of shard {shard} was "
                    f"stored. Import again"
                )


def _left_out(job: Match, rows: Rows, start: int) -> Iterator[dict[str, Any]]:
    for position in np.flatnonzero(job.places[start : start + len(rows)] < 0).tolist():
        yield {
            "id": rows.ids[position].item(),
            "row": start + position,
            "input_hash": int(rows.hashes[position]),
            "label": int(rows.labels[position]),
            "reason": f"no logits for it in {Path(job.options.file).name}",
        }


def _warn(manifest: Manifest, plan: Plan, progress: Progress) -> None:
    """Rows in another order than the source's have an accuracy like guessing."""
    found = manifest.statistics
    if (
        found.get("labelled", 0) >= 20
        and found["correct"] <= 1.5 * found["labelled"] / plan.classes
    ):
        progress.say(
            f"warning: the accuracy of these logits is {found['accuracy']:.4f}, about that of "
            f"guessing among {plan.classes} classes. Are the rows in the order of the source, and "
            f"the classes in the order of its labels?"
        )
