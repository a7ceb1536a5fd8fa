"""Classifiers of images and texts of transformers: folders of `save_pretrained`, and repositories
of the Hub.

A configuration is what builds such a model again, without its folder: checkpoints hold it.
"""

import copy
import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor, nn

from softlabels.errors import TeacherError
from softlabels.models.blueprints import Blueprint, Weighed
from softlabels.models.causes import first_line
from softlabels.models.tokenizers import FILES as TOKENIZER_FILES
from softlabels.models.tokenizers import OwnTokenizer
from softlabels.models.tokens import IDS
from softlabels.spec import Call
from softlabels.system.extras import need
from softlabels.system.humanize import few

WEIGHTS = [
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
]  # fmt: skip; in the order in which transformers looks for them
PROCESSORS = ["preprocessor_config.json", "processor_config.json"]
UNNAMED = re.compile(r"LABEL_\d+")  # what a configuration calls classes that have no names
SIZES = {frozenset({"height", "width"}), frozenset({"shortest_edge"})}
# Steps of a processor that are said in words, or that concern no picture.
KNOWN = {"do_convert_rgb", "do_resize", "do_center_crop", "do_rescale", "do_normalize",
         "do_reduce_labels"}  # fmt: skip
# Fields of a configuration that name code which transformers would fetch and run.
CODE = {"auto_map", "attn_implementation", "_attn_implementation", "experts_implementation",
        "_experts_implementation", "quantization_config"}  # fmt: skip
TASKS = {  # by the configuration's problem_type
    "multi_label_classification": "multilabel",
    "single_label_classification": "classification",
}


class Steps(Protocol):
    """A preprocessing."""

    @property
    def picture(self) -> tuple[Call, ...]: ...

    @property
    def numbers(self) -> tuple[Call, ...]: ...


def transformers_blueprint(place: str) -> Blueprint:
    """An image classifier: a folder, its config.json, or `ORG/NAME[@REVISION]` of the Hub or its
    cache.

    Raises TeacherError where there is none, or a model for something else, and MissingExtra without
    transformers.
    """
    transformers = need("transformers", "transformers", f"hf:{place}")
    folder = Path(place).expanduser()
    folder = folder.parent if folder.name == "config.json" and folder.is_file() else folder
    is_folder = folder.is_dir()
    name, _, revision = (str(folder), "", "") if is_folder else place.partition("@")
    at = {"revision": revision or None, "trust_remote_code": False}
    with _loading(transformers, place):
        written, _ = transformers.PretrainedConfig.get_config_dict(name, revision=at["revision"])
    if "architecture" in written and written.get("model_type", "timm_wrapper") == "timm_wrapper":
        raise TeacherError(
            f"{place} was saved by timm; give its model and its weights: --teacher "
            f"timm:{written['architecture']} --weights FILE"
        )
    with _loading(transformers, place):
        config = transformers.AutoConfig.from_pretrained(name, **at)
    kinds, reads_text = _kinds(transformers, config, place)
    auto = _auto(transformers, reads_text)
    channels = getattr(config, "num_channels", 3)
    prepared: dict[str, Any]
    if reads_text:
        prepared = {"tokenizer": OwnTokenizer(name, at)}
    else:
        prepared = _own_preprocessing(transformers, name, at, channels)

    def build(classes: int | None) -> nn.Module:
        with _loading(transformers, place):
            module: nn.Module = auto.from_config(_with_classes(config, classes))
        return module

    return Blueprint(
        kind="transformers",
        name=(folder.resolve() if is_folder else Path(name)).name,
        spec=_class_of(config, kinds) if is_folder else f"hf:{place}",
        build=build,
        pretrained=lambda: _pretrained(
            transformers, auto, name, place, at, TOKENIZER_FILES if reads_text else PROCESSORS
        ),
        class_names=_class_names(config),
        task=TASKS.get(config.problem_type or ""),
        **prepared,
    )


def _kinds(transformers: ModuleType, config: Any, place: str) -> tuple[Any, bool]:
    """The classifiers that a configuration may be of, and whether they read texts. Raises
    TeacherError where it is none."""
    images, texts = _classifiers(transformers)
    built = config.architectures or []
    if type(config) in texts and (type(config) not in images or _class_of(config, texts) in built):
        if config.problem_type == "regression":
            raise TeacherError(
                f"{place} was trained for regression (problem_type), and a dump has logits of "
                f"classes: give a classifier"
            )
        if any(name.endswith("ForSequenceClassification") for name in built) or not built:
            return texts, True
    elif type(config) in images:
        return images, False
    what = ", ".join(built) or f"a {config.model_type}"
    if type(config) in texts:
        raise TeacherError(_headless(transformers, place, what))
    raise TeacherError(
        f"{place} is {what}, which classifies neither images nor texts in transformers; give the "
        f"folder of a classifier, such as ViTForImageClassification or "
        f"BertForSequenceClassification"
    )


