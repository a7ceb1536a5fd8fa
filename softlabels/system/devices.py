"""The device that a model runs on, and the precision it runs in."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from operator import attrgetter

import torch
from torch import Tensor

from softlabels.errors import UsageError

PRECISIONS = {"float32": None, "tf32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
CUDA_ALONE = ("tf32", "fp16")  # slow or missing on other devices
ALSO_TRAINED = ("cpu", "fp16")  # slow, but a training can be tried before it goes to a GPU


def resolve_device(name: str) -> torch.device:
    """`auto` is CUDA, else MPS, else the CPU. Raises UsageError for a device that this machine
    does not have."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if name == "auto":
        return accelerator or torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"--device is {name!r}; use auto, cpu, cuda, cuda:1 or mps") from None
    if device.type != "cpu" and (accelerator is None or accelerator.type != device.type):
        here = f"only cpu and {accelerator.type}" if accelerator else "only cpu"
        raise UsageError(f"--device is {name!r}, but this machine has {here}; use --device auto")
    return device


def own_device(device: torch.device) -> torch.device:
    """This rank's GPU on a machine with several ranks, unless `device` has a number already."""
    rank = os.environ.get("LOCAL_RANK", "")
    if device.type != "cuda" or device.index is not None or not rank.isdigit():
        return device
    return torch.device("cuda", int(rank) % torch.cuda.device_count())


def free_device_memory(device: torch.device) -> None:
    """Give back the memory that torch keeps on this device for its next tensors."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def device_words(device: torch.device) -> str:
    """What it is, for records: `cpu`, `cuda, NVIDIA H200`."""
    name = f", {torch.cuda.get_device_name(device)}" if device.type == "cuda" else ""
    return device.type + name


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """To a device; on CUDA without a wait for what it still computes, as a copy from memory that is
    not pinned would."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def check_precision(device: torch.device, precision: str, training: bool = False) -> None:
    """Raises UsageError for an unknown precision, and for tf32 or fp16 on another device than
    CUDA; training may be in fp16 on the CPU too."""
    if precision not in PRECISIONS:
        raise UsageError(f"--precision is {precision!r}; use one of {', '.join(PRECISIONS)}")
    if training and (device.type, precision) == ALSO_TRAINED:
        return
    if precision in CUDA_ALONE and device.type != "cuda":
        raise UsageError(
            f"--precision {precision} needs CUDA and this is {device.type}; use bf16 or float32"
        )


def autocast(
    device: torch.device, precision: str, training: bool = False
) -> AbstractContextManager:
    """A context in which matrix products and convolutions run in `precision`. float32 leaves
    torch's own settings, by which convolutions on CUDA run in TF32.

    Raises UsageError as `check_precision` does.
    """
    check_precision(device, precision, training)
    if precision == "tf32":
        return tf32(True)
    dtype = PRECISIONS[precision]
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Allow or forbid TF32, which rounds the factors of float32 products on CUDA to 10 bits.

    torch forbids it in matrix products and allows it in convolutions, unless a program says
    otherwise: so a plain float32 run is not one, and a row's answer moves by up to 3e-3 with the
    size of its batch (measured with EfficientNets), whose kernels round in other places.
    """
    before = _tf32_flags()
    for name, value in before.items():
        _set_flag(name, allowed if isinstance(value, bool) else "tf32" if allowed else "ieee")
    try:
        yield
    finally:
        for name, value in before.items():
            _set_flag(name, value)


def _tf32_flags() -> dict[str, bool | str]:
    """torch's switches as they are set. A program that sets the newer, finer ones (torch 2.9) makes
    torch refuse to read the older ones, and the other way round they stay in step."""
    try:
        return {name: _flag(name) for name in ("cuda.matmul.allow_tf32", "cudnn.allow_tf32")}
    except RuntimeError:
        names = ("cuda.matmul", "cudnn.conv", "cudnn.rnn")
        return {f"{name}.fp32_precision": _flag(f"{name}.fp32_precision") for name in names}


def _flag(name: str) -> bool | str:
    value: bool | str = attrgetter(name)(torch.backends)
    return value


def _set_flag(name: str, value: bool | str) -> None:
    where, flag = name.rsplit(".", 1)
    setattr(attrgetter(where)(torch.backends), flag, value)
