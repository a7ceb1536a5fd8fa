"""Rows with their inputs and soft targets, tempered when they are asked for.

Shapes: N rows of a batch, C classes.
"""

import operator
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, overload

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from softlabels.errors import UsageError
from softlabels.inputs.examples import Examples
from softlabels.inputs.preprocess import Preprocess
from softlabels.inputs.text_inputs import TextInputs
from softlabels.inputs.token_inputs import TokenInputs, open_tokens
from softlabels.soft_targets import check_temperature
from softlabels.store.inputs import find_ids
from softlabels.store.reader import DumpReader
from softlabels.system.humanize import counted, few, short
from softlabels.system.progress import SILENT, Progress
from softlabels.targets.batch import Batch, Row, Rows
from softlabels.targets.batches import Batches
from softlabels.targets.mapped_rows import MappedRows
from softlabels.targets.orders import Order, order_text
from softlabels.targets.streamed_rows import StreamedInputs, StreamedRows
from softlabels.targets.turns import ALL, Choice, Turns, choose_views

NOTHING = Preprocess((), ())


@dataclass(frozen=True, eq=False, repr=False)
class SoftDataset(Dataset):
    """A torch map-style dataset over one dump or several. Made by `softlabels.load`.

    A row is a mapping: id (int or str), view (int), input (float32 tensor, preprocessed), label
    (int, −1 for none), label_source (int, only where the data's labels are of other classes than
    the teacher's), logits (stored dtype [C]) and, where there is a T, soft_target (float32 [C],
    summing to 1 at T).
    `dataset[5]` is a row; `dataset[:4]` and `dataset[[1, 2]]` are columns of several, as a batch;
    `dataset["logits"]` is one column of all rows. `batches` gives whole batches; so does a
    DataLoader over it, whose collate function finds them ready. Without inputs
    (`load(…, inputs=False)`) rows have no `input`.
    """

    T: float | None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def columns(self, rows: np.ndarray, inputs: bool = True) -> dict[str, Any]:
        """The raw columns of these rows, int64 [N], in their order; `inputs` may be left out."""

    @abstractmethod
    def order(self, shuffle: bool | str, seed: int = 0, epoch: int = 0) -> Order:
        """The order of an epoch's rows. Raises UsageError for one that this dataset can't give."""

    def shown(
        self, choice: Choice, shuffle: bool | str, seed: int = 0, epoch: int = 0
    ) -> Order | Turns:
        """The order of an epoch's rows, of which it shows these views."""
        if choice.at_once or self.view_numbers == [choice.numbers[0]]:
            return self.order(shuffle, seed, epoch)
        views = [OneView(self.T, self, number) for number in choice.numbers]
        orders = [view.order(shuffle) for view in views]
        rows, bounds = np.stack([view.rows for view in views]), tuple(o.bounds for o in orders)
        return Turns(orders[0].text, rows, bounds, seed, epoch)

    @abstractmethod
    def read_ahead(self, rows: np.ndarray) -> None:
        """Bring these rows nearer: they will be asked for soon."""

    def keep_all(self) -> None:
        """Make ready for inputs to be kept: all rows will be asked for, epoch after epoch."""

    @abstractmethod
    def settle(self) -> None:
        """Return when all files that were read have been checked. Raises DamagedDump."""

    @property
    @abstractmethod
    def identity(self) -> str:
        """What the rows are: the same for the same plans."""

    @property
    @abstractmethod
    def ids(self) -> np.ndarray:
        """The id of each row, int64 or str [R]."""

    @property
    @abstractmethod
    def views(self) -> np.ndarray:
        """The number of each row's view, int32 [R]; 0 is the input as it is."""

    @property
    def view_numbers(self) -> list[int]:
        """The views that there are of each input, ascending; [0] where each is as it is."""
        numbers: list[int] = np.unique(self.views).tolist()
        return numbers

    @property
    @abstractmethod
    def num_classes(self) -> int: ...

    @property
    @abstractmethod
    def class_names(self) -> list[str] | None:
        """Those of the teacher's classes, which `logits` and `label` number; None where unknown."""

    @property
    def label_source_names(self) -> list[str] | None:
        """Those of the classes that `label_source` numbers; None where there are none."""
        return None

    @property
    @abstractmethod
    def preprocess(self) -> Preprocess: ...

    def view(self, number: int) -> "SoftDataset":
        """The rows of one view alone. Raises UsageError where there is none with this number."""
        return OneView(self.T, self, number)

    def with_temperature(self, T: float) -> "SoftDataset":
        """The same rows at another temperature, in O(1), sharing everything."""
        return replace(self, T=check_temperature(T))

    @abstractmethod
    def _place(self) -> str:
        """Where the rows are from, in a word or two."""

    def _space(self) -> str:
        return f"{self.num_classes:,} classes"

    def __repr__(self) -> str:
        temperature = "" if self.T is None else f", T={self.T:g}"
        size = f"{counted(len(self), 'row')} × {self._space()}"
        return f"{type(self).__name__}({self._place()}, {size}{temperature})"

    @property
    def column_names(self) -> list[str]:
        """The keys of a row."""
        return list(self.take([0])) if len(self) else []

    @overload
    def __getitem__(self, key: int) -> Row: ...

    @overload
    def __getitem__(self, key: slice | Sequence[int] | np.ndarray | Tensor) -> Batch: ...

    @overload
    def __getitem__(self, key: str) -> Any: ...

    def __getitem__(self, key: Any) -> Any:
        """A row by its number; columns of several, by a slice or numbers; a column by its name, of
        all rows, in memory.

        Raises IndexError, KeyError for a name that no column has, UsageError for anything else.
        """
        if isinstance(key, str):
            return self._column(key)
        if isinstance(key, slice):
            return self._take(np.arange(len(self))[key])
        try:
            row = operator.index(key)
        except TypeError:
            return self.take(key)
        return self.__getitems__([row])[0]

    def _column(self, name: str) -> Any:
        # "logits" that are not there are refused below, with what is there instead
        if name not in (*self.column_names, "targets", "logits"):
            raise KeyError(f"no column {name!r}; there are {', '.join(self.column_names)}")
        columns = self.columns(np.arange(len(self)), inputs=name == "input")
        return Batch(columns, self.T, self.preprocess)[name]

    def rows_of(self, ids: Sequence[int | str] | np.ndarray) -> np.ndarray:
        """The numbers of the rows with these ids, int64 [N], in the order of the ids: a way to them
        is `dataset[dataset.rows_of([1797, 12])]`.

        Raises UsageError for an id that no row has, or more than one.
        """
        among, order = self.ids, np.argsort(self.ids, kind="stable")
        sought = np.asarray(ids) if len(ids) else among[:0]
        rows = find_ids(among, sought, order)
        if len(missing := sought[rows < 0]):
            kind = "whole numbers" if among.dtype.kind == "i" else "text"
            raise UsageError(
                f"{counted(len(missing), 'id')} of {len(sought):,} are not in {self._place()}: "
                f"{few([repr(id) for id in missing.tolist()], most=5)}. Ids are {kind} here"
            )
        last = np.searchsorted(among, sought, "right", sorter=order)
        first = np.searchsorted(among, sought, "left", sorter=order)
        if len(several := sought[last - first > 1]):
            remedy = "ask each dump of it alone"
            if self.views.any():
                remedy = f"ask one view, such as dataset.view({self.views[0]}).rows_of(…)"
            raise UsageError(
                f"{several[0].item()!r} is the id of {int((last - first).max())} rows of "
                f"{self._place()}; {remedy}"
            )
        return rows

    def __getitems__(self, rows: list[int]) -> Rows:
        """Many rows at once: a DataLoader asks for its batches this way."""
        return Rows(self.take(rows))

    def take(self, rows: Sequence[int] | np.ndarray | Tensor) -> Batch:
        """These rows as one batch. rows: whole numbers [N]; −1 is the last row.

        Raises IndexError for a row that is not there, UsageError for what is no row's number.
        """
        return self._take(checked_rows(rows, len(self)))

    def _take(self, rows: np.ndarray) -> Batch:
        return Batch(self.columns(rows), self.T, self.preprocess)

    def batches(
        self,
        batch_size: int,
        *,
        shuffle: bool | str = False,
        seed: int = 0,
        epoch: int = 0,
        views: int | str = ALL,
        rank: int = 0,
        world: int = 1,
        drop_last: bool = False,
        workers: int = 0,
        pin_memory: bool = False,
    ) -> Batches:
        """An epoch of whole batches; the last may be short, or longer by a row that would be alone.

        The order is a function of (seed, epoch) alone. shuffle: True is a permutation of all rows;
        `"blocks(64, 512)"` mixes 512 random blocks of 64 neighbours at a time, for dumps larger
        than memory (see `orders`). rank, world: this process's share. workers: processes that read
        ahead; worth it where images are decoded, not for logits.

        views, of a dump that has several of each input: `"all"` shows every row in each epoch;
        `"turn"` each input once, in epoch e the view in place e mod V of `view_numbers`; a number N
        the first N drawn ones in turn, and the clean one where it is there.

        Raises UsageError.
        """
        choice = choose_views(self.view_numbers, views, self._place())
        order = self.shown(choice, shuffle, seed, epoch)
        if workers:  # before they are forked, so that they share what each decodes
            self.keep_all()
        return Batches(
            self._take,
            order,
            batch_size,
            rank=rank,
            world=world,
            drop_last=drop_last,
            workers=workers,
            pin_memory=pin_memory,
            identity=self.identity if choice.at_once else f"{self.identity}, {choice}",
            ahead=self.read_ahead if "blocks" in order.text else None,
            settle=self.settle,
        )


