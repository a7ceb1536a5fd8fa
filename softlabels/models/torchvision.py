"""Classifiers of torchvision: `resnet50`, or with the weights, `resnet50.IMAGENET1K_V2`."""

import difflib
from pathlib import Path
from typing import Any

import torch
from torch import nn

from softlabels.errors import TeacherError, UsageError
from softlabels.models.blueprints import Blueprint, Weighed
from softlabels.models.causes import cause
from softlabels.system.extras import need
from softlabels.system.humanize import few

# torchvision sets it with its weights, and no state dict holds it: they normalize their inputs once
# more inside the model.
TRANSFORMING = {"googlenet", "inception_v3"}


def torchvision_blueprint(ident: str) -> Blueprint:
    """Raises UsageError for a name, or weights, that torchvision does not have, and MissingExtra
    without it."""
    models = need("torchvision.models", "torchvision", f"torchvision:{ident}")
    architecture, _, tag = ident.partition(".")
    known = models.list_models(module=models)
    if architecture not in known:
        near = difflib.get_close_matches(architecture, known, 3)
        hint = f"did you mean {few(near)}?" if near else "torchvision.models.list_models() has them"
        raise UsageError(f"torchvision has no classifier {architecture!r}; {hint}")
    enum = models.get_model_weights(architecture)
    if tag and tag not in enum.__members__:
        raise UsageError(
            f"torchvision's {architecture} has no weights {tag!r}; there are "
            f"{few(list(enum.__members__), most=5)}"
        )
    weights = enum[tag or "DEFAULT"]
    options = (
        {"transform_input": True, "init_weights": False} if architecture in TRANSFORMING else {}
    )

    def build(classes: int | None) -> nn.Module:
        count = {} if classes is None else {"num_classes": classes}
        module: nn.Module = models.get_model(architecture, weights=None, **options, **count)
        return module

    def pretrained() -> Weighed:
        try:
            module = models.get_model(architecture, weights=weights)
        except Exception as error:  # of a network, a cache or a file
            reason = cause(error).rstrip(".")
            raise TeacherError(
                f"the weights of torchvision:{ident} ({weights.url}) are not on this disk and "
                f"can't be fetched: {reason}. Fetch them where there is a network, or give "
                f"their file: --weights FILE"
            ) from error
        file = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rpartition("/")[2]
        return Weighed(module, [file] if file.is_file() else [])

    transform = weights.transforms()
    return Blueprint(
        kind="torchvision",
        name=f"{architecture}.{weights.name}",
        spec=f"torchvision:{architecture}.{weights.name}",
        build=build,
        pretrained=pretrained,
        preprocess=_in_words(transform),
        transform=transform,
        class_names=weights.meta.get("categories"),
    )


def _in_words(transform: Any) -> str | None:
    """Of an `ImageClassification` preset; its sizes are lists of one number."""
    (resize,), (crop,) = transform.resize_size, transform.crop_size
    filter = transform.interpolation.value
    mean, std = tuple(transform.mean), tuple(transform.std)
    return f"rgb|resize({resize}, {filter})|center_crop({crop})|scale(255)|normalize({mean}, {std})"
