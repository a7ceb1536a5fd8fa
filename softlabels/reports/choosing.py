"""Which rows of a dump are shown: those of some ids or of a class, or where the teacher errs."""

from collections.abc import Sequence
from difflib import get_close_matches

import numpy as np

from softlabels.errors import UsageError
from softlabels.inputs.label_lists import LabelLists, Labels, known, none_of
from softlabels.store.reader import DumpReader
from softlabels.system.humanize import few

BLOCK_ROWS = 4096  # whose logits are looked at together


def rows_of_ids(reader: DumpReader, asked: Sequence[str]) -> np.ndarray:
    """All rows with these ids, whatever their view. Raises UsageError for an id that no row has."""
    texts = reader.ids.astype(str)
    for id in asked:
        if not (texts == id).any():
            near = few([repr(text) for text in get_close_matches(id, texts[:10_000].tolist(), 3)])
            some = f"near it are {near}" if near else f"ids are such as {texts[0]!r}"
            raise UsageError(f"--id: {reader.folder} has no id {id!r}; {some}")
    return np.flatnonzero(np.isin(texts, asked))


def chosen_rows(reader: DumpReader, class_: str | None, wrong: bool, most: int) -> np.ndarray:
    """A row for each input, ascending, `most` of them at most: of a class, by its name or number,
    and where the teacher errs, if these are asked for. Raises UsageError where there is none."""
    rows, what = first_views(reader), []
    if class_ is not None:
        what.append(f"of the class {class_!r}")
        rows = _of_class(reader, rows, class_)
    if wrong:
        what.append("where the teacher errs")
        labels = none_of(len(rows), False) if reader.labels is None else reader.labels[rows]
        there = known(labels)
        if not there.any() and len(rows):
            raise UsageError(
                f"--wrong: {reader.folder} has no labels of the teacher's classes, so it does not "
                f"say where the teacher errs; leave it out"
            )
        rows = rows[there][_errs(reader, rows[there], labels[there])]
    if not len(rows):
        raise UsageError(f"{reader.folder} has no row {' and '.join(what)}".rstrip())
    return spread(rows, most)


def first_views(reader: DumpReader) -> np.ndarray:
    """A row for each input: that of its first view."""
    return np.sort(reader.view_rows[0])


def spread(rows: np.ndarray, count: int) -> np.ndarray:
    """So many of these rows, as far from each other as can be."""
    return rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int)]


def _of_class(reader: DumpReader, rows: np.ndarray, asked: str) -> np.ndarray:
    """Those of the rows whose label is this class, by its name or number; where it is no class of
    the labels, those whose top class it is."""
    plan, labels = reader.plan, reader.source_labels
    if labels is not None:
        own = 0 if isinstance(labels, LabelLists) else int(labels.max(initial=-1)) + 1
        number = _number_of(asked, plan.label_names, plan.classes if reader.labelled else own)
        if number is not None:
            of_rows = labels[rows]
            is_list = isinstance(of_rows, LabelLists)
            return rows[of_rows.has(number) if is_list else of_rows == number]
    number = _number_of(asked, plan.source.class_names, plan.classes)
    if number is not None:
        return rows[_tops(reader, rows) == number]
    names = list(dict.fromkeys([*(plan.label_names or []), *(plan.source.class_names or [])]))
    near = get_close_matches(asked, names, 3)
    some = few(list(map(repr, near or names))) or f"numbers from 0 to {plan.classes - 1}"
    raise UsageError(f"--class: no class {asked!r}; {'near it are' if near else 'use'} {some}")


def _number_of(asked: str, names: list[str] | None, classes: int) -> int | None:
    if names and asked in names:
        return names.index(asked)
    return int(asked) if asked.isdecimal() and int(asked) < classes else None


def _errs(reader: DumpReader, rows: np.ndarray, labels: Labels) -> np.ndarray:
    """In which of these rows the teacher errs: its top class is another than the label, or, of
    several labels, it holds one of them for less likely than not, or another for more."""
    if not isinstance(labels, LabelLists):
        return _tops(reader, rows) != labels
    parts = [np.empty(0, bool)]
    for start in range(0, len(rows), BLOCK_ROWS):
        part = slice(start, start + BLOCK_ROWS)
        logits, which = reader.logits_of(rows[part])
        held_MC = (logits.temper(1).probs() > 0.5).numpy()
        wrong_M = (held_MC != labels[part].multi_hot(reader.plan.classes)[which]).any(-1)
        parts.append(np.bincount(which, wrong_M, minlength=len(rows[part])) > 0)
    return np.concatenate(parts)


def _tops(reader: DumpReader, rows: np.ndarray) -> np.ndarray:
    """The top class of each of these rows, of the first position where it has several."""
    parts = [np.empty(0, np.int64)]
    for start in range(0, len(rows), BLOCK_ROWS):
        logits, which = reader.logits_of(rows[start : start + BLOCK_ROWS])
        parts.append(logits.check()[0][np.unique(which, return_index=True)[1]])
    return np.concatenate(parts)
