"""The codec `dense`: all C raw logits of a row, in float16 or float32. N rows, C classes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch

from softlabels.logits import DenseLogits
from softlabels.soft_targets import Link
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
    link: Link = "softmax"
    columns: Sequence[Column] = field(init=False)
    links: ClassVar[tuple[Link, ...]] = ("softmax", "sigmoid")

    def __post_init__(self) -> None:
        logits = Column("logits", numbers_type(self.dtype, self.classes))
        object.__setattr__(self, "columns", (logits,))

    def encode(self, answer: Dense, ids: list) -> Stored:
        logits_NC = answer.logits_NC
        self.check_classes(logits_NC, ids)
        stored_NC = cast_for_storage(logits_NC, DTYPES[self.dtype], ids).cpu().contiguous()
        return {"logits": stored_NC.numpy()}

    def wrap(self, stored: Mapping[str, Any]) -> DenseLogits:
        return DenseLogits(stored["logits"], link=self.link)

    def lost(self, answer: Dense, stored: Stored, ids: list) -> float:
        if self.link == "sigmoid":
            # float16 moves a logit z by e ≤ |z|·2⁻¹¹, and a label's KL is q(1 − q)·e²/2 to the
            # second order: less than z²·exp(−|z|)·2⁻²³, which is 7e-8 at most
            return 0.0
        return rounding_kl(answer.logits_NC, torch.from_numpy(stored["logits"]), ids)

    def check_lost(self, kl: float, positions: int, where: str) -> None:
        check_rounding(kl, positions, DTYPES[self.dtype], where)
