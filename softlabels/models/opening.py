"""From what a person writes to a `Model`: a path, or a name. The contents of a file decide which
loader reads it, never its name."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from softlabels.errors import TeacherError, UsageError
from softlabels.models.exported import load_exported
from softlabels.models.model import Loading, Model, ModelFile
from softlabels.models.naming import ACCEPTED, ModelName, parse_name
from softlabels.models.onnx import load_onnx
from softlabels.models.shards import find_index
from softlabels.models.sniffing import sniff
from softlabels.models.sources import SOURCES
from softlabels.models.torchscript import load_torchscript
from softlabels.models.weights import load_pickle, load_safetensors, load_shards

LOADERS: dict[str, Callable[[ModelFile], Model]] = {
    "torchscript": load_torchscript,
    "exported": load_exported,
    "pickle": load_pickle,
    "safetensors": load_safetensors,
    "shards": load_shards,
    "onnx": load_onnx,
}


def open_model(text: str, loading: Loading, weights: str | None = None) -> Model:
    """The model on the CPU, in eval mode.

    text: the path of a file or of a folder of `save_pretrained`, or a name
    weights: a file with the weights of a model that `text` names

    Raises TeacherError for what is no model, or a damaged one, UntrustedPickle for a file that
    could run code, and UsageError for a name that is also a path, and for options that another
    kind of model takes.
    """
    place = parse_name(text, SOURCES)
    if isinstance(place, Path) and place.is_dir():
        place = _in_folder(place, text, loading)
    if isinstance(place, ModelName):
        return _open_named(place, loading, weights)
    if weights is not None:
        raise UsageError(
            f"--weights is {weights!r}, a file for a model by name, and {text} is a path. Which of "
            f"the weights that a file holds are meant is said by --key"
        )
    if not place.is_file():
        raise TeacherError(f"{text} is neither a file nor a folder. {ACCEPTED}")
    return _without_flaw(open_file(ModelFile(path=place, **vars(loading))))


def _without_flaw(model: Model) -> Model:
    if model.flaw:
        raise TeacherError(model.flaw)
    return model


def _in_folder(folder: Path, text: str, loading: Loading) -> ModelName | Path:
    """The model that was saved in a folder, or the index of the shards of a state dict. Raises
    TeacherError where nothing saved a model there."""
    index = find_index(folder)
    if index is not None and loading.spec is not None:
        return index
    if (folder / "config.json").is_file():
        return ModelName("hf", str(folder))
    if index is not None:
        return index
    if (folder / "plan.json").is_file():
        raise TeacherError(
            f"{text} is a dump, whose teacher has run: a student learns from it, softlabels train "
            f"{text}. {ACCEPTED}"
        )
    raise TeacherError(f"{text} is a folder without config.json. {ACCEPTED}")


def _open_named(name: ModelName, loading: Loading, weights: str | None) -> Model:
    if loading.logits is not None:
        raise UsageError(
            f"--logits is {loading.logits!r}, a tensor of an ONNX file, and {name} is none; leave "
            f"it out"
        )
    if loading.spec is not None:
        raise UsageError(
            f"--model is {loading.spec}, the model of a bare state dict, and {name} is a model "
            f"itself; give its weights with --weights FILE, or leave --model out"
        )
    blueprint = SOURCES[name.source](name.ident)
    if weights is None:
        if loading.key is not None:
            raise UsageError(
                f"--key is {loading.key!r}, for a file of several weights, and {name} is no file; "
                f"name the file with --weights"
            )
        return blueprint.load()
    path = find_weights(weights)
    model = open_file(ModelFile(path=path, **vars(replace(loading, spec=str(name)))))
    if model.kind != "state_dict":
        raise TeacherError(f"--weights is {weights!r}, a {model.kind}; give a state dict")
    model.name = blueprint.name
    return _without_flaw(model)


def open_file(file: ModelFile) -> Model:
    """As `open_model`, of a path alone."""
    kind = sniff(file.path)
    if kind != "pickle" and not _is_utf8(str(file.path)):  # torch and safetensors need it
        raise TeacherError(
            f"{str(file.path)!a}: a {kind} file can't be read under a name that is no UTF-8; "
            f"rename it"
        )
    model = LOADERS[kind](file)
    if file.key is not None and model.kind not in ("state_dict", "pickle"):
        raise UsageError(f"--key is for files of several weights; {file.path} is a {model.kind}")
    if file.logits is not None and model.output is None:
        raise UsageError(
            f"--logits is for ONNX files, whose tensors have names; {file.path} is a {model.kind}"
        )
    model.files = model.files or [file.path]
    return model


def find_weights(text: str) -> Path:
    """The file that --weights names; of a folder of shards their index."""
    place = Path(text).expanduser()
    path = (find_index(place) or place) if place.is_dir() else place
    if not path.is_file():
        raise TeacherError(f"--weights is {text!r}, which is no file; give a state dict")
    return path


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
