"""The frozen plan of a dump. It is hashed; the hash stands in every commit, in every shard's footer
and in the manifest, so that a stray file is known as one."""

import hashlib
import json
from contextlib import suppress
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from softlabels.errors import PlanMismatch, UsageError
from softlabels.inputs.steps import check_record, parse_steps
from softlabels.inputs.stored_pictures import Resized
from softlabels.inputs.views.augment import CLEAN, Augment, is_hashed, parse_augment
from softlabels.inputs.views.augmentations import Drawn
from softlabels.inputs.views.chance import counters
from softlabels.inputs.views.mixing import PARTNER, PARTNER_LABEL, Mixing
from softlabels.soft_targets import LINKS, Link
from softlabels.store.bands import group_sizes, view_rows
from softlabels.store.codecs.codec import Codec
from softlabels.store.codecs.registry import parse_codec
from softlabels.store.fields import (
    Count,
    Rows,
    Sha256,
    Shape,
    SideFile,
    Size,
    Text,
    Views,
)
from softlabels.store.folder import Folder
from softlabels.store.pilots import Pilot
from softlabels.store.plan_parts import MAX_SHARDS, PlanPart, SourceRecord, TeacherRecord
from softlabels.store.side_files import SideFiles
from softlabels.system.humanize import counted, short

AUGMENT = "augment of the plan"
VIEW_HASH = "view_hash"  # of the pixels of some rows
LISTS = "list"  # the type of a column with lists of labels
KINDS = ("text", "tokens", "columns")  # of inputs that a plan names
UNSAID = {"memory_format": "contiguous", "compile": False}  # what is left out, for messages


