"""Model specs: `linear`, `mlp:800x800`, `cnn:32x64`, `package.module:factory` → nn.Module.

Teachers and students are built here alike, since a student's checkpoint is a valid teacher.
"""

import importlib
import math
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from softlabels.errors import UsageError
from softlabels.spec import parse_widths

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
    module, colon, name = spec.partition(":")
    return bool(colon) and name.isidentifier() and module not in ("mlp", "cnn")


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
    if "" not in sys.path:
        sys.path.insert(0, "")
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


def cause(error: BaseException) -> str:
    """The first line of what a model's own code raised, with the kind of error where its words
    alone may say little."""
    line = (str(error).strip() or "no words").splitlines()[0]
    return line if isinstance(error, RuntimeError) else f"{type(error).__name__}, {line}"


def logits_of(
    output: Any, rows: int, classes: int | None = None, model: str = "the model"
) -> Tensor:
    """The logits [rows, C] in what a model gave for `rows` inputs.

    They are the tensor itself, an attribute or key `logits`, or the one item of a tuple, list or
    dict. Of several outputs they are the only one of [rows, classes]; where `classes` is not known,
    the only one of [rows, …] in a dict, but none of a tuple. C is not held against `classes`.
    Raises UsageError, with the shapes and what to do, where none or several could be meant.
    """
    given = output
    while not isinstance(given, Tensor):
        inner = given.get("logits") if isinstance(given, Mapping) else None
        inner = getattr(given, "logits", None) if inner is None else inner
        given = _only(given, rows, classes) if inner is None else inner
        if given is None:
            raise UsageError(
                f"{model} gave {_shapes(output)} for {rows} inputs, which does not say where the "
                f"logits are; wrap it in a module whose forward returns them alone, or a dict that "
                f"has them as 'logits'"
            )
    if given.ndim != 2 or len(given) != rows:
        raise UsageError(
            f"{model} gave {_shapes(given)} for {rows} inputs; logits are one row of numbers for "
            f"each input, [{rows}, classes]"
        )
    if given.is_complex() or given.is_quantized or given.layout != torch.strided or given.is_meta:
        kind = f"{given.dtype}, {given.layout}, {given.device.type}".replace("torch.", "")
        raise UsageError(
            f"{model} gave a tensor of {kind}; logits are real numbers, one beside the other, so "
            f"let its forward end in .to_dense(), .dequantize() or .real"
        )
    return given


def _only(output: Any, rows: int, classes: int | None) -> Any:
    """The one output there is, or the one that can be logits; None where that is not one."""
    if not isinstance(output, Mapping | tuple | list):
        return None
    items = list(output.values() if isinstance(output, Mapping) else output)
    if len(items) == 1:
        return items[0]
    if classes is None and not isinstance(output, Mapping):
        return None
    fitting = [
        item
        for item in items
        if isinstance(item, Tensor)
        and (item.ndim, len(item) if item.ndim else 0) == (2, rows)
        and classes in (None, item.shape[1])
    ]
    return fitting[0] if len(fitting) == 1 else None


def _shapes(output: Any) -> str:
    """An output in words: `(tensor [2, 10], tensor [2, 64])`."""
    if isinstance(output, Tensor):
        return f"a tensor {list(output.shape)}"
    if isinstance(output, Mapping):
        named = [f"{name!r}: {_shapes(item)}" for name, item in list(output.items())[:8]]
        return "{" + ", ".join(named) + ", …" * (len(output) > 8) + "}"
    if isinstance(output, tuple | list):
        items = ", ".join(_shapes(item) for item in output[:8]) + ", …" * (len(output) > 8)
        return f"({items})"
    return f"a {type(output).__name__}"
