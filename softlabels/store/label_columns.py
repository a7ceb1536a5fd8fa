"""The columns of a dump that hold labels, checked where they are read: training would meet a label
of no class as an index out of range, on a GPU as the end of the process."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from softlabels.errors import DamagedDump
from softlabels.inputs.label_lists import LabelLists, Labels, of_column, shown
from softlabels.store.plan import Plan


def read_labels(
    plan: Plan, name: str, column: pa.ChunkedArray, whose: Callable[[int], str] = "row {:,}".format
) -> Labels:
    """The labels in a column of this name. whose: names a row in messages.

    Raises DamagedDump for the number of no class, and for a list whose numbers don't ascend.
    """
    labels = of_column(column)
    if isinstance(labels, LabelLists):
        _check_lists(plan, labels, whose)
    else:
        _check_numbers(plan, name, labels, whose)
    return labels


def _check_numbers(plan: Plan, name: str, labels: np.ndarray, whose: Callable[[int], str]) -> None:
    classes = plan.classes if plan.labelled else len(plan.label_names or [])
    strange = (labels < -1) | ((labels >= classes) if classes else False)
    if len(rows := np.flatnonzero(strange)):
        row, most = rows[0], f"one of the {classes} classes, from 0 on" if classes else "0 or more"
        raise DamagedDump(
            f"the {name} of {whose(row)} is {labels[row]}; expected is {most}, or -1 for none"
        )


def _check_lists(plan: Plan, labels: LabelLists, whose: Callable[[int], str]) -> None:
    numbers, rows = labels.numbers, labels.rows
    wrong = (numbers < 0) | (numbers >= plan.classes)
    wrong[1:] |= (rows[1:] == rows[:-1]) & (numbers[1:] <= numbers[:-1])
    if len(places := np.flatnonzero(wrong)):
        row = rows[places[0]]
        raise DamagedDump(
            f"the labels of {whose(row)} are {shown(labels, row)}; expected are numbers of the "
            f"{plan.classes} classes, from 0 on, which ascend"
        )
