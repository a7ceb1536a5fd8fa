"""A batch as it travels: raw columns, and what is made of them where they are asked for.

Shapes: N rows, C classes. A batch moves to a device as stored bytes (uint8 images, float16
logits); preprocessing and softmax run there, in float32, when `input` or `soft_target` is read.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate
from torch.utils.data._utils.collate import default_collate_fn_map

from softlabels.inputs.preprocess import Preprocess
from softlabels.logits import DenseLogits

Columns = dict[str, Any]

KEYS = ("id", "view", "input", "label", "logits", "soft_target")
ALWAYS = ("view", "soft_target")


@dataclass(frozen=True, eq=False)
class Batch(Mapping[str, Any]):
    """`batch["logits"]` and the other keys of a row, stacked.

    id: int64 [N], or a list of str; view: int32 [N]; input: float32 [N, …], preprocessed; label:
    int64 [N], −1 for none; logits: [N, C] in their stored dtype; soft_target: float32 [N, C], rows
    summing to 1 at T. A dump without its inputs has no `input`. Of dumps side by side, logits and
    soft_target are dicts of such tensors.
    """

    columns: Columns  # a function stands for a column that is looked up when it is read
    T: float
    preprocess: Preprocess
    _made: Columns = field(default_factory=dict, repr=False)

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(name for name in KEYS if name in ALWAYS or name in self.columns)

    def __len__(self) -> int:
        return len(self.columns) + 2

    @property
    def rows(self) -> int:
        return len(self._any_logits)

    @property
    def _any_logits(self) -> Tensor:
        found = self.columns["logits"]
        return next(iter(found.values())) if isinstance(found, dict) else found

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Batch":
        """The batch on a device; nothing is preprocessed or tempered yet."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Batch":
        """What a DataLoader with `pin_memory=True` calls."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        changed = {name: _each(self._raw(name), change) for name in self.columns}
        return Batch(changed, self.T, self.preprocess)

    def _raw(self, name: str) -> Any:
        value = self.columns[name]
        return value() if callable(value) else value

    def _make(self, name: str) -> Any:
        if name == "soft_target":
            return _each(self.columns["logits"], lambda z: DenseLogits(z).temper(self.T).probs())
        if name == "view":
            return torch.zeros(self.rows, dtype=torch.int32, device=self._any_logits.device)
        value = self._raw(name)
        return self.preprocess.on_numbers(value) if name == "input" else value

    def __reduce__(self) -> tuple:
        return Batch, ({n: self._raw(n) for n in self.columns}, self.T, self.preprocess)


def _each(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, dict):
        return {name: _each(part, change) for name, part in value.items()}
    return change(value) if isinstance(value, Tensor) else value


@dataclass(frozen=True, eq=False)
class Row(Mapping[str, Any]):
    """One row of a batch: the same keys. id, view and label are an int (or str)."""

    batch: Batch
    position: int

    def __getitem__(self, name: str) -> Any:
        value = self.batch[name]
        if isinstance(value, dict):
            return {key: part[self.position] for key, part in value.items()}
        value = value[self.position]
        return value.item() if name in ("id", "view", "label") and hasattr(value, "item") else value

    def __iter__(self) -> Iterator[str]:
        return iter(self.batch)

    def __len__(self) -> int:
        return len(self.batch)

    def __repr__(self) -> str:
        return repr(dict(self))


@dataclass(frozen=True)
class Rows(Sequence[Row]):
    """A batch as the list of rows that a DataLoader expects; `default_collate` gives back the batch
    as it is, without touching a row in Python."""

    batch: Batch

    def __len__(self) -> int:
        return self.batch.rows

    def __getitem__(self, position: Any) -> Any:
        if isinstance(position, slice):
            return [self[i] for i in range(*position.indices(len(self)))]
        if not -len(self) <= position < len(self):
            raise IndexError(position)
        return Row(self.batch, position % len(self))


def _collate(rows: Sequence[Row], *, collate_fn_map: Any = None) -> Any:
    if isinstance(rows, Rows):
        return rows.batch
    return {name: default_collate([row[name] for row in rows]) for name in rows[0]}


default_collate_fn_map[Row] = _collate
