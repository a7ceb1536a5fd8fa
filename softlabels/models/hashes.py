"""Weights told from others by hashes of their bytes."""

import hashlib
from typing import Any

import torch
from torch import Tensor, nn


def weight_hashes(module: nn.Module) -> dict[str, str]:
    """Of each tensor of the state dict: the SHA-256 of its bytes, its dtype and its shape."""
    return {name: _hash(tensor) for name, tensor in module.state_dict().items()}


def _hash(tensor: Tensor | Any) -> str:
    if not isinstance(tensor, Tensor):  # what get_extra_state() gives
        return f"{hashlib.sha256(repr(tensor).encode()).hexdigest()} {type(tensor).__name__}"
    numbers = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    kind = str(tensor.dtype).removeprefix("torch.")
    return f"{hashlib.sha256(numbers.data).hexdigest()} {kind} {list(tensor.shape)}"
