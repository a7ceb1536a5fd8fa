"""Raw logits as a store gives them back, at no temperature.

Shapes: N rows; M scored positions of them, as many as rows for a classifier; C classes. `Logits` is
what a codec promises, and `DenseLogits` its plain kind; `temper(T)` is free, and gives the soft
targets that are computed where they are asked for.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from softlabels.errors import UsageError
from softlabels.soft_targets import (
    TARGETS,
    DenseTargets,
    Link,
    SoftTargets,
    Temperature,
    check_temperatures,
    entropy_at_one,
)

NOT_DENSE = (
    "not all raw logits are stored in this dump, so there is no logits tensor; "
    'batch["targets"].temper(T) gives its soft targets'
)
BLOCK_VALUES = 1 << 18  # float32 values that fit into the processor's cache
SPARE = threading.local()  # two such blocks for each thread


class Logits(Protocol):
    """Logits as a codec stores them: M scored positions of N rows, each over C classes. For a
    classifier a position is a row. They know no temperature.

    What all positions share, such as the head of a language model, exists once per process and
    device. It is not pickled or moved with the logits.
    """

    @property
    def classes(self) -> int: ...

    @property
    def link(self) -> Link:
        """The function that makes probabilities of them: `softmax`, or `sigmoid`."""

    @property
    def device(self) -> torch.device: ...

    @property
    def is_dense(self) -> bool:
        """Whether all raw logits are stored, so that `dense` works."""

    def __len__(self) -> int:
        """M."""

    def dense(self) -> Tensor:
        """All raw logits, [M, C]. Raises UsageError unless `is_dense`."""

    def select(self, positions: Tensor) -> Self:
        """These positions, int64 [K], in their order."""

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self: ...

    def pin_memory(self) -> Self: ...

    def chunks(self, size: int) -> Iterator[Self]:
        """These logits, up to `size` positions at a time."""

    def joined(self, others: Sequence[Self]) -> Self:
        """These positions, followed by those of other logits of the same codec."""

    def tally(self) -> "Tally":
        """The statistics of these positions."""

    def rounding(self) -> Tensor:
        """How far the teacher's raw logits may be from the stored ones, float64 [M, C]. Raises
        UsageError unless `is_dense`."""

    def check(self) -> tuple[np.ndarray, int | None]:
        """The top class of each position, int64 [M], and the number of the first position that is
        not finite, if there is one."""

    def temper(self, T: Temperature) -> SoftTargets:
        """Soft targets at T, in O(1). T: a number above 0, or a tensor [M], or [S, 1] for a stack
        of S students. Raises UsageError for another."""


@dataclass(frozen=True)
class Tally:
    """Of M positions: the top class (int64) and the entropy at T = 1 in nats, both [M]; the
    smallest and the largest raw logit and the sum of all, None where not all are stored."""

    top: np.ndarray
    entropy: np.ndarray
    smallest: float | None = None
    largest: float | None = None
    total: float | None = None


class TemperedLogits:
    """What `Logits` say of themselves by their soft targets at T = 1. A subclass defines
    `temper`."""

    def temper(self, T: Temperature) -> SoftTargets:
        raise NotImplementedError

    def tally(self) -> Tally:
        soft = self.temper(1)
        return Tally(soft.top(1)[1][:, 0].numpy(), soft.entropy().numpy())

    def check(self) -> tuple[np.ndarray, int | None]:
        soft = self.temper(1)
        bad = (~torch.isfinite(soft.entropy())).nonzero()
        return soft.top(1)[1][:, 0].numpy(), int(bad[0]) if len(bad) else None


@dataclass(frozen=True, eq=False, repr=False)
class StoredLogits(TemperedLogits):
    """The base of `Logits` that consist of tensors of M rows, where a position is a row of each.

    A subclass is a dataclass. Its fields that are tensors have a row a position; others, such as a
    number of classes, are shared by all rows. It defines `temper` and `classes`. Logits that can
    all be restored are `PackedLogits`.
    """

    link: Link = field(default="softmax", kw_only=True)
    is_dense: ClassVar[bool] = False

    if TYPE_CHECKING:  # a property here would become the default of a field of this name

        @property
        def classes(self) -> int: ...

    def __repr__(self) -> str:
        kinds = [str(value.dtype).removeprefix("torch.") for value in self._tensors.values()]
        return (
            f"{type(self).__name__}({len(self):,} × {self.classes:,}, {' '.join(kinds)}, "
            f"{self.device})"
        )

    @property
    def _tensors(self) -> dict[str, Tensor]:
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}

    @property
    def device(self) -> torch.device:
        return next(iter(self._tensors.values())).device

    def __len__(self) -> int:
        return len(next(iter(self._tensors.values())))

    def dense(self) -> Tensor:
        raise UsageError(NOT_DENSE)

    def rounding(self) -> Tensor:
        raise UsageError(NOT_DENSE)

    def select(self, positions: Tensor) -> Self:
        return self._each(lambda tensor: tensor.index_select(0, positions.to(tensor.device)))

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        return self._each(Tensor.pin_memory)

    def chunks(self, size: int) -> Iterator[Self]:
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            yield self._of({name: value[part] for name, value in self._tensors.items()})

    def joined(self, others: Sequence[Self]) -> Self:
        parts = [self._tensors, *(other._tensors for other in others)]
        return self._of({n: torch.cat([part[n] for part in parts]) for n in parts[0]})

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        return self._of({name: change(value) for name, value in self._tensors.items()})

    def _of(self, tensors: dict[str, Any]) -> Self:
        return replace(self, **tensors)


def last_place(values: Tensor) -> Tensor:
    """The unit in the last place of each number, float64; NaN of what is not finite. `np.spacing`
    has no bfloat16, and the distance to the next number is infinite for the largest."""
    limits, size = torch.finfo(values.dtype), values.double().abs()
    exponents = torch.frexp(size.clamp_min(limits.tiny)).exponent  # size = m · 2^e, ½ ≤ m < 1
    return torch.where(size.isfinite(), limits.eps * torch.exp2(exponents.double() - 1), torch.nan)


class PackedLogits(StoredLogits):
    """The base of `Logits` from whose tensors all raw logits can be restored.

    A subclass is a dataclass, as for `StoredLogits`. It defines `classes`, `dense` and `rounding`.
    """

    is_dense: ClassVar[bool] = True

    def dense(self) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} has to define dense()")

    def rounding(self) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} has to define rounding()")

    def temper(self, T: Temperature) -> DenseTargets:
        return TARGETS[self.link](self, check_temperatures(T, len(self)))

    def tally(self) -> Tally:
        return DenseLogits(self.dense(), link=self.link).tally()

    def check(self) -> tuple[np.ndarray, int | None]:
        return DenseLogits(self.dense(), link=self.link).check()


@dataclass(frozen=True, eq=False, repr=False)
class DenseLogits(StoredLogits):
    """All C logits of each position, [M, C], in their stored dtype. Knows no temperature.

    Raises UsageError for another shape.
    """

    values_MC: Tensor
    is_dense: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.values_MC.dim() != 2:
            raise UsageError(
                f"the logits have the shape {list(self.values_MC.shape)}; expected is "
                f"[positions, classes]"
            )

    @property
    def classes(self) -> int:
        return self.values_MC.shape[1]

    def dense(self) -> Tensor:
        return self.values_MC

    def temper(self, T: Temperature) -> DenseTargets:
        """These logits at temperature T, in O(1). Raises UsageError for T ≤ 0, NaN or text."""
        return TARGETS[self.link](self, check_temperatures(T, len(self)))

    def rounding(self) -> Tensor:
        """Half a unit in the last place, by the stored dtype."""
        return last_place(self.values_MC.cpu()) / 2

    def check(self) -> tuple[np.ndarray, int | None]:
        return _top_and_finite(self.values_MC.numpy())

    def tally(self) -> Tally:
        """A block at a time, in memory that the thread keeps: asking for it anew would cost as much
        as the work."""
        parts = [_tally(part) for part in self.chunks(max(1, BLOCK_VALUES // self.classes))]
        return Tally(
            np.concatenate([part.top for part in parts]),
            np.concatenate([part.entropy for part in parts]),
            min(part.smallest for part in parts if part.smallest is not None),
            max(part.largest for part in parts if part.largest is not None),
            sum(part.total for part in parts if part.total is not None),
        )


def _top_and_finite(values_MC: np.ndarray) -> tuple[np.ndarray, int | None]:
    """The top class of each position, int64 [M], and the first one that is not finite, if any.

    float16 is compared as whole numbers in the same order, since numpy has no fast float16.
    """
    if values_MC.dtype != np.float16:
        bad = np.flatnonzero(~np.isfinite(values_MC).all(-1))
        return values_MC.argmax(-1), int(bad[0]) if len(bad) else None
    bits_MC = values_MC.view(np.int16)
    magnitude_MC = bits_MC & np.int16(0x7FFF)
    first = None
    if magnitude_MC.size and magnitude_MC.max() >= 0x7C00:
        first = int(np.flatnonzero((magnitude_MC >= 0x7C00).any(-1))[0])
    order_MC = bits_MC ^ ((bits_MC >> 15) & np.int16(0x7FFF))
    return order_MC.argmax(-1), first


def _tally(logits: DenseLogits) -> Tally:
    stored_MC = logits.values_MC
    rows, classes = stored_MC.shape
    spare = vars(SPARE).get("blocks")
    if spare is None or spare.shape[1] < stored_MC.numel():
        spare = SPARE.blocks = np.empty((2, stored_MC.numel()), np.float32)
    values_MC, spare_MC = (block[: rows * classes].reshape(rows, classes) for block in spare)
    torch.from_numpy(values_MC).copy_(stored_MC)
    total = values_MC.sum(-1).sum(dtype=np.float64)
    top = values_MC.argmax(-1)
    smallest, largest = values_MC.min(), values_MC[np.arange(rows), top].max()
    if logits.link == "softmax":
        entropy = entropy_at_one(values_MC, top, spare_MC)
    else:
        entropy = logits.temper(1).entropy().numpy()
    return Tally(top, entropy, float(smallest), float(largest), float(total))