def _headless(transformers: ModuleType, place: str, what: str) -> str:
    """Why an encoder of texts is no teacher, and what makes one of it."""
    utils = transformers.utils
    kept = utils.cached_file(place, "modules.json", _raise_exceptions_for_missing_entries=False)
    maker = "" if kept is None else ", saved by sentence-transformers, whose answers are vectors"
    return (
        f"{place} is {what}, an encoder of texts{maker}, without a head that gives a logit for "
        f"each class. Train one and save the whole, with transformers' "
        f"AutoModelForSequenceClassification.from_pretrained({place!r}, num_labels=…); or, where "
        f"you have a head, give encoder, pooling and head as one module, in Python or as "
        f"package.module:factory, with --tokenizer {place}"
    )


def _class_of(config: Any, kinds: Any) -> str:
    """The name of the class that is built: of several for one configuration, as DeiT has them, the
    one that it names."""
    several = kinds[type(config)]
    names = [kind.__name__ for kind in (several if isinstance(several, tuple) else (several,))]
    return next((name for name in config.architectures or [] if name in names), names[0])


def describe_module(module: nn.Module) -> dict[str, Any]:
    """What a model of transformers says of itself: the names of its classes, what it was trained
    for, and the preprocessing of the folder, or the repository in the cache, that it was loaded
    from, if that has a processor. Nothing for any other module."""
    transformers = sys.modules.get("transformers")
    if transformers is None or not isinstance(module, transformers.PreTrainedModel):
        return {}
    config, place = module.config, module.name_or_path
    task = TASKS.get(getattr(config, "problem_type", None) or "")
    known: dict[str, Any] = {"class_names": _class_names(config)}
    known["data"] = {} if task is None else {"task": task}
    tokenizer = OwnTokenizer(place) if place and Path(place).is_dir() else None
    if tokenizer is not None and module.main_input_name == IDS and tokenizer.is_there:
        known["own_tokenizer"] = tokenizer
    if place and module.main_input_name == "pixel_values":
        at = {"trust_remote_code": False, "local_files_only": True}
        own = _own_preprocessing(transformers, place, at, getattr(config, "num_channels", 3))
        known |= own if "transform" in own else {}
    own_tokenizer = OwnTokenizer(place, {"local_files_only": True})
    if place and module.main_input_name == IDS and own_tokenizer.is_there:
        known["own_tokenizer"] = own_tokenizer
    return known


def names_of_module(module: nn.Module) -> list[str] | None:
    """The names of the classes in the configuration of a model of transformers, if there are."""
    transformers = sys.modules.get("transformers")
    if transformers is None or not isinstance(module, transformers.PreTrainedModel):
        return None
    return _class_names(module.config)


def save_classifier(
    module: nn.Module, folder: Path, names: list[str] | None, task: str, steps: Steps | None
) -> None:
    """Write a folder of save_pretrained, with the names of the classes, and, of pictures, the
    processor that may do what these steps say; whether it does is for the caller to try."""
    transformers = sys.modules["transformers"]
    config: Any = module.config
    # without names none: those that the configuration began with may be of other classes
    named = names or [f"LABEL_{number}" for number in range(config.num_labels)]
    config.id2label = dict(enumerate(named))
    config.label2id = {name: number for number, name in enumerate(named)}
    config.problem_type = next((kind for kind, ours in TASKS.items() if ours == task), None)
    with _loading(transformers, str(folder)):
        module.save_pretrained(folder)  # type: ignore[operator]
        processor = None if steps is None else _processor(transformers, steps)
        if processor is not None:
            processor.save_pretrained(folder)


