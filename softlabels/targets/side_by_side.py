"""Dumps of several teachers over the same rows as one dataset. N rows, C classes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from softlabels.errors import AlignmentError, LabelSpaceMismatch, UsageError
from softlabels.inputs.preprocess import Preprocess
from softlabels.label_spaces import LabelSpace, match_label_spaces
from softlabels.store.inputs import find_ids
from softlabels.store.reader import DumpReader
from softlabels.system.humanize import few
from softlabels.targets.orders import Order, order_text
from softlabels.targets.soft_dataset import Dump, SoftDataset
from softlabels.targets.streamed_rows import StreamedRows

ONE_SOURCE = "Side by side stand dumps of one source"


@dataclass(frozen=True, eq=False, repr=False)
class SideBySide(SoftDataset):
    """Several teachers over the same rows, joined by id and view, each input hash and each
    parameter of a view the same.

    The rows and inputs are the first dump's. `targets`, `logits` and `soft_target` are mappings
    from each dump's name to its own; classes and dtypes may differ.
    """

    dumps: Mapping[str, Dump]

    def __post_init__(self) -> None:
        if any(dump.reader.codec.positions != 1 for dump in self.dumps.values()):
            raise UsageError("dumps whose rows have several positions can't stand side by side")
        if any(isinstance(dump.rows, StreamedRows) for dump in self.dumps.values()):
            raise UsageError("streamed dumps can't stand side by side; leave out streaming")
        self._check_classes()
        _ = self._positions  # refused now, not in the first batch

    def __len__(self) -> int:
        return len(self._first)

    def _check_classes(self) -> None:
        """Raises for teachers with the same classes in another order, whose logits would be added
        up wrongly in silence. Teachers with different classes are fine."""
        first = self._first
        for dump in self.dumps.values():
            mine, theirs = first.class_names, dump.class_names
            if mine and theirs and mine != theirs and sorted(mine) == sorted(theirs):
                ours = LabelSpace(str(first.reader.folder), len(mine), mine)
                other = LabelSpace(str(dump.reader.folder), len(theirs), theirs)
                raise LabelSpaceMismatch(f"{match_label_spaces(ours, other).note}. {ONE_SOURCE}")

    @property
    def _first(self) -> Dump:
        return next(iter(self.dumps.values()))

    @cached_property
    def _positions(self) -> dict[str, np.ndarray | None]:
        """For each dump, the places of the first dump's rows in it; None where both agree."""
        ours, places = self._first.reader, {}
        for name, dump in self.dumps.items():
            theirs = dump.reader
            _check_views(ours, theirs)
            where = _find_rows(theirs, ours)
            missing = np.flatnonzero(where < 0)
            if len(missing):
                raise AlignmentError(
                    f"{len(missing)} of {len(ours.ids)} rows of {ours.folder} are not in "
                    f"{theirs.folder}: first the {_keys(ours, missing)}. {ONE_SOURCE}"
                )
            for what, mine, others in _compared(ours, theirs):
                other = np.flatnonzero(others[where] != mine)
                if len(other):
                    raise AlignmentError(
                        f"{len(other)} rows of {ours.folder} and {theirs.folder} have the same id "
                        f"and other {what}: first the {_keys(ours, other)}. {ONE_SOURCE}"
                    )
            places[name] = None if np.array_equal(where, np.arange(len(where))) else where
        return places

    def columns(self, rows: np.ndarray, inputs: bool = True) -> dict[str, Any]:
        columns = self._first.columns(rows, inputs)
        targets = {}
        for name, dump in self.dumps.items():
            where = self._positions[name]
            own = dump is self._first
            theirs = rows if where is None else where[rows]
            targets[name] = columns["targets"] if own else dump.rows.gather(theirs)
        return columns | {"targets": targets}

    def order(self, shuffle: bool | str, seed: int = 0, epoch: int = 0) -> Order:
        return self._first.order(order_text(shuffle), seed, epoch)

    def read_ahead(self, rows: np.ndarray) -> None:
        for name, dump in self.dumps.items():
            where = self._positions[name]
            dump.read_ahead(rows if where is None else where[rows])

    def keep_all(self) -> None:
        self._first.keep_all()

    def settle(self) -> None:
        for dump in self.dumps.values():
            dump.settle()

    @property
    def identity(self) -> str:
        return " ".join(f"{name}={dump.identity}" for name, dump in self.dumps.items())

    @property
    def ids(self) -> np.ndarray:
        return self._first.ids

    @property
    def views(self) -> np.ndarray:
        return self._first.views

    def _place(self) -> str:
        return few([f"{name}={dump._place()}" for name, dump in self.dumps.items()])

    def _space(self) -> str:
        counts = sorted({dump.num_classes for dump in self.dumps.values()})
        return f"{' or '.join(map(str, counts))} classes"

    @property
    def num_classes(self) -> int:
        """That of the first dump, whose rows these are."""
        return self._first.num_classes

    @property
    def class_names(self) -> list[str] | None:
        return self._first.class_names

    @property
    def label_source_names(self) -> list[str] | None:
        return self._first.label_source_names

    @property
    def preprocess(self) -> Preprocess:
        return self._first.preprocess


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


def _keys(reader: DumpReader, rows: np.ndarray) -> str:
    """The ids of the first of these rows, and their views where there are several."""
    ids = ", ".join(str(reader.ids[row]) for row in rows[:5])
    if not reader.plan.has_views:
        return f"ids {ids}"
    return f"ids {ids}, of view {reader.views[rows[0]]}"
