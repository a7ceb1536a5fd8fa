"""Which rows a row group holds: a shard is bands of `group_rows` inputs, and a band has one row
group a view, in the order of the views.

All row groups of a band hold the same inputs in the same order. So the rows of one view lie
together, and a gather of one view reads nothing of the others. V views.
"""

import numpy as np


def group_count(rows: int, group_rows: int, views: int) -> int:
    """How many row groups a shard with so many rows has."""
    return -(-(rows // views) // group_rows) * views


def group_sizes(rows: int, group_rows: int, views: int) -> np.ndarray:
    """The rows of each row group of a shard with so many, int64 [groups]: all are full but for
    those of the last band."""
    full, rest = divmod(rows // views, group_rows)
    sizes = np.full((full + bool(rest)) * views, group_rows, np.int64)
    sizes[full * views :] = rest
    return sizes


def view_rows(rows: int, group_rows: int, views: int) -> np.ndarray:
    """The row of each view of each input in a shard with so many rows, int64 [V, inputs]."""
    inputs = rows // views  # exact: an input that is left out is left out in all its views
    band, place = np.divmod(np.arange(inputs), group_rows)
    size = np.minimum(group_rows, inputs - band * group_rows)  # of each input's band
    return band * group_rows * views + place + np.arange(views)[:, None] * size
