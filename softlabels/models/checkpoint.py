"""A model's file: weights, and what is needed to use them again. Plain types, so that
`torch.load(weights_only=True)` reads it; see docs/format.md for the fields."""

import importlib.metadata
import os
import platform
import shutil
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from softlabels.errors import TeacherError, TrainingError, UntrustedPickle, UsageError
from softlabels.models.causes import cause
from softlabels.models.factories import factory_blueprint
from softlabels.models.pickles import read_pickle
from softlabels.models.sniffing import sniff
from softlabels.models.sources import find_blueprint
from softlabels.models.specs import build_model, is_factory
from softlabels.models.state_dicts import WeightSet, describe_misfit
from softlabels.models.tokenizers import Tokenizer, open_tokenizer, tokenizer_from
from softlabels.models.transformers import build_configured
from softlabels.system.humanize import size_words
from softlabels.system.local_files import appearing

FORMAT = "softlabels-checkpoint/1"


@dataclass(frozen=True)
class Checkpoint:
    """A trained model.

    model: its spec; of a module that was in memory `package.module.Class`, which builds none
    input_shape: of one preprocessed input
    configuration: what builds a model of transformers, in place of its spec
    tokenizer: of a model that reads texts `name`, `hash`, and `files`, the bytes of each by name
    """

    model: str
    input_shape: list[int]
    num_classes: int
    preprocess: str
    state_dict: dict[str, Tensor]
    class_names: list[str] | None = None
    data: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    configuration: dict[str, Any] | None = None
    tokenizer: dict[str, Any] | None = None
    format: str = FORMAT

    def __repr__(self) -> str:
        weights = sum(value.numel() for value in self.state_dict.values())
        return f"Checkpoint({self.model}, {self.num_classes:,} classes, {weights:,} numbers)"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write beside `path`, then rename: `path` is the old file or the whole new one. Raises
        TrainingError where it can't be written."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with appearing(target) as file:
                torch.save(asdict(self) | {"state_dict": self.state_dict}, file)
        except (OSError, RuntimeError) as error:  # RuntimeError: what torch makes of a full disk
            free = shutil.disk_usage(target.parent).free
            raise TrainingError(
                f"{target} can't be written: {str(error).splitlines()[0]}. {size_words(free)} are "
                f"free there; make room, or choose another --out"
            ) from error

    @classmethod
    def read(cls, path: Path) -> "Checkpoint | None":
        """The checkpoint in a file; None for any other file. No code of the file's runs."""
        if sniff(path) != "pickle":
            return None
        try:
            content = read_pickle(path)
        except UntrustedPickle:  # ours hold tensors and plain values alone
            return None
        return cls.from_content(content, str(path)) if is_ours(content) else None

    @classmethod
    def from_content(cls, content: dict[str, Any], path: str) -> "Checkpoint":
        """Raises TeacherError where fields are missing or of a later format."""
        if content.get("format") != FORMAT:
            raise TeacherError(
                f"{path} has the format {content.get('format')!r}; this softlabels reads {FORMAT}"
            )
        try:
            return cls(**content)
        except TypeError as error:
            raise TeacherError(f"{path} is not a whole checkpoint: {error}") from error

    def build(self, named: str | None = None) -> nn.Module:
        """The model with its weights, in eval mode.

        named: what the caller says builds it. A checkpoint may name `package.module:factory`;
        importing what a file names is the caller's decision, so `named` must be the same one. Of a
        module that was in memory it may be any.

        Raises UsageError where it is needed, and TeacherError where it is another, or the weights
        are not those of what is built.
        """
        module = self._module(named)
        try:
            module.load_state_dict(self.state_dict)
        except RuntimeError as error:
            group = WeightSet("", self.state_dict)
            why = describe_misfit(group, module.state_dict()) or cause(error)
            raise TeacherError(
                f"the checkpoint's weights are not those of {named or self.model}: {why}. Was it "
                f"changed since, or is another version of its library installed? It was trained "
                f"with {', '.join(f'{name} {text}' for name, text in self.versions.items())}"
            ) from error
        return module.eval()

    def _module(self, named: str | None) -> nn.Module:
        """With whatever weights it is built with."""
        if named not in (None, self.model) and not self.was_in_memory:
            raise TeacherError(f"the checkpoint holds the model {self.model}; --model says {named}")
        if self.configuration is not None:
            return build_configured(self.configuration, self.num_classes)
        if self.was_in_memory:
            if named is None or not is_factory(named):
                raise UsageError(
                    f"this checkpoint's model was a module in memory, a {self.model}, and no "
                    f"record says how to build one: name a function that returns it, --model "
                    f"package.module:factory"
                )
            return factory_blueprint(named).build(self.num_classes)
        if is_factory(self.model) and named != self.model:
            raise UsageError(
                f"this checkpoint's model is built by {self.model}, which would be imported and "
                f"run; if you trust it, say so with --model {self.model}"
            )
        blueprint = find_blueprint(self.model)
        if blueprint is None:
            return build_model(self.model, self.input_shape, self.num_classes)
        return blueprint.build(self.num_classes)

    def own_tokenizer(self, title: str) -> Tokenizer:
        """The tokenizer that it holds. title: the file, for messages"""
        assert self.tokenizer is not None, "it reads texts"
        held = self.tokenizer
        return tokenizer_from(held["files"], held["name"], held["hash"], title)

    @property
    def was_in_memory(self) -> bool:
        """Whether the model was an object whose class alone is known."""
        return self.configuration is None and "." in self.model and ":" not in self.model


def tokenizer_at(place: str) -> Tokenizer:
    """The tokenizer of a folder, of a name on the Hub, or of a checkpoint. Raises TeacherError
    where there is none."""
    checkpoint = Checkpoint.read(Path(place)) if Path(place).is_file() else None
    if checkpoint is None:
        return open_tokenizer(place)
    if checkpoint.tokenizer is None:
        raise TeacherError(f"{place} is a checkpoint of a model that reads no texts")
    return checkpoint.own_tokenizer(place)


def is_ours(content: Any) -> bool:
    """Whether what a file holds is a checkpoint of softlabels, of this format or another."""
    return isinstance(content, dict) and str(content.get("format", "")).startswith("softlabels-")


def library_versions() -> dict[str, str]:
    """The versions that a result depends on, for records."""
    names = ("softlabels", "torch", "numpy", "datasets", "pyarrow", "pillow", "simplejpeg")
    models = [name for name in ("timm", "torchvision", "transformers") if name in sys.modules]
    versions = {"python": platform.python_version()}
    for name in (*names, *models):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # run from a checkout
            continue
    return versions
