"""Specs of our own models: `linear`, `mlp:800x800`, `cnn:32x64` → nn.Module.

Teachers and students are built here alike, since a student's checkpoint is a valid teacher.
"""

import importlib.util
import math
import sys
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from softlabels.errors import UsageError
from softlabels.spec import parse_widths

LIBRARIES = ("timm", "torchvision", "hf")  # whose models have names: timm:resnet50
FAMILIES = ("linear", "mlp", "cnn")
SPELLINGS = (
    "linear, mlp:800x800, cnn:32x64, timm:NAME, torchvision:NAME, hf:FOLDER, hf:ORG/NAME, or "
    "package.module:factory"
)


class MLP(nn.Module):
    """Rectified linear layers of the given widths over the flattened input; logits [N, C].

    With no widths it is a linear model. Dropout is active in training mode only.
    """

    def __init__(
        self,
        features: int,
        widths: Sequence[int],
        num_classes: int,
        dropout: float = 0.0,
        input_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        sizes = [features, *widths, num_classes]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.input_dropout = nn.Dropout(input_dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = self.input_dropout(x.flatten(1))
        for layer in self.layers[:-1]:
            x = self.dropout(layer(x).relu())
        return self.layers[-1](x)


class CNN(nn.Module):
    """3×3 convolutions of the given widths, each with ReLU and 2×2 max-pooling, then one linear."""

    def __init__(
        self,
        input_shape: Sequence[int],
        widths: Sequence[int],
        num_classes: int,
        dropout: float = 0.0,
        input_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        channels, height, width = input_shape
        sizes = [channels, *widths]
        self.convolutions = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(sizes))
        for _ in widths:
            if is_pooled(height, width):
                height, width = height // 2, width // 2
        self.head = nn.Linear(widths[-1] * height * width, num_classes)
        self.input_dropout = nn.Dropout(input_dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = self.input_dropout(x)
        for convolution in self.convolutions:
            x = pooled(convolution(by_pixel(x)))
        return self.head(self.dropout(x.flatten(1)))


def by_pixel(x_NCHW: Tensor) -> Tensor:
    """The same numbers with a pixel's channels beside each other in memory: a CPU pools several of
    them at once, and convolutions of few channels are faster too. Not measured on other devices."""
    if x_NCHW.device.type != "cpu":
        return x_NCHW
    return x_NCHW.contiguous(memory_format=torch.channels_last)


def pooled(x_NCHW: Tensor) -> Tensor:
    """2×2 maxima, while there are two rows and two columns, then ReLU. It comes last, where it has
    the fewest numbers: the largest of four is the same before and after, and so is its gradient."""
    if is_pooled(*x_NCHW.shape[-2:]):
        x_NCHW = nn.functional.max_pool2d(by_pixel(x_NCHW), 2)
    return x_NCHW.relu()


def is_pooled(height: int, width: int) -> bool:
    return min(height, width) > 1


def is_factory(spec: str) -> bool:
    """Whether `spec` names code to import, `package.module:factory`."""
    module, _, name = spec.partition(":")
    dotted = all(part.isidentifier() for part in module.split("."))
    return dotted and name.isidentifier() and module not in (*FAMILIES, *LIBRARIES)


def is_importable(module: str) -> bool:
    """Whether a module's outermost package is there; it is not imported."""
    look_here()
    return importlib.util.find_spec(module.partition(".")[0]) is not None


def is_own(spec: str) -> bool:
    """Whether `spec` is meant as one of ours."""
    return spec.partition(":")[0] in FAMILIES


def build_model(
    spec: str,
    input_shape: Sequence[int],
    num_classes: int,
    dropout: float = 0.0,
    input_dropout: float = 0.0,
) -> nn.Module:
    """The model that `spec` names, for inputs [N, *input_shape] and logits [N, num_classes].

    Raises UsageError for a spec that can't be read, and for inputs that are no pictures where it
    needs them.
    """
    family, _, widths = spec.partition(":")
    if family == "linear" and not widths:
        return MLP(math.prod(input_shape), [], num_classes, dropout, input_dropout)
    if family == "mlp":
        hidden = parse_widths(widths, f"model {spec}")
        return MLP(math.prod(input_shape), hidden, num_classes, dropout, input_dropout)
    if family == "cnn":
        if len(input_shape) != 3:
            raise UsageError(
                f"model {spec} wants images [C, H, W]; these inputs are {list(input_shape)}"
            )
        hidden = parse_widths(widths, f"model {spec}")
        return CNN(input_shape, hidden, num_classes, dropout, input_dropout)
    raise UsageError(f"no model is called {spec!r}; write {SPELLINGS}")


def look_here() -> None:
    """Let modules be imported from the current folder too."""
    if "" not in sys.path:
        sys.path.insert(0, "")


def check_state(model: nn.Module, spec: str) -> None:
    """Raises UsageError where the state dict holds what is no tensor, or has no numbers yet."""
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            problem = "no tensor, and weights are stored as tensors alone; use register_buffer"
        elif is_lazy(value):
            problem = "without a shape; run it once first"
        elif value.is_meta:
            problem = "on the device meta, so it has no numbers; load its weights first"
        else:
            continue
        raise UsageError(f"{name} of model {spec} is {problem}")