def _processor(transformers: ModuleType, steps: Steps) -> Any:
    """One whose fields say these steps; None where none can."""
    numbers = {call.name: call.args for call in steps.numbers}
    picture = [call for call in steps.picture if call.name not in ("upright", "rgb")]
    if list(numbers) not in ([], ["scale"], ["scale", "normalize"], ["normalize"]):
        return None
    fields: dict[str, Any] = {"do_convert_rgb": True, "do_rescale": "scale" in numbers}
    fields["do_normalize"] = "normalize" in numbers
    if "scale" in numbers:
        fields["rescale_factor"] = 1 / numbers["scale"][0]
    if "normalize" in numbers:
        mean, std = (v if isinstance(v, tuple) else [v] * 3 for v in numbers["normalize"])
        fields |= {"image_mean": list(mean), "image_std": list(std)}
    names = [call.name for call in picture]
    sizes = [[arg for arg in call.args if isinstance(arg, int)] for call in picture]
    if names in (["resize"], ["resize", "center_crop"]):
        filter = [arg for arg in picture[0].args if isinstance(arg, str)] or ["bilinear"]
        fields["resample"] = Image.Resampling[filter[0].upper()]
    if names == ["resize"] and len(sizes[0]) == 2:
        size = dict(zip(("height", "width"), sizes[0], strict=True))
        return transformers.ViTImageProcessorPil(size=size, **fields)
    if names == ["resize", "center_crop"] and len(sizes[0]) == 1:
        crop = dict(zip(("height", "width"), (sizes[1] * 2)[:2], strict=True))
        edge = {"shortest_edge": sizes[0][0]}
        return transformers.CLIPImageProcessorPil(size=edge, crop_size=crop, **fields)
    return None


def _with_classes(config: Any, classes: int | None) -> Any:
    if classes is None:
        return config
    config = copy.deepcopy(config)
    config.num_labels = classes
    return config


def configuration_of(module: nn.Module) -> dict[str, Any] | None:
    """What builds a classifier of transformers again, as JSON; None for any other module."""
    transformers = sys.modules.get("transformers")  # whoever has made one has imported it
    if transformers is None or not isinstance(module, transformers.PreTrainedModel):
        return None
    config, kind = copy.deepcopy(module.config), type(module).__name__
    config.architectures = [kind]
    if not any(
        type(config) in kinds and _class_of(config, kinds) == kind
        for kinds in _classifiers(transformers)
    ):
        return None
    plain: dict[str, Any] = json.loads(config.to_json_string())
    return plain


def build_configured(configuration: dict[str, Any], classes: int) -> nn.Module:
    """The classifier that `configuration_of` describes, with random weights.

    Raises TeacherError where transformers can't build it. The description may be a stranger's: it
    chooses among the classes of transformers, and code that it names elsewhere is left out.
    """
    name = str(configuration.get("model_type", ""))
    transformers = need("transformers", "transformers", f"a model of the type {name!r}")
    plain = {key: value for key, value in configuration.items() if key not in CODE}
    with _loading(transformers, f"a model of the type {name!r}"):
        config = transformers.CONFIG_MAPPING[name].from_dict(plain)
        auto = _auto(transformers, _kinds(transformers, config, name)[1])
        module: nn.Module = auto.from_config(
            _with_classes(config, classes), trust_remote_code=False
        )
    return module


def _classifiers(transformers: ModuleType) -> tuple[Any, Any]:
    return (
        transformers.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
        transformers.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    )


def _auto(transformers: ModuleType, reads_text: bool) -> Any:
    """What builds and loads classifiers of texts, or of images."""
    if reads_text:
        return transformers.AutoModelForSequenceClassification
    return transformers.AutoModelForImageClassification


def _pretrained(
    transformers: ModuleType,
    auto: Any,
    name: str,
    place: str,
    at: dict[str, Any],
    beside: list[str],
) -> Weighed:
    """transformers draws those that no file has at random."""
    with _loading(transformers, place):
        module, loaded = auto.from_pretrained(name, output_loading_info=True, **at)
        files = _files(transformers, name, at["revision"], beside)
    missing, left = (sorted(loaded[f"{key}_keys"]) for key in ("missing", "unexpected"))
    remarks = [f"{place}: not the model's, left out: {few(left)}"] if left else []
    return Weighed(module, files, remarks, missing)


def _files(
    transformers: ModuleType, name: str, revision: str | None, beside: list[str]
) -> list[Path]:
    """What transformers reads of a folder or repository. beside: files of its processor or its
    tokenizer."""
    utils = transformers.utils

    def find(file: str) -> str | None:
        found: str | None = utils.cached_file(
            name, file, revision=revision, _raise_exceptions_for_missing_entries=False
        )
        return found

    names = next(([path] for path in map(find, WEIGHTS) if path is not None), [])
    if names and names[0].endswith(".index.json"):
        shards, _ = utils.hub.get_checkpoint_shard_files(name, names[0], revision=revision)
        names += shards
    others = [path for file in ("config.json", *beside) if (path := find(file)) is not None]
    return [Path(path) for path in (*others, *names)]


