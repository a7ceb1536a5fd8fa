"""What the user reads about a source when it is opened: rows, inputs, classes, ids, oddities."""

from collections import Counter
from typing import Any, NamedTuple

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from softlabels.errors import SourceError
from softlabels.inputs.cells import missing_text
from softlabels.inputs.columns import type_word
from softlabels.inputs.label_lists import LabelLists, known
from softlabels.inputs.labels import warnings_of
from softlabels.inputs.sources import Source
from softlabels.system.humanize import counted, short

SHOWN = 10
LOOKED_AT = 1024  # rows, for numbers that float32 can't hold
# as programs write a missing value, which stand in texts that were made of such values
MISSING = ["NA", "N/A", "#N/A", "NaN", "nan", "<NA>", "null", "NULL", "None", "NaT"]


def describe(source: Source) -> list[str]:
    """A line about the source, and one for everything that was left out or looks odd; warnings
    begin `warning: `. Reads the labels once, and texts and tokens: raises SourceError where one is
    missing.
    """
    noun = {"image": "image", "text": "text"}.get(source.kind, "row")
    noun = "pair" if source.kind == "text" and len(source.columns.inputs) > 1 else noun
    span = _span(source)
    parts = [counted(len(source), noun) + _classes(source, span)]
    if source.kind != "image":
        parts.append(_inputs(source))
    elif source.columns.inputs != ("image",):
        parts.append(f"input {source.columns.inputs[0]}")
    parts += [_ids(source)]
    text = f"data {source.name}, split {source.split}: " + "; ".join(parts)
    notes = [*source.notes, *source.columns.notes, *_empty(source), *_rounded(source)]
    if source.labelled and source.class_names:
        modelled = source.known_classes is not None
        notes += warnings_of(source.class_names, modelled)
        if not modelled and source.spelling is None:
            notes += _other_codes(source, source.class_names)
    missing = span.missing
    if missing:
        some = f"{missing:,} of {len(source):,} rows have no label"
        which = "no row has a label" if missing == len(source) else some
        notes.append(f"{which} in {source.columns.label!r}")
    if missing and source.class_names is None and span.low == span.high and not source.spelling:
        notes.append(
            f"warning: the labels in {source.columns.label!r} are −1, which means none, and "
            f"{span.high}; where these are two classes, call them 0 and 1"
        )
    return [text, *notes]


def _rounded(source: Source) -> list[str]:
    """Warnings about whole numbers that float32 can't hold, among the first rows: as inputs, such
    as the numbers of accounts, they would become those of others in silence."""
    if source.kind not in ("array", "columns") or source.runs_code:
        return []
    warnings = []
    for name in source.columns.inputs:
        dtype = _dtype(source.table.features[name])
        whole = dtype.startswith(("int", "uint")) and not source.columns.apart
        if not (whole or dtype == "float64"):  # a column that stays apart keeps its whole numbers
            continue
        cells = source.table.read([name], 0, min(len(source), LOOKED_AT))[name].combine_chunks()
        values = _flat(cells)
        with np.errstate(all="ignore"):
            kept = values.astype(np.float32)
            lost = (kept.astype(values.dtype) != values) & (values == np.floor(values))
        lost &= np.isfinite(kept)  # others are refused, and named by their row
        if lost.any():
            place = int(np.flatnonzero(lost)[0])
            warnings.append(
                f"warning: the input {name!r} has {values[place]:.0f}, and models get float32, "
                f"which makes {float(kept[place]):.0f} of it. If these numbers name rows or are "
                f"times, leave the column out with --input-column; if they count, divide them, or "
                f"take a constant off"
            )
    return warnings


def _dtype(feature: Any) -> str:
    """The type of the numbers of a column, or of those in its lists."""
    while isinstance(feature, datasets.List):
        feature = feature.feature
    return str(getattr(feature, "dtype", ""))


def _flat(cells: pa.Array) -> np.ndarray:
    """All numbers in a column, or in its lists; empty ones are left out."""
    if isinstance(cells, pa.ExtensionArray):
        cells = cells.storage
    while pa.types.is_nested(cells.type):
        cells = cells.flatten()
    values: np.ndarray = cells.drop_null().to_numpy(zero_copy_only=False)
    return values


