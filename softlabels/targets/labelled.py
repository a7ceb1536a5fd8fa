"""Inputs and labels of a data set, such as a test set, in the form of a dump's rows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch

from softlabels.errors import UsageError
from softlabels.inputs.examples import Examples
from softlabels.inputs.label_lists import LabelLists, as_tensor
from softlabels.inputs.opening import LabelChoice, open_source
from softlabels.inputs.preprocess import Preprocess
from softlabels.inputs.preprocessing import choose, introduce
from softlabels.inputs.text_inputs import TextInputs, open_inputs_of
from softlabels.inputs.token_inputs import TokenInputs
from softlabels.system.humanize import short
from softlabels.system.progress import SILENT, Progress
from softlabels.targets.orders import Order, order_text
from softlabels.targets.soft_dataset import SoftDataset


def examples(
    data: Any,
    split: str = "train",
    *,
    revision: str | None = None,
    input_column: str | Sequence[str] | None = None,
    label_column: str | None = None,
    id_column: str | None = None,
    task: Literal["classification", "multilabel"] = "classification",
    preprocess: str | Callable[[Any], Any] | None = None,
    progress: Progress = SILENT,
) -> "LabelledExamples":
    """The rows of a data set with their inputs and labels, as `load` gives those of a dump.

    data: digits, a file or folder of data, a Hub id, or a data set in memory.
    split, revision: which part and which state of it.
    input_column, label_column, id_column: as in `softlabels dump`; by default found by type
    task: multilabel where a row may have several labels, in a column of lists
    preprocess: the steps from an input to numbers, such as `str(dump.preprocess)`; by default
    chosen by the inputs, as in `softlabels dump`

    Raises SourceError for data that can't be opened or understood, UsageError for options that
    don't fit it.
    """
    source = open_source(
        data,
        split,
        revision=revision,
        input_column=input_column,
        label_column=label_column,
        id_column=id_column,
        labels=LabelChoice(task=task),
        progress=progress,
    )
    chosen = choose(source, preprocess)
    opened = open_inputs_of(source, chosen.preprocess)
    introduce(progress, opened, chosen.origin)
    return LabelledExamples(None, opened)


@dataclass(frozen=True, eq=False, repr=False)
class LabelledExamples(SoftDataset):
    """A data set's rows: id, view, input and label, but no targets."""

    examples: Examples | TextInputs | TokenInputs

    def __len__(self) -> int:
        return len(self.examples)

    def columns(self, rows: np.ndarray, inputs: bool = True) -> dict[str, Any]:
        ids = self.ids[rows]
        columns: dict[str, Any] = {
            "id": torch.from_numpy(ids) if ids.dtype.kind == "i" else ids.tolist(),
            "label": as_tensor(self.examples.labels[rows], self.num_classes),
        }
        return columns | ({"input": self.examples.gather(rows)} if inputs else {})

    def order(self, shuffle: bool | str, seed: int = 0, epoch: int = 0) -> Order:
        return Order(order_text(shuffle), np.array([0, len(self)]), seed, epoch)

    def read_ahead(self, rows: np.ndarray) -> None:
        """Inputs are decoded in the background already."""

    def settle(self) -> None:
        """Returns at once: there are no files to check."""

    def with_temperature(self, T: float) -> SoftDataset:
        raise UsageError(f"{self._place()} has no logits, so no temperature; load a dump for them")

    @property
    def identity(self) -> str:
        return f"{self._place()}, revision {self.examples.source.revision}, {len(self)} rows"

    @property
    def ids(self) -> np.ndarray:
        return self.examples.source.ids  # these are all rows of the source, in its order

    @property
    def views(self) -> np.ndarray:
        return np.zeros(len(self), np.int32)

    def _place(self) -> str:
        source = self.examples.source
        return f"{short(source.data)}, split {source.split}"

    def _space(self) -> str:
        return super()._space() if self.examples.source.labelled else "no labels"

    @property
    def num_classes(self) -> int:
        """The number of class names, else the largest label plus 1; 0 without labels."""
        return self._classes

    @cached_property
    def _classes(self) -> int:
        if names := self.class_names:
            return len(names)
        labels, flags = self.examples.labels, self.examples.source.flags
        numbers = labels.numbers if isinstance(labels, LabelLists) else labels
        return flags or int(numbers.max(initial=-1)) + 1

    @property
    def class_names(self) -> list[str] | None:
        names = self.examples.source.class_names
        return None if names is None else list(names)

    @property
    def preprocess(self) -> Preprocess:
        return self.examples.preprocess
