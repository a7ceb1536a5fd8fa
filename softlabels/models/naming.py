"""What a person writes for a model, told apart: a path, or a name.

    t.pt, ./t.pt, folder/     a path
    timm:resnet50             a model of a library: timm, torchvision, or hf, which is transformers
    package.module:factory    a function of one's own, called without arguments
    source://ident            the same names, never taken for a path; the source of functions is
                              python

A path with a slash before its colon is never taken for a name.
"""

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from softlabels.errors import TeacherError, UsageError
from softlabels.models.specs import is_factory, is_importable

FACTORY = "python"  # the source of factories, which have none before their colon
ACCEPTED = (
    "A model is a file (a checkpoint, a TorchScript archive, a .pt2 program, an ONNX file, or a "
    "state dict with --model, also in shards), a folder of save_pretrained, timm:NAME, "
    "torchvision:NAME, hf:ORG/NAME, or package.module:factory"
)


@dataclass(frozen=True)
class ModelName:
    """source: what gives a model of this name; ident: the model's name there."""

    source: str
    ident: str

    def __str__(self) -> str:
        return self.ident if self.source == FACTORY else f"{self.source}:{self.ident}"


def parse_name(text: str, sources: Collection[str]) -> ModelName | Path:
    """A name from one of these sources, or a path that exists.

    Raises UsageError for what can be both, with the spelling of each, and TeacherError for what is
    neither.
    """
    source, slashes, ident = text.partition("://")
    if slashes and source in sources:
        return ModelName(source, ident)
    name, exists = _as_name(text, sources), os.path.exists(os.path.expanduser(text))
    if name is not None and exists and _has_source(name):
        raise UsageError(
            f"{text} is a path here, and a name too: write ./{text} for the path, "
            f"{name.source}://{name.ident} for the name"
        )
    if exists:
        return Path(text).expanduser()
    if name is None:
        raise TeacherError(f"{text} does not exist. {ACCEPTED}")
    return name


def _as_name(text: str, sources: Collection[str]) -> ModelName | None:
    source, colon, ident = text.partition(":")
    if colon and source in sources:
        return ModelName(source, ident)
    return ModelName(FACTORY, text) if is_factory(text) else None


def _has_source(name: ModelName) -> bool:
    """Whether the package of a factory can be imported; the other sources are our own."""
    return name.source != FACTORY or is_importable(name.ident.partition(":")[0])
