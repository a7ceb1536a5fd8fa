"""Torch's files, of today and of before zip, as tensors and plain values or not at all: nothing in
them is run, and nothing gets more memory than the file has bytes."""

import pickle
import warnings
import zipfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from softlabels.errors import SoftlabelsError, SourceError, UntrustedPickle
from softlabels.exchange.foreign import unreadable

CHUNK = 1 << 20


def load_torch(path: Path, globals_: list[Any] | None = None) -> Any:
    """What a torch file holds, if that is tensors and plain values. Raises UntrustedPickle for
    more, and SourceError where it can't be read or promises more than it has."""
    try:
        zipped = zipfile.is_zipfile(path)
        if _names_bytearray(path, zipped):
            raise SourceError(
                f"{path} makes a bytearray, which may ask for any amount of memory. Save tensors "
                f"and plain values"
            )
        with torch.serialization.safe_globals(globals_ or []), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except SoftlabelsError:
        raise
    except Exception as error:  # a damaged file may end in any of them
        if not isinstance(error, pickle.UnpicklingError):
            raise unreadable(path, error) from error
        if "unsupported global" in str(error).lower() or "WeightsUnpickler error" in str(error):
            raise UntrustedPickle(
                f"{path} holds more than tensors and plain values, and loading it could run code. "
                f"Save the logits as a tensor, or as a .npy"
            ) from error
        raise SourceError(f"{path} can't be read: it is no torch file, or a damaged one") from error
    held = content.values() if isinstance(content, dict) else content
    for value in held if isinstance(content, dict | list | tuple) else [content]:
        _check_promise(value, path)
    return content


def _names_bytearray(path: Path, zipped: bool) -> bool:
    """Whether the pickle in a torch file names the one thing of those that torch allows it which
    takes memory for a number alone."""
    word = b"\nbytearray\n"
    with ExitStack() as stack:
        if zipped:
            archive = stack.enter_context(zipfile.ZipFile(path))
            names = [name for name in archive.namelist() if name.endswith("data.pkl")]
            files = [stack.enter_context(archive.open(name)) for name in names]
        else:
            files = [stack.enter_context(path.open("rb"))]
        for file in files:
            before = b""
            while chunk := file.read(CHUNK):
                if word in before + chunk:
                    return True
                before = chunk[-len(word) :]
    return False


def _check_promise(value: Any, path: Path) -> None:
    """A tensor may be a view that shows few numbers many times over."""
    if isinstance(value, Tensor):
        if value.layout != torch.strided or value.is_meta or value.is_nested:
            return
        promised, shape = value.numel() * value.element_size(), list(value.shape)
    elif isinstance(value, np.ndarray):
        promised, shape = value.nbytes, list(value.shape)
    else:
        return
    if promised > path.stat().st_size:
        raise SourceError(
            f"{path} promises {shape} of {value.dtype}, {promised:,} bytes, and has "
            f"{path.stat().st_size:,}: it is no whole file, or of a tensor that repeats its rows. "
            f"Save the latter with .clone()"
        )
