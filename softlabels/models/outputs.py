"""Where the logits are in what a model gives. N rows, C classes."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from softlabels.errors import UsageError

ONE_LOGIT = (
    "If it is one logit z for two classes, say --outputs binary: it is stored as the pair (0, z)"
)


def logits_of(
    output: Any,
    rows: int,
    classes: int | None = None,
    model: str = "the model",
    binary: bool = False,
) -> Tensor:
    """The logits [rows, C] in what a model gave for `rows` inputs.

    They are the tensor itself, an attribute or key `logits`, or the one item of a tuple, list or
    dict. Of several outputs they are the only one of [rows, classes]; where `classes` is not known,
    the only one of [rows, …] in a dict, but none of a tuple. C is not held against `classes`. Only
    where the model is known as `binary` is a tensor [rows] one logit a row, [rows, 1].
    Raises UsageError, with the shapes and what to do, where none or several could be meant.
    """
    # sizes are read off `shape`: len() of a tensor would fix its rows in what torch.export writes
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
    if given.shape == (rows,) and binary:
        given = given[:, None]
    if given.ndim != 2 or given.shape[0] != rows:
        raise UsageError(
            f"{model} gave {_shapes(given)} for {rows} inputs; logits are one row of numbers for "
            f"each input, [{rows}, classes]" + f". {ONE_LOGIT}" * (given.shape == (rows,))
        )
    if given.is_complex() or given.is_quantized or given.layout != torch.strided or given.is_meta:
        kind = f"{given.dtype}, {given.layout}, {given.device.type}".replace("torch.", "")
        raise UsageError(
            f"{model} gave a tensor of {kind}; logits are real numbers, one beside the other, so "
            f"let its forward end in .to_dense(), .dequantize() or .real"
        )
    return given


def pair_of(z_N1: Tensor) -> Tensor:
    """One logit for two classes as two, (0, z), [N, 2].

    softmax((0, z) / T) is (1 − σ(z / T), σ(z / T)): the softmax of two classes depends on the
    difference of their logits alone, and its second probability is the sigmoid of it (Bishop,
    Pattern Recognition and Machine Learning, 2006, eq. 4.57 to 4.62).
    """
    return torch.cat([torch.zeros_like(z_N1), z_N1], 1)


def describe_pair(model: str, class_names: list[str] | None) -> str:
    """What is made of one logit a row, and which class it speaks for."""
    second = f"class 1, {class_names[1]!r}," if class_names else "class 1"
    return (
        f"{model} gives one logit z a row: it is taken as the pair (0, z), so that {second} has "
        f"the probability sigmoid(z / T)"
    )


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
        and item.ndim == 2
        and item.shape[0] == rows
        and classes in (None, item.shape[1])
    ]
    return fitting[0] if len(fitting) == 1 else None


def _shapes(output: Any) -> str:
    """An output for a message: `(tensor [2, 10], tensor [2, 64])`."""
    if isinstance(output, Tensor):
        return f"a tensor {list(output.shape)}"
    if isinstance(output, Mapping):
        named = [f"{name!r}: {_shapes(item)}" for name, item in list(output.items())[:8]]
        return "{" + ", ".join(named) + ", …" * (len(output) > 8) + "}"
    if isinstance(output, tuple | list):
        items = ", ".join(_shapes(item) for item in output[:8]) + ", …" * (len(output) > 8)
        return f"({items})"
    return f"a {type(output).__name__}"
