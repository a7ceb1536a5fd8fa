"""Dumps of several teachers over the same rows as one dataset. N rows, C classes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from softlabels.errors import AlignmentError, LabelSpaceMismatch, UsageError
from softlabels.inputs.preprocess import Preprocess
from softlabels.label_spaces import LabelSpace, match_label_spaces
from softlabels.mixtures import SPACES, Space
from softlabels.store.inputs import find_ids
from softlabels.store.reader import DumpReader
from softlabels.system.humanize import few
from softlabels.system.progress import SILENT, Progress
from softlabels.targets.holdout import choose_rows
from softlabels.targets.mixed import Mixed, Teachers
from softlabels.targets.orders import Order, order_text
from softlabels.targets.soft_dataset import Dump
from softlabels.targets.streamed_rows import StreamedRows
from softlabels.targets.weighting import FIT, Fitted, Weights, checked_weights, fit_weights

ONE_SOURCE = "Side by side stand dumps of one source"


@dataclass(frozen=True, eq=False, repr=False)
class SideBySide(Teachers):
    """Several teachers over the same rows, joined by id and view, each input hash and each
    parameter of a view the same.

    The rows and inputs are the first dump's. `targets`, `logits` and `soft_target` are mappings
    from each dump's name to its own; classes and dtypes may differ. `mix` makes one teacher of
    them.

    first: where the dump whose rows these are is not the first of `dumps`, or none of them
    """

    dumps: Mapping[str, Dump]
    first: Dump | None = None

    def __post_init__(self) -> None:
        if any(dump.reader.codec.positions != 1 for dump in self.dumps.values()):
            raise UsageError("dumps whose rows have several positions can't stand side by side")
        if any(isinstance(dump.rows, StreamedRows) for dump in self.dumps.values()):
            raise UsageError("streamed dumps can't stand side by side; leave out streaming")
        self._check_classes()
        _ = self._positions  # refused now, not in the first batch

    def __len__(self) -> int:
        return len(self.base)

    def _check_classes(self) -> None:
        """Raises for teachers with the same classes in another order, whose logits would be added
        up wrongly in silence. Teachers with different classes are fine."""
        first = self.base
        for dump in self.dumps.values():
            mine, theirs = first.class_names, dump.class_names
            if mine and theirs and mine != theirs and sorted(mine) == sorted(theirs):
                ours = LabelSpace(str(first.reader.folder), len(mine), mine)
                other = LabelSpace(str(dump.reader.folder), len(theirs), theirs)
                raise LabelSpaceMismatch(f"{match_label_spaces(ours, other).note}. {ONE_SOURCE}")

    @property
    def base(self) -> Dump:
        """The dump whose rows, labels and inputs these are."""
        return self.first or next(iter(self.dumps.values()))

    def only(self, *names: str) -> "SideBySide":
        """The same rows and inputs, with these teachers alone. Raises UsageError for another."""
        for name in names:
            if name not in self.dumps:
                raise UsageError(
                    f"no teacher is called {name!r}; there are {few(list(self.dumps))}"
                )
        if not names:
            raise UsageError(f"no teacher is named; there are {few(list(self.dumps))}")
        return replace(self, dumps={name: self.dumps[name] for name in names}, first=self.base)

    def mix(
        self,
        space: Space = "prob",
        weights: Weights = None,
        *,
        holdout: float = 0.1,
        data_seed: int = 0,
    ) -> Mixed:
        """One teacher made of these: rows whose `targets` are a `Mixture`, at any temperature.

        space: "prob" for the weighted mean of their probabilities, Σ_k w_k·softmax(z_k/T), which
            has no logits; "logit" for that of their logits, Σ_k w_k·z_k. Hinton, Vinyals, Dean
            2015, section 1, has both, as the arithmetic and the geometric mean.
        weights: of each teacher, by name or in their order, divided by their sum; None for equal
            ones; "fit" for those of `fit_weights`, to which holdout and data_seed go. A teacher of
            weight 0 is not read.

        Raises UsageError for weights below 0 or not one of each; AlignmentError or
        LabelSpaceMismatch where the teachers answered other rows, or have other classes or tasks.
        """
        self._check_mixable(space)
        if weights == FIT:
            weights = self.fit_weights(space, holdout=holdout, data_seed=data_seed).weights
        shares = checked_weights(weights, list(self.dumps))
        used = {name: share for name, share in shares.items() if share}
        return Mixed(self.T, self.only(*used), space, used)

    def fit_weights(
        self, space: Space = "prob", *, holdout: float = 0.1, data_seed: int = 0
    ) -> Fitted:
        """The weights by which the mixture's NLL on held-out labels is smallest, at T = 1.

        holdout: the fraction of the inputs that is held out; data_seed: which. Those are the rows
            that `train`, and `fit` over the same data, hold out with the same numbers: where the
            teachers were trained otherwise, they may have seen these, and an overconfident one gets
            more than its due.

        Raises UsageError where fewer than 30 of the held-out rows have a label, and what `mix`
        raises.
        """
        self._check_mixable(space)
        inputs = self.base.reader.view_rows[0]
        _, held = choose_rows(len(inputs), None, holdout=holdout, rows=None, data_seed=data_seed)
        return fit_weights(self, space, inputs[held])

    def _check_mixable(self, space: Space) -> None:
        if space not in SPACES:
            raise UsageError(f'mix is {space!r}; teachers are mixed by "prob" or by "logit"')
        ours, rows = self.base.reader, np.zeros(1, np.int64)
        for dump in self.dumps.values():
            theirs = dump.reader
            if ours.plan.task != theirs.plan.task:
                raise UsageError(
                    f"{ours.folder} is for {ours.plan.task} and {theirs.folder} for "
                    f"{theirs.plan.task}; teachers are mixed where they do the same"
                )
            match_label_spaces(
                LabelSpace(str(ours.folder), ours.plan.classes, self.base.class_names),
                LabelSpace(str(theirs.folder), theirs.plan.classes, dump.class_names),
            )
            if len(theirs) > len(ours):  # all of ours are there
                extra = np.flatnonzero(_find_rows(ours, theirs) < 0)
                raise AlignmentError(
                    f"{len(extra)} of {len(theirs)} rows of {theirs.folder} are not in "
                    f"{ours.folder}: first the {_keys(theirs, extra)}. Teachers are mixed over the "
                    f"same rows and views"
                )
            if space == "logit" and len(self) and not dump.rows.gather(rows).is_dense:
                raise UsageError(
                    f"the codec of {theirs.folder}, {theirs.plan.codec}, does not store all "
                    f'logits, so they have no mean; mix by "prob"'
                )

    def tokenized(self, preprocess: Preprocess, progress: Progress = SILENT) -> "SideBySide":
        """The same rows, with their texts as the tokens that `preprocess` makes: `input` is then
        `Tokens`."""
        base = self.base.tokenized(preprocess, progress)
        dumps = {name: base if one is self.base else one for name, one in self.dumps.items()}
        return replace(self, dumps=dumps, first=base)

    @cached_property
    def _positions(self) -> dict[str, np.ndarray | None]:
        """For each dump, the places of the first dump's rows in it; None where both agree."""
        ours, places = self.base.reader, {}
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
        columns = self.base.columns(rows, inputs)
        targets = {}
        for name, dump in self.dumps.items():
            where = self._positions[name]
            own = dump is self.base
            theirs = rows if where is None else where[rows]
            targets[name] = columns["targets"] if own else dump.rows.gather(theirs)
        return columns | {"targets": targets}

    def order(self, shuffle: bool | str, seed: int = 0, epoch: int = 0) -> Order:
        return self.base.order(order_text(shuffle), seed, epoch)

    def read_ahead(self, rows: np.ndarray) -> None:
        for name, dump in self.dumps.items():
            where = self._positions[name]
            dump.read_ahead(rows if where is None else where[rows])

    def keep_all(self) -> None:
        self.base.keep_all()

    def settle(self) -> None:
        for dump in self.dumps.values():
            dump.settle()

    @property
    def identity(self) -> str:
        return " ".join(f"{name}={dump.identity}" for name, dump in self.dumps.items())

    @property
    def ids(self) -> np.ndarray:
        return self.base.ids

    @property
    def views(self) -> np.ndarray:
        return self.base.views

    def _place(self) -> str:
        return few([f"{name}={dump._place()}" for name, dump in self.dumps.items()])

    def _space(self) -> str:
        counts = sorted({dump.num_classes for dump in self.dumps.values()})
        return f"{' or '.join(map(str, counts))} classes"

    @property
    def num_classes(self) -> int:
        """That of the first dump, whose rows these are."""
        return self.base.num_classes

    @property
    def class_names(self) -> list[str] | None:
        return self.base.class_names

    @property
    def label_source_names(self) -> list[str] | None:
        return self.base.label_source_names

    @property
    def preprocess(self) -> Preprocess:
        return self.base.preprocess


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