def _class_names(config: Any) -> list[str] | None:
    names = [str(config.id2label.get(i, "")) for i in range(config.num_labels)]
    return None if all(map(UNNAMED.fullmatch, names)) else names


def _own_preprocessing(
    transformers: ModuleType, name: str, at: dict[str, Any], channels: int
) -> dict[str, Any]:
    """The processor in words, and as it is. Its PIL backend is the one that has no other pixels on
    another machine: torchvision's resizes tensors, which differ by a level here and there."""
    try:
        with _loading(transformers, name):
            processor = transformers.AutoImageProcessor.from_pretrained(name, backend="pil", **at)
    except TeacherError:
        return {"unsaid": f"it has no image processor ({PROCESSORS[0]})"}
    if getattr(processor, "backend", "pil") != "pil":
        return {"unsaid": f"its {type(processor).__name__} runs on torchvision alone"}
    text, unsaid = _in_words(processor, "rgb" if channels == 3 else "grey")
    return {"preprocess": text, "unsaid": unsaid, "transform": _run(processor)}


def _run(processor: Any) -> Callable[[Image.Image], Tensor]:
    def transform(image: Image.Image) -> Tensor:
        return torch.as_tensor(processor(image, return_tensors="np")["pixel_values"][0])

    return transform


def _in_words(processor: Any, colours: str) -> tuple[str | None, str]:
    """A processor's fields in the words of --preprocess; else what they can't say. transformers
    turns a picture as its EXIF data say where it reads one, as `datasets` does."""
    fields = {key: value for key, value in processor.to_dict().items() if value is not None}
    strange = [key for key, value in fields.items()
               if key.startswith("do_") and value and key not in KNOWN]  # fmt: skip
    if strange:
        return None, f"{type(processor).__name__} does {few(strange)}"
    steps = ["upright", colours]
    if fields.get("do_resize"):
        size = {key: value for key, value in dict(fields["size"]).items() if value is not None}
        if frozenset(size) not in SIZES:
            return None, f"{type(processor).__name__} resizes to {size}"
        steps += _resize(size, fields)
    if fields.get("do_center_crop"):
        crop = dict(fields["crop_size"])
        steps.append(f"center_crop({crop['height']}, {crop['width']}, floor)")
    if fields.get("do_rescale"):
        steps.append(f"scale({_inverse(fields['rescale_factor'])})")
        steps += ["normalize(1, 1)"] if fields.get("rescale_offset") else []
    if fields.get("do_normalize"):
        mean, std = _per_channel(fields["image_mean"]), _per_channel(fields["image_std"])
        steps.append(f"normalize({mean}, {std})")
        steps += [f"normalize(0, {std})"] if fields.get("include_top") else []
    return "|".join(steps), ""


def _resize(size: dict[str, int], fields: dict[str, Any]) -> list[str]:
    """With `crop_pct`, as the processors of ConvNeXT and PoolFormer take it."""
    filter = Image.Resampling(fields.get("resample", Image.Resampling.BILINEAR)).name.lower()
    edge, share = size.get("shortest_edge"), fields.get("crop_pct")
    if edge is None:
        return [f"resize({size['height']}, {size['width']}, {filter})"]
    if share is None:
        return [f"resize({edge}, {filter})"]
    if fields.get("do_center_crop"):
        return [f"resize({int(edge / share)}, {filter})"]
    if edge >= 384:
        return [f"resize({edge}, {edge}, {filter})"]
    return [f"resize({int(edge / share)}, {filter})", f"center_crop({edge}, floor)"]


def _per_channel(value: float | list[float]) -> float | tuple[float, ...]:
    return tuple(value) if isinstance(value, list | tuple) else value


def _inverse(factor: float) -> float | int:
    """1 / factor, as the number that a person would write."""
    inverse = round(1 / factor, 6)
    return int(inverse) if inverse == int(inverse) else inverse


@contextmanager
def _loading(transformers: ModuleType, place: str) -> Iterator[None]:
    """Without its bars and reports; its errors, which may be pages, become one line."""
    logging = transformers.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, ImportError) as error:
        reason = first_line(error)
        raise TeacherError(f"{place} can't be loaded by transformers: {reason}") from error
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def has_configuration(folder: Path) -> bool:
    return (folder / "config.json").is_file()
