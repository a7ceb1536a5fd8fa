"""Several teachers' rows as those of one. N rows, K teachers, C classes."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from softlabels.inputs.preprocess import Preprocess
from softlabels.mixtures import Space, mix
from softlabels.system.progress import SILENT, Progress
from softlabels.targets.orders import Order
from softlabels.targets.soft_dataset import Dump, SoftDataset

DIGITS = 9  # of a weight, where mixtures are compared; 1/5 and 0.2/1 may differ in the last of 17


class Teachers(SoftDataset):
    """Rows of several teachers, whose `targets` are a mapping from a name to its `Logits`.

    dumps: of each teacher, by name
    """

    dumps: Mapping[str, Dump]

    @property
    @abstractmethod
    def base(self) -> Dump:
        """The dump whose rows, labels and inputs these are."""

    @abstractmethod
    def tokenized(self, preprocess: Preprocess, progress: Progress = SILENT) -> "Teachers":
        """The same rows, with their texts as the tokens that `preprocess` makes."""


@dataclass(frozen=True, eq=False, repr=False)
class Mixed(SoftDataset):
    """The rows of several teachers, each with one `targets`: a `Mixture` of theirs.

    teachers: those that have a weight
    space: "prob" for the mean of their probabilities at each temperature, "logit" for that of their
        logits
    weights: of each by name, above 0, their sum 1

    With "prob" there are no `logits`, since no logits give a mean of softmaxes at every T.
    """

    teachers: Teachers
    space: Space
    weights: Mapping[str, float]

    @property
    def base(self) -> Dump:
        """The dump whose rows, labels and inputs these are."""
        return self.teachers.base

    def tokenized(self, preprocess: Preprocess, progress: Progress = SILENT) -> "Mixed":
        """The same rows, with their texts as the tokens that `preprocess` makes: `input` is then
        `Tokens`."""
        return replace(self, teachers=self.teachers.tokenized(preprocess, progress))

    def __len__(self) -> int:
        return len(self.teachers)

    def columns(self, rows: np.ndarray, inputs: bool = True) -> dict[str, Any]:
        columns = self.teachers.columns(rows, inputs)
        members = [columns["targets"][name] for name in self.weights]
        return columns | {"targets": mix(members, list(self.weights.values()), self.space)}

    def order(self, shuffle: bool | str, seed: int = 0, epoch: int = 0) -> Order:
        return self.teachers.order(shuffle, seed, epoch)

    def read_ahead(self, rows: np.ndarray) -> None:
        self.teachers.read_ahead(rows)

    def keep_all(self) -> None:
        self.teachers.keep_all()

    def settle(self) -> None:
        self.teachers.settle()

    @property
    def identity(self) -> str:
        shares = ",".join(f"{weight:.{DIGITS}g}" for weight in self.weights.values())
        return f"{self.teachers.identity} {self.space} {shares}"

    @property
    def ids(self) -> np.ndarray:
        return self.teachers.ids

    @property
    def views(self) -> np.ndarray:
        return self.teachers.views

    @property
    def view_numbers(self) -> list[int]:
        return self.teachers.view_numbers

    def _place(self) -> str:
        return self.title

    @property
    def title(self) -> str:
        """Of which teachers it is, by which weights: `0.7·vit + 0.3·cnn by prob`."""
        shares = " + ".join(f"{weight:.3g}·{name}" for name, weight in self.weights.items())
        return f"{shares} by {self.space}"

    @property
    def num_classes(self) -> int:
        return self.teachers.num_classes

    @property
    def class_names(self) -> list[str] | None:
        return self.teachers.class_names

    @property
    def label_source_names(self) -> list[str] | None:
        return self.teachers.label_source_names

    @property
    def preprocess(self) -> Preprocess:
        return self.teachers.preprocess


Trainable = Dump | Mixed
