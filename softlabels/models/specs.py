"""Model specs: `linear`, `mlp:800x800`, `cnn:32x64`, `package.module:factory` → nn.Module.

Teachers and students are built here alike, since a student's checkpoint is a valid teacher.
"""

import importlib
import importlib.util
import math
import sys
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from softlabels.errors import UsageError
from softlabels.models.causes import cause
from softlabels.spec import parse_widths

LIBRARIES = ("timm", "torchvision", "hf")  # whose models have names: timm:resnet50
SPELLINGS = "linear, mlp:800x800, cnn:32x64, or package.module:factory"


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
        shrink = 2 ** len(widths)
        self.head = nn.Linear(
            widths[-1] * max(1, height // shrink) * max(1, width // shrink), num_classes
        )
        self.input_dropout = nn.Dropout(input_dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = self.input_dropout(x)
        for convolution in self.convolutions:
            x = convolution(x).relu()
            x = nn.functional.max_pool2d(x, 2) if min(x.shape[-2:]) > 1 else x
        return self.head(self.dropout(x.flatten(1)))


def is_factory(spec: str) -> bool:
    """Whether `spec` names code to import, `package.module:factory`."""
    module, _, name = spec.partition(":")
    dotted = all(part.isidentifier() for part in module.split("."))
    return dotted and name.isidentifier() and module not in ("mlp", "cnn", *LIBRARIES)


def is_importable(module: str) -> bool:
    """Whether a module's outermost package is there; it is not imported."""
    _look_here()
    return importlib.util.find_spec(module.partition(".")[0]) is not None


def build_model(
    spec: str,
    input_shape: Sequence[int],
    num_classes: int,
    dropout: float = 0.0,
    input_dropout: float = 0.0,
) -> nn.Module:
    """The model that `spec` names, for inputs [N, *input_shape] and logits [N, num_classes].

    A factory is called without arguments. Raises UsageError for a spec that can't be read or
    built, and for dropout asked of a factory.
    """
    if is_factory(spec):
        if dropout or input_dropout:
            raise UsageError(f"dropout can't be put into {spec}; let the factory build it in")
        return call_factory(spec)
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


def call_factory(spec: str) -> nn.Module:
    """Import `package.module:factory`, also from the current folder, and call it."""
    module_name, _, name = spec.partition(":")
    _look_here()
    try:
        factory = getattr(importlib.import_module(module_name), name)
    except ImportError as error:
        raise UsageError(f"model {spec}: can't import {module_name} ({error})") from error
    except AttributeError:
        raise UsageError(f"model {spec}: {module_name} has no {name!r}") from None
    except Exception as error:
        raise UsageError(f"model {spec}: importing {module_name} failed: {cause(error)}") from error
    try:
        model = factory()
    except Exception as error:
        raise UsageError(
            f"model {spec} can't be built: {cause(error)}. It is called without arguments"
        ) from error
    if not isinstance(model, nn.Module):
        raise UsageError(f"model {spec}: it returned {type(model).__name__}, not a torch nn.Module")
    return model


def _look_here() -> None:
    """Let modules be imported from the current folder too."""
    if "" not in sys.path:
        sys.path.insert(0, "")


def check_state(model: nn.Module, spec: str) -> None:
    """Raises UsageError where the state dict holds what is no tensor, or has no numbers yet."""
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            problem = "no tensor, and weights are stored as tensors alone; use register_buffer"
        elif is_lazy(value):
            problem = "without a shape; let the factory run it once"
        elif value.is_meta:
            problem = "on the device meta; let the factory build it on the CPU"
        else:
            continue
        raise UsageError(f"{name} of model {spec} is {problem}")