class Plan(PlanPart):
    """plan.json: all that decides what a dump holds, and which rows each shard holds. A field that
    is not here is refused."""

    teacher: TeacherRecord = Field(description="the model whose logits these are: an object")
    source: SourceRecord = Field(description="the data whose rows these are: an object")
    preprocess: Text = Field(description="the steps from an input to what the teacher sees")
    decoder: Text | None = Field(
        default=None,
        description="what decoded JPEGs, and in which of its modes; left out where softlabels "
        "decoded no pictures for the teacher, or gave them to a function",
    )
    precision: Text = Field(
        description="the precision of the teacher's run, such as float32, tf32 or bf16"
    )
    memory_format: Literal["channels_last"] | None = Field(
        default=None,
        description="channels_last where pictures lay so in the teacher's memory; left out where "
        "they did not",
    )
    compile: bool = Field(
        default=False,
        description="whether the teacher ran as torch.compile made it; left out where not",
    )
    views: Views
    augment: Text | None = Field(
        description="what draws the views after 0, such as random_resized_crop(224)|flip or "
        "jitter(2); null where there is none"
    )
    data_seed: Count | None = Field(
        default=None,
        description="the seed that views are drawn by; left out where none are drawn",
    )
    view_shape: Shape | None = Field(
        default=None,
        description="the shape [C, H, W] of the pictures, as the steps of preprocess on pictures "
        "leave them, and of all their views; left out where none are drawn",
    )
    task: Literal["classification", "multilabel"] = Field(
        description="classification: the soft targets of a position are softmax(logits / T); "
        "multilabel: sigmoid(logits / T), each class being a label of its own"
    )
    codec: str = Field(
        pattern="^[a-z][a-z0-9_]*(:[a-z0-9_.,=-]+)?$",
        max_length=100,
        description="the way logits are stored, such as dense",
    )
    dtype: Literal["float16", "float32"] = Field(description="float16 or float32")
    classes: int = Field(ge=1, le=2**24, description="the number of logits in a row: 1 to 2^24")
    positions: Size | None = Field(
        description="the scored positions of each row: 1 for a classifier; null where the column "
        "positions counts them"
    )
    inputs: Rows = Field(description="the number of inputs, one for each of the source's rows")
    shard_inputs: Size = Field(description="the number of inputs in a shard")
    group_rows: Size = Field(
        description="the number of rows in a row group, which are of as many inputs"
    )
    ids: Literal["int64", "string"] = Field(
        description="the type of the column id: int64 or string"
    )
    store_inputs: str = Field(
        pattern=r"^(none|original|resized\([1-9][0-9]{0,4}(, [1-9][0-9]{0,4})?, (jpeg|png)\))$",
        description="none; original: the source's inputs are in the column input; or such as "
        "resized(256, jpeg): there are pictures as the step resize(256) of preprocess leaves them",
    )
    batch_size: Size | None = Field(
        description="the rows in a batch where the teacher's answers may depend on it"
    )
    shared: dict[SideFile, Sha256] = Field(
        default={},
        max_length=100,
        description="the side files that all rows share, each with its SHA-256: an object; left "
        "out where there are none",
    )
    pilot: Pilot | None = Field(
        default=None,
        description="what was measured of the codec's error on pilot rows, before the first shard; "
        "left out where that is not needed",
    )
    format: Literal["softlabels/1"] = Field(description="the version of the format: softlabels/1")

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        """Numbers that a schema can't hold against each other."""
        source, columns = self.source, self.source.columns
        if columns.label is not None and columns.label_source is not None:
            raise ValueError("source.columns has label and label_source; rows have one of them")
        several = self.task == "multilabel" and columns.label is not None
        if several != (columns.label_lists is not None):
            raise ValueError(
                f"source.columns.label_lists is {columns.label_lists!r}, the task {self.task}, and "
                f"source.columns.label {columns.label!r}"
            )
        if source.label_source_names is not None and columns.label_source is None:
            raise ValueError("source.label_source_names has names, and there is no label_source")
        if source.rows != self.inputs:
            raise ValueError(f"inputs is {self.inputs}, and source.rows is {source.rows}")
        if sorted(set(self.views)) != self.views:
            raise ValueError("views do not ascend")
        drawn = self.views != [CLEAN]
        for name in ("augment", "data_seed", "view_shape"):
            value = getattr(self, name)
            if drawn != (value is not None):
                raise ValueError(f"{name} is {value!r}, and views is {short(str(self.views))}")
        if self.shards > MAX_SHARDS:
            raise ValueError(f"shard_inputs of {self.shard_inputs} give {self.shards} shards")
        for name, values, count in (
            ("source.shards", source.shards, self.shards),
            ("source.class_names", source.class_names, self.classes),
        ):
            if values is not None and len(values) != count:
                raise ValueError(f"{name} has {len(values)} entries, expected {count}")
        with suppress(UsageError):  # a codec that this softlabels does not know
            positions = self.make_codec().positions
            if positions != self.positions:
                raise ValueError(f"positions is {self.positions}, and {self.codec} has {positions}")
        try:
            check_record(self.preprocess)
            stored = self.stored
            place = stored and stored.done_in(parse_steps(self.preprocess)[0])
        except UsageError as error:
            raise ValueError(str(error)) from None
        if stored and (place is None or self.source.kind is not None):
            raise ValueError(
                f"store_inputs is {self.store_inputs}, and preprocess, {short(self.preprocess)}, "
                f"has no step after which such pictures are stored"
            )
        try:
            _ = self.hash
        except UnicodeEncodeError:  # lone surrogates can stand in JSON
            raise ValueError("has text that can't be UTF-8") from None
        return self

    def __repr__(self) -> str:
        views = f" of {counted(self.inputs, 'input')}" if self.has_views else ""
        rows = f"{counted(self.rows, 'row')}{views} × {self.classes:,} classes"
        of = f"{short(self.teacher.name)} on {short(self.source.data)}, split {self.source.split}"
        return f"Plan({of}: {rows}, {counted(self.shards, 'shard')}, {self.codec} {self.dtype})"

    @property
    def shards(self) -> int:
        return max(1, -(-self.inputs // self.shard_inputs))

    @property
    def rows(self) -> int:
        """The rows that a dump has if no input is left out: one for each pair of input and view."""
        return self.inputs * len(self.views)

    @property
    def has_views(self) -> bool:
        """Whether views were drawn, so that there is more than each input as it is."""
        return self.views != [CLEAN]

    @property
    def unit(self) -> str:
        """What the work is counted in, in which an input with all its views is one."""
        return "inputs" if self.has_views else "rows"

    @cached_property
    def hash(self) -> str:
        """`sha256:` of the plan's canonical JSON: sorted keys, no spaces, UTF-8."""
        text = json.dumps(self.as_json, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()

    @property
    def link(self) -> Link:
        """The function that makes probabilities of the logits."""
        return LINKS[self.task]

    @property
    def with_inputs(self) -> bool:
        """Whether rows have their inputs, in `input_columns`."""
        return self.store_inputs != "none"

    @cached_property
    def stored(self) -> Resized | None:
        """How the pictures in `input` were resized; None where there are none, or the source's."""
        return Resized.parse(self.store_inputs)

    @property
    def hash_column(self) -> str:
        """The column with the hashes of the inputs that are stored."""
        return "input_hash" if self.stored is None else "stored_hash"

    @property
    def input_columns(self) -> list[str]:
        """The columns that hold inputs where they are stored: `input`, or those that go to models
        by name."""
        by_name = self.source.kind in ("tokens", "columns")
        return self.source.columns.inputs if by_name else ["input"]

    @property
    def labelled(self) -> bool:
        """Whether rows have the column `label`: a class of the teacher's."""
        return self.source.columns.label is not None

    @property
    def several_labels(self) -> bool:
        """Whether the column `label` holds lists, the numbers of a row's labels."""
        return self.source.columns.label_lists is not None

    @property
    def label_column(self) -> str | None:
        """The column of the rows that has the source's labels, `label` or `label_source`."""
        if self.source.columns.label_source is not None:
            return "label_source"
        return "label" if self.labelled else None

    @property
    def label_columns(self) -> list[str]:
        """That column as a list; empty where there is none."""
        return [] if self.label_column is None else [self.label_column]

    @property
    def label_names(self) -> list[str] | None:
        """The names of the classes that the source's labels number."""
        return self.source.class_names if self.labelled else self.source.label_source_names

    @property
    def is_imported(self) -> bool:
        """Whether another program stored the logits: the teacher never ran here."""
        return self.teacher.kind == "imported"

    @cached_property
    def augmentation(self) -> Augment | None:
        """What draws the views; None where there are none. Raises UsageError where this softlabels
        does not know it."""
        if self.augment is None or self.view_shape is None:
            return None
        return parse_augment(self.augment, AUGMENT).on(self.view_shape, AUGMENT)

    @property
    def parameters(self) -> dict[str, str]:
        """The columns that say how each row's view was drawn, with their types. Raises UsageError
        where this softlabels does not know how."""
        return {} if self.augmentation is None else self.augmentation.columns

    @property
    def mixing(self) -> Mixing | None:
        """How inputs are mixed with others in the drawn views; None where they are not."""
        return None if self.augmentation is None else self.augmentation.mixing

    @property
    def partner_columns(self) -> dict[str, str]:
        """Which input a row is mixed with, and the labels of that, with their types."""
        if self.mixing is None:
            return {}
        labels = {PARTNER_LABEL: LISTS if self.several_labels else "int64"}
        return {PARTNER: self.ids} | (labels if self.labelled else {})

    @property
    def view_columns(self) -> dict[str, str]:
        """All that a dump with views has of its own: the parameters, partners, and the hash of some
        rows' pixels, which is null in others."""
        hashes = {VIEW_HASH: "uint64"} if self.has_views else {}
        return self.parameters | self.partner_columns | hashes

    def draw(self, ids_N: np.ndarray, view: int) -> Drawn:
        """The parameters of this view of these inputs, as far as ids tell them: what depends on the
        size of a picture does not."""
        if self.augmentation is None or self.data_seed is None:
            return {}
        return self.augmentation.draw(self.data_seed, counters(ids_N), view)

    def is_hashed(self, ids_N: np.ndarray, view: int) -> np.ndarray:
        """Which rows of this view have a hash of their pixels, bool [N]."""
        return is_hashed(self.data_seed or 0, counters(ids_N), view)

    def group_sizes(self, rows: int) -> np.ndarray:
        """The rows of each row group of a shard that has so many, int64 [groups]."""
        return group_sizes(rows, self.group_rows, len(self.views))

    def view_rows(self, rows: int) -> np.ndarray:
        """The row of each view of each input in a shard that has so many rows, int64 [V, inputs]:
        views as in `views`, inputs in the source's order."""
        return view_rows(rows, self.group_rows, len(self.views))

    def bounds(self, shard: int) -> tuple[int, int]:
        """The source rows [start, stop) of a shard."""
        start = shard * self.shard_inputs
        return start, min(start + self.shard_inputs, self.inputs)

    def inputs_of(self, shards: list[int]) -> int:
        """How many source rows these shards are made from."""
        return sum(stop - start for start, stop in map(self.bounds, shards))

    def file(self, shard: int) -> str:
        return f"data/{self.source.split}-{shard:05d}-of-{self.shards:05d}.parquet"

    def make_codec(self, folder: Folder | None = None) -> Codec:
        """The codec. To encode and decode it needs the folder where its side files lie, if it has
        any."""
        side_files = SideFiles(folder, self.shared)
        return parse_codec(self.codec, self.classes, self.dtype, side_files, self.link)

    def named_as(self, other: "Plan") -> "Plan":
        """This plan with the other's names for the same teacher and the same data: where a file
        lies, and what it is called, decides nothing."""
        teacher, source = self.teacher, self.source
        if teacher.fingerprint == other.teacher.fingerprint:
            teacher = teacher.replace(name=other.teacher.name)
        if source.is_as(other.source):
            kept = {name: getattr(other.source, name) for name in ("data", "origin", "revision")}
            source = source.replace(**kept)
        return self.replace(teacher=teacher, source=source)

    def check_same(self, other: "Plan", where: object) -> None:
        """Raises PlanMismatch that names each field in which `other`, found there, differs."""
        differing = self._differences(other)
        if differing:
            raise PlanMismatch(
                f"{where} holds a dump made otherwise: {'; '.join(differing[:4])}. Give the "
                f"options that it was made with, or choose another folder with --out"
            )

    def _differences(self, other: "Plan") -> list[str]:
        ours, theirs = _flatten(self.as_json), _flatten(other.as_json)
        mine, others = ours.pop("source.shards"), theirs.pop("source.shards")
        differing = [
            f"{key} is {_shown(ours.get(key, UNSAID.get(key)))} and was "
            f"{_shown(theirs.get(key, UNSAID.get(key)))}"
            for key in ours | theirs
            if ours.get(key) != theirs.get(key)
        ]
        if mine != others and self.shard_inputs == other.shard_inputs:
            count = max(len(mine), len(others))
            shards = [i for i in range(count) if mine[i:][:1] != others[i:][:1]]
            start, stop = self.bounds(shards[0])
            differing = [text for text in differing if not text.startswith("source.fingerprint")]
            differing.append(
                f"the source's rows {start:,} to {stop - 1:,} differ (shard {shards[0]}"
                + (f", and {len(shards) - 1} more shards)" if shards[1:] else ")")
            )
        return differing


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
