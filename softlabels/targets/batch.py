"""A batch: raw columns, and the values that are computed from them on demand.

Shapes: N rows; M scored positions of them, for a classifier as many; C classes. A batch moves to a
device as stored bytes (uint8 images, float16 logits); preprocessing and softmax run there, in
float32, when `input` or `soft_target` is read.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate
from torch.utils.data._utils.collate import default_collate_fn_map

from softlabels.errors import UsageError
from softlabels.inputs.preprocess import Preprocess
from softlabels.logits import Logits
from softlabels.models.named import NamedInputs, NumberColumns
from softlabels.models.tokens import Tokens
from softlabels.system.humanize import counted, short

Columns = dict[str, Any]
ONE = (  # columns with one number a row
    "id", "view", "label", "label_source", "partner_label", "mix_weight", "positions",
)  # fmt: skip

KEYS = (
    "id", "view", "input", "label", "label_source", "partner_label", "mix_weight", "positions",
    "loss_mask", "logits", "soft_target",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Batch(Mapping[str, Any]):
    """The rows of a batch, by column: `batch["logits"]`.

    id: int64 [N], or a list of str
    view: int32 [N]
    input: float32 [N, …], preprocessed; of texts a list of str [N], of pairs a dict of such lists;
        of tokens a dict of input_ids, attention_mask and what else there is, int64 [N, L], padded
        on the right; of columns of numbers a dict of them, float32 or int64 [N, …]. The names of a
        dict are keys of the batch too. Absent if not loaded
    label: int64 [N], −1 for none; of a multi-label dump int8 [N, C], 1 for each label of a row,
    else 0, and −1 throughout where a row's labels are unknown
    label_source: int64 [N], −1 for none: the data's labels where they are of other classes than the
    teacher's, and `label` is −1; else absent
    partner_label: of a dump with views by mixup or cutmix, the label of the input that each row is
        mixed with, as `label`; absent if there are no labels
    mix_weight: float32 [N], the weight of the row's own input, 1 where it is not mixed. Absent in
        other dumps; `kd_loss` takes both
    positions: int64 [N], the number of positions of each row; absent if each has one
    loss_mask: bool [N, L], which of the L places of each input are scored positions; absent if
        positions are no places of inputs
    logits: [M, C] in their stored dtype; absent if not all logits are stored
    soft_target: float32 [M, C], rows sum to 1 but for multi-label teachers; absent without a T
    targets: the `Logits` of the M positions, for every codec; a loop over the batch leaves it out

    For dumps side by side, targets, logits and soft_target are dicts by the name of the dump.
    """

    columns: Columns  # a function in place of a column is called when the column is read
    T: float | None
    preprocess: Preprocess
    _made: Columns = field(default_factory=dict, repr=False)

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]

    @property
    def _inputs(self) -> Mapping[str, Any]:
        """The parts of an input that is a dict."""
        inputs = self.columns.get("input")
        if isinstance(inputs, NamedInputs):
            named: dict[str, Tensor] = self["input"]
            return named
        return inputs if isinstance(inputs, dict) else {}

    def __iter__(self) -> Iterator[str]:
        return iter(name for name in KEYS if name in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        if name == "logits":
            return bool(self._targets) and all(logits.is_dense for logits in self._targets)
        if name == "soft_target":
            return bool(self._targets) and self.T is not None
        return name == "view" or name in self.columns or name in self._inputs

    @property
    def rows(self) -> int:
        if self._targets:
            return len(self.columns.get("positions", self._targets[0]))
        return len(self["id"])

    @property
    def device(self) -> torch.device:
        return self._targets[0].device if self._targets else self["label"].device

    def __repr__(self) -> str:
        temperature = "" if self.T is None else f", T={self.T:g}"
        names = [*self, *(["targets"] if self._targets else [])]
        return f"Batch({counted(self.rows, 'row')}{temperature}: {', '.join(names)})"

    @property
    def _targets(self) -> list[Logits]:
        """The logits of each dump; empty for examples without a dump."""
        targets = self.columns.get("targets", {})
        return list(targets.values()) if isinstance(targets, dict) else [targets]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Batch":
        """The batch on a device. Preprocessing and softmax still wait until they are needed."""
        return self._each(lambda value: value.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Batch":
        """The batch in pinned memory; a DataLoader with `pin_memory=True` calls this. What is kept
        on a device stays there."""
        return self._each(lambda value: value.pin_memory() if value.device.type == "cpu" else value)

    def _each(self, change: Callable[[Any], Any]) -> "Batch":
        changed = {name: _each(self._raw(name), change) for name in self.columns}
        return Batch(changed, self.T, self.preprocess)

    def _raw(self, name: str) -> Any:
        value = self.columns[name]
        return value() if callable(value) else value

    def _make(self, name: str) -> Any:
        if name == "logits":
            return _each(self.columns["targets"], lambda logits: logits.dense())
        if name == "soft_target":
            T = self.T
            if T is None:
                raise UsageError(
                    "no temperature was given, so there is no soft_target: use "
                    "dataset.with_temperature(4), or load(…, T=4)"
                )
            return _each(self.columns["targets"], lambda logits: logits.temper(T).probs())
        if name == "view" and name not in self.columns:  # each input as it is, alone
            return torch.zeros(self.rows, dtype=torch.int32, device=self.device)
        if name not in self.columns and name in self._inputs:
            return self._inputs[name]
        value = self._raw(name)
        if isinstance(value, Tokens):
            return value.by_name("right", self.preprocess.pad or 0)
        if name != "input" or not isinstance(value, Tensor | NumberColumns):
            return value
        finished = self.preprocess.on_numbers(value)
        return finished.by_name() if isinstance(finished, NumberColumns) else finished

    def __reduce__(self) -> tuple:
        return Batch, ({n: self._raw(n) for n in self.columns}, self.T, self.preprocess)


def _each(value: Any, change: Callable[[Any], Any]) -> Any:
    """Apply `change` to a column: a tensor, `Logits`, or a dict of them. Ids that are text stay."""
    if isinstance(value, dict):
        return {name: _each(part, change) for name, part in value.items()}
    return value if isinstance(value, list) else change(value)


def _at(value: Any, row: int) -> Any:
    """What a column has for a row."""
    if isinstance(value, dict):
        return {name: _at(part, row) for name, part in value.items()}
    return value[row]


@dataclass(frozen=True, eq=False)
class Row(Mapping[str, Any]):
    """One row of a batch: the same keys. id, view and a single label are an int (or str); where a
    row has several positions, logits and soft_target are [P, C]; of tokens the row alone, [L],
    without padding."""

    batch: Batch
    position: int

    def __getitem__(self, name: str) -> Any:
        if name == "targets":
            return _each(self.batch[name], lambda logits: logits.select(self._positions()))
        if name in ("logits", "soft_target") and "positions" in self.batch:
            return _each(self.batch[name], lambda value: value[self._positions()])
        tokens = self._tokens
        if tokens is not None and name in ("input", *tokens):
            return tokens if name == "input" else tokens[name]
        value = _at(self.batch[name], self.position)
        is_one = isinstance(value, Tensor) and not value.dim()  # a row may have several labels
        return value.item() if name in ONE and is_one else value

    @property
    def _tokens(self) -> dict[str, Tensor] | None:
        """The row's own, where inputs are tokens."""
        inputs = self.batch.columns.get("input")
        return inputs.row(self.position) if isinstance(inputs, Tokens) else None

    def _positions(self) -> Tensor:
        """The positions of this row in the batch."""
        row = torch.tensor([self.position])
        if "positions" not in self.batch:
            return row
        return positions_of(self.batch["positions"], row)

    def __iter__(self) -> Iterator[str]:
        return iter(self.batch)

    def __len__(self) -> int:
        return len(self.batch)

    def __repr__(self) -> str:
        return f"Row({', '.join(f'{name}={_brief(self[name])}' for name in self)})"


