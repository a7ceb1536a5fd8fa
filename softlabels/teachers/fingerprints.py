"""What a teacher is, as one hash: of the files that it was read from, else of its weights."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from softlabels.models.model import Model
from softlabels.system.local_files import file_fingerprint, fold_fingerprint


def fingerprint_of(model: Model) -> str:
    """`sha256:` of the model's file, of its files, or of its weights where it has none."""
    if model.files:
        return files_fingerprint(model.files)
    return weights_fingerprint(model.module, model.spec or "")


def files_fingerprint(files: Sequence[Path]) -> str:
    """Of one file its own SHA-256, whatever its name; of several that of their names and hashes,
    in whatever order they come. Names are below the folder that holds them all."""
    if len(files) == 1:
        return file_fingerprint(files[0])
    return fold_fingerprint(Path(os.path.commonpath([path.parent for path in files])), files)


def weights_fingerprint(module: nn.Module, spec: str) -> str:
    """The SHA-256 of the spec and of a line for each tensor of the state dict, by name: that of its
    bytes, its name, dtype and shape."""
    whole = hashlib.sha256(f"{spec}\n".encode())
    for name, line in sorted(weight_hashes(module).items()):
        whole.update(f"{name}  {line}\n".encode())
    return "sha256:" + whole.hexdigest()


def weight_hashes(module: nn.Module) -> dict[str, str]:
    """Of each tensor of the state dict: the SHA-256 of its bytes, its dtype and its shape."""
    return {name: _hash(tensor) for name, tensor in module.state_dict().items()}


def _hash(tensor: Tensor) -> str:
    numbers = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    kind = str(tensor.dtype).removeprefix("torch.")
    return f"{hashlib.sha256(numbers.data).hexdigest()} {kind} {list(tensor.shape)}"