def _empty(source: Source) -> list[str]:
    """Warnings about texts without a character, and about those that are spelled like a missing
    value. Raises SourceError where one is missing, before anything is made of the others."""
    if source.kind != "text":
        return []
    empty, spelled, start = Counter[str](), Counter[str](), 0
    for columns in source.text_blocks():
        rows = len(next(iter(columns.values())))
        for name, column in columns.items():
            if column.null_count:
                row = start + pc.index(column.is_null(), True).as_py() + 1
                raise SourceError(
                    f"row {row:,} of {len(source):,} in {source.data!r} has {missing_text(name)}"
                )
            blank = pc.equal(pc.utf8_trim_whitespace(column), "")
            empty[name] += pc.sum(blank).as_py() or 0
            likely = pc.is_in(column, pa.array(MISSING, column.type))
            spelled[name] += pc.sum(likely).as_py() or 0
        start += rows
    blanks = [
        f"warning: {count:,} of {len(source):,} texts in {name!r} are empty"
        for name, count in empty.items()
        if count
    ]
    return blanks + [
        f"warning: {count:,} of {len(source):,} texts in {name!r} are spelled like a missing value "
        f"(NA, None, nan, null, …), and are taken as texts; where one is missing, leave out its row"
        for name, count in spelled.items()
        if count
    ]


def _other_codes(source: Source, names: list[str]) -> list[str]:
    """A warning where a categorical column numbers its values in another order than ours: a model
    that was trained on those codes has other class numbers."""
    label = source.columns.label or ""
    codes = source.table.categories(label)
    if codes is None or codes == names:
        return []
    return [
        f"warning: the categories of {label!r} have the order {_some(codes)} in the file; classes "
        f"are numbered in the order of their texts, {_some(names)}. A model trained on the codes "
        f"has other class numbers: to keep its order, write the column as a ClassLabel of datasets "
        f"or as whole numbers"
    ]


def _some(names: list[str]) -> str:
    return ", ".join(map(short, names[:SHOWN])) + (", …" if len(names) > SHOWN else "")


class Span(NamedTuple):
    """The smallest and the largest label, how many there are, and how many rows have none."""

    low: int
    high: int
    total: int
    missing: int


def _span(source: Source) -> Span:
    lows, highs, count, missing = [], [], 0, 0
    for labels in source.label_blocks():
        there = labels.numbers if isinstance(labels, LabelLists) else labels[labels >= 0]
        missing += int((~known(labels)).sum())
        count += len(there)
        if len(there):
            lows.append(int(there.min()))
            highs.append(int(there.max()))
    return Span(min(lows, default=0), max(highs, default=-1), count, missing)


def _classes(source: Source, span: Span) -> str:
    if not source.labelled:
        return " without labels"
    return _labels(source, span) + " (kept apart, as label_source)" * source.own_labels


def _labels(source: Source, span: Span) -> str:
    names = source.class_names
    if source.spelling is not None:
        mean = span.total / max(1, len(source) - span.missing)
        of = f"{len(names):,} classes {_some(names)}" if names else f"{span.low} to {span.high}"
        of = f"{source.flags:,} classes" if source.flags is not None else of
        return f", several labels a row, {source.columns.label}: {mean:.2g} on average, of {of}"
    if names is None:
        if span.high < span.low:
            return ""
        return f", labels {source.columns.label} from {span.low} to {span.high}"
    shown = _some(names)
    count = f"{len(names):,} {'class' if len(names) == 1 else 'classes'}"
    return f" in {count}: {shown}" if source.kind == "image" else (
        f", label {source.columns.label}: {count} {shown}"
    )  # fmt: skip


def _inputs(source: Source) -> str:
    names = source.columns.inputs
    shown = ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
    kinds = sorted({_kind(source.table.features[name]) for name in names})
    count = f"{len(names)} inputs" if len(names) > 1 else "input"
    span = ""
    if source.kind == "tokens":
        least, most = source.token_span.shortest.value, source.token_span.longest.value
        span = f", {least:,}{'' if least == most else f' to {most:,}'} tokens a row"
    return f"{count} {shown} ({', '.join(kinds)}){span}"


def _kind(feature: object) -> str:
    if isinstance(feature, datasets.List):
        inner = _kind(feature.feature)
        length = "" if feature.length < 0 else f"{feature.length} "
        return f"lists of {length}{inner}"
    return type_word(feature)


def _ids(source: Source) -> str:
    if source.columns.id is None:
        return "ids are row numbers"
    return "ids are paths" if source.id_is_path else f"ids are {source.columns.id}"