def checked_rows(rows: Sequence[int] | np.ndarray | Tensor, count: int) -> np.ndarray:
    """The numbers of rows as int64 from 0 to count − 1, copied: the caller's array may change."""
    numbers = np.array(rows.cpu().numpy() if isinstance(rows, Tensor) else rows)
    if numbers.size == 0:
        return np.zeros(0, np.int64)
    if numbers.dtype.kind not in "iu" or numbers.ndim != 1:
        raise UsageError(
            f"rows are {numbers.dtype} {list(numbers.shape)}; give a list of whole numbers"
        )
    if numbers.min() < -count or numbers.max() >= count:
        row = numbers[(numbers < -count) | (numbers >= count)][0]
        raise IndexError(f"row {row} of a dump with {count} rows")
    return numbers.astype(np.int64) % count


@dataclass(frozen=True, eq=False, repr=False)
class Dump(SoftDataset):
    """One dump's rows, with the inputs that belong to them."""

    reader: DumpReader
    rows: MappedRows | StreamedRows
    examples: Examples | TextInputs | TokenInputs | None

    @property
    def base(self) -> "Dump":
        """The dump whose rows, labels and inputs these are: itself."""
        return self

    def __len__(self) -> int:
        return len(self.reader)

    def columns(self, rows: np.ndarray, inputs: bool = True) -> dict[str, Any]:
        if isinstance(self.rows, StreamedRows):  # which are read with their inputs
            return self.rows.columns(rows, inputs and self.examples is not None)
        columns = self.rows.columns(rows)
        if inputs and self.examples is not None:
            columns["input"] = self.examples.gather(rows)
        return columns

    def order(self, shuffle: bool | str, seed: int = 0, epoch: int = 0) -> Order:
        text = self.rows.order_text(order_text(shuffle))
        return Order(text, self.rows.row_bounds, seed, epoch)

    def read_ahead(self, rows: np.ndarray) -> None:
        self.rows.read_ahead(rows)

    def keep_all(self) -> None:
        if isinstance(self.rows, MappedRows) and isinstance(self.examples, Examples):
            self.examples.keep_all()

    def settle(self) -> None:
        self.rows.settle()

    @property
    def identity(self) -> str:
        return self.reader.identity

    @property
    def ids(self) -> np.ndarray:
        return self.reader.ids

    @property
    def views(self) -> np.ndarray:
        return self.reader.views

    @property
    def view_numbers(self) -> list[int]:
        return list(self.reader.plan.views)

    def _place(self) -> str:
        return short(str(self.reader.folder))

    @property
    def num_classes(self) -> int:
        return self.reader.plan.classes

    @property
    def class_names(self) -> list[str] | None:
        return self.reader.plan.source.class_names

    @property
    def label_source_names(self) -> list[str] | None:
        return self.reader.plan.source.label_source_names

    @property
    def preprocess(self) -> Preprocess:
        return NOTHING if self.examples is None else self.examples.preprocess

    def tokenized(self, preprocess: Preprocess, progress: Progress = SILENT) -> "Dump":
        """The same rows, with their texts as the tokens that `preprocess` makes: `input` is then
        `Tokens`."""
        if isinstance(self.rows, StreamedRows):
            rows = self.rows.prepared_by(preprocess)
            return replace(self, rows=rows, examples=StreamedInputs(rows, preprocess))
        assert isinstance(self.examples, TextInputs), "its inputs are texts"
        whole = self.examples
        tokens = open_tokens(whole.source, preprocess, progress, whole.positions, whole.hashes)
        return replace(self, examples=tokens)


