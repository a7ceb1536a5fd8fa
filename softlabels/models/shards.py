"""Weights in several files, which an index lists: `model.safetensors.index.json`, as transformers
and accelerate write it, or `pytorch_model.bin.index.json`."""

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from softlabels.errors import TeacherError
from softlabels.models.pickles import read_pickle
from softlabels.system.humanize import counted, few, short

ENDING = ".index.json"


def find_index(folder: Path) -> Path | None:
    """The index in a folder, one of safetensors before others. Raises TeacherError where there are
    several of a kind."""
    every = sorted(folder.glob(f"*{ENDING}"))
    safe = [path for path in every if path.name.endswith(f".safetensors{ENDING}")]
    indexes = safe or every
    if len(indexes) > 1:
        names = few([path.name for path in indexes])
        raise TeacherError(
            f"{folder} holds several indexes of weights: {names}; name the one that is meant"
        )
    return indexes[0] if indexes else None


def read_shards(index: Path, trust_pickle: bool = False) -> tuple[dict[str, Tensor], list[Path]]:
    """The tensors of all files of an index, by name, and these files.

    Raises TeacherError where a file, or a tensor that it should hold, is missing, and what reading
    a file raises.
    """
    shards = _shards(index)
    missing = [name for name in shards if not (index.parent / name).is_file()]
    if missing:
        raise TeacherError(
            f"{index} lists {counted(len(shards), 'file')}, of which {len(missing)} missing: "
            f"{few(missing)}. Put them into {index.parent}"
        )
    weights: dict[str, Tensor] = {}
    for name, listed in shards.items():
        held = _read(index.parent / name, trust_pickle)
        absent = [tensor for tensor in listed if tensor not in held]
        if absent:
            raise TeacherError(
                f"{index.parent / name} lacks {len(absent)} of the {len(listed)} tensors that the "
                f"index lists for it ({few(absent)}): it is of other weights; copy it again"
            )
        weights |= held
    return weights, [index.parent / name for name in shards]


def _shards(index: Path) -> dict[str, list[str]]:
    """The tensors that the index lists, by file."""
    try:
        weight_map = json.loads(index.read_text("utf-8"))["weight_map"]
        pairs = [(str(tensor), str(file)) for tensor, file in weight_map.items()]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise TeacherError(
            f"{index} is no index of weights: JSON with a `weight_map`, of a file's name for each "
            f"tensor's, is expected"
        ) from error
    shards: dict[str, list[str]] = {}
    for tensor, file in pairs:
        if file in ("", ".", "..") or "/" in file or "\\" in file or "\0" in file:
            raise TeacherError(
                f"{index} lists a file {short(file)!r}; weights lie beside their index, under a "
                f"plain name"
            )
        shards.setdefault(file, []).append(tensor)
    if not shards:
        raise TeacherError(f"{index} lists no weights")
    return shards


def _read(path: Path, trust_pickle: bool) -> dict[str, Any]:
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    content = read_pickle(path, trust_pickle)
    if not isinstance(content, dict):
        raise TeacherError(f"{path} holds a {type(content).__name__}, not tensors by name")
    return content


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Raises TeacherError for a damaged file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise TeacherError(f"{path} is truncated or damaged: {error}") from error
