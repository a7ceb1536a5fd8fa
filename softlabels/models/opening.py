"""From a file to a `Model`. The contents decide which loader reads it, never the name."""

from collections.abc import Callable

from softlabels.errors import TeacherError, UsageError
from softlabels.models.exported import load_exported
from softlabels.models.model import Model, ModelFile
from softlabels.models.sniffing import sniff
from softlabels.models.torchscript import load_torchscript
from softlabels.models.weights import load_pickle, load_safetensors

LOADERS: dict[str, Callable[[ModelFile], Model]] = {
    "torchscript": load_torchscript,
    "exported": load_exported,
    "pickle": load_pickle,
    "safetensors": load_safetensors,
}


def open_model(file: ModelFile) -> Model:
    """The model on the CPU, in eval mode.

    Raises TeacherError for a file that is truncated or no model, UntrustedPickle for one that could
    run code, and UsageError for weights of a file that has no choice of them.
    """
    kind = sniff(file.path)
    if kind != "pickle" and not _is_utf8(str(file.path)):  # torch and safetensors need it
        raise TeacherError(
            f"{str(file.path)!a}: a {kind} file can't be read under a name that is no UTF-8; "
            f"rename it"
        )
    model = LOADERS[kind](file)
    if file.key is not None and model.kind not in ("state_dict", "pickle"):
        raise UsageError(
            f"--key is for files of several weights; {file.path} is a {model.kind}"
        )
    return model


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
