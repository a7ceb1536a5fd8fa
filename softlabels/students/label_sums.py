"""Measures of logits against hard labels, added up block by block, over processes too.

N rows of a block, C classes. `share` gives every process's value, on every one, as `Ranks.all`.
"""

import tempfile
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from softlabels.errors import DiskFull
from softlabels.inputs.label_lists import LabelLists, Labels, as_tensor, known
from softlabels.logits import DenseLogits
from softlabels.measures import LabelScore
from softlabels.multilabel import AveragePrecision, MultiLabelScore, mean_of
from softlabels.system.humanize import size_words

IN_MEMORY = 64 << 20  # bytes of logits that are read twice

Share = Callable[[Any], list[Any]]


class LabelSums(Protocol):
    def add(self, logits_NC: Tensor, labels: Labels) -> None:
        """Add a block of rows."""

    def measures(self, share: Share) -> dict[str, Any]:
        """Of the blocks of all processes; empty where no row has a label."""


def label_sums(labels: Labels, classes: int) -> LabelSums:
    """For labels of this kind."""
    return SumsOfSeveral(classes) if isinstance(labels, LabelLists) else SumsOfOne()


class SumsOfOne:
    """Of one label a row."""

    def __init__(self) -> None:
        self.score = LabelScore()

    def add(self, logits_NC: Tensor, labels: Labels) -> None:
        self.score += LabelScore.of(DenseLogits(logits_NC), as_tensor(labels, logits_NC.shape[1]))

    def measures(self, share: Share) -> dict[str, Any]:
        return dict(sum(share(self.score), LabelScore()).measures)


class SumsOfSeveral:
    """Of several labels a row; with `map`, the mean average precision over the labels that some row
    has, None where no row has any. Average precision needs the order of all logits of a label, so
    these are kept for a second pass."""

    def __init__(self, classes: int) -> None:
        self.score = MultiLabelScore.none(classes)
        self.ranked, self.blocks = AveragePrecision(classes), Blocks(classes)

    def add(self, logits_NC: Tensor, labels: Labels) -> None:
        there = known(labels)
        logits_NC = logits_NC[torch.from_numpy(there)]
        labels_NC = as_tensor(labels[there], logits_NC.shape[1])
        self.score += MultiLabelScore.of(DenseLogits(logits_NC, link="sigmoid"), labels_NC)
        self.ranked.collect(logits_NC, labels_NC)
        self.blocks.add(logits_NC)

    def measures(self, share: Share) -> dict[str, Any]:
        none = MultiLabelScore.none(self.ranked.classes)
        found = sum(share(self.score), none).measures
        self.ranked.begin_count(share(self.ranked.positives))
        for logits_NC in self.blocks:
            self.ranked.count(logits_NC)
        self.ranked.end_count(share(self.ranked.changes))
        return found | {"map": mean_of(self.ranked.of_each)} if found else {}


class Blocks:
    """Blocks of logits [N, C], float32, to be read again: in memory up to 64 MiB, beyond that in a
    file that vanishes with them."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.rows: list[int] = []
        self.file = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115
        weakref.finalize(self, self.file.close)

    def add(self, logits_NC: Tensor) -> None:
        """Raises DiskFull where there is no room."""
        self.rows.append(len(logits_NC))
        try:
            self.file.write(logits_NC.to("cpu", torch.float32).contiguous().numpy().data)
        except OSError as error:
            size = size_words(4 * self.classes * sum(self.rows))
            raise DiskFull(
                f"{size} of logits, which average precision reads twice, can't be written to "
                f"{tempfile.gettempdir()}: {error.strerror}; name a folder with room by TMPDIR"
            ) from error

    def __iter__(self) -> Iterator[Tensor]:
        self.file.seek(0)
        for rows in self.rows:
            values = np.frombuffer(self.file.read(4 * rows * self.classes), np.float32)
            yield torch.from_numpy(values.reshape(rows, self.classes).copy())
