"""The codec `int8`: one byte a class, with a scale and an offset a row. N rows, C classes.

    z ≈ offset + scale · code,  code from 0 to 255

255 steps divide a row's own range, so a logit moves by half a step at most. Codes are computed for
the scale and the offset as they are stored, so the rounding of neither matters.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from softlabels.logits import PackedLogits
from softlabels.soft_targets import Link, kl_of_change
from softlabels.store.codecs.codec import Codec, Stored
from softlabels.store.codecs.kinds import Dense
from softlabels.store.codecs.rounding import cast_for_storage, round_towards
from softlabels.store.pages.columns import Column

CODES, SCALE, OFFSET = "logits_codes", "logits_scale", "logits_offset"
STEPS = 255
# The far end of a row that spans more nats than this may be cut off: at T = 8, a class 64 nats
# below the largest has e⁻⁸ of its probability.
WIDE = 64.0
REACHES = (64.0, 128.0, 256.0, 512.0, 1024.0)  # nats below the largest that may be kept
JUDGED_AT = (1.0, 8.0)  # temperatures at which a cut has to be worth it


@dataclass(frozen=True, eq=False, repr=False)
class Int8Logits(PackedLogits):
    """Codes uint8 [M, C], scales and offsets [M] in float16 or float32."""

    codes_MC: Tensor
    scale_M: Tensor
    offset_M: Tensor

    @property
    def classes(self) -> int:
        return self.codes_MC.shape[1]

    def dense(self) -> Tensor:
        """Raw logits, float32 [M, C]."""
        return torch.addcmul(
            self.offset_M.float()[:, None], self.codes_MC.float(), self.scale_M.float()[:, None]
        )

    def rounding(self) -> Tensor:
        """Half a step; a class that was cut off may have been anything below the lowest step."""
        half_M = self.scale_M.double() / 2
        cut_M = self.scale_M.double() * STEPS >= WIDE
        cut_MC = (self.codes_MC == 0) & cut_M[:, None]
        return half_M[:, None].expand(self.codes_MC.shape).masked_fill(cut_MC, torch.inf)


@dataclass(frozen=True)
class Int8Codec(Codec):
    """Three mapped columns: codes (fixed-size binary), scale, offset. dtype: of the last two."""

    classes: int
    dtype: str
    link: Link = "softmax"
    columns: Sequence[Column] = field(init=False)
    links: ClassVar[tuple[Link, ...]] = ("softmax", "sigmoid")
    pilot_rows: ClassVar[int] = 1024

    def __post_init__(self) -> None:
        number = pa.type_for_alias(self.dtype)
        columns = (
            Column(CODES, pa.binary(self.classes)),
            Column(SCALE, number),
            Column(OFFSET, number),
        )
        object.__setattr__(self, "columns", columns)

    def encode(self, answer: Dense, ids: list) -> Stored:
        logits_NC = answer.logits_NC
        self.check_classes(logits_NC, ids)
        ends_N2 = torch.stack(logits_NC.aminmax(dim=-1), -1)
        cast_for_storage(ends_N2, torch.float16 if self.dtype == "float16" else torch.float32, ids)
        low, high = ends_N2.double().cpu().numpy().T
        stored = self._encode(logits_NC, low, high)
        wide = np.flatnonzero(high - low > WIDE)
        if len(wide):
            cut = self._cut(logits_NC[torch.from_numpy(wide).to(logits_NC.device)], high[wide])
            for name, values in cut.items():
                stored[name][wide] = values
        return stored

    def wrap(self, stored: Mapping[str, Any]) -> Int8Logits:
        return Int8Logits(stored[CODES], stored[SCALE], stored[OFFSET], link=self.link)

    def _encode(self, logits_NC: Tensor, low: np.ndarray, high: np.ndarray) -> Stored:
        """Rows encoded so that their lowest step is at `low` or just below, and their highest at
        `high`."""
        offset = round_towards(-np.inf, low, self.dtype)
        scale = round_towards(np.inf, (high - offset.astype(np.float64)) / STEPS, self.dtype)
        step = torch.from_numpy(np.where(scale == 0, 1, scale.astype(np.float64)))
        first = torch.from_numpy(offset.astype(np.float64))
        kind, device = logits_NC.dtype, logits_NC.device
        steps_NC = (logits_NC - first.to(device, kind)[:, None]) / step.to(device, kind)[:, None]
        codes_NC = steps_NC.round_().clamp_(0, STEPS).to(torch.uint8)
        return {CODES: codes_NC.cpu().numpy(), SCALE: scale, OFFSET: offset}

    def _cut(self, logits_NC: Tensor, high: np.ndarray) -> Stored:
        """Wide rows, such as those with masked classes: of several places to cut off the far end,
        the one that costs least KL at the temperatures `JUDGED_AT`."""
        exact_NC = logits_NC.double().cpu()
        lowest = exact_NC.amin(-1).numpy()
        best, least = self._encode(logits_NC, lowest, high), np.full(len(high), np.inf)
        for reach in (*REACHES, np.inf):
            tried = self._encode(logits_NC, np.maximum(lowest, high - reach), high)
            stored_NC = self.of_arrays(tried).dense()
            costs = [kl_of_change(exact_NC, stored_NC, T, self.link) for T in JUDGED_AT]
            cost = torch.stack(costs).sum(0).numpy()
            better = cost < least
            for name, values in tried.items():
                best[name][better] = values[better]
            least = np.where(better, cost, least)
        return best
