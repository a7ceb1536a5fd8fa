"""A codec of the tests, registered as `int8` is: with a side file that is fitted, a compressed
column of varying size, and rows of several positions. Run as a script it is the command line.

A row has 1 to 3 positions, by its id, each with the same targets: the first of its 4
places. What is stored is how far its logits are from the pilot's mean, in whole steps, up to the
last that is not 0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from softlabels.logits import StoredLogits
from softlabels.soft_targets import SoftTargets, Temperature, check_temperatures
from softlabels.store.codecs.codec import MASK, POSITIONS, Codec, Stored
from softlabels.store.codecs.kinds import Dense
from softlabels.store.codecs.registry import CODECS
from softlabels.store.pages.columns import Column
from softlabels.store.side_files import SideFiles

FILE, STEPS, PLACES = "mean", "steps", 4


@dataclass(frozen=True)
class Targets(SoftTargets):
    logits_MC: Tensor
    T: Temperature

    def log_probs(self) -> Tensor:
        T = self.T[..., None] if isinstance(self.T, Tensor) else self.T
        return torch.log_softmax(self.logits_MC / T, -1)


@dataclass(frozen=True, eq=False)
class StepLogits(StoredLogits):
    """Whole steps from the mean, int16 [M, C]; what all positions share is asked for by name."""

    steps_MC: Tensor
    side_files: SideFiles

    @property
    def classes(self) -> int:
        return self.steps_MC.shape[1]

    def temper(self, T: Temperature) -> Targets:
        shared = self.side_files.tensors(FILE, self.device)
        z_MC = shared["mean"] + shared["step"] * self.steps_MC
        return Targets(z_MC, check_temperatures(T, len(self)))


@dataclass(frozen=True)
class StepCodec(Codec):
    step: float
    classes: int
    side_files: SideFiles
    columns: Sequence[Column] = field(init=False)
    pilot_rows: ClassVar[int] = 400
    fits: ClassVar[bool] = True

    def __post_init__(self) -> None:
        columns = (
            Column(STEPS, pa.binary(), mapped=False),
            Column(POSITIONS, pa.int32()),
            Column(MASK, pa.binary(PLACES)),
        )
        object.__setattr__(self, "columns", columns)

    def fit(self, answer: Dense) -> dict[str, dict[str, Tensor]]:
        return {FILE: {"mean": answer.logits_NC.mean(0), "step": torch.tensor(self.step)}}

    def encode(self, answer: Dense, ids: list) -> Stored:
        logits_NC = answer.logits_NC
        self.check_classes(logits_NC, ids)
        shared = self.side_files.tensors(FILE)
        steps = ((logits_NC.cpu() - shared["mean"]) / shared["step"]).round().numpy()
        counts = np.array([1 + int(id) % 3 for id in ids], np.int32)
        return {
            STEPS: [_packed(row) for row in steps.astype("<i2")],
            POSITIONS: counts,
            MASK: (np.arange(PLACES) < counts[:, None]).astype(np.uint8),
        }

    def wrap(self, stored: Mapping[str, Any]) -> StepLogits:
        steps = np.zeros((len(stored[STEPS]), self.classes), np.int16)
        for row, content in zip(steps, stored[STEPS], strict=True):
            values = np.frombuffer(content or b"", "<i2")
            row[: len(values)] = values
        counts = stored[POSITIONS].long()
        return StepLogits(torch.from_numpy(steps).repeat_interleave(counts, 0), self.side_files)


def _packed(steps: np.ndarray) -> bytes | None:
    last = np.flatnonzero(steps)
    return steps[: last[-1] + 1].tobytes() if len(last) else None


def make(argument: str, classes: int, dtype: str, side_files: SideFiles) -> Codec:
    return StepCodec(float(argument), classes, side_files)


CODECS["step"] = make
SCRIPT = str(Path(__file__))

if __name__ == "__main__":
    from softlabels.cli import main

    main()
