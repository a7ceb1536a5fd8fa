"""Kinds of answers that a codec may take. N rows, C classes."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor


@dataclass(frozen=True)
class Dense:
    """The raw logits of all classes, [N, C], on any device."""

    logits_NC: Tensor
    text: ClassVar[str] = "dense logits"

    def __len__(self) -> int:
        return len(self.logits_NC)
