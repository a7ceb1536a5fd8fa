"""Which rows are trained on, which are held out, and what the held-out rows can say. N rows."""

import numpy as np

from softlabels.errors import UsageError
from softlabels.inputs.label_lists import LabelLists, Labels, known
from softlabels.system.humanize import counted

FEW = 30  # held-out rows; the accuracy of n rows has a standard error of up to 0.5 / √n


def choose_rows(
    total: int, labels: Labels | None, *, holdout: float, rows: int | None, data_seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """(training rows, held-out rows), drawn by the data seed.

    holdout: the fraction of all rows that is held out
    rows: train on this many, evenly over the classes where rows have one; None for all that are
        left

    Raises UsageError where a hold-out leaves no row on either side, and where there are fewer rows
    than asked for.
    """
    order = np.random.default_rng([data_seed, 0xDA7A]).permutation(total)
    held = round(holdout * total)
    if holdout and not 0 < held < total:
        side = "train on" if held else "hold out"
        raise UsageError(
            f"--holdout is {holdout:g}: of {counted(total, 'row')} it leaves none to "
            f"{side}; use another fraction, or 0 to train on all and keep the last epoch"
        )
    kept, out = order[held:], order[:held]
    if rows is None:
        return np.sort(kept), np.sort(out)
    if rows > len(kept):
        raise UsageError(f"--rows is {rows}; only {len(kept)} rows are there to train on")
    labels = None if isinstance(labels, LabelLists) else labels
    return np.sort(_evenly(kept, labels, rows)), np.sort(out)


def _evenly(rows: np.ndarray, labels: np.ndarray | None, count: int) -> np.ndarray:
    """`count` of `rows`, which are in random order: as many of them labelled as chance has it,
    these taking the classes in turn."""
    if labels is None:
        return rows[:count]
    known = labels[rows] >= 0
    labelled = int(known[:count].sum())
    classes = labels[rows[known]]
    turn = np.empty(len(classes), dtype=np.int64)
    for value in np.unique(classes):
        members = np.flatnonzero(classes == value)
        turn[members] = np.arange(len(members))
    first = rows[known][np.argsort(turn, kind="stable")[:labelled]]
    return np.concatenate([first, rows[~known][: count - labelled]])


def labels_choose(labels: Labels) -> bool:
    """Whether the labels of these held-out rows are enough to choose an epoch by.

    They are where at least FEW rows, and half of all, have one: the standard error of an accuracy,
    √(p·(1−p)/n), is then at most 9 points and 1.4 times that of all rows. With fewer, the KL with
    the teacher, which every row has, says more.
    """
    count = int(known(labels).sum())
    return count >= FEW and 2 * count >= len(labels)
