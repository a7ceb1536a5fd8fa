"""Where a model runs and in which precision."""

import os
from contextlib import AbstractContextManager, nullcontext

import torch

from softlabels.errors import UsageError

PRECISIONS = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_device(name: str) -> torch.device:
    """`auto` is CUDA, else MPS, else the CPU. Raises UsageError for a device that is not here."""
    found = torch.accelerator.current_accelerator(check_available=True)
    if name == "auto":
        return found or torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"--device is {name!r}; use auto, cpu, cuda, cuda:1 or mps") from None
    if device.type != "cpu" and (found is None or found.type != device.type):
        here = f"only cpu and {found.type}" if found else "only cpu"
        raise UsageError(f"--device is {name!r}, but this machine has {here}; use --device auto")
    return device


def own_device(device: torch.device) -> torch.device:
    """On a machine with several ranks: this rank's GPU, where no other was named."""
    rank = os.environ.get("LOCAL_RANK", "")
    if device.type != "cuda" or device.index is not None or not rank.isdigit():
        return device
    return torch.device("cuda", int(rank) % torch.cuda.device_count())


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """A context in which matrix work runs in `precision`: float32, bf16 or fp16.

    Raises UsageError for another word, and for fp16 off CUDA, where it is slow or missing.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"--precision is {precision!r}; use one of {', '.join(PRECISIONS)}")
    if precision == "fp16" and device.type != "cuda":
        raise UsageError(
            f"--precision fp16 needs CUDA and this is {device.type}; use bf16 or float32"
        )
    dtype = PRECISIONS[precision]
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)