@dataclass(frozen=True, eq=False, repr=False)
class OneView(SoftDataset):
    """The rows of one view of another dataset, in its order; each input is there once."""

    whole: SoftDataset
    number: int

    def __post_init__(self) -> None:
        if not len(self.rows) and len(self.whole):
            numbers = few([str(number) for number in np.unique(self.whole.views)])
            raise UsageError(
                f"{self.whole._place()} has no view {self.number!r}; there are {numbers}"
            )

    @cached_property
    def rows(self) -> np.ndarray:
        """Which rows of the whole these are, int64, ascending."""
        return np.flatnonzero(self.whole.views == self.number)

    def __len__(self) -> int:
        return len(self.rows)

    def columns(self, rows: np.ndarray, inputs: bool = True) -> dict[str, Any]:
        return self.whole.columns(self.rows[rows], inputs)

    def order(self, shuffle: bool | str, seed: int = 0, epoch: int = 0) -> Order:
        whole = self.whole.order(shuffle, seed, epoch)
        # the row groups of the whole, as far as they hold rows of this view; others vanish
        return Order(whole.text, np.unique(np.searchsorted(self.rows, whole.bounds)), seed, epoch)

    def read_ahead(self, rows: np.ndarray) -> None:
        self.whole.read_ahead(self.rows[rows])

    def keep_all(self) -> None:
        self.whole.keep_all()

    def settle(self) -> None:
        self.whole.settle()

    @property
    def identity(self) -> str:
        return f"{self.whole.identity} view {self.number}"

    @cached_property
    def ids(self) -> np.ndarray:
        return self.whole.ids[self.rows]

    @property
    def views(self) -> np.ndarray:
        return np.full(len(self), self.number, np.int32)

    @property
    def view_numbers(self) -> list[int]:
        return [self.number]

    def _place(self) -> str:
        return f"{self.whole._place()}, view {self.number}"

    def _space(self) -> str:
        return self.whole._space()

    @property
    def num_classes(self) -> int:
        return self.whole.num_classes

    @property
    def class_names(self) -> list[str] | None:
        return self.whole.class_names

    @property
    def label_source_names(self) -> list[str] | None:
        return self.whole.label_source_names

    @property
    def preprocess(self) -> Preprocess:
        return self.whole.preprocess
