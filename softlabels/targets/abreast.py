"""All rows of several teachers, a block at a time: memory does not grow with their number."""

from collections.abc import Callable, Iterator

import numpy as np

from softlabels.inputs.label_lists import as_tensor, hidden, none_of
from softlabels.reports.ensemble import Block
from softlabels.system.progress import Progress
from softlabels.targets.loading import load
from softlabels.targets.side_by_side import SideBySide

BLOCK_ROWS = 4096
BLOCK_VALUES = 1 << 21  # logits of a block of one teacher


def open_teachers(
    places: dict[str, str],
    progress: Progress,
    check: Callable[[SideBySide], None] | None = None,
) -> SideBySide:
    """Streamed, so that memory is flat, unless rows of one stand in another order than the first's:
    then they would be fetched again and again, and a local copy is mapped. check: may refuse them,
    before anything is said of them or fetched."""
    teachers = load(places, inputs=False, streaming=True)
    assert isinstance(teachers, SideBySide)
    if check is not None:
        check(teachers)
    if teachers.streams.is_stored_often:
        teachers = load(places, inputs=False, progress=progress)
        assert isinstance(teachers, SideBySide)
        return teachers
    for remark in teachers.remarks:
        progress.say(remark)
    return teachers


def blocks_of(teachers: SideBySide) -> Iterator[Block]:
    """The answers to all rows and their labels, in the order of the first dump; the next block is
    read ahead. Of an input that is mixed with another one no label is the right answer."""
    base = teachers.base.reader
    size = max(1, min(BLOCK_ROWS, BLOCK_VALUES // teachers.num_classes))
    several = base.plan.task == "multilabel"
    for start in range(0, len(teachers), size):
        rows = np.arange(start, min(start + size, len(teachers)))
        ahead = np.arange(rows[-1] + 1, min(rows[-1] + 1 + size, len(teachers)))
        found = teachers.columns(rows, inputs=False)["targets"]
        if len(ahead):
            teachers.read_ahead(ahead)
        labels = none_of(len(rows), several) if base.labels is None else base.labels[rows]
        label = as_tensor(hidden(labels, base.mixed[rows]), base.plan.classes)
        targets = {name: logits.to("cpu") for name, logits in found.items()}
        yield Block(targets, None, label)
