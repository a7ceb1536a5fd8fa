"""Which columns of a table are the input, the label and the id.

Columns that the user did not name are found by type. A column that counts or names rows, or says
how rows are to be used (a fold, a split, a weight), is never an input unless the user names it.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import datasets
import numpy as np
from PIL import Image

from softlabels.errors import SourceError
from softlabels.inputs.cells import image_content
from softlabels.inputs.hints import hint_of_text
from softlabels.inputs.labels import LABEL_NAMES
from softlabels.inputs.number_columns import check_numbers
from softlabels.inputs.tables.table import ArrowTable, Table
from softlabels.inputs.token_columns import found_tokens, named_tokens, refuse_written_out

# what pandas calls an index without a name, and what people call ids, such as `PassengerId`
INDEX_NAMES = re.compile(
    r"unnamed: \d+(\.\d+)*|__index_level_\d+__|level_\d+|index|idx|row_?(nr|no|num|number|index)"
    r"|(.*[_ .-]|row)?(id|ids|idx|uid|uuid|guid)"
)
CAMEL_ID = re.compile(r".*[a-z](Id|ID)")
# names of columns that say what rows are used for: folds, splits, weights
USE_NAMES = re.compile(
    r"(k_?|cv_?)?folds?|(.*_)?fold(_.*)?|split|subset|partition|set|(.*_)?weights?"
    r"|is_?(train|test|valid|val)"
)
FEW_ROWS = 5  # in fewer rows, numbers may rise by chance
PEEK_ROWS = 3
BLOCK_ROWS = 65_536
OTHER_WORDS = {"bool": "true and false", "null": "missing values"}  # for types of CSV columns
PAIR = 2  # texts of a row at most, as tokenizers take them


@dataclass(frozen=True)
class Columns:
    """The columns by their part.

    inputs: one column; several of single numbers, which are stacked into a vector; several of
    numbers that stay apart; two of texts; or `input_ids`, and other columns of one number a token
    mask: of tokens, the column that says which of them are no padding
    apart: whether columns of numbers are inputs of their own, which a model takes by name
    notes: remarks for the user on columns that were left out
    """

    inputs: tuple[str, ...]
    label: str | None
    id: str | None
    mask: str | None = None
    apart: bool = False
    notes: tuple[str, ...] = field(default=(), compare=False)


def find_columns(
    table: Table,
    inputs: str | Sequence[str] | None,
    label: str | None,
    id: str | None,
    several: bool = False,
    texts: bool = False,
    apart: bool = True,
) -> Columns:
    """Check the columns that the user named, and find the others by type.

    inputs: one name, several joined by commas, or a sequence of names.
    several: whether rows have several labels, so that the label is a column of lists.
    texts: whether the inputs are to be texts: named columns of a CSV file that look like numbers
        are taken as they are written
    apart: whether a sequence of columns of numbers stays apart; else they are one vector, as
        those that are joined by commas

    Raises SourceError where a column is missing, or where types or names leave a choice, and for a
    label of the other kind.
    """
    features = table.features
    inputs = inputs[0] if inputs and not isinstance(inputs, str) and len(inputs) == 1 else inputs
    named = _named(inputs, features)
    for name, flag in [(n, "--input-column") for n in named] + [
        (label, "--label-column"),
        (id, "--id-column"),
    ]:
        if name is not None and name not in features:
            raise SourceError(f"{flag}: no column {name!r}; the data has {describe(features)}")
    twice = next((name for name in named if named.count(name) > 1), None)
    if twice is not None:
        raise SourceError(f"--input-column names {twice!r} twice")
    if label is not None and is_listed(features[label]) and not several:
        raise SourceError(f"--label-column: {_listed(table, label)}")
    written = _as_written(table, named) if texts else []
    taken = (*named, *((id,) if id else ()))
    if several:
        label = label or _find_listed_label(features, taken)
    label = label or _find_label(features, taken)
    if isinstance(table, ArrowTable):
        table.to_numbers([name for name in table.padded if name not in (label, id)])
        features = table.features
    lists = None if label else _find_listed_label(features, taken)
    notes = (f"warning: {_listed(table, lists)}",) if lists else ()
    rest = [name for name in features if name not in (label, lists, id)]
    tokens = named_tokens(features, named) if named else found_tokens(features, rest)
    if tokens is not None:
        return Columns(tokens.inputs, label, id, tokens.mask, notes=(*notes, *tokens.notes))
    if named:
        notes = (*notes, *written, *_check_named(table, named, doubt=not written))
        if len(named) > 1 and not is_text_feature(table.features[named[0]]):
            apart = apart and not isinstance(inputs, str)
            check_numbers(table.features, named, apart)
            if apart:
                return Columns(tuple(sorted(named)), label, id, apart=True, notes=notes)
        return Columns(named, label, id, notes=notes)
    refuse_written_out(features, rest)
    columns = _find_inputs(table, rest, label, id)
    return replace(columns, notes=notes + columns.notes)


def image_columns(table: Table, names: Sequence[str]) -> list[str]:
    """Those of these columns that hold encoded images without the feature Image: bytes, or structs
    of bytes and path, whose first cells Pillow can open."""
    return [name for name in names if _may_be_images(table, name) and _are_images(table, name)]


def _named(inputs: str | Sequence[str] | None, features: dict[str, Any]) -> tuple[str, ...]:
    if isinstance(inputs, str):
        whole = inputs in features
        return (inputs,) if whole else tuple(name.strip() for name in inputs.split(","))
    return tuple(inputs or ())


def _as_written(table: Table, named: tuple[str, ...]) -> list[str]:
    """Make texts of columns of a CSV file that were read as numbers, or as true and false: 007 has
    its zeros, 1.0 its point. A note on each."""
    if not isinstance(table, ArrowTable):
        return []
    others = [n for n in named if n in table.padded or not is_text_feature(table.features[n])]
    kinds = {name: OTHER_WORDS.get(type_word(table.features[name]), "numbers") for name in others}
    made = table.to_texts(others)
    return [f"{n!r} is read as texts, as written, and not as {kinds[n]}" for n in made]


def _check_named(table: Table, named: tuple[str, ...], doubt: bool) -> list[str]:
    """Warnings about texts that the user named as inputs. Raises SourceError for texts beside other
    inputs, and for more than a pair.

    doubt: whether to look at them, for numbers that are text by mistake
    """
    texts = [name for name in named if is_text_feature(table.features[name])]
    others = [name for name in named if name not in texts]
    if texts and others:
        raise SourceError(
            f"--input-column: {texts[0]!r} is text, and {others[0]!r} is "
            f"{type_word(table.features[others[0]])}; the inputs are numbers, one column of texts, "
            f"or two of them as pairs"
        )
    if len(texts) > PAIR:
        raise SourceError(
            f"--input-column names {len(texts)} columns of texts, {', '.join(texts)}; a row is one "
            f"text or a pair: join some of them into one column"
        )
    hints = [hint for name in texts if doubt and (hint := hint_of_text(table, name))]
    return [f"warning: {hint}. Its cells are taken as texts, since it was named" for hint in hints]


def _find_label(features: dict[str, Any], taken: tuple[str, ...]) -> str | None:
    free = {name: f for name, f in features.items() if name not in taken}
    classes = [name for name, f in free.items() if isinstance(f, datasets.ClassLabel)]
    if len(classes) > 1:
        raise SourceError(
            f"several columns hold class labels: {', '.join(classes)}; choose with --label-column"
        )
    named = [
        name
        for wished in LABEL_NAMES
        for name in free
        if name.strip().lower() == wished and is_scalar(free[name])
    ]
    return next(iter(classes or named), None)


def _find_listed_label(features: dict[str, Any], taken: tuple[str, ...]) -> str | None:
    """A column of lists of ClassLabels, or one that is named like labels and holds lists."""
    lists = {n: f for n, f in features.items() if n not in taken and is_listed(f)}
    classes = [n for n, f in lists.items() if _inner_is_class(f)]
    if len(classes) > 1:
        raise SourceError(
            f"several columns hold lists of class labels: {', '.join(classes)}; choose with "
            f"--label-column"
        )
    named = (n for wished in LABEL_NAMES for n in lists if n.strip().lower() == wished)
    return next(iter([*classes, *named]), None)


def _inner_is_class(feature: Any) -> bool:
    return isinstance(getattr(feature, "feature", None), datasets.ClassLabel)


def is_listed(feature: object) -> bool:
    """Whether a column holds lists."""
    return is_array(feature) or isinstance(feature, datasets.List)


def _listed(table: Table, name: str) -> str:
    """Why a column of lists is not the label, and what to do about it."""
    cells = table.read([name], 0, min(len(table), PEEK_ROWS))[name].to_pylist()
    lengths = sorted({len(cell) for cell in cells if cell is not None})
    count = f"{lengths[0]:,}" if len(lengths) == 1 else "several"
    return (
        f"the column {name!r} holds lists of {count} values, as several labels a row or one-hot "
        f"labels do, and is no label here: a row has one class at most. For several labels a row, "
        f"of the model's classes, say --task multilabel; else write a column of the class's number "
        f"(of one-hot labels the argmax), or name another with --label-column"
    )


def _find_inputs(table: Table, rest: list[str], label: str | None, id: str | None) -> Columns:
    features = table.features
    images = [name for name in rest if isinstance(features[name], datasets.Image)]
    images = images or image_columns(table, rest)
    arrays = [name for name in rest if is_array(features[name])]
    for candidates in (images, arrays):
        if len(candidates) == 1:
            return Columns((candidates[0],), label, id)
        if candidates:
            each = " ".join(f"--input-column {name}" for name in candidates[:10])
            raise SourceError(
                f"several columns could be the input: {', '.join(candidates)}; "
                f"choose with --input-column"
                + f". A model that takes several by name gets them with {each}"
                * (candidates is arrays)
            )
    counting = [name for name in rest if _names_rows(name)]
    others = [name for name in rest if name not in counting]
    if len(others) == 1 and is_text_feature(features[others[0]]) and not _says_use(others[0]):
        if (hint := hint_of_text(table, others[0])) is None:
            return Columns((others[0],), label, id, notes=_left_out(counting))
        raise SourceError(
            f"{hint}. If its cells are the texts to classify, say --input-column {_joined(others)}"
        )
    scalars = [name for name in others if is_number(features[name])]
    if not scalars or len(scalars) < len(others):
        raise SourceError(_no_input(table, others, scalars))
    _refuse_doubtful(table, scalars, label)
    notes = list(_left_out(counting))
    rising = [name for name in scalars if _rises(table, name)]
    if rising and len(rising) < len(scalars):
        raise SourceError(
            f"the column {rising[0]!r} rises from row to row, as numbers of rows do. Say what the "
            f"inputs are: --input-column {_joined(scalars, rising)}, or with it --input-column "
            f"{_joined(scalars)}"
        )
    if rising:
        notes.append(
            f"warning: the inputs {_some(rising)} rise from row to row, as numbers of rows do"
        )
    return Columns(tuple(scalars), label, id, notes=tuple(notes))


def _left_out(counting: list[str]) -> tuple[str, ...]:
    if not counting:
        return ()
    names = ", ".join(map(repr, counting))
    return (f"left out as inputs: {names}, by name an index; --input-column takes them in",)


def _refuse_doubtful(table: Table, scalars: list[str], label: str | None) -> None:
    """Raises SourceError for columns of numbers whose names are those of labels, weights or
    folds."""
    second = [name for name in scalars if name.strip().lower() in LABEL_NAMES]
    if {"x", "y"} <= set(map(str.lower, scalars)):  # a point has both
        second = [name for name in second if name.lower() != "y"]
    uses = [name for name in scalars if _says_use(name)]
    for names, what in ((second, f"labels beside {label!r}"), (uses, "what rows are used for")):
        if names and len(names) < len(scalars):
            raise SourceError(
                f"the column {names[0]!r} looks like {what}. Say what the inputs are: "
                f"--input-column {_joined(scalars, names)}, or with it --input-column "
                f"{_joined(scalars)}"
            )


def _no_input(table: Table, others: list[str], scalars: list[str]) -> str:
    features = table.features
    texts = [name for name in others if is_text_feature(features[name])]
    text = "no column is an image or a list of numbers; the data has " + describe(features)
    text += next((f". {hint}" for name in texts if (hint := hint_of_text(table, name))), "")
    if texts and "The column" not in text:
        pair = f", or a pair with --input-column {_joined(texts[:2])}" if len(texts) > 1 else ""
        more = f"; the numbers are --input-column {_joined(scalars)}" if scalars else ""
        return (
            f"{text}. Texts are in {_some(texts)}: choose with --input-column {_joined(texts[:1])}"
            f"{pair}{more}. A column of labels is named with --label-column"
        )
    if scalars:
        return f"{text}. Name the input, such as --input-column {_joined(scalars)}"
    return f"{text}. Name the input with --input-column (several joined by commas)"


def _rises(table: Table, name: str) -> bool:
    """Whether a column holds whole numbers, each larger than the one before."""
    last = None
    for start in range(0, len(table), BLOCK_ROWS):
        values = table.read([name], start, min(start + BLOCK_ROWS, len(table)))[name]
        if values.null_count:
            return False
        array = values.to_numpy()
        if not (array[1:] > array[:-1]).all() or not (array == np.floor(array)).all():
            return False
        if last is not None and not array[0] > last:
            return False
        last = array[-1]
    return len(table) >= FEW_ROWS


def _some(names: list[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10:,} more" if len(names) > 10 else "")


def _says_use(name: str) -> bool:
    return bool(USE_NAMES.fullmatch(name.lower()))


def _names_rows(name: str) -> bool:
    lower = name.strip().lower()
    return bool(INDEX_NAMES.fullmatch(lower) or CAMEL_ID.fullmatch(name.strip()))


def _joined(scalars: list[str], without: Sequence[str] = ()) -> str:
    joined = ",".join(name for name in scalars if name not in without)
    return joined if re.fullmatch(r"[\w.,-]+", joined) else "'" + joined.replace("'", "'\\''") + "'"


def _may_be_images(table: Table, name: str) -> bool:
    feature = table.features[name]
    if isinstance(feature, dict):
        return set(feature) in ({"bytes", "path"}, {"bytes"})
    return isinstance(feature, datasets.Value) and "binary" in feature.dtype


def _are_images(table: Table, name: str) -> bool:
    cells = [c for c in table.read([name], 0, min(len(table), PEEK_ROWS))[name].to_pylist() if c]
    return any(_is_image(*image_content(cell)) for cell in cells)


def _is_image(content: bytes | None, path: str) -> bool:
    if content is None and not path:
        return False
    try:
        with Image.open(path if content is None else io.BytesIO(content)):
            return True
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False


def is_number(feature: object) -> bool:
    return isinstance(feature, datasets.Value) and feature.dtype.startswith(("int", "uint", "floa"))


def is_text_feature(feature: object) -> bool:
    return isinstance(feature, datasets.Value) and "string" in feature.dtype


def is_text_struct(feature: object) -> bool:
    """Whether a column holds structs of texts, as a dump stores pairs."""
    fields = feature.values() if isinstance(feature, dict) else ()
    return bool(fields) and all(map(is_text_feature, fields))


def is_scalar(feature: object) -> bool:
    return isinstance(feature, datasets.ClassLabel | datasets.Value)


def is_array(feature: object) -> bool:
    if isinstance(feature, datasets.Array2D | datasets.Array3D | datasets.Array4D):
        return True
    return isinstance(feature, datasets.List) and (
        is_number(feature.feature) or is_array(feature.feature)
    )


def describe(features: dict[str, Any]) -> str:
    """`x (float32), picture (Image)`; of many columns the first few."""
    names = [f"{name} ({type_word(f)})" for name, f in features.items()]
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def type_word(feature: object) -> str:
    if isinstance(feature, dict):
        return "struct"
    dtype = getattr(feature, "dtype", None)
    plain = not isinstance(feature, datasets.Image | datasets.ClassLabel)
    return dtype if isinstance(dtype, str) and plain else type(feature).__name__
