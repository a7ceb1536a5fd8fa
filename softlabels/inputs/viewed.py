"""The inputs of rows that are views: each input is read and decoded once, whatever views it has."""

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from softlabels.inputs.examples import Examples
from softlabels.inputs.views import replay
from softlabels.system.cache import LocalCache
from softlabels.system.progress import SILENT, Progress


class ViewedInputs(Examples):
    """What the teacher saw of each row of a dump, [N, C, H, W], made from the stored columns.

    inputs: the examples, one each
    numbers: which of them each row shows, int64 [R]
    drawn: the columns of its view by name, [R] each
    """

    def __init__(self, inputs: Examples, numbers: np.ndarray, drawn: dict[str, np.ndarray]) -> None:
        self.inputs, self.numbers, self.drawn = inputs, numbers, drawn
        self.source, self.preprocess = inputs.source, inputs.preprocess
        self.positions = inputs.positions[numbers]

    def __reduce__(self) -> tuple:
        return ViewedInputs, (self.inputs, self.numbers, self.drawn)

    def keep_on(self, device: torch.device) -> None:
        self.inputs.keep_on(device)

    def remember_in(self, cache: LocalCache, progress: Progress = SILENT) -> None:
        self.inputs.remember_in(cache, progress)

    @cached_property
    def decoded_bytes(self) -> int:
        return self.inputs.decoded_bytes

    def gather(self, rows: np.ndarray) -> Tensor:
        return self._shown(self.inputs.gather(self.numbers[rows]), rows)

    def gather_uncached(self, rows: np.ndarray) -> Tensor:
        return self._shown(self.inputs.gather_uncached(self.numbers[rows]), rows)

    def prepare(self) -> None:
        self.inputs.prepare()

    def keep_all(self) -> None:
        self.inputs.keep_all()

    @property
    def kept(self) -> bool:
        return self.inputs.kept

    def _shown(self, inputs: Tensor, rows: np.ndarray) -> Tensor:
        return replay(inputs, {name: values[rows] for name, values in self.drawn.items()})
