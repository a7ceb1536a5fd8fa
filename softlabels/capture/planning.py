"""The frozen plan of a dump: everything that decides its rows, before the first shard is begun."""

from dataclasses import dataclass, field
from typing import Any

import torch

from softlabels.capture.pipeline import Job
from softlabels.capture.trying import try_teacher
from softlabels.errors import UsageError
from softlabels.inputs.examples import Examples
from softlabels.inputs.opening import open_as_told
from softlabels.inputs.preprocess import Preprocess
from softlabels.inputs.preprocessing import choose, remarks
from softlabels.inputs.sources import Source
from softlabels.inputs.whereabouts import origin, public_name
from softlabels.options import DumpOptions
from softlabels.places.folders import open_folder
from softlabels.store.codecs.registry import parse_codec
from softlabels.store.fields import CLEAN, FORMAT
from softlabels.store.folder import Folder
from softlabels.store.ledger import Ledger
from softlabels.store.plan import MAX_SHARDS, Plan
from softlabels.system.devices import own_device, resolve_device
from softlabels.system.progress import SILENT, Progress
from softlabels.teachers import Teacher, resolve
from softlabels.teachers.teacher import suggest_name

SHARD_BYTES = 128 << 20
GROUP_BYTES = 2 << 20
GROUP_WITH_INPUTS_BYTES = 32 << 20
MIN_SHARD_ROWS, MAX_SHARD_ROWS = 4096, 262_144
MAX_GROUP_ROWS = 16_384


@dataclass(frozen=True)
class Setup:
    """A teacher and its data, opened and tried on each other. Nothing is written yet.

    remarks: the preprocessing in force, and what about it looks wrong.
    """

    options: DumpOptions
    teacher: Teacher
    source: Source
    preprocess: Preprocess
    classes: int
    class_names: list[str] | None
    ledger: Ledger
    device: torch.device
    remarks: list[str] = field(default_factory=list)

    @property
    def folder(self) -> Folder:
        return self.ledger.folder

    def job(self, plan: Plan) -> Job:
        self.ledger.plan = plan
        return Job(
            plan=plan,
            source=self.source,
            teacher=self.teacher,
            preprocess=self.preprocess,
            ledger=self.ledger,
            device=self.device,
            batch_size=self.options.batch_size,
            workers=self.options.workers,
            skip_unreadable=self.options.on_error == "skip",
            allow_codec_error=self.options.allow_codec_error,
        )

    def __str__(self) -> str:
        teacher = self.teacher
        return f"teacher {teacher.name} ({teacher.kind}, {self.classes} classes) on {self.device}"


def prepare(options: DumpOptions, progress: Progress = SILENT) -> Setup:
    """Load the teacher, open the data, and try one on the other. `progress` hears of both, before
    they are tried.

    Raises TeacherError, SourceError, LogitsError or UsageError where they don't fit together.
    """
    device = own_device(resolve_device(options.device))
    teacher = resolve(
        options.teacher,
        model=options.model,
        input_shape=lambda: _examples(options, None)[0].input_shape,
        trust_pickle=options.trust_pickle,
        weights=options.weights,
    ).to(device)
    teacher.name = options.name or teacher.name
    examples, chosen = _examples(options, teacher, progress)
    source = examples.source
    names = source.class_names or (teacher.class_names if source.labelled else None)
    for text in (*remarks(examples, chosen), *_numbered(source, names), *teacher.remarks):
        progress.say(text)
    for text in suggest_name(teacher.name) if options.name is None else ():
        progress.say(text)
    classes, tried = try_teacher(teacher, examples, names, options, device)
    setup = Setup(
        options=options,
        teacher=teacher,
        source=source,
        preprocess=examples.preprocess,
        classes=classes,
        class_names=names,
        ledger=Ledger(open_folder(options.out or f"data/{default_name(source, teacher)}")),
        device=device,
    )
    for text in (str(setup), *tried):
        progress.say(text)
    return setup


def make_plan(setup: Setup, earlier: Plan | None = None) -> Plan:
    """The plan that these options and this data give. Ids and labels are read, and no inputs but
    the first few: each shard's commit says what inputs it was made from.

    With no --shard-rows, those of an `earlier` plan, in the folder or of another rank, are kept.
    """
    plan = draft(setup, earlier)
    source = setup.source
    source.check_ids()
    fingerprint, shards = source.key_fingerprints(plan.shard_inputs)
    identity = source.table.identity
    known = plan.source.replace(
        fingerprint=fingerprint, shards=shards, files=identity.hash() if identity else None
    )
    plan = plan.replace(source=known)
    if earlier is not None and earlier.codec == plan.codec:  # fitted once, and measured once
        plan = plan.replace(shared=earlier.shared, pilot=earlier.pilot)
    named = plan if earlier is None else plan.named_as(earlier)
    if setup.options.name is None:
        return named
    return named.replace(teacher=named.teacher.replace(name=plan.teacher.name))  # as it is said


