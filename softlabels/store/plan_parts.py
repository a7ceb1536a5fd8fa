"""What a plan says of its teacher and of its source."""

import hashlib
import json
from typing import Annotated, Literal

from pydantic import ConfigDict, FailFast, Field

from softlabels.store.fields import SPLIT, Hash, Record, Rows, ShortHash, Text, Texts

MAX_SHARDS = 200_000


class PlanPart(Record):
    """A part of the plan: all of it decides what the rows are, so nothing unknown is ignored."""

    model_config = ConfigDict(extra="forbid")


class TeacherRecord(PlanPart):
    """The model whose logits these are."""

    name: Text = Field(description="its name for people")
    kind: Text = Field(description="the kind of its file")
    fingerprint: Hash = Field(description="the SHA-256 of its file, of its files or weights")
    model: Text | None = Field(description="its model spec, where the file does not say all")
    version: Text | None = Field(
        default=None,
        description="the version that the user gave of a callable's answers; left out for others",
    )
    key: Text | None = Field(
        default=None,
        description="where in the file its weights lie; left out where it holds no others",
    )
    logits: Text | None = Field(
        default=None,
        description="the tensor of its graph that is taken as the logits; left out where it is no "
        "graph of named tensors",
    )
    outputs: Literal["binary"] | None = Field(
        default=None,
        description="binary where it gives one logit z for two classes, stored as the pair (0, z); "
        "else left out",
    )


class SourceColumns(PlanPart):
    """The source's columns by their part."""

    inputs: Texts = Field(description="the columns that the teacher sees")
    label: Text | None = Field(description="the column of labels, if any")
    label_source: Text | None = Field(
        default=None,
        description="the column of labels of other classes than the teacher's, which no row is "
        "scored by; left out where there is none",
    )
    label_lists: Literal["numbers", "names", "flags"] | None = Field(
        default=None,
        description="how the source's column of labels lists those of a row: by numbers or names "
        "of classes, or by a flag for each class; left out where a row has one label at most",
    )
    id: Text | None = Field(
        description="the column of ids, if any; without it, a row's number is its id"
    )


class SourceRecord(PlanPart):
    """The data whose rows these are."""

    data: Text = Field(description="its Hub id, or the name of its file, folder or object")
    origin: Literal["embedded", "hub", "local", "live"] = Field(
        description="what its name is: hub for a Hub id, local for that of a file or folder, "
        "live for that of a data set in memory, embedded for what comes with softlabels"
    )
    split: str = Field(
        pattern=f"^{SPLIT}$",
        max_length=100,
        description="the split's name: letters, digits and _, with single . or - between; at most "
        "100 characters",
    )
    revision: Text | None = Field(description="its revision")
    kind: Literal["text", "tokens", "columns"] | None = Field(
        default=None,
        description="text where an input is a text or a pair of them, tokens where it is a row of "
        "token ids, columns where it is several columns of numbers by name; left out for others",
    )
    columns: SourceColumns = Field(description="the source's columns by their part: an object")
    class_names: Texts | None = Field(description="the names of the teacher's classes")
    class_names_from: Literal["data", "model", "file"] = Field(
        default="data",
        description="who names the classes: data, model, or file for a list of names beside them; "
        "left out where it is data",
    )
    label_source_names: Texts | None = Field(
        default=None,
        description="the names of the classes of label_source; left out where there are none",
    )
    rows: Rows = Field(description="the number of its rows")
    fingerprint: Hash = Field(description="the fingerprint of the keys of all rows")
    files: Hash | None = Field(
        default=None,
        description="which files its rows are read from; left out where that is not known before "
        "all are read",
    )
    sample: Hash | None = Field(
        default=None,
        description="the fingerprint of some rows of a data set in memory; left out for others",
    )
    shards: Annotated[list[ShortHash], FailFast()] = Field(
        max_length=MAX_SHARDS,
        description="the short fingerprints of the keys of the shards' rows: a list, of 200,000 "
        "at most",
    )

    @property
    def identity(self) -> str:
        """What is known of the source without its inputs, as one hash."""
        known = json.dumps([self.fingerprint, self.files or self.sample or self.data])
        return "sha256:" + hashlib.sha256(known.encode()).hexdigest()

    def is_as(self, other: "SourceRecord") -> bool:
        """Whether these are the same rows by another name, as far as is known without reading
        inputs: files and objects may be called anything, a dataset of the Hub has its name."""
        renamed = self.origin == other.origin and self.origin in ("local", "live")
        ours, theirs = ((s.fingerprint, s.files, s.sample) for s in (self, other))
        return renamed and ours == theirs
