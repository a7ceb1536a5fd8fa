"""TorchScript archives. Torch has deprecated them; what people saved still loads."""

import warnings

import torch

from softlabels.errors import TeacherError
from softlabels.models.causes import first_line
from softlabels.models.model import Model, ModelFile


def load_torchscript(file: ModelFile) -> Model:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        try:
            module = torch.jit.load(str(file.path), map_location="cpu")
        except RuntimeError as error:
            raise TeacherError(f"{file.path} can't be loaded: {first_line(error)}") from error
    return Model(name=file.path.stem, kind="torchscript", module=module.eval())
