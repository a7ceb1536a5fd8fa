"""The interface of a codec: a teacher's answers ↔ named columns of a shard ↔ `Logits`.

N rows; M scored positions of them, for a classifier as many; C classes.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from torch import Tensor

from softlabels.errors import LogitsError, UsageError
from softlabels.inputs.label_lists import Labels
from softlabels.logits import Logits
from softlabels.soft_targets import Link, kl_of_change
from softlabels.store.codecs.kinds import Dense
from softlabels.store.pages.columns import Column

POSITIONS = "positions"  # the column of the number of positions of each row, where that varies
MASK = "loss_mask"  # the column that says which positions of a row's input are scored

Values = TypeVar("Values", bound=Labels)  # numbers [N, …], or labels of several a row

Stored = dict[str, Any]
"""By the name of a column: of a mapped one its numbers [N, …], of a decoded one a list of N bytes
or None. Arrays where a shard is written or read, tensors where they make `Logits`."""


class Codec(ABC):
    """One way to store a teacher's answers. Made by `parse_codec` for a plan.

    A mapped column is gathered in place; a decoded one is unpacked a row group at a time. Where
    the number of a row's positions varies, the column `positions` counts them, int32 and mapped.
    Where they are some of the L places of its input, the column `loss_mask` says which: uint8 [L],
    mapped, 1 for a scored place.
    """

    takes: ClassVar[tuple[Any, ...]] = (Dense,)
    """The kinds of answers that `encode`, `lost` and `fit` are given."""
    links: ClassVar[tuple[Link, ...]] = ("softmax",)
    """What makes probabilities of logits that it can store; of others than softmax, a dataclass has
    a field `link`."""
    link: Link = "softmax"
    classes: int
    columns: Sequence[Column]
    """The decoded ones first, as they stand in a shard."""
    pilot_rows: ClassVar[int] = 0
    """Of how many rows its error is measured before the first shard; 0 where that is not needed."""
    fits: ClassVar[bool] = False
    """Whether it has side files, which `fit` makes from three of four pilot rows."""

    @abstractmethod
    def encode(self, answer: Dense, ids: list) -> Stored:
        """Answers → columns, as arrays on the CPU. Raises LogitsError that names the first bad
        row, or for another number of classes."""

    @abstractmethod
    def wrap(self, stored: Mapping[str, Any]) -> Logits:
        """Stored rows, as tensors and lists, → `Logits`. Copies only what it has to."""

    def lost(self, answer: Dense, stored: Stored, ids: list) -> float:
        """What storing changed: Σ over positions of KL(logits ‖ stored) at T = 1, in nats. Raises
        LogitsError for a row that changed too much."""
        return float(kl_at(1, answer.logits_NC, self, stored).double().sum())

    def fit(self, answer: Dense) -> dict[str, dict[str, Tensor]]:
        """The tensors of each side file, by its name, fitted to the answers to pilot rows."""
        raise NotImplementedError

    def check_lost(self, kl: float, positions: int, where: str) -> None:  # noqa: B027
        """Raises LogitsError if the mean of `lost` over these positions is too large for any dump.
        The writer holds another limit, the error that the pilot measured."""

    @property
    def mapped(self) -> list[Column]:
        return [column for column in self.columns if column.mapped]

    @property
    def decoded(self) -> list[Column]:
        return [column for column in self.columns if not column.mapped]

    @property
    def names(self) -> list[str]:
        return [column.name for column in self.columns]

    @property
    def positions(self) -> int | None:
        """The scored positions of each row, 1 for a classifier; None where the column says it."""
        return None if POSITIONS in self.names else 1

    def by_position(self, values_N: Values, stored: Stored) -> Values:
        """A value of each row, such as its label, repeated for each of its positions."""
        counts = stored[POSITIONS] if self.positions is None else self.positions
        if self.positions == 1:
            return values_N
        repeated: Any = values_N[np.repeat(np.arange(len(values_N)), counts)]
        return repeated

    @property
    def row_bytes(self) -> int:
        """The bytes of a row's mapped columns."""
        return sum(column.row_bytes for column in self.columns)

    def of_arrays(self, stored: Stored) -> Logits:
        """`wrap` for the arrays that a shard's reader gives."""
        return self.wrap(as_tensors(stored))

    def check_takes(self, kind: type[Dense], codec: str, teacher: str) -> None:
        """Raises UsageError where it doesn't take this kind of answers."""
        if kind not in self.takes:
            taken = " or ".join(one.text for one in self.takes)
            raise UsageError(
                f"the codec {codec} takes {taken}, and {teacher} gives {kind.text}; choose another "
                f"--codec, such as dense"
            )

    def check_classes(self, logits_NC: Tensor, ids: list) -> None:
        """Raises LogitsError for another number of classes than the plan's."""
        if logits_NC.shape[1] != self.classes:
            raise LogitsError(
                f"the teacher gave {logits_NC.shape[1]} logits for the row with id {ids[0]!r}; "
                f"before, it gave {self.classes}"
            )


def as_tensors(stored: Stored) -> dict[str, Any]:
    return {
        name: torch.from_numpy(values) if isinstance(values, np.ndarray) else values
        for name, values in stored.items()
    }


def kl_at(T: float, logits_NC: Tensor, codec: Codec, stored: Stored) -> Tensor:
    """KL(logits ‖ stored, both at T) of each position, in nats, [M] on the CPU."""
    logits = codec.of_arrays(stored)
    exact_MC = torch.from_numpy(codec.by_position(logits_NC.cpu().numpy(), stored))
    if logits.is_dense:
        return kl_of_change(exact_MC, logits.dense(), T, codec.link)
    return kl_of_change(exact_MC, logits.temper(T).log_probs() * T, T)
