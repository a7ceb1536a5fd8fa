"""Which rows of two dumps are the same, by id and view, each input hash and each parameter of a
view the same; and what else differs. R rows."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from softlabels.errors import AlignmentError, LabelSpaceMismatch, SoftlabelsError, UsageError
from softlabels.inputs.views.mixing import PARTNER
from softlabels.label_spaces import LabelSpace, match_label_spaces
from softlabels.store.inputs import find_ids
from softlabels.store.reader import DumpReader
from softlabels.store.shard_numbers import write_numbers
from softlabels.system.humanize import counted

ONE_SOURCE = "Side by side stand dumps of one source"
SHOWN = 5  # ids in a message


def find_same(ours: DumpReader, theirs: DumpReader) -> np.ndarray | None:
    """The place of each of our rows among theirs, int64 [R]; None where both have the same rows in
    one order, or theirs begin with ours. Of remote dumps the columns that say it are all that is
    read.

    Raises AlignmentError for rows that they lack, and for rows of the same id and view whose input
    is another.
    """
    _check_views(ours, theirs)
    for reader in (ours, theirs):
        reader.fetch(_key_columns(reader))
    where = _find_rows(theirs, ours)
    missing = np.flatnonzero(where < 0)
    if len(missing):
        raise AlignmentError(
            f"{len(missing)} of {len(ours.ids)} rows of {ours.folder} are not in "
            f"{theirs.folder}: first the {_keys(ours, missing)}. {ONE_SOURCE}"
            f"{_cut_otherwise(ours, theirs)}"
        )
    for what, mine, others in _compared(ours, theirs):
        other = np.flatnonzero(others[where] != mine)
        if len(other):
            raise AlignmentError(
                f"{len(other)} rows of {ours.folder} and {theirs.folder} have the same id "
                f"and other {what}: first the {_keys(ours, other)}. {ONE_SOURCE}"
            )
    return None if np.array_equal(where, np.arange(len(where))) else where


@dataclass(frozen=True)
class Difference:
    """In what two dumps differ that may stand side by side, and not be mixed. text: says so, with
    counts, ids and folders; error: what raises it."""

    text: str
    error: type[SoftlabelsError]


def differences(ours: DumpReader, theirs: DumpReader, where: np.ndarray | None) -> list[Difference]:
    """All that keeps two teachers' answers from being those of one, row by row: other tasks, other
    classes, rows or views that ours lack. where: what `find_same` gave."""
    found = []
    mine, others = ours.plan, theirs.plan
    if mine.task != others.task:
        text = f"{ours.folder} is for {mine.task} and {theirs.folder} for {others.task}"
        found.append(Difference(text, UsageError))
    try:
        match_label_spaces(_space(ours), _space(theirs))
    except LabelSpaceMismatch as error:
        found.append(Difference(str(error), LabelSpaceMismatch))
    extra = np.ones(len(theirs), bool)
    extra[slice(len(ours)) if where is None else where] = False
    if len(rows := np.flatnonzero(extra)):
        text = (
            f"{len(rows)} of {len(theirs)} rows of {theirs.folder} are not in {ours.folder}: first "
            f"the {_keys(theirs, rows)}{_cut_otherwise(ours, theirs)}"
        )
        found.append(Difference(text, AlignmentError))
    return found


def _space(reader: DumpReader) -> LabelSpace:
    plan = reader.plan
    return LabelSpace(str(reader.folder), plan.classes, plan.source.class_names)


def _key_columns(reader: DumpReader) -> list[str]:
    """What rows are compared by."""
    plan = reader.plan
    if not plan.has_views:
        return ["id", "input_hash"]
    mixes = [PARTNER] * (plan.mixing is not None)
    return ["id", "input_hash", "view", *plan.parameters, *mixes]


def _check_views(ours: DumpReader, theirs: DumpReader) -> None:
    """Raises AlignmentError where a view of the same number shows another thing: columns that only
    one of them has, the order of the words and what they fill with can't be compared row by row."""
    mine, others = ours.plan.augmentation, theirs.plan.augmentation
    if mine is None or others is None:  # then of view 0 alone there can be rows in both
        return
    sizes = [(reader.plan.view_shape or [])[1:] for reader in (ours, theirs)]
    same = mine == others if sizes[0] == sizes[1] else mine.is_at_another_size(others)
    if not same:
        first, second = (
            f"{reader.folder} are drawn by {reader.plan.augment} of {size[0]}×{size[1]} pixels"
            for reader, size in zip((ours, theirs), sizes, strict=True)
        )
        raise AlignmentError(
            f"the views of {first}, those of {second}: their teachers saw other pictures in views "
            f"of the same number. {ONE_SOURCE}, drawn alike"
        )


def _find_rows(theirs: DumpReader, ours: DumpReader) -> np.ndarray:
    """The place of each of our rows among theirs, by id and view, int64 [R]; −1 for none."""
    if not ours.plan.has_views and not theirs.plan.has_views:
        return find_ids(theirs.ids, ours.ids)
    where = np.full(len(ours), -1)
    for view in ours.plan.views:
        mine, among = np.flatnonzero(ours.views == view), np.flatnonzero(theirs.views == view)
        places = find_ids(theirs.ids[among], ours.ids[mine])
        where[mine[places >= 0]] = among[places[places >= 0]]
    return where


def _compared(ours: DumpReader, theirs: DumpReader) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """What rows of the same id and view have in common, in ours and in theirs."""
    yield "inputs", ours.hashes, theirs.hashes
    for name in ours.drawn.keys() & theirs.drawn.keys():
        yield f"{name} of their view", ours.drawn[name], theirs.drawn[name]
    if ours.plan.mixing is not None and theirs.plan.mixing is not None:
        yield "partner of their view", ours.partners, theirs.partners


def _cut_otherwise(ours: DumpReader, theirs: DumpReader) -> str:
    """What there is to say of shards where some of each dump are chosen by their numbers."""
    sizes = [reader.plan.shard_inputs for reader in (ours, theirs)]
    if sizes[0] == sizes[1] or all(reader.is_whole for reader in (ours, theirs)):
        return ""
    numbers = write_numbers(ours.numbers)
    return (
        f". By --shards {numbers} they have other rows, since a shard of {ours.folder} has "
        f"{counted(sizes[0], 'input')} and one of {theirs.folder} {sizes[1]:,}: leave it out, or "
        f"dump with one --shard-rows"
    )


def _keys(reader: DumpReader, rows: np.ndarray) -> str:
    """The ids of the first of these rows, and their views where there are several."""
    ids = ", ".join(str(reader.ids[row]) for row in rows[:SHOWN])
    if not reader.plan.has_views:
        return f"ids {ids}"
    return f"ids {ids}, of view {reader.views[rows[0]]}"