def draft(setup: Setup, earlier: Plan | None = None) -> Plan:
    """The plan but for the fingerprints of the keys, which are zeros; reads a few inputs.

    Raises ValidationError for what no plan can hold.
    """
    options, source, teacher = setup.options, setup.source, setup.teacher
    codec = parse_codec(options.codec, setup.classes, options.dtype)
    input_bytes = mean_input_bytes(source) if options.store_inputs != "none" else 0
    groups = group_rows(codec.row_bytes, input_bytes)
    usual = shard_rows(codec.row_bytes + input_bytes, groups)
    usual = earlier.shard_inputs if earlier else usual
    least = -(-len(source) // MAX_SHARDS)
    if (options.shard_rows or usual) < least:
        raise UsageError(
            f"--shard-rows is {options.shard_rows or usual}; {len(source):,} rows would be more "
            f"than {MAX_SHARDS:,} shards: use {least} or more"
        )
    rows = options.shard_rows or usual
    return Plan.model_validate(
        {
            "teacher": {
                "name": plain_text(teacher.name),
                "kind": teacher.kind,
                "fingerprint": teacher.fingerprint,
                "model": teacher.spec,
                "weights": teacher.weights,
            },
            "source": _source_record(source, setup.class_names)
            | {
                "fingerprint": f"sha256:{0:064}",
                "shards": [f"{0:016}"] * max(1, -(-len(source) // rows)),
            },
            "preprocess": str(setup.preprocess),
            "precision": "unknown" if teacher.kind == "imported" else options.precision,
            "views": [CLEAN],
            "augment": None,
            "codec": options.codec,
            "dtype": options.dtype,
            "classes": setup.classes,
            "inputs": len(source),
            "shard_inputs": rows,
            "group_rows": groups,
            "ids": "string" if source.ids_are_text else "int64",
            "store_inputs": options.store_inputs,
            "batch_size": options.batch_size if options.allow_batch_dependence else None,
            "format": FORMAT,
        }
    )


def _source_record(source: Source, class_names: list[str] | None) -> dict[str, Any]:
    """What a plan says of its source, but for the fingerprints."""
    return {
        "data": public_name(source.data),
        "origin": origin(source.data),
        "split": source.split,
        "revision": source.revision,
        "columns": {
            "inputs": list(source.columns.inputs),
            "label": source.columns.label,
            "id": source.columns.id,
        },
        "class_names": class_names,
        "rows": len(source),
    }


def plain_text(name: str) -> str:
    """A name as UTF-8 can hold it: that of a file may be any bytes."""
    return name.encode("utf-8", "replace").decode()


def shard_rows(row_bytes: int, groups: int) -> int:
    """Rows in a shard of about 128 MiB: whole row groups, so that a row's group is found by one
    division."""
    rows = min(MAX_SHARD_ROWS, max(MIN_SHARD_ROWS, SHARD_BYTES // max(1, row_bytes)))
    return max(1, rows // groups) * groups


def group_rows(logit_bytes: int, input_bytes: int) -> int:
    """Rows in a row group: logits of about 2 MiB, inputs of at most 32 MiB, a power of two."""
    rows = min(GROUP_BYTES // logit_bytes, GROUP_WITH_INPUTS_BYTES // max(1, input_bytes))
    return 1 << max(4, min(MAX_GROUP_ROWS, rows).bit_length() - 1)


def _numbered(source: Source, names: list[str] | None) -> list[str]:
    """What is taken for granted where labels are numbers and the teacher has names for them."""
    if not names or source.class_names is not None:
        return []
    shown = ", ".join(f"{i} is {name!r}" for i, name in enumerate(names[:3]))
    return [f"labels of {source.name} are numbers, taken as the teacher's: {shown}"]


def default_name(source: Source, teacher: Teacher) -> str:
    """`digits-t`; splits other than train say so: `digits-test-t`."""
    split = "" if source.split == "train" else f"-{source.split}"
    return f"{source.name}{split}-{teacher.name}".replace("/", "-")


def _examples(
    options: DumpOptions, teacher: Teacher | None, progress: Progress = SILENT
) -> tuple[Examples, str]:
    """The data as the options say, else as the teacher remembers it, preprocessed likewise, and
    where its preprocessing comes from."""
    remembered = teacher.remembered if teacher else {}
    source = open_as_told(options, options.data, options.teacher, remembered, progress)
    known = teacher.preprocess if teacher else None
    chosen = choose(source, options.preprocess, known, "the teacher's checkpoint")
    return Examples(source, chosen.preprocess), chosen.origin


def mean_input_bytes(source: Source) -> int:
    """Bytes of an input as a dump stores it, from the first rows."""
    cells = source.read(0, min(64, len(source))).cells
    sizes = [len(cell) if isinstance(cell, bytes) else cell.nbytes for cell in cells]
    return sum(sizes) // len(sizes)
