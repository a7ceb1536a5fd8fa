"""Inputs on their way to a device and answers on their way back, while the device computes.

On CUDA each direction has a stream of its own, so that the inputs of the next batches arrive and
the answers to the last ones leave during a forward pass; the answering thread waits for neither.
On other devices both are plain copies. N rows of a batch, C classes.
"""

from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from softlabels.models.named import NumberColumns
from softlabels.store.codecs.kinds import Dense

Numbers = TypeVar("Numbers", Tensor, NumberColumns)


@dataclass(frozen=True)
class Arriving:
    """Answers that a device may still compute.

    logits_NC: on the CPU, where `arrived` says when they are there; else on their device
    at_once: the most rows that went through the teacher at once; None where none ran
    """

    logits_NC: Tensor
    at_once: int | None = None
    arrived: torch.cuda.Event | None = None

    def wait(self) -> Dense:
        """Their values, on the CPU. Raises what the device raises."""
        if self.arrived is not None:
            self.arrived.synchronize()
        return Dense(self.logits_NC.cpu())


@dataclass(frozen=True)
class Lanes:
    """The ways to a device and back. streams: of CUDA, by direction and device"""

    device: torch.device
    streams: dict[tuple[str, torch.device], torch.cuda.Stream] = field(default_factory=dict)

    def _stream(self, direction: str, device: torch.device) -> torch.cuda.Stream:
        key = direction, device
        if key not in self.streams:
            self.streams[key] = torch.cuda.Stream(device)
        return self.streams[key]

    def to_device(self, inputs: Numbers) -> Numbers:
        """They are there for what the calling thread launches from now on. Pinned inputs are copied
        while the device computes."""
        if self.device.type != "cuda":
            return inputs.to(self.device)
        computing = torch.cuda.current_stream(self.device)
        there = self._stream("there", self.device)
        with torch.cuda.stream(there):
            on_device = inputs.to(self.device, non_blocking=True)
        computing.wait_stream(there)
        # their memory belongs to the other stream, which must not use it again before they are read
        on_device.record_stream(computing)
        return on_device

    def to_host(self, logits_NC: Tensor, at_once: int) -> Arriving:
        """Answers that the calling thread launched. They are copied once they are computed, in the
        type that the model gave: rounding and checks are the writing thread's, and the same on
        every device."""
        if logits_NC.device.type != "cuda":
            return Arriving(logits_NC, at_once)
        # of the device that has them: a model of several has its last layer on another
        back = self._stream("back", logits_NC.device)
        back.wait_stream(torch.cuda.current_stream(logits_NC.device))
        with torch.cuda.stream(back):
            here_NC = torch.empty(logits_NC.shape, dtype=logits_NC.dtype, pin_memory=True)
            here_NC.copy_(logits_NC, non_blocking=True)
            arrived = torch.cuda.Event(blocking=True)  # a wait that spins would take a core
            arrived.record(back)
        logits_NC.record_stream(back)  # their memory is not used again before they are copied
        return Arriving(here_NC, at_once, arrived)
