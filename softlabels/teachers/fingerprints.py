"""What a teacher is, as one hash: of the files that it was read from, else of its weights and code;
of a callable, of what the user calls it."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from softlabels.models.hashes import weight_hashes
from softlabels.models.model import Model
from softlabels.models.objects import CALLABLE, Held
from softlabels.system.local_files import file_fingerprint, fold_fingerprint
from softlabels.system.source_code import source_of, without_addresses


def fingerprint_of(model: Model) -> str:
    """`sha256:` of the model's file, of its files, or of its weights where it has none."""
    if model.kind == CALLABLE:
        return callable_fingerprint(model.name, model.version)
    if isinstance(model.module, Held):
        return weights_fingerprint(model.module.held, code_of(model.module.held))
    if model.files:
        return files_fingerprint(model.files)
    return weights_fingerprint(model.module, model.spec or "")


def callable_fingerprint(name: str, version: str | None) -> str:
    """Of the name and the version that the user gives, which stand for its answers."""
    return "sha256:" + hashlib.sha256(json.dumps([CALLABLE, name, version]).encode()).hexdigest()


def code_of(module: nn.Module) -> str:
    """What a module does with its weights, as text: its `repr`, and the source of its class and of
    those of its parts, without torch's own."""
    classes = {type(part) for part in module.modules()}
    own = {c for c in classes if c.__module__.partition(".")[0] != "torch"}
    sources = [f"{c.__module__}.{c.__qualname__}\n{source_of(c)}" for c in own]
    programs = [code for part in module.modules() if isinstance(code := _program(part), str)]
    return "\n".join([without_addresses(repr(module)), *sorted(sources), *programs])


def _program(part: nn.Module) -> Any:
    """The text of a program without a class of its own: of TorchScript, and of torch.fx."""
    try:
        return getattr(part, "code", None)
    except Exception:  # TorchScript without a forward
        return None


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
