"""Labels checked against a teacher's number of classes."""

import numpy as np

from softlabels.errors import LabelSpaceMismatch
from softlabels.inputs.label_lists import LabelLists
from softlabels.inputs.sources import Source
from softlabels.label_spaces import WAYS_OUT


def has_two_classes(source: Source, class_names: list[str] | None) -> bool:
    """Whether the names of the classes, or without names the labels themselves, are two. Reads
    only the label column."""
    if class_names is not None or not source.labelled or source.own_labels:
        return len(class_names or []) == 2
    labels = source.labels
    return not isinstance(labels, LabelLists) and np.unique(labels[labels >= 0]).tolist() == [0, 1]


def check_labels(source: Source, classes: int, who: str) -> None:
    """Raises LabelSpaceMismatch for the first row whose label is not one of 0 … classes − 1. Reads
    only the label column, and nothing where the labels are of other classes."""
    if not source.labelled or source.own_labels:
        return
    if isinstance(source.labels, LabelLists):
        _check_lists(source, source.labels, classes, who)
        return
    labels = source.labels
    wrong = np.flatnonzero(labels >= classes)
    if not len(wrong):
        return
    row = int(wrong[0])
    id = source.read(row, row + 1).ids[0].item()
    known = labels[labels != -1]
    text = (
        f"{source.data!r} has the label {labels[row]} for the row with id {id!r}, and "
        f"{len(wrong):,} such rows; {who} has {classes:,} classes, 0 to {classes - 1}, and −1 "
        f"or −100 is no label"
    )
    if known.min() == 1 and known.max() == classes:
        text += f". These count from 1 to {classes}: subtract 1 from each"
    raise LabelSpaceMismatch(
        f"{text}. Use data of the same classes, or name the column with --label-column. {WAYS_OUT}"
    )


def _check_lists(source: Source, labels: LabelLists, classes: int, who: str) -> None:
    remedy = f"Use data of the same classes, or name the column with --label-column. {WAYS_OUT}"
    if source.flags not in (None, classes):
        raise LabelSpaceMismatch(
            f"the lists in the column {source.columns.label!r} of {source.data!r} say of "
            f"{source.flags:,} classes whether a row has them; {who} has {classes:,}. {remedy}"
        )
    wrong = np.flatnonzero(labels.numbers >= classes)
    if len(wrong):
        row = int(labels.rows[wrong[0]])
        id = source.read(row, row + 1).ids[0].item()
        raise LabelSpaceMismatch(
            f"{source.data!r} has the label {labels.numbers[wrong[0]]} for the row with id {id!r}, "
            f"and {len(set(labels.rows[wrong].tolist())):,} such rows; {who} has {classes:,} "
            f"classes, 0 to {classes - 1}. {remedy}"
        )
