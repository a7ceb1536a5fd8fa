"""TorchScript archives. Torch has deprecated them; what people saved still loads."""

import warnings

import torch

from softlabels.errors import TeacherError
from softlabels.teachers.teacher import Teacher, TeacherFile, first_line


def load_torchscript(file: TeacherFile) -> Teacher:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        try:
            module = torch.jit.load(str(file.path), map_location="cpu")
        except RuntimeError as error:
            raise TeacherError(f"{file.path} can't be loaded: {first_line(error)}") from error
    return Teacher(file.path.stem, "torchscript", file.fingerprint, module.eval())
