"""Weights for our own specs (linear, mlp, cnn) under other names: paired layer by layer."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from softlabels.models.state_dicts import Fit, WeightSet, is_counter
from softlabels.system.humanize import few


def find_by_layer(group: WeightSet, model: Mapping[str, Tensor], ordered: bool) -> list[Fit]:
    """Other names, such as those of nn.Sequential: layer by layer, and in a layer shape by shape.
    The numbers in the names order the layers; without them the file does, where it is `ordered`;
    else each layer must be the only one of its shapes."""
    theirs, ours = layers_of(group.tensors), layers_of(model)
    names = layer_order(theirs, ordered) or []
    if [_shapes(theirs[name]) for name in names] != [_shapes(layer) for layer in ours.values()]:
        names = _order_by_shape(ours, theirs)
    inner = {own: by_size(theirs[name]) for own, name in zip(ours, names, strict=False)}
    weights = {
        _dotted(own, leaf): tensor
        for own, tensors in inner.items()
        for (leaf, _), (_, tensor) in zip(by_size(ours[own]), tensors, strict=True)
    }
    if not names and ordered and _shapes_in_order(group.tensors) == _shapes_in_order(model):
        weights = dict(zip(model, group.tensors.values(), strict=True))
    return [Fit(group.place, {name: weights[name] for name in model}, [])] if weights else []


def by_size(layer: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
    """The tensors of a layer, the weight before the bias, whatever they are called."""
    return sorted(layer.items(), key=lambda item: (-item[1].ndim, item[0]))


def layers_of(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The tensors by layer (`layers.0`) and name in it (`weight`)."""
    layers: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        layer, _, leaf = name.rpartition(".")
        if not is_counter(name):
            layers.setdefault(layer, {})[leaf] = tensor
    return layers


def layer_order(layers: Mapping[str, Any], ordered: bool) -> list[str] | None:
    """The layers as the model runs them; None where that is not known."""
    if len({re.sub(r"\d+", "0", name) for name in layers}) == 1:
        return sorted(layers, key=lambda name: [int(n) for n in re.findall(r"\d+", name)])
    return list(layers) if ordered else None


def _order_by_shape(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """The layers in the model's order, where each is the only one of its shapes; else none."""
    by_shape = {str(_shapes(tensors)): name for name, tensors in theirs.items()}
    names = [by_shape.get(str(_shapes(tensors)), "") for tensors in ours.values()]
    return names if len(theirs) == len(ours) and sorted(names) == sorted(theirs) else []


def describe_layers(group: WeightSet, model: Mapping[str, Tensor], ordered: bool) -> str:
    """In one line, why these layers are not the model's, layer by layer."""
    theirs, ours = layers_of(group.tensors), layers_of(model)
    counts = [sum(map(len, layers.values())) for layers in (theirs, ours)]
    if len(theirs) != len(ours) or counts[0] != counts[1]:
        return (
            f"{counts[0]} tensors, not {counts[1]}: the file has the layers {few(list(theirs))}; "
            f"the model {few(list(ours))}"
        )
    names = layer_order(theirs, ordered)
    if names is None:
        return f"the names do not tell the order of the layers: {few(list(theirs))}"
    wrong = [
        f"{b or 'the layer'} has {_in_words(theirs[b])}, {a} {_in_words(ours[a])}"
        for a, b in zip(ours, names, strict=True)
        if _shapes(theirs[b]) != _shapes(ours[a])
    ]
    return f"size mismatch: {few(wrong, '; ')}"


def _shapes(layer: Mapping[str, Tensor]) -> list[list[int]]:
    return [list(tensor.shape) for _, tensor in by_size(layer)]


def _shapes_in_order(tensors: Mapping[str, Tensor]) -> list[list[int]]:
    return [list(tensor.shape) for tensor in tensors.values()]


def _in_words(tensors: Mapping[str, Tensor]) -> str:
    return ", ".join(f"{leaf} {list(tensor.shape)}" for leaf, tensor in by_size(tensors))


def _dotted(layer: str, leaf: str) -> str:
    return f"{layer}.{leaf}" if layer else leaf
