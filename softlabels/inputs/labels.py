"""Hard labels: which class has which number, and which rows have none."""

import re
from collections.abc import Iterable
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from softlabels.errors import LabelSpaceMismatch, SourceError
from softlabels.inputs.plain import is_text
from softlabels.label_spaces import spelled_otherwise
from softlabels.system.humanize import short

NONE = (-1, -100)  # torch's losses ignore the second
LABEL_NAMES = ("label", "labels", "target", "class", "y")


def in_order(names: Iterable[str]) -> list[str]:
    """Class names in the order of their numbers: by value where all are whole numbers, else as
    text."""
    names = sorted(set(names))
    return sorted(names, key=int) if are_numbers(names) else names


def are_numbers(names: list[str]) -> bool:
    return bool(names) and all(re.fullmatch(r"[+-]?[0-9]{1,18}", name) for name in names)


def warnings_of(names: list[str], known: bool) -> list[str]:
    """Warnings about class names. known: their order is that of a model's own names."""
    notes = []
    if not known and are_numbers(names) and names != sorted(names):
        notes.append(
            f"warning: classes named by whole numbers are numbered by value ({_first(names)}); "
            f"torchvision's ImageFolder and scikit-learn number them as text "
            f"({_first(sorted(names))}): a model trained there has other class numbers"
        )
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.strip().casefold(), name)
        if other != name:
            notes.append(
                f"warning: {short(other)!r} and {short(name)!r} are two classes that differ in "
                f"blanks or case"
            )
            break
    return notes


def names_of_texts(blocks: Iterable[pa.ChunkedArray]) -> list[str]:
    """The class names of a text column: its distinct texts in order."""
    distinct = {text for texts in blocks for text in pc.unique(texts).to_pylist()}
    return in_order(distinct - {None})


def numbers_of(column: pa.ChunkedArray, name: str, names: list[str] | None) -> np.ndarray:
    """Labels as int64 [N]: whole numbers as they are, texts by their place among the class names.
    An empty cell, −1 and −100 mean no label and become −1.

    Raises SourceError for other values, and LabelSpaceMismatch for other negative numbers and for
    numbers beyond the class names.
    """
    array = column.combine_chunks()
    if is_text(array.type):
        array = class_numbers(array, name, names or [])
    if pa.types.is_temporal(array.type):  # a cast would make numbers of them, counted from 1970
        raise _no_classes(array, name)
    if pa.types.is_floating(array.type):
        array = pc.if_else(pc.is_nan(array), None, array)
    try:
        labels = array.cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False).copy()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise _no_classes(array, name) from error
    labels[np.isin(labels, NONE)] = -1
    if labels.min(initial=-1) < -1:
        raise LabelSpaceMismatch(
            f"the label column {name!r} holds {labels.min()}; classes are numbered from 0, and "
            f"−1 or −100, which torch ignores, is no label. Mend the labels, or choose another "
            f"column with --label-column"
        )
    if names is not None and labels.max(initial=-1) >= len(names):
        raise LabelSpaceMismatch(
            f"the label column {name!r} holds {labels.max()}, but the data name "
            f"{len(names):,} classes, 0 to {len(names) - 1}; mend the names or the labels"
        )
    return labels


def _no_classes(array: pa.Array, name: str) -> SourceError:
    return SourceError(
        f"the label column {name!r} holds {array.type} values that are no classes "
        f"({_reason(array)}); choose another with --label-column"
    )


def class_numbers(texts: pa.Array, name: str, names: list[str]) -> pa.Array:
    """The place of each text among the class names, null for null. Raises LabelSpaceMismatch."""
    places = pc.index_in(texts, pa.array(names, texts.type))
    strange = texts.filter(pc.and_(places.is_null(), texts.is_valid()))
    if len(strange):
        label = strange[0].as_py()
        otherwise = spelled_otherwise(label, names)
        raise LabelSpaceMismatch(
            f"the label {label[:80]!r} in the column {name!r} is none of the model's {len(names)} "
            f"classes: {', '.join(map(short, names[:5]))}"
            + (f"; it {otherwise}" if otherwise else "")
        )
    return places


def _reason(array: pa.Array) -> str:
    if pa.types.is_floating(array.type) or pa.types.is_decimal(array.type):
        broken = array.filter(pc.not_equal(pc.floor(array), array))
        if len(broken):
            return f"such as {broken[0].as_py()!s:.20}"
    return "whole numbers or text are"


def _first(names: list[str]) -> str:
    return ", ".join(map(short, names[:4])) + (", …" if len(names) > 4 else "")


def class_names(feature: Any) -> list[str] | None:
    return list(feature.names) if isinstance(feature, datasets.ClassLabel) else None
