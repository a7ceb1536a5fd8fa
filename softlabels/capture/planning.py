"""The frozen plan of a dump: everything that decides its rows, before the first shard is begun."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from softlabels.capture.answers import Answers
from softlabels.capture.job import Job, Pace
from softlabels.capture.naming import ClassNames
from softlabels.capture.viewing import Views
from softlabels.errors import UsageError
from softlabels.inputs.decoding import decode
from softlabels.inputs.preprocess import Preprocess
from softlabels.inputs.rendering import DECODER
from softlabels.inputs.sources import Source
from softlabels.inputs.stored_pictures import Resized, Storing
from softlabels.inputs.texts import Texts
from softlabels.models.tokens import Tokens
from softlabels.soft_targets import LINKS
from softlabels.store.codecs.registry import parse_codec
from softlabels.store.fields import FORMAT
from softlabels.store.folder import Folder
from softlabels.store.ledger import Ledger
from softlabels.store.plan import KINDS, Plan
from softlabels.store.plan_parts import MAX_SHARDS
from softlabels.system.background import cores

SHARD_BYTES = 128 << 20
GROUP_BYTES = 2 << 20
GROUP_WITH_INPUTS_BYTES = 32 << 20
MIN_SHARD_ROWS, MAX_SHARD_ROWS = 4096, 262_144
MAX_GROUP_ROWS = 16_384
SAMPLED, RESIZED = 64, 16  # rows whose inputs are weighed, as they are and resized


@dataclass(frozen=True)
class Storage:
    """How rows are stored, as it was asked for.

    shard_rows: the source's rows in a shard; None for what makes shards of about 128 MiB
    """

    codec: str = "dense"
    dtype: str = "float16"
    store_inputs: str = "none"
    shard_rows: int | None = None
    task: str = "classification"


@dataclass(frozen=True)
class Setup:
    """Answers and the data that they are for, opened and tried on each other. Nothing is written
    yet.

    view_shape: of the pictures that views are made of, [C, H, W]; None where none are
    name: what the user calls the teacher; None for the name of its file
    sibling: whether the same command makes dumps of other teachers
    reopen: makes the same setup in another process
    """

    answers: Answers
    source: Source
    names: ClassNames
    ledger: Ledger
    storage: Storage
    pace: Pace
    views: Views = field(default_factory=Views)
    view_shape: list[int] | None = None
    name: str | None = None
    sibling: bool = False
    reopen: "Callable[[], Setup] | None" = field(default=None, compare=False)

    @property
    def folder(self) -> Folder:
        return self.ledger.folder

    @property
    def title(self) -> str:
        """What messages begin with, where they could be about another dump of the command."""
        return str(self.folder) if self.sibling else ""

    def job(self, plan: Plan) -> Job:
        self.ledger.plan = plan
        return Job(plan, self.source, self.answers, self.ledger, self.pace)


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
        fingerprint=fingerprint,
        shards=shards,
        files=identity.hash() if identity else None,
        sample=source.sample,
    )
    plan = plan.replace(source=known)
    if earlier is not None and earlier.codec == plan.codec:  # fitted once, and measured once
        plan = plan.replace(shared=earlier.shared, pilot=earlier.pilot)
    named = plan if earlier is None else plan.named_as(earlier)
    if setup.name is None:
        return named
    return named.replace(teacher=named.teacher.replace(name=plan.teacher.name))


def draft(setup: Setup, earlier: Plan | None = None) -> Plan:
    """The plan but for the fingerprints of the keys, which are zeros; reads a few inputs.

    Raises ValidationError for what no plan can hold.
    """
    answers, source, storage = setup.answers, setup.source, setup.storage
    link = LINKS[storage.task]
    codec = parse_codec(storage.codec, answers.classes, storage.dtype, link=link)
    codec.check_takes(answers.gives, storage.codec, answers.title)
    stored = Resized.parse(storage.store_inputs)
    kept = storage.store_inputs != "none"
    input_bytes = mean_input_bytes(source, stored, answers.preprocess) if kept else 0
    groups = group_rows(codec.row_bytes, input_bytes)
    views = len(setup.views.fields["views"])
    usual = shard_rows(views * codec.row_bytes + input_bytes, groups)
    usual = earlier.shard_inputs if earlier else usual
    least = -(-len(source) // MAX_SHARDS)
    if (storage.shard_rows or usual) < least:
        raise UsageError(
            f"--shard-rows is {storage.shard_rows or usual}; {len(source):,} rows would be more "
            f"than {MAX_SHARDS:,} shards: use {least} or more"
        )
    rows = storage.shard_rows or usual
    return Plan.model_validate(
        {
            "teacher": answers.teacher,
            "source": _source_record(source, setup.names)
            | {
                "fingerprint": f"sha256:{0:064}",
                "shards": [f"{0:016}"] * max(1, -(-len(source) // rows)),
            },
            "preprocess": str(answers.preprocess),
            "decoder": _decoder(source, answers),
            "precision": answers.precision,
            "memory_format": "channels_last" if answers.channels_last else None,
            "compile": answers.is_compiled,
            **setup.views.fields,
            "view_shape": setup.view_shape,
            "task": storage.task,
            "codec": storage.codec,
            "positions": codec.positions,
            "dtype": storage.dtype,
            "classes": answers.classes,
            "inputs": len(source),
            "shard_inputs": rows,
            "group_rows": groups,
            "ids": "string" if source.ids_are_text else "int64",
            "store_inputs": str(stored or storage.store_inputs),
            "batch_size": answers.batch_size,
            "format": FORMAT,
        }
    )


def _decoder(source: Source, answers: Answers) -> str | None:
    """What decodes the pictures that the steps of the preprocessing take."""
    ours = answers.needs_inputs and source.kind == "image" and not answers.preprocess.is_opaque
    return DECODER if ours else None


def _source_record(source: Source, names: ClassNames) -> dict[str, Any]:
    """What a plan says of its source, but for the fingerprints."""
    label = source.columns.label
    return {
        "data": source.public_name,
        "origin": source.origin,
        "split": source.split,
        "revision": source.revision,
        "kind": source.kind if source.kind in KINDS else None,
        "columns": {
            "inputs": list(source.columns.inputs),
            "label": None if source.own_labels else label,
            "label_source": label if source.own_labels else None,
            "label_lists": source.spelling,
            "id": source.columns.id,
        },
        "class_names": names.names,
        "class_names_from": names.come_from,
        "label_source_names": source.class_names if source.own_labels else None,
        "rows": len(source),
    }


def shard_rows(row_bytes: int, groups: int) -> int:
    """Rows in a shard of about 128 MiB: whole row groups, so that a row's group is found by one
    division."""
    rows = min(MAX_SHARD_ROWS, max(MIN_SHARD_ROWS, SHARD_BYTES // max(1, row_bytes)))
    return max(1, rows // groups) * groups


def group_rows(logit_bytes: int, input_bytes: int) -> int:
    """Rows in a row group: logits of about 2 MiB, inputs of at most 32 MiB, a power of two."""
    rows = min(GROUP_BYTES // logit_bytes, GROUP_WITH_INPUTS_BYTES // max(1, input_bytes))
    return 1 << max(4, min(MAX_GROUP_ROWS, rows).bit_length() - 1)


def default_name(source: Source, teacher: str) -> str:
    """`digits-t`; splits other than train say so: `digits-test-t`."""
    return f"{data_name(source)}-{teacher}".replace("/", "-")


def data_name(source: Source) -> str:
    """`digits`, or of another split than train `digits-test`."""
    split = "" if source.split == "train" else f"-{source.split}"
    return f"{source.name}{split}".replace("/", "-")


def mean_input_bytes(source: Source, stored: Resized | None, preprocess: Preprocess) -> int:
    """Bytes of an input as a dump stores it, from the first rows.

    stored: how pictures are resized for it, after which step of the preprocessing; None where
    inputs are stored as they are
    """
    block = source.read(0, min(SAMPLED if stored is None else RESIZED, len(source)))
    cells: Any = block.cells
    if isinstance(cells, Texts | Tokens):
        return cells.nbytes // len(cells)
    if stored is not None:
        made = [Storing(stored, preprocess) for _ in cells]
        unread = {place for place, _ in decode(cells, made, block.ids, cores()).unreadable}
        cells = [one.content for place, one in enumerate(made) if place not in unread] or cells
    sizes = [len(cell) if isinstance(cell, bytes) else cell.nbytes for cell in cells]
    return sum(sizes) // len(sizes)
