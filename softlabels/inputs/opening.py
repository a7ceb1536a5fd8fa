"""From `--data` and the names of its columns to a `Source`."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import datasets

from softlabels.errors import SourceError, UsageError
from softlabels.inputs.columns import describe as describe_columns
from softlabels.inputs.columns import find_columns, image_columns, is_listed, type_word
from softlabels.inputs.describing import describe
from softlabels.inputs.listed_labels import Spelling, spelling_of
from softlabels.inputs.reading_errors import as_source_error
from softlabels.inputs.sources import COLUMN_ROWS, Source
from softlabels.inputs.tables.flag_columns import FlagColumns
from softlabels.inputs.tables.live import MapTable
from softlabels.inputs.tables.opening import open_data, title_of
from softlabels.inputs.tables.table import ArrowTable, Table
from softlabels.system.progress import SILENT, Progress


@dataclass(frozen=True)
class LabelChoice:
    """What a command says of the data's labels: options of these names.

    labels: whether they are read at all
    own_labels: whether they are of other classes than the model's
    task: multilabel where a row may have several of the model's classes
    """

    labels: bool = True
    own_labels: bool = False
    task: str = "classification"

    @property
    def several(self) -> bool:
        """Whether labels are lists: those of other classes are one a row."""
        return self.task == "multilabel" and not self.own_labels


def open_source(
    data: Any,
    split: str = "train",
    *,
    revision: str | None = None,
    input_column: str | Sequence[str] | None = None,
    label_column: str | None = None,
    id_column: str | None = None,
    class_names: list[str] | None = None,
    labels: LabelChoice = LabelChoice(),
    spelling: Spelling | None = None,
    texts: bool = False,
    apart: bool = True,
    progress: Progress = SILENT,
) -> Source:
    """Open `data`: text or a data set in memory (see docs/getting-started.md).

    input_column, apart: as `find_columns` takes them.
    class_names: a model's; labels that are text are numbered by them, so that a split in which a
    class is missing gets the same numbers. labels: which ones are read, and whose classes they
    are. spelling: how lists of labels are to be read; by default as their values have it.
    texts: whether a model that reads texts asks for them, see `find_columns`.
    progress: gets what `describe` says of the source.

    Raises SourceError for data that can't be found, is empty, or whose columns leave a choice.
    """
    if isinstance(data, os.PathLike):
        data = os.fspath(data)
    title = title_of(data)
    with as_source_error(f"{title!r}, split {split!r}"):
        opened = open_data(data, split, revision)
        table = opened.table
        if len(table) == 0:
            names = ", ".join(list(table.features)[:10])
            raise SourceError(
                f"{title!r}, split {split!r}, has no rows"
                + (f" below the names of its columns, {names}" if names else "")
            )
        id = id_column or opened.id
        several = labels.several and labels.labels
        if several and label_column is not None and label_column not in table.features:
            table, label_column = _with_flags(table, label_column, id)
        columns = find_columns(table, input_column, label_column, id, several, texts, apart)
        if not labels.labels:  # found all the same, so that they are no inputs
            columns = replace(columns, label=None)
        if labels.own_labels and columns.label is None:
            raise SourceError(
                f"--own-labels: {data!r}, split {split!r}, has no label column; name it with "
                f"--label-column"
            )
        for name in image_columns(table, columns.inputs):
            table.features = table.features | {name: datasets.Image()}
        if several and columns.label is not None:
            spelling = spelling or _spelling(table, columns.label, title)
        known = tuple(class_names) if class_names else None
        paths = opened.id is not None and columns.id == opened.id
        source = Source(
            table, columns, title, opened.split, revision, known, opened.notes, paths,
            live=not isinstance(data, str), own_labels=labels.own_labels, spelling=spelling,
        )  # fmt: skip
        for line in describe(source) if progress is not SILENT else ():
            progress.say(line)
    return source


def _with_flags(table: Table, label_column: str, id: str | None) -> tuple[Table, str]:
    """The table with several columns of 0 and 1, joined by commas, as one of lists; as it is where
    only one column is named."""
    names = [name.strip() for name in label_column.split(",")]
    if len(names) == 1:
        return table, label_column
    if missing := [name for name in names if name not in table.features]:
        raise SourceError(
            f"--label-column: no column {missing[0]!r}; the data has "
            f"{describe_columns(table.features)}"
        )
    if len(set(names)) < len(names):
        raise SourceError(f"--label-column {label_column} names a column twice")
    if isinstance(table, MapTable):
        raise SourceError(
            "--label-column: a data set in memory gives a row's labels in one entry, as a tensor "
            "of 0 and 1"
        )
    if isinstance(table, ArrowTable):  # numbers that were kept as text for leading zeros
        table.to_numbers([name for name in table.padded if name != id])
    flags = FlagColumns(table, names)
    return flags, flags.name


def _spelling(table: Table, label: str, data: str) -> Spelling:
    """How the label column says which labels a row has. Raises SourceError for one label a row."""
    feature = table.features[label]
    if not is_listed(feature):
        raise SourceError(
            f"--task multilabel: {data!r} has one label a row, in the column {label!r} "
            f"({type_word(feature)}); expected a list of a row's labels. Name another column with "
            f"--label-column, or leave the labels out with --no-labels"
        )
    starts = range(0, len(table), COLUMN_ROWS)
    blocks = (table.read([label], a, min(a + COLUMN_ROWS, len(table)))[label] for a in starts)
    return spelling_of(label, feature, blocks)


@dataclass(frozen=True)
class DataChoice:
    """What a command names of its data: options of these names. None is for what the model's file
    remembers, or for the default."""

    data: Any
    split: str
    revision: str | None
    input_column: str | Sequence[str] | None
    label_column: str | None
    id_column: str | None


def open_chosen(
    choice: DataChoice,
    model: str = "",
    remembered: dict[str, Any] | None = None,
    progress: Progress = SILENT,
    labels: LabelChoice = LabelChoice(),
    texts: bool = False,
) -> Source:
    """The source that was chosen, else the one that the file of `model` remembers.

    texts: whether the model reads texts

    Columns that a model remembers go with its own data only. Raises UsageError where neither
    names the data.
    """
    remembered = remembered or {}
    place = {"data": choice.data} if choice.data is not None else remembered
    if "data" not in place:
        raise UsageError(
            f"{model} does not remember its data; say it with --data digits, --data FOLDER or "
            f"--data OWNER/NAME"
        )
    if place.get("live"):
        raise UsageError(
            f"{model} was trained on {place['data']!r}, a data set in memory; give it in Python "
            f"with data=…, or say where such data lie, with --data"
        )
    return open_source(
        place["data"],
        choice.split,
        revision=choice.revision or place.get("revision"),
        input_column=choice.input_column or place.get("input_column"),
        label_column=choice.label_column or place.get("label_column"),
        id_column=choice.id_column or place.get("id_column"),
        class_names=None if labels.own_labels else remembered.get("class_names"),
        labels=labels,
        texts=texts,
        progress=progress,
    )
