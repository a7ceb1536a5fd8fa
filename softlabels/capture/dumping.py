"""The verb of stage one."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from softlabels.capture.engines import run_here
from softlabels.capture.pipeline import Job
from softlabels.capture.plan import make_plan
from softlabels.checkpoint import library_versions
from softlabels.config import DumpOptions
from softlabels.devices import resolve_device
from softlabels.errors import DiskFull, StoreError
from softlabels.inputs.examples import Examples, default_preprocess
from softlabels.inputs.preprocess import Preprocess
from softlabels.inputs.sources import Source, open_as_told
from softlabels.progress import SILENT, Progress
from softlabels.store.card import render_card
from softlabels.store.folder import Folder
from softlabels.store.manifest import (
    CARD,
    MANIFEST,
    PLAN,
    Commit,
    Manifest,
    read_commit,
    read_manifest,
    read_plan,
)
from softlabels.store.writer import shard_features
from softlabels.teachers import Teacher, resolve


@dataclass(frozen=True)
class DumpResult:
    """Where the dump is, its manifest, and the rows that this call ran the teacher on."""

    out: str
    manifest: Manifest
    rows_run: int


def dump(progress: Progress = SILENT, **options: Any) -> DumpResult:
    """Run a teacher over a dataset once and store its raw logits.

    Options are those of `softlabels dump` (see `config.DumpOptions`): teacher, data, out, resume,
    batch_size, dtype, with_inputs, …

    Raises TeacherError, SourceError, LogitsError, PlanMismatch, StoreError or DiskFull. Shards
    that were committed before stay, and `resume=True` goes on from there.
    """
    words = DumpOptions(**options)
    job = prepare(words, progress)
    missing = begin(job, words.resume)
    if not missing and job.folder.exists(MANIFEST):
        progress.say(f"{job.folder} is complete already; nothing to do")
        return DumpResult(str(job.folder), read_manifest(job.folder)[0], 0)
    try:
        run_here(job, missing, progress)
        manifest = finish(job)
    except DiskFull as error:
        raise DiskFull(
            f"{error}: {_state(job)}. Make room, then run the same command with --resume"
        ) from error
    except KeyboardInterrupt:
        progress.say(f"stopped: {_state(job)}. Go on with the same command and --resume")
        raise
    rows_run = sum(stop - start for start, stop in map(job.plan.bounds, missing))
    return DumpResult(str(job.folder), manifest, rows_run)


def prepare(options: DumpOptions, progress: Progress) -> Job:
    """Load the teacher, open the data, try one on the other, freeze the plan. Writes nothing."""
    device = resolve_device(options.device)
    teacher = resolve(
        options.teacher,
        model=options.model,
        input_shape=lambda: _examples(options, None).input_shape,
        trust_pickle=options.trust_pickle,
    ).to(device)
    examples = _examples(options, teacher)
    source = examples.source
    names = source.class_names or (teacher.class_names if source.labelled else None)
    sample = examples.finish(examples.sample().to(device))
    classes = teacher.probe(sample, names, options.precision)
    progress.say(
        f"teacher {teacher.name} ({teacher.kind}, {classes} classes) on {device}; "
        f"data {source.name}, split {source.split}: {len(source):,} rows"
    )
    plan = make_plan(options, teacher, source, examples.preprocess, classes, names)
    folder = Folder(options.out or f"data/{default_name(source, teacher)}")
    earlier = read_plan(folder)
    if earlier is not None and options.shard_rows is None:
        plan = replace(plan, shard_rows=earlier.shard_rows)
    return Job(
        plan=plan,
        source=source,
        teacher=teacher,
        preprocess=examples.preprocess,
        folder=folder,
        device=device,
        batch_size=options.batch_size,
        workers=options.workers,
        skip_unreadable=options.on_error == "skip",
    )


def begin(job: Job, resume: bool) -> list[int]:
    """Write the plan, or find the same one there. The shards that are still missing.

    Raises PlanMismatch for another dump in the folder, and StoreError for other files in it or
    for an unfinished dump that `resume` does not ask for.
    """
    plan, folder = job.plan, job.folder
    earlier = read_plan(folder)
    if earlier is None:
        others = [name for name in folder.names() if not name.startswith(".")]
        if others:
            raise StoreError(
                f"{folder} is not empty and holds no dump (there is {others[0]!r}); "
                f"choose another folder with --out"
            )
        folder.sweep()
        folder.write_json(PLAN, asdict(plan))
        return list(range(plan.shards))
    plan.check_same(earlier, folder)
    missing = [i for i in range(plan.shards) if read_commit(folder, plan, i) is None]
    if missing and not resume:
        raise StoreError(
            f"{folder} holds an unfinished dump: {_state(job)}. Add --resume to go on with it, "
            f"or choose another folder with --out"
        )
    if missing and folder.exists(MANIFEST):
        folder.fs.rm(folder.path(MANIFEST))
    folder.sweep()
    return missing


def finish(job: Job) -> Manifest:
    """All shards are committed: write the card, and the manifest last."""
    commits: list[Commit] = []
    for shard in range(job.plan.shards):
        commit = read_commit(job.folder, job.plan, shard)
        if commit is None:
            raise StoreError(f"{job.folder}: shard {shard} is not committed; use --resume")
        commits.append(commit)
    manifest = Manifest.derive(job.plan, commits, library_versions())
    feature = job.source.input_feature if job.plan.with_inputs else None
    card = render_card(manifest, job.plan, shard_features(job.plan, feature))
    job.folder.write_text(CARD, card)
    job.folder.write_json(MANIFEST, asdict(manifest))
    job.folder.sweep()
    return manifest


def default_name(source: Source, teacher: Teacher) -> str:
    """`digits-t`; splits other than train say so: `digits-test-t`."""
    split = "" if source.split == "train" else f"-{source.split}"
    return f"{source.name}{split}-{teacher.name}"


def _examples(options: DumpOptions, teacher: Teacher | None) -> Examples:
    """The data as the options say, else as the teacher remembers it, preprocessed likewise."""
    remembered = teacher.data | {"class_names": teacher.class_names} if teacher else {}
    source = open_as_told(options, options.data, options.teacher, remembered)
    text = options.preprocess
    if text is None and teacher is not None:
        text = teacher.preprocess
    return Examples(source, default_preprocess(source) if text is None else Preprocess.parse(text))


def _state(job: Job) -> str:
    done = sum(read_commit(job.folder, job.plan, i) is not None for i in range(job.plan.shards))
    return f"{done} of {job.plan.shards} shards are committed and safe"
