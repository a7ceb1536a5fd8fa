"""Models in memory: a module of the user's, or any callable from a batch to logits.

Neither is moved or changed: a module runs where it lies, in eval mode, and has its modes back after
each call; no hook, gradient flag or buffer is touched.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from softlabels.errors import TeacherError, UsageError
from softlabels.models import timm, transformers
from softlabels.models.model import Model

MODULE, CALLABLE = "module", "callable"  # kinds of models
OBJECTS = (MODULE, CALLABLE)


def hold_object(thing: Any) -> Model:
    """As `open_object`, for a model that no record will name."""
    if isinstance(thing, nn.Module):
        return open_object(thing)
    return open_object(thing, getattr(thing, "__name__", type(thing).__name__), "unknown")


def open_object(thing: Any, name: str | None = None, version: str | None = None) -> Model:
    """A model that is an object.

    name: what records call it; of a module by default its class
    version: of a callable's answers, which nothing else tells from others

    Raises UsageError for a callable without a name and a version, and TeacherError for weights that
    are not in memory.
    """
    if not isinstance(thing, nn.Module):
        return _callable(thing, name, version)
    if version is not None:
        raise UsageError(
            f"version is {version!r}; a module is known by its weights and its code. Leave it out"
        )
    kind = type(thing)
    return Model(
        name=name or kind.__name__,
        kind=MODULE,
        module=Held(thing),
        spec=class_name(thing),
        **(timm.describe_module(thing) or transformers.describe_module(thing)),
        stays=_place(thing),
    )


def class_name(module: nn.Module) -> str:
    """What records call the class of a module: `package.module.Class`."""
    kind = type(module)
    return f"{kind.__module__}.{kind.__qualname__}"


def _callable(thing: Callable[[Tensor], Any], name: str | None, version: str | None) -> Model:
    if name is None or version is None:
        missing = " and ".join(n for n, v in (("name", name), ("version", version)) if v is None)
        raise UsageError(
            f"the teacher is a {type(thing).__name__}, whose answers nothing here can tell from "
            f"others, and {missing} of it {'are' if ' and ' in missing else 'is'} not given: say "
            f"name='resnet50-api', version='2026-05', and another version whenever its answers "
            f"change"
        )
    return Model(
        name=name,
        kind=CALLABLE,
        module=Held(thing),
        version=version,
        stays=torch.device("cpu"),
    )


def _place(module: nn.Module) -> torch.device | None:
    """Where its first weight lies; None for a module without weights."""
    tensor = next((t for _, t in (*module.named_parameters(), *module.named_buffers())), None)
    if tensor is not None and tensor.is_meta:
        raise TeacherError(
            "the weights of the module are on the device meta, so they are not in memory: load "
            "them first, without offloading"
        )
    return None if tensor is None else tensor.device


class Held(nn.Module):
    """A model of the user's. What is done to this module, such as `to` and `eval`, is not done to
    the user's."""

    def __init__(self, held: Any) -> None:
        super().__init__()
        self.held = held

    def _apply(self, fn: Callable, recurse: bool = True) -> Self:
        return self

    def train(self, mode: bool = True) -> Self:
        return self

    def forward(self, *given: Tensor, **named: Tensor) -> Any:
        # Not in inference mode: a module may keep a tensor that it makes here, such as a cache of
        # rotary angles, and an inference tensor would break its training later.
        with torch.inference_mode(False), torch.no_grad(), in_eval(self.held):
            own = [_plain(values) for values in given]
            return as_tensors(self.held(*own, **{n: _plain(v) for n, v in named.items()}))


def _plain(values: Tensor) -> Tensor:
    return values.clone() if values.is_inference() else values


@contextmanager
def in_eval(held: Any) -> Iterator[None]:
    """Eval mode for this block, then the mode that each part had."""
    modes = {m: m.training for m in held.modules()} if isinstance(held, nn.Module) else {}
    if not any(modes.values()):
        yield
        return
    held.eval()
    try:
        yield
    finally:
        held.train(modes[held])  # which some modules undo their eval() in
        for part, mode in modes.items():
            part.training = mode


def as_tensors(output: Any) -> Any:
    """numpy arrays, arrays of other libraries, and lists of rows as tensors; the rest as it is."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping) and type(output) is dict:
        return {name: as_tensors(value) for name, value in output.items()}
    rows = isinstance(output, list) and output and not isinstance(output[0], Tensor)
    if not (rows or hasattr(output, "__array__")):
        return output
    try:
        values = np.array(output)  # a copy: it may be read-only, or used again
    except ValueError:  # rows of several lengths
        return output
    return torch.from_numpy(values) if values.dtype.kind in "fiu" else output