def for_each_position(values_N: Tensor, columns: Mapping[str, Any]) -> Tensor:
    """Values of each row, aligned with the targets of the same batch: those at each place of an
    input, such as a student's logits [N, L, C], at the scored places; others, such as labels [N],
    repeated for each of the row's positions."""
    mask_NL = columns.get("loss_mask")
    if mask_NL is not None and values_N.shape[:2] == mask_NL.shape:
        return values_N[mask_NL.to(values_N.device)]
    counts_N = columns.get("positions") if "positions" in columns else None
    if counts_N is None:
        return values_N
    total = len(columns["targets"])
    return values_N.repeat_interleave(counts_N.to(values_N.device), 0, output_size=total)


def positions_of(counts_N: Tensor, rows: Tensor) -> Tensor:
    """The positions of these rows, in their order. counts_N: the positions of each row of the
    batch."""
    ends_N = counts_N.cumsum(0)
    ranges = [torch.arange(int(ends_N[r] - counts_N[r]), int(ends_N[r])) for r in rows.tolist()]
    return torch.cat(ranges) if ranges else rows


def _brief(value: Any) -> str:
    """A cell in a word or two; for a tensor, its dtype and shape."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_brief(part)}" for name, part in value.items()) + "}"
    return short(repr(value))


@dataclass(frozen=True)
class Rows(Sequence[Row]):
    """A batch as the list of rows that a DataLoader expects. `default_collate` returns the batch as
    it is, without touching a row in Python."""

    batch: Batch

    def __len__(self) -> int:
        return self.batch.rows

    def __repr__(self) -> str:
        return f"Rows({self.batch!r})"

    def __getitem__(self, position: Any) -> Any:
        if isinstance(position, slice):
            return [self[i] for i in range(*position.indices(len(self)))]
        if not -len(self) <= position < len(self):
            raise IndexError(position)
        return Row(self.batch, position % len(self))


def _collate(rows: Sequence[Row], *, collate_fn_map: Any = None) -> Any:
    if isinstance(rows, Rows):
        return rows.batch
    names, inputs = list(rows[0]), [row.batch.columns.get("input") for row in rows]
    tokens = [one for one in inputs if isinstance(one, Tokens)]
    if len(tokens) < len(rows):
        made = {name: default_collate([row[name] for row in rows]) for name in names}
        numbers = isinstance(inputs[0], NumberColumns)
        return made | made["input"] if numbers else made
    own = [one[[row.position]] for one, row in zip(tokens, rows, strict=True)]
    padded = Tokens.joined(own).padded("right", rows[0].batch.preprocess.pad or 0)
    others = {n: default_collate([row[n] for row in rows]) for n in names if n != "input"}
    return {"input": padded} | others | padded


default_collate_fn_map[Row] = _collate
