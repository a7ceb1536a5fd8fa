"""Several dumps as one dataset, one after the other. N rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from softlabels.errors import UsageError
from softlabels.inputs.preprocess import Preprocess
from softlabels.inputs.texts import joined_texts
from softlabels.models.named import NamedInputs
from softlabels.store.side_files import NOTES
from softlabels.system.humanize import few
from softlabels.targets.batch import positions_of
from softlabels.targets.orders import Order
from softlabels.targets.soft_dataset import Dump, SoftDataset


@dataclass(frozen=True, eq=False, repr=False)
class Concatenated(SoftDataset):
    """The rows of several dumps, one after the other, such as the splits of a data set."""

    parts: Sequence[Dump]

    def __post_init__(self) -> None:
        first = self.parts[0]
        for other in self.parts[1:]:
            for what, ours, theirs in (
                ("classes", first.reader.plan.classes, other.reader.plan.classes),
                ("class names", first.class_names, other.class_names),
                ("label_source", _own_labels(first), _own_labels(other)),
                ("names of label_source", first.label_source_names, other.label_source_names),
                ("task", first.reader.plan.task, other.reader.plan.task),
                ("dtype", first.reader.plan.dtype, other.reader.plan.dtype),
                ("codec", first.reader.plan.codec, other.reader.plan.codec),
                ("side files", _side_files(first), _side_files(other)),
                ("kind of ids", first.reader.plan.ids, other.reader.plan.ids),
                ("views", first.reader.plan.views, other.reader.plan.views),
                ("augment", first.reader.plan.augment, other.reader.plan.augment),
                ("preprocessing", str(first.preprocess), str(other.preprocess)),
            ):
                if ours != theirs:
                    raise UsageError(
                        f"{first.reader.folder} and {other.reader.folder} can't be one dataset: "
                        f"{what} {_short(ours)} and {_short(theirs)}"
                    )

    def __len__(self) -> int:
        return int(self._starts[-1])

    @cached_property
    def _starts(self) -> np.ndarray:
        return np.concatenate([[0], np.cumsum([len(part) for part in self.parts])])

    def columns(self, rows: np.ndarray, inputs: bool = True) -> dict[str, Any]:
        if not len(rows):
            return self.parts[0].columns(rows, inputs)
        which = np.searchsorted(self._starts, rows, side="right") - 1
        places = [np.flatnonzero(which == i) for i in range(len(self.parts))]
        parts = [
            part.columns(rows[place] - start, inputs)
            for part, place, start in zip(self.parts, places, self._starts, strict=False)
            if len(place)
        ]
        back = np.empty(len(rows), np.int64)
        back[np.concatenate(places)] = np.arange(len(rows))
        columns = {
            name: _stacked([part[name] for part in parts], back)
            for name in parts[0]
            if name != "targets"
        }
        targets = [part["targets"] for part in parts]
        every, order = targets[0].joined(targets[1:]), torch.from_numpy(back)
        if "positions" in columns:
            counts = torch.cat([part["positions"] for part in parts])
            order = positions_of(counts, order)
        return columns | {"targets": every.select(order)}

    def order(self, shuffle: bool | str, seed: int = 0, epoch: int = 0) -> Order:
        orders = [part.order(shuffle, seed, epoch) for part in self.parts]
        bounds = [order.bounds[:-1] for order in orders]
        moved = [b + start for b, start in zip(bounds, self._starts, strict=False)]
        text = "blocks" if any(order.text == "blocks" for order in orders) else orders[0].text
        return Order(text, np.concatenate([*moved, self._starts[-1:]]), seed, epoch)

    def read_ahead(self, rows: np.ndarray) -> None:
        for part, start in zip(self.parts, self._starts, strict=False):
            inside = rows[(rows >= start) & (rows < start + len(part))]
            if len(inside):
                part.read_ahead(inside - start)

    def keep_all(self) -> None:
        for part in self.parts:
            part.keep_all()

    def settle(self) -> None:
        for part in self.parts:
            part.settle()

    @property
    def identity(self) -> str:
        return " ".join(part.identity for part in self.parts)

    @cached_property
    def ids(self) -> np.ndarray:
        return np.concatenate([part.ids for part in self.parts])

    @cached_property
    def views(self) -> np.ndarray:
        return np.concatenate([part.views for part in self.parts])

    def _place(self) -> str:
        return few([part._place() for part in self.parts], " + ")

    @property
    def num_classes(self) -> int:
        return self.parts[0].num_classes

    @property
    def class_names(self) -> list[str] | None:
        return self.parts[0].class_names

    @property
    def label_source_names(self) -> list[str] | None:
        return self.parts[0].label_source_names

    @property
    def preprocess(self) -> Preprocess:
        return self.parts[0].preprocess


def _stacked(parts: list[Any], back: np.ndarray) -> Any:
    parts = [part() if callable(part) else part for part in parts]
    if isinstance(parts[0], list | dict):
        return joined_texts(parts, back)
    if isinstance(parts[0], NamedInputs):
        return type(parts[0]).joined(parts)[back]
    return torch.cat(parts).index_select(0, torch.from_numpy(back).to(parts[0].device))


def _side_files(dump: Dump) -> dict[str, str]:
    """Those that its rows are read by; what a pilot noted is of one dump alone."""
    shared = dump.reader.plan.shared
    return {name: shared[name] for name in shared if name not in NOTES}


def _own_labels(dump: Dump) -> str:
    return "there" if dump.reader.plan.label_column == "label_source" else "absent"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
