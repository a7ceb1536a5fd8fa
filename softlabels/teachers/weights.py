"""Files of torch.save and safetensors: our checkpoints, and state dicts that need a model."""

import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from softlabels.checkpoint import Checkpoint
from softlabels.errors import TeacherError, UntrustedPickle
from softlabels.models import build_model, is_factory
from softlabels.teachers.teacher import Teacher, TeacherFile, first_line


def load_pickle(file: TeacherFile) -> Teacher:
    content = read_pickle(file.path, file.trust_pickle)
    if isinstance(content, nn.Module):
        return Teacher(file.path.stem, "pickle", file.fingerprint, content.eval())
    if isinstance(content, dict) and str(content.get("format", "")).startswith("softlabels-"):
        return _from_checkpoint(Checkpoint.from_content(content, str(file.path)), file)
    return _from_state_dict(_find_state_dict(content, file.path), file)


def load_safetensors(file: TeacherFile) -> Teacher:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weights = load_file(file.path)
    except SafetensorError as error:
        raise TeacherError(f"{file.path} is truncated or damaged: {error}") from error
    return _from_state_dict(weights, file)


def read_pickle(path: Path, trust_pickle: bool = False) -> Any:
    """What torch.save wrote. Raises UntrustedPickle, having run nothing, where loading could run
    code, and TeacherError where the file is damaged."""
    try:
        return torch.load(path, map_location="cpu", weights_only=not trust_pickle)
    except pickle.UnpicklingError as error:
        wanted = _wanted_globals(path) or _named_global(error)
        raise UntrustedPickle(
            f"{path} is a pickle that holds more than weights"
            f"{f' ({wanted})' if wanted else ''}; loading it could run code, so it was not "
            f"loaded. Save the state dict (torch.save(model.state_dict(), …)) and give --model, "
            f"or, if you trust whoever made the file, add --trust-pickle"
        ) from error
    except (RuntimeError, EOFError, zipfile.BadZipFile, ValueError, KeyError) as error:
        raise TeacherError(f"{path} is truncated or damaged: {first_line(error)}") from error
    except (AttributeError, ImportError) as error:
        raise TeacherError(
            f"{path} needs code that can't be imported here: {first_line(error)}"
        ) from error


def _wanted_globals(path: Path) -> str:
    try:
        return ", ".join(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
    except Exception:  # only the newer zip files can be asked
        return ""


def _named_global(error: Exception) -> str:
    found = re.search(r"GLOBAL ([\w.]+)", str(error))
    return found.group(1) if found else ""


def _from_checkpoint(checkpoint: Checkpoint, file: TeacherFile) -> Teacher:
    if file.model is not None and file.model != checkpoint.model:
        raise TeacherError(
            f"{file.path} holds the model {checkpoint.model}; --model says {file.model}"
        )
    return Teacher(
        name=file.path.stem,
        kind="checkpoint",
        fingerprint=file.fingerprint,
        module=checkpoint.build(allow_factory=file.model),
        model=checkpoint.model,
        preprocess=checkpoint.preprocess,
        class_names=checkpoint.class_names,
        data=checkpoint.data,
    )


def _find_state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    """The state dict, also where a training script wrapped it, without DDP's `module.` prefix."""
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not content:
        raise TeacherError(f"{path} holds {type(content).__name__}, not a model or its state dict")
    strays = [key for key, value in content.items() if not isinstance(value, Tensor)]
    if strays:
        raise TeacherError(
            f"{path} holds a dict with {strays[0]!r}, which is no tensor; a state dict maps names "
            f"to tensors"
        )
    return {str(key).removeprefix("module."): value for key, value in content.items()}


def _from_state_dict(weights: dict[str, Tensor], file: TeacherFile) -> Teacher:
    path, model = file.path, file.model
    if model is None:
        raise TeacherError(
            f"{path} is a bare state dict, which does not say its model: add --model mlp:1200x1200 "
            f"(or linear, cnn:32x64, package.module:factory)"
        )
    classes = list(weights.values())[-1].shape[0] if weights else 0
    module = build_model(model, file.input_shape() if file.input_shape else [1], classes)
    if not is_factory(model) and set(weights) != set(module.state_dict()):
        weights = _by_order(weights, module, path, model)
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        shown = "; ".join(line.strip() for line in str(error).splitlines()[1:4])
        raise TeacherError(f"the weights in {path} don't fit --model {model}: {shown}") from error
    return Teacher(path.stem, "state_dict", file.fingerprint, module.eval(), model=model)


def _by_order(
    weights: dict[str, Tensor], module: nn.Module, path: Path, model: str
) -> dict[str, Tensor]:
    """Other names, such as nn.Sequential's: the order of the layers decides, shapes must agree."""
    ours = module.state_dict()
    if len(weights) != len(ours):
        raise TeacherError(
            f"the weights in {path} don't fit --model {model}: {len(weights)} tensors, "
            f"not {len(ours)}"
        )
    return dict(zip(ours, weights.values(), strict=True))
