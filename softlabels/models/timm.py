"""Models of timm: `resnet50`, or with a tag that says which weights, `resnet50.a1_in1k`."""

import difflib
import re
import sys
from collections.abc import Mapping
from functools import cache
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from softlabels.errors import TeacherError, UsageError
from softlabels.models.blueprints import Blueprint, Weighed
from softlabels.models.causes import cause
from softlabels.system.extras import need
from softlabels.system.humanize import few

# How timm's tags name the data of the last training step: timm guesses the data from the number of
# classes alone, and a net of 1,000 other classes has none of ImageNet's names.
IMAGENET = re.compile(r"(^|_)in(1k|12k|21k|22k)(_|$)")


def timm_blueprint(ident: str) -> Blueprint:
    """Raises UsageError for a name or a tag that timm does not have, and MissingExtra without
    timm."""
    timm = need("timm", "timm", f"timm:{ident}")
    architecture, _, tag = ident.partition(".")
    _check_name(timm, architecture, tag)
    config = timm.get_pretrained_cfg(ident)
    flaw = (
        f"timm:{ident} gives features and no classes (its num_classes is 0); a teacher is a "
        f"classifier"
    )
    name = f"{architecture}.{config.tag}" if config.tag else architecture
    data = timm.data.resolve_data_config(pretrained_cfg=config.to_dict())
    return Blueprint(
        kind="timm",
        name=name,
        spec=f"timm:{name}",
        build=lambda classes: timm.create_model(name, num_classes=classes),
        pretrained=lambda: Weighed(_pretrained(timm, name, config)),
        preprocess=_in_words(data),
        transform=timm.data.create_transform(**data),
        class_names=_class_names(timm, config),
        flaw="" if config.num_classes else flaw,
        convert=lambda tensors: _convert(timm, name, tensors),
    )


def describe_module(module: nn.Module) -> dict[str, Any]:
    """What a module of timm says of itself: its preprocessing, and the names of its classes, unless
    it has another number of them than its configuration. Nothing for any other module."""
    timm, config = sys.modules.get("timm"), getattr(module, "pretrained_cfg", None)
    if timm is None or not isinstance(config, Mapping) or "input_size" not in config:
        return {}
    data = timm.data.resolve_model_data_config(module)
    names = _class_names(timm, timm.models.PretrainedCfg(**config))
    fits = names is not None and len(names) == getattr(module, "num_classes", None)
    return {
        "preprocess": _in_words(data),
        "transform": timm.data.create_transform(**data),
        "class_names": names if fits else None,
    }


def _check_name(timm: ModuleType, architecture: str, tag: str) -> None:
    if not timm.is_model(architecture):
        names = timm.list_models(f"*{architecture}*") if architecture else []
        near = difflib.get_close_matches(architecture, timm.list_models(), 3) or names
        hint = f"did you mean {few(near)}?" if near else "timm.list_models() lists them"
        raise UsageError(f"timm has no model {architecture!r}; {hint}")
    tags = [name.partition(".")[2] for name in timm.models.get_arch_pretrained_cfgs(architecture)]
    if tag and tag not in tags:
        near = difflib.get_close_matches(tag, tags, 3) or [one for one in tags if one]
        hint = f"there are {few(near, most=5)}" if near else "it has none"
        raise UsageError(f"timm's {architecture} has no weights {tag!r}; {hint}")


def _pretrained(timm: ModuleType, name: str, config: Any) -> nn.Module:
    if not config.has_weights:
        raise TeacherError(
            f"timm publishes no weights for {name}; name a file of them with --weights FILE, or a "
            f"tag: {few(timm.list_pretrained(name.partition('.')[0] + '.*')) or 'it has none'}"
        )
    try:
        model: nn.Module = timm.create_model(name, pretrained=True)
    except Exception as error:  # of a network, a cache or a file, in many libraries
        where, reason = config.hf_hub_id or config.url, cause(error).rstrip(".")
        raise TeacherError(
            f"the weights of timm:{name} ({where}) are not on this disk and can't be fetched: "
            f"{reason}. Fetch them where there is a network, or give their file: --weights "
            f"FILE"
        ) from error
    return model


def _convert(timm: ModuleType, name: str, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """What timm makes of a checkpoint as a paper's authors published it."""
    overlay = {"state_dict": dict(tensors), "source": None}
    module = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay)
    converted: dict[str, Tensor] = module.state_dict()
    return converted


def _in_words(data: Mapping[str, Any]) -> str:
    channels, height, width = data["input_size"]
    arguments = [str(data["crop_pct"]), str(height), str(width), data["crop_mode"]]
    arguments.append(data["interpolation"])
    if data["crop_mode"] == "border":
        arguments.append(str(tuple(round(255 * value) for value in data["mean"])))
    mean, std = tuple(data["mean"]), tuple(data["std"])
    colours = "rgb" if channels == 3 else "grey"
    return f"{colours}|crop_pct({', '.join(arguments)})|scale(255)|normalize({mean}, {std})"


def _class_names(timm: ModuleType, config: Any) -> list[str] | None:
    """Of the configuration, else ImageNet's, where its tag says that it was trained on that."""
    described, names = config.label_descriptions, config.label_names
    if names:
        return [str((described or {}).get(name, name)) for name in names]
    subset = timm.data.infer_imagenet_subset(config.to_dict())
    if subset is None or not IMAGENET.search(config.tag or ""):
        return None
    return list(_imagenet_names(subset))


@cache  # timm reads two tables of 21,844 lines each time
def _imagenet_names(subset: str) -> tuple[str, ...]:
    data = need("timm.data", "timm", f"the names of {subset}")
    return tuple(data.ImageNetInfo(subset).label_descriptions())
