"""TorchScript archives. Torch has deprecated them; what people saved still loads."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from softlabels.errors import TeacherError
from softlabels.teachers.teacher import Teacher, first_line


def load_torchscript(
    path: Path,
    fingerprint: str,
    model: str | None,
    input_shape: Callable[[], Sequence[int]] | None,
    trust_pickle: bool,
) -> Teacher:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        try:
            module = torch.jit.load(str(path), map_location="cpu")
        except RuntimeError as error:
            raise TeacherError(f"{path} can't be loaded: {first_line(error)}") from error
    return Teacher(path.stem, "torchscript", fingerprint, module.eval())
