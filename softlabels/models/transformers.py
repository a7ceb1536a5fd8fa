"""Image classifiers of transformers: folders of `save_pretrained`, and repositories of the Hub."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from softlabels.errors import TeacherError
from softlabels.models.blueprints import Blueprint, Weighed
from softlabels.models.causes import first_line
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
TASKS = {  # by the configuration's problem_type
    "multi_label_classification": "multilabel",
    "single_label_classification": "classification",
}


def transformers_blueprint(place: str) -> Blueprint:
    """An image classifier: a folder, or `ORG/NAME[@REVISION]` of the Hub or its cache.

    Raises TeacherError where there is none, or a model for something else, and MissingExtra without
    transformers.
    """
    transformers = need("transformers", "transformers", f"hf:{place}")
    folder = Path(place).expanduser()
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
    kinds = transformers.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING
    if type(config) not in kinds:
        built = ", ".join(config.architectures or []) or f"a {config.model_type}"
        raise TeacherError(
            f"{place} is {built}, and transformers classifies no images with {config.model_type}; "
            f"give the folder of an image classifier, such as ViTForImageClassification"
        )
    auto = transformers.AutoModelForImageClassification
    channels = getattr(config, "num_channels", 3)
    return Blueprint(
        kind="transformers",
        name=(folder.resolve() if is_folder else Path(name)).name,
        spec=kinds[type(config)].__name__ if is_folder else f"hf:{place}",
        build=lambda classes: auto.from_config(_with_classes(config, classes)),
        pretrained=lambda: _pretrained(transformers, auto, name, place, at),
        class_names=_class_names(config),
        task=TASKS.get(config.problem_type or ""),
        **_own_preprocessing(transformers, name, at, channels),
    )


def _with_classes(config: Any, classes: int | None) -> Any:
    if classes is not None:
        config.num_labels = classes
    return config


def _pretrained(
    transformers: ModuleType, auto: Any, name: str, place: str, at: dict[str, Any]
) -> Weighed:
    """Raises TeacherError where weights are missing: transformers would draw them at random."""
    with _loading(transformers, place):
        module, loaded = auto.from_pretrained(name, output_loading_info=True, **at)
        files = _files(transformers, name, at["revision"])
    missing, left = (sorted(loaded[f"{key}_keys"]) for key in ("missing", "unexpected"))
    if missing:
        raise TeacherError(
            f"{place}: {len(missing):,} of the {len(module.state_dict()):,} weights of a "
            f"{type(module).__name__} are missing ({few(missing)}), so it is no trained classifier"
        )
    remarks = [f"{place}: not the model's, left out: {few(left)}"] if left else []
    return Weighed(module, files, remarks)


def _files(transformers: ModuleType, name: str, revision: str | None) -> list[Path]:
    """What transformers reads of a folder or repository."""
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
    others = [path for file in ("config.json", *PROCESSORS) if (path := find(file)) is not None]
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
