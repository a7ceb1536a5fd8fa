"""Files of torch.save, read without running what they say."""

import pickle
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

import torch

from softlabels.errors import TeacherError, UntrustedPickle
from softlabels.models.causes import first_line

# Modules of Python whose objects training scripts save; a file that names others of Python's own,
# such as builtins.eval, is no checkpoint, and is not read past them.
PLAIN = {"argparse", "collections", "datetime", "decimal", "enum", "functools", "pathlib", "types"}

TRUST = "you trust whoever made the file, add --trust-pickle"


class StandIn:
    """In the place of an object whose class is code that a file names. It keeps nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> "StandIn":
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


def read_pickle(path: Path, trust_pickle: bool = False) -> Any:
    """What torch.save wrote. Raises UntrustedPickle, having run nothing, where loading could run
    code, and TeacherError where the file is damaged."""
    try:
        return torch.load(path, map_location="cpu", weights_only=not trust_pickle)
    except pickle.UnpicklingError as error:
        names = unsafe_names(path) or _named_global(error)
        more = f" ({', '.join(names)})" if names else ""
        remedy = "Save the state dict (torch.save(model.state_dict(), …)) and give --model"
        if names and all(name.startswith("numpy.") for name in names):
            remedy = (
                "These are numpy arrays: save tensors (torch.from_numpy of each), or a .safetensors"
            )
        raise UntrustedPickle(
            f"{path} is a pickle that holds more than weights{more}; loading it could run code, so "
            f"it was not loaded. {remedy}, or, if {TRUST}"
        ) from error
    except (RuntimeError, EOFError, zipfile.BadZipFile, ValueError, KeyError) as error:
        raise TeacherError(f"{path} is truncated or damaged: {first_line(error)}") from error
    except (AttributeError, ImportError) as error:
        raise TeacherError(
            f"{path} needs code that can't be imported here: {first_line(error)}"
        ) from error


def read_without_objects(path: Path) -> Any:
    """The tensors and plain values of such a file, with a `StandIn` for each other object; None
    where it can't be read so. Nothing that the file names is imported or called.

    Checkpoints of training programs hold weights beside the options of a run (argparse.Namespace,
    omegaconf), numbers of numpy and the like: reasons not to run them, and none not to read them.
    """
    names = unsafe_names(path)
    if not all(map(_is_plain, names)):
        return None
    stands: list[Any] = [(StandIn, name) for name in names]
    try:
        with torch.serialization.safe_globals(stands):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # read_pickle has said what is wrong
        return None


def unsafe_names(path: Path) -> list[str]:
    """The code that the file names, beyond what torch knows to be harmless."""
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
    except Exception:  # only the newer zip files can be asked
        return []


def _is_plain(name: str) -> bool:
    package = name.partition(".")[0]
    return package in PLAIN or package not in sys.stdlib_module_names


def _named_global(error: Exception) -> list[str]:
    match = re.search(r"GLOBAL ([\w.]+)", str(error))
    return [match.group(1)] if match else []
