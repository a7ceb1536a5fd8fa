"""The codec `dense`: all C raw logits of a row, in float16 or float32. N rows, C classes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from softlabels.logits import DenseLogits
from softlabels.store.codecs.codec import Codec, Stored
from softlabels.store.codecs.kinds import Dense
from softlabels.store.codecs.rounding import cast_for_storage, check_rounding, rounding_kl
from softlabels.store.pages.columns import Column, numbers_type

DTYPES = {"float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True)
class DenseCodec(Codec):
    """One mapped column, `logits`: a fixed-size list that anyone reads."""

    classes: int
    dtype: str

    columns: Sequence[Column] = field(init=False)

    def __post_init__(self) -> None:
        logits = Column("logits", numbers_type(self.dtype, self.classes))
        object.__setattr__(self, "columns", (logits,))

    def encode(self, answer: Dense, ids: list) -> Stored:
        logits_NC = answer.logits_NC
        self.check_classes(logits_NC, ids)
        stored_NC = cast_for_storage(logits_NC, DTYPES[self.dtype], ids).cpu().contiguous()
        return {"logits": stored_NC.numpy()}

    def wrap(self, stored: Mapping[str, Any]) -> DenseLogits:
        return DenseLogits(stored["logits"])

    def lost(self, answer: Dense, stored: Stored, ids: list) -> float:
        return rounding_kl(answer.logits_NC, torch.from_numpy(stored["logits"]), ids)

    def check_lost(self, kl: float, positions: int, where: str) -> None:
        check_rounding(kl, positions, DTYPES[self.dtype], where)
