"""Dumps of several teachers over the same rows as one dataset. N rows, C classes."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from softlabels.errors import LabelSpaceMismatch, StoreError, UsageError
from softlabels.inputs.preprocess import Preprocess
from softlabels.label_spaces import LabelSpace, match_label_spaces
from softlabels.mixtures import SPACES, Space
from softlabels.system.humanize import counted, few
from softlabels.system.progress import SILENT, Progress
from softlabels.targets.holdout import choose_rows
from softlabels.targets.mixed import Mixed, Teachers
from softlabels.targets.orders import Order, order_text
from softlabels.targets.same_rows import ONE_SOURCE, Difference, differences, find_same
from softlabels.targets.soft_dataset import Dump
from softlabels.targets.streamed_rows import StreamedRows
from softlabels.targets.streamed_together import Streams
from softlabels.targets.weighting import Fitted, Weights, checked_weights, fit_weights, is_fit


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
    _where: dict[str, np.ndarray | None] = field(default_factory=dict)  # found once for all copies

    def __post_init__(self) -> None:
        if any(dump.reader.codec.positions != 1 for dump in self.dumps.values()):
            raise UsageError("dumps whose rows have several positions can't stand side by side")
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
        strange = [name for name in names if not isinstance(name, str) or name not in self.dumps]
        if strange or not names:
            what = f"no teacher is called {strange[0]!r}" if strange else "no teacher is named"
            raise UsageError(
                f"{what}; there are {few(list(self.dumps), most=8)}, to be named one by one, as in "
                f"only({', '.join(map(repr, list(self.dumps)[:2]))})"
            )
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
        if is_fit(weights):
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
        if not isinstance(data_seed, int) or data_seed < 0:
            raise UsageError(f"data_seed is {data_seed!r}; a seed is a whole number, 0 or more")
        inputs = self.base.reader.view_rows[0]
        _, held = choose_rows(len(inputs), None, holdout=holdout, rows=None, data_seed=data_seed)
        return fit_weights(self, space, inputs[held])

    def _check_mixable(self, space: Space) -> None:
        if space not in SPACES:
            raise UsageError(f'mix is {space!r}; teachers are mixed by "prob" or by "logit"')
        if found := self.differences():
            texts = "; ".join(one.text for one in found)
            raise found[0].error(
                f"{texts}. Teachers are mixed over the same rows, views and classes"
            )
        for dump in self.dumps.values():
            one = np.zeros(min(1, len(dump)), np.int64)
            if space == "logit" and len(self) and not dump.rows.gather(one).is_dense:
                folder, plan = dump.reader.folder, dump.reader.plan
                raise UsageError(
                    f"the codec of {folder}, {plan.codec}, does not store all logits, so they have "
                    f'no mean; mix by "prob"'
                )

    def differences(self) -> list[Difference]:
        """All that keeps these teachers from being mixed: tasks, classes and their names, rows and
        views that differ from the first dump's, with counts, ids and folders. Empty where nothing
        does."""
        return [
            difference
            for name, dump in self._others.items()
            for difference in differences(self.base.reader, dump.reader, self._positions[name])
        ]

    def tokenized(self, preprocess: Preprocess, progress: Progress = SILENT) -> "SideBySide":
        """The same rows, with their texts as the tokens that `preprocess` makes: `input` is then
        `Tokens`."""
        base = self.base.tokenized(preprocess, progress)
        dumps = {name: base if one is self.base else one for name, one in self.dumps.items()}
        return replace(self, dumps=dumps, first=base)

    @property
    def _positions(self) -> dict[str, np.ndarray | None]:
        """For each dump, the places of the first dump's rows in it; None where both agree."""
        for name, dump in self.dumps.items():
            if name not in self._where:
                own = dump.reader is self.base.reader
                self._where[name] = None if own else find_same(self.base.reader, dump.reader)
        return self._where

    def places_of(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Where these rows are in the dump of this name, int64."""
        where = self._positions[name]
        return rows if where is None else where[rows]

    @property
    def _base_name(self) -> str | None:
        """None where the first dump is no teacher of these."""
        return next((name for name, dump in self.dumps.items() if dump is self.base), None)

    @property
    def _others(self) -> dict[str, Dump]:
        return {name: dump for name, dump in self.dumps.items() if dump is not self.base}

    def columns(self, rows: np.ndarray, inputs: bool = True) -> dict[str, Any]:
        for name, dump in self._others.items():
            if isinstance(dump.rows, StreamedRows):  # fetched while the first one is
                dump.rows.read_ahead(self.places_of(name, rows))
        with _naming(self._base_name):
            columns = self.base.columns(rows, inputs)
        targets = {}
        for name, dump in self.dumps.items():
            with _naming(name):
                own = dump is self.base
                gathered = None if own else dump.rows.gather(self.places_of(name, rows))
                targets[name] = columns["targets"] if own else gathered
        return columns | {"targets": targets}

    def order(self, shuffle: bool | str, seed: int = 0, epoch: int = 0) -> Order:
        text = order_text(shuffle)
        for dump in (self.base, *self.dumps.values()):
            text = dump.rows.order_text(text)
        return Order(text, self.streams.bounds, seed, epoch)

    @cached_property
    def streams(self) -> Streams:
        """Those of the teachers that are streamed."""
        return Streams.of(self.base, self._others, self._positions)

    def read_ahead(self, rows: np.ndarray) -> None:
        self.base.read_ahead(rows)
        for name, dump in self._others.items():
            dump.read_ahead(self.places_of(name, rows))

    def keep_all(self) -> None:
        self.base.keep_all()

    def settle(self) -> None:
        with _naming(self._base_name):
            self.base.settle()
        for name, dump in self._others.items():
            with _naming(name):
                dump.settle()

    @property
    def remarks(self) -> list[str]:
        """What is to be known of these teachers together: rows that are left out, classes that
        have no names, dumps that are the same."""
        return [*self._of_rows, *self._of_names, *self._of_twins]

    def title(self, dump: Dump) -> str:
        """The name of a teacher, and its folder."""
        name = next((name for name, one in self.dumps.items() if one is dump), None)
        return str(dump.reader.folder) if name is None else f"{name} ({dump.reader.folder})"

    @property
    def _of_rows(self) -> Iterator[str]:
        for dump in self._others.values():
            extra = len(dump) - len(self)
            if extra:
                yield (
                    f"{extra:,} of {counted(len(dump), 'row')} of {self.title(dump)} are left "
                    f"out: {self.title(self.base)}, whose rows these are, has no such"
                )

    @property
    def _of_names(self) -> Iterator[str]:
        """Where some teachers name their classes and others don't."""
        alike = [d for d in self.dumps.values() if d.num_classes == self.num_classes]
        named = [dump for dump in alike if dump.class_names]
        nameless = [self.title(dump) for dump in alike if not dump.class_names]
        if named and nameless:
            yield (
                f"the classes of {few(nameless)} have no names: they are taken to be those of "
                f"{self.title(named[0])}, in the same order"
            )

    @property
    def _of_twins(self) -> Iterator[str]:
        """Dumps by one plan hold the same logits, wherever they lie."""
        known: dict[str, Dump] = {}
        for dump in self.dumps.values():
            first = known.setdefault(dump.reader.plan.hash, dump)
            if first is not dump:
                yield (
                    f"warning: {self.title(first)} and {self.title(dump)} are copies of one dump, "
                    f"with the same logits"
                )

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


@contextmanager
def _naming(name: str | None) -> Iterator[None]:
    """Errors of a dump's files say whose it is."""
    try:
        yield
    except StoreError as error:
        raise error if name is None else type(error)(f"{name}: {error}") from error
