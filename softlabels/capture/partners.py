"""The inputs that others are mixed with, read from the whole source by their rows' numbers. N rows
of a block."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from softlabels.capture.answers import Answers
from softlabels.capture.viewing import Viewing
from softlabels.inputs.decoding import check_same, decode
from softlabels.inputs.examples import numbers_of
from softlabels.inputs.label_lists import as_cells
from softlabels.inputs.rows import Rows
from softlabels.inputs.shown import Partners, Shown
from softlabels.inputs.sources import Source
from softlabels.inputs.tables.parquet import ParquetTable
from softlabels.inputs.views.augment import CLEAN
from softlabels.inputs.views.augmentations import Drawn
from softlabels.inputs.views.chance import counters
from softlabels.inputs.views.mixing import PARTNER, PARTNER_LABEL, partners_of
from softlabels.system.humanize import size_words
from softlabels.system.reused_memory import Empty


@dataclass(frozen=True)
class PartnerReading:
    """How partners are read. threads: that decode pictures; empty: makes the tensors that they are
    decoded into"""

    source: Source
    viewing: Viewing
    answers: Answers
    threads: int
    empty: Empty

    def joined_by_partners(self, shown: Shown, rows: Rows) -> Shown:
        """The views of these rows with what they are mixed with. A row whose partner can't be read
        stays as it is, and its columns say so."""
        plan = self.viewing.plan
        keys_N, drawn = counters(rows.ids), []
        partners: list[Partners | None] = []
        for index, view in enumerate(shown.views):
            numbers_N = partners_of(plan.data_seed or 0, keys_N, view, rows.numbers, plan.inputs)
            others = rows if view == CLEAN else self.source.take(numbers_N)
            columns = shown.drawn[index] | {PARTNER: others.ids}
            if plan.labelled:
                columns[PARTNER_LABEL] = as_cells(others.labels)
            if view == CLEAN:
                partners.append(None)
            else:
                pictures, unread = self._pictures(others, view, shown.pictures[index], rows)
                _unmix(columns, shown, unread)
                own = shown.augment.draw(plan.data_seed or 0, counters(others.ids), view)
                partners.append(Partners(pictures, own))
            drawn.append(columns)
        return replace(shown, drawn=drawn, partners=partners)

    def _pictures(
        self, others: Rows, view: int, like: Tensor, rows: Rows
    ) -> tuple[Tensor, np.ndarray]:
        """Inputs as the steps on pictures leave them in this view; and which of them can't be read.
        like: the pictures of `rows` in it. Raises SourceError for other shapes than theirs."""
        if not isinstance(others.cells, list):
            numbers = numbers_of(others.cells, self.answers.preprocess, others.ids)
            assert isinstance(numbers, Tensor), "columns of numbers have no views"
            return (numbers.pin_memory() if self.answers.on_gpu else numbers), np.empty(0, np.int64)
        shooting = replace(self.viewing, views=[view]).shoot(others.ids)
        decoded = decode(others.cells, shooting.ways, others.ids, self.threads, self.empty)
        unread = np.array([place for place, _ in decoded.unreadable], np.int64)
        if not decoded.shots:
            return like, unread
        pictures = decoded.shots[0]
        if len(unread):
            read = np.setdiff1d(np.arange(len(others)), unread)
            whole = self.empty(like.shape, like.dtype)
            whole[torch.from_numpy(read)] = pictures
            pictures = whole
        kinds = [(tuple(p.shape[1:]), p[:0].numpy().dtype) for p in (like, pictures)]
        check_same(kinds, np.array([rows.ids[0], others.ids[0]]))
        return pictures, unread


def remark_on_reading(source: Source) -> str | None:
    """A warning where to read rows at random is slow."""
    table, names = source.table, source.columns.inputs
    if not isinstance(table, ParquetTable) or not (size := table.unkept_bytes(names)):
        return None
    return (
        f"warning: the partners of mixed views lie anywhere in {source.data!r}, of whose row "
        f"groups {size_words(size)} are more than is kept in memory: each batch decodes most of "
        f"them again, which is slow. A folder of pictures, or a data set of datasets.load_dataset "
        f"in Python, is read at random at full speed"
    )


def _unmix(columns: Drawn, shown: Shown, rows: np.ndarray) -> None:
    """Let these rows be as they are, whatever was drawn for them but their partner."""
    if not len(rows):
        return
    assert shown.augment.mixing is not None, "there are partners"
    for name, values in shown.augment.mixing.unmixed(len(rows)).items():
        columns[name] = columns[name].copy()
        columns[name][rows] = values
