"""A model's file: weights, and what is needed to use them again. Plain types, so that
`torch.load(weights_only=True)` reads it; see docs/format.md for the fields."""

import importlib.metadata
import os
import platform
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from softlabels.errors import TeacherError, TrainingError, UsageError
from softlabels.models.specs import build_model, is_factory
from softlabels.system.humanize import size_words
from softlabels.system.local_files import appearing

FORMAT = "softlabels-checkpoint/1"


@dataclass(frozen=True)
class Checkpoint:
    """A trained model. `input_shape` is one preprocessed input's; the rest names itself."""

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

    def build(self, allow_factory: str | None = None) -> nn.Module:
        """The model with its weights, in eval mode.

        A checkpoint may name `package.module:factory`. Importing what a file names is the
        caller's decision, so `allow_factory` must name the same one. Raises UsageError without.
        """
        if is_factory(self.model) and allow_factory != self.model:
            raise UsageError(
                f"this checkpoint's model is built by {self.model}, which would be imported and "
                f"run; if you trust it, say so with --model {self.model}"
            )
        module = build_model(self.model, self.input_shape, self.num_classes)
        module.load_state_dict(self.state_dict)
        return module.eval()


def library_versions() -> dict[str, str]:
    """The versions that a result depends on, for records."""
    names = ("softlabels", "torch", "numpy", "datasets", "pyarrow", "pillow")
    versions = {"python": platform.python_version()}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # run from a checkout
            continue
    return versions
