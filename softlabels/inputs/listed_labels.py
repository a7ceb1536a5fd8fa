"""A label column of lists: several labels a row, as people write them. N rows."""

from collections.abc import Iterable
from typing import Any, Literal

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from softlabels.errors import LabelSpaceMismatch, SourceError
from softlabels.inputs.label_lists import LabelLists
from softlabels.inputs.labels import class_numbers, names_of_texts
from softlabels.inputs.plain import is_text

Spelling = Literal["numbers", "names", "flags"]
WRITE = (
    "Write each row's class numbers as datasets.List(datasets.ClassLabel(names=…)), its class "
    "names as a list of text, or true and false for each class"
)


def class_names(feature: Any) -> list[str] | None:
    """Those of a list of ClassLabels."""
    inner = getattr(feature, "feature", None)
    return list(inner.names) if isinstance(inner, datasets.ClassLabel) else None


def spelling_of(name: str, feature: Any, blocks: Iterable[pa.ChunkedArray]) -> Spelling:
    """How a column says which labels a row has: by numbers or names of classes, or by a flag, 0 or
    1, for each class. Of whole numbers that are no ClassLabel the column is read until that is
    certain: a number above 1 is no flag, and no row names a class twice.

    Raises SourceError for other values, and where lists of one or two may be either.
    """
    if class_names(feature) is not None:
        return "numbers"
    lengths: set[int] = set()
    for column in blocks:
        inner = column.type.value_type
        if is_text(inner):
            return "names"
        if pa.types.is_boolean(inner) or pa.types.is_floating(inner):
            return "flags"
        if not pa.types.is_integer(inner):
            raise SourceError(f"the label column {name!r} holds lists of {inner}. {WRITE}")
        numbers = pc.list_flatten(column)
        if pc.max(numbers).as_py() is not None and pc.max(numbers).as_py() > 1:
            return "numbers"
        lengths |= set(pc.unique(pc.list_value_length(column.drop_null())).to_pylist())
        if len(lengths) > 1:
            return "numbers"
        if max(lengths, default=0) > 2:  # of two values, one comes twice
            return "flags"
    if lengths <= {0}:
        return "numbers"
    count = lengths.pop()
    raise SourceError(
        f"the label column {name!r} holds lists of {count} of the numbers 0 and 1, which may "
        f"number classes, or say of {count} classes which a row has. {WRITE}"
    )


def names_of_lists(blocks: Iterable[pa.ChunkedArray]) -> list[str]:
    """The class names of a column of lists of text, in order."""
    return names_of_texts(pc.list_flatten(column) for column in blocks)


def flag_count(column: pa.ChunkedArray) -> int | None:
    """How many flags the first row of these has that has some."""
    lengths = pc.list_value_length(column.drop_null())
    return lengths[0].as_py() if len(lengths) else None


def lists_of(
    column: pa.ChunkedArray,
    name: str,
    spelling: Spelling,
    names: list[str] | None,
    flags: int | None = None,
) -> LabelLists:
    """The labels of each row; those of an empty cell are unknown.

    names: of the classes. flags: how many each row has.

    Raises SourceError for cells that say something else, and LabelSpaceMismatch for what is no
    class.
    """
    lists = column.combine_chunks()
    counts_N = pc.list_value_length(lists).cast(pa.int64()).fill_null(-1).to_numpy()
    values = lists.flatten()
    if values.null_count:
        raise _unknown(name, "null")
    if spelling == "flags":
        return _of_flags(values, counts_N, name, flags)
    if spelling == "names":
        if not is_text(values.type):
            raise SourceError(f"the label column {name!r} holds lists of {values.type}. {WRITE}")
        values = class_numbers(values, name, names or [])
    if not pa.types.is_integer(values.type):
        raise SourceError(f"the label column {name!r} holds lists of {values.type}. {WRITE}")
    numbers = values.cast(pa.int64()).to_numpy()
    _check_numbers(numbers, name, names)
    return _ascending(counts_N, numbers, name)


def _of_flags(values: pa.Array, counts_N: np.ndarray, name: str, flags: int | None) -> LabelLists:
    there = counts_N >= 0
    if len(wrong := np.flatnonzero(there & (counts_N != flags))):
        raise SourceError(
            f"the label column {name!r} holds a list of {counts_N[wrong[0]]} flags where the first "
            f"row has {flags}; give one for each class in each row, or null where they are unknown"
        )
    marks = values.cast(pa.float64()).to_numpy(zero_copy_only=False)
    if len(strange := marks[(marks != 0) & (marks != 1)]):
        if strange[0] in (-1, -100) or np.isnan(strange[0]):
            raise _unknown(name, f"{strange[0]:g}")
        raise SourceError(
            f"the label column {name!r} holds {strange[0]:g} in a list of {flags} numbers; hard "
            f"labels say of each class 0 or 1. {WRITE}"
        )
    marks_NC = marks.reshape(int(there.sum()), flags or 0)
    found = counts_N.copy()
    found[there] = marks_NC.sum(-1)
    return LabelLists.of_numbers(found, np.nonzero(marks_NC)[1])


def _unknown(name: str, value: str) -> SourceError:
    return SourceError(
        f"the label column {name!r} holds {value} in a list, as for a label that is unknown of a "
        f"row; labels are known of all classes or of none. Write 0 or 1 there, leave it out of a "
        f"list of classes, or write null in place of the whole list"
    )


def _check_numbers(numbers: np.ndarray, name: str, names: list[str] | None) -> None:
    low, high = numbers.min(initial=0), numbers.max(initial=-1)
    if low < 0:
        raise LabelSpaceMismatch(
            f"the label column {name!r} holds {low} in a list; classes are numbered from 0. Leave "
            f"out what stands for no label"
        )
    if names is not None and high >= len(names):
        raise LabelSpaceMismatch(
            f"the label column {name!r} holds {high}, but the data name {len(names):,} classes, 0 "
            f"to {len(names) - 1}; mend the names or the labels"
        )


def _ascending(counts_N: np.ndarray, numbers: np.ndarray, name: str) -> LabelLists:
    rows = np.repeat(np.arange(len(counts_N)), np.maximum(counts_N, 0))
    numbers = numbers[np.lexsort((numbers, rows))]
    twice = (rows[1:] == rows[:-1]) & (numbers[1:] == numbers[:-1])
    if twice.any():
        number = numbers[np.flatnonzero(twice)[0]]
        raise SourceError(
            f"the label column {name!r} names the class {number} twice in one row; name each once"
        )
    return LabelLists.of_numbers(counts_N, numbers)
