"""Which tensors of a file are the weights of a model, whatever program wrapped them.

Names decide. Wrappers of torch put segments into them (`module.`, `_orig_mod.`), programs put
prefixes before them (`model.`) or lay them into dicts (`state_dict`, `ema`, …). A set of weights
fits a model where every name and shape of the model is there. Its *place* is the way to it: keys
of dicts, then the prefix, with dots: `state_dict.model`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from softlabels.errors import TeacherError
from softlabels.system.humanize import few

WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
COUNTERS = {"n_averaged", "num_batches_tracked"}  # a model in eval mode does not look at them
AVERAGED = re.compile(r"(^|_)(ema|swa|avg|averaged?|shadow)(_|$)|averaging$")
DEEPEST = 6  # dicts in dicts
NAMELESS = (
    "A list has no names to find weights by: copy it into the model in code (copy_to of "
    "torch_ema), and save the model's state dict"
)


@dataclass(frozen=True)
class WeightSet:
    """A dict of tensors somewhere in a file, by their names there. listed: it is a list of nothing
    but tensors, whose names are their numbers."""

    place: str
    tensors: dict[str, Tensor]
    listed: bool = False


@dataclass(frozen=True)
class Fit:
    """Weights by the model's names. left: names beside them that are not the model's."""

    place: str
    weights: dict[str, Tensor]
    left: list[str]

    @property
    def is_most(self) -> bool:
        """Whether the model's weights are most of what the dict holds."""
        return len(self.left) < len(self.weights)


class Placed(Protocol):
    @property
    def place(self) -> str: ...


Choice = TypeVar("Choice", bound=Placed)


def find_sets(content: Any, place: str = "", depth: int = 0) -> list[WeightSet]:
    """Every dict in `content` that holds tensors, or numbers of numpy, itself first. Items of lists
    are named by their numbers."""
    listed = isinstance(content, list | tuple)
    if listed:
        content = dict(enumerate(content))
    if not isinstance(content, Mapping) or depth > DEEPEST:
        return []
    named = ((str(key), _as_tensor(value)) for key, value in content.items())
    tensors = {name: tensor for name, tensor in named if tensor is not None}
    listed = listed and len(tensors) == len(content)
    sets = [WeightSet(place, tensors, listed)] if tensors else []
    for key, value in content.items():
        sets += find_sets(value, f"{place}.{key}".lstrip("."), depth + 1)
    return sets


def _as_tensor(value: Any) -> Tensor | None:
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        return torch.tensor(value)
    return value if isinstance(value, Tensor) else None


def check_weights(fit: Fit, model: Mapping[str, Tensor], path: object) -> None:
    """Raises TeacherError for tensors that the model can't take as they are."""
    for name, tensor in fit.weights.items():
        whole = model[name].is_floating_point() and not tensor.is_floating_point()
        if tensor.is_quantized or tensor.layout != torch.strided or tensor.is_meta or whole:
            kind = f"{tensor.dtype}, {tensor.layout}, {tensor.device.type}".replace("torch.", "")
            raise TeacherError(
                f"{path}: {name} is a tensor of {kind}, which the model can't take: there it is "
                f"{str(model[name].dtype).removeprefix('torch.')}. Save it with its numbers, dense "
                f"and not quantized, or save the whole model as TorchScript"
            )


def find_fits(group: WeightSet, model: Mapping[str, Tensor]) -> list[Fit]:
    """The ways in which these tensors are the model's: one for each prefix under which all of its
    names are, with their shapes, and no other names."""
    theirs, ours = _by_plain_name(group.tensors), _by_plain_name(model)
    fits = _fits(group, theirs, model, ours)
    shared = common_prefix(list(ours))
    if not fits and shared:
        ours = {name[len(shared) :]: own for name, own in ours.items()}
        fits = _fits(group, theirs, model, ours)
    others = {n: own for n, own in theirs.items() if not n.startswith(tuple(fits))}
    left = [own for n, own in others.items() if not is_counter(n)]
    return [
        Fit(f"{group.place}.{prefix}".strip("."), weights, left) for prefix, weights in fits.items()
    ]


def _fits(
    group: WeightSet, theirs: dict[str, str], model: Mapping[str, Tensor], ours: dict[str, str]
) -> dict[str, dict[str, Tensor]]:
    """The weights by prefix."""
    fits = {}
    for prefix in dict.fromkeys(prefix for name in theirs for prefix in _prefixes(name)):
        mapped = {own: theirs.get(prefix + plain) for plain, own in ours.items()}
        weights = _weights(group, model, mapped)
        beyond = [n for n in theirs if n.startswith(prefix) and n[len(prefix) :] not in ours]
        if weights is not None and all(map(is_counter, beyond)):
            fits[prefix] = weights
    return fits


def other_classes(group: WeightSet, model: Mapping[str, Tensor]) -> list[int]:
    """The number of classes that these weights are of, where they differ from the model's in that
    alone: every name is there, and the shapes that differ do so in their first size, all by the
    same number. None where they don't differ, or in another way."""
    theirs, ours = _by_plain_name(group.tensors), _by_plain_name(model)
    counts: set[int] = set()
    for prefix in dict.fromkeys(prefix for name in theirs for prefix in _prefixes(name)):
        pairs = [
            (group.tensors[theirs[prefix + plain]], model[own])
            for plain, own in ours.items()
            if prefix + plain in theirs
        ]
        differing = [(a, b) for a, b in pairs if a.shape != b.shape and a.ndim and b.ndim]
        sizes = {len(a) for a, _ in differing}
        alike = all(a.shape[1:] == b.shape[1:] for a, b in differing)
        if alike and len(sizes) == 1 and 2 * len(pairs) > len(ours):
            counts |= sizes
    return sorted(counts)


def _prefixes(name: str) -> list[str]:
    """What comes before each segment: '', 'a.' and 'a.b.' of a.b.c."""
    parts = name.split(".")
    return ["".join(f"{part}." for part in parts[:n]) for n in range(len(parts))]


def _weights(
    group: WeightSet, model: Mapping[str, Tensor], mapped: Mapping[str, str | None]
) -> dict[str, Tensor] | None:
    """The model's state dict, `mapped` from the file's names; None where a tensor is missing or of
    another shape. Counters may be missing, and names that share memory with one that is there."""
    weights: dict[str, Tensor] = {}
    shared: dict[tuple[int, torch.Size], Tensor] = {}
    for own, name in mapped.items():
        if name is not None:
            tensor, ours = group.tensors[name], model[own]
            if tensor.shape != ours.shape and (tensor.numel(), ours.numel()) != (1, 1):
                return None
            tensor = tensor if tensor.shape == ours.shape else tensor.reshape(ours.shape)
            weights[own] = shared[ours.data_ptr(), ours.shape] = tensor
    for own in [own for own, name in mapped.items() if name is None]:
        ours = model[own]
        if not is_counter(own) and (ours.data_ptr(), ours.shape) not in shared:
            return None
        weights[own] = shared.get((ours.data_ptr(), ours.shape), ours)
    return {name: weights[name] for name in model} if shared else None


def describe_lists(sets: Sequence[WeightSet], model: nn.Module) -> str:
    """A remark on lists of tensors that by their place or shapes are averaged weights of the model,
    or ''. torch_ema keeps them so: in the order of the parameters, without names."""
    shapes = [parameter.shape for parameter in model.parameters()]
    lists = [
        f"{group.place} ({len(group.tensors):,} tensors)"
        for group in sets
        if group.listed
        and (_is_averaged(group.place) or [t.shape for t in group.tensors.values()] == shapes)
    ]
    if not lists:
        return ""
    return f"it also holds {few(lists)}, averaged weights by their place or shapes. {NAMELESS}"


def choose(choices: Sequence[Choice], key: str | None, path: object) -> tuple[Choice, str]:
    """The one of these that is meant, and a remark on the others, or ''.

    With a key, the one at that place. Without, the only one; of raw and averaged weights the raw
    ones. Raises TeacherError, with all places, where that leaves a choice.
    """
    places = ", ".join(choice.place or "the outermost" for choice in choices)
    if key is not None:
        plain = ".".join(part for part in key.split(".") if part not in WRAPPERS)
        chosen = _at(key, choices) or _at(plain, choices)
        if chosen is None:
            raise TeacherError(
                f"--key is {key!r}; {path} has weights that fit the model as {places}"
            )
        return chosen, ""
    raw = [choice for choice in choices if not _is_averaged(choice.place)]
    if len(raw or choices) > 1:
        raise TeacherError(
            f"{path} has several weights that fit the model: {places}. Say which with --key"
        )
    chosen = (raw or list(choices))[0]
    others = [choice.place for choice in choices if choice is not chosen]
    if not others:
        return chosen, ""
    taken = chosen.place or "the outermost weights"
    return chosen, (
        f"{path}: {taken} is taken; it also holds {', '.join(others)} (--key {others[0]})"
    )


def _at(key: str, choices: Sequence[Choice]) -> Choice | None:
    """The one at this place, else the only one whose place begins or ends so."""
    exact = [choice for choice in choices if choice.place == key]
    near = [
        c for c in choices if f".{c.place}.".endswith(f".{key}.") or c.place.startswith(f"{key}.")
    ]
    return (exact or near)[0] if len(exact or near) == 1 else None


def describe_misfit(group: WeightSet, model: Mapping[str, Tensor]) -> str:
    """In one line, why these tensors are not the model's."""
    theirs, ours = _by_plain_name(group.tensors), _by_plain_name(model)
    shared = common_prefix(list(theirs))
    without = {name[len(shared) :] for name in theirs} & set(ours)
    if len(without) < len(set(theirs) & set(ours)):
        shared = ""
    theirs = {name[len(shared) :]: own for name, own in theirs.items()}
    wrong = [
        f"{name} is {list(group.tensors[theirs[name]].shape)} in the file, {list(model[own].shape)}"
        f" in the model"
        for name, own in ours.items()
        if name in theirs and group.tensors[theirs[name]].shape != model[own].shape
    ]
    missing = [name for name in ours if name not in theirs and not is_counter(name)]
    beyond = [name for name in theirs if name not in ours and not is_counter(name)]
    parts = [
        f"{len(missing)} of the model's {len(ours)} tensors are missing ({few(missing)})",
        f"{len(beyond)} of the file's {len(theirs)} are not the model's ({few(beyond)})",
        f"size mismatch, {few(wrong, '; ')}",
    ]
    problems = [part for part, n in zip(parts, (missing, beyond, wrong), strict=True) if n]
    return "; ".join(problems) + (
        f"; all of the file's names begin with {shared}" if shared else ""
    )


def common_prefix(names: Sequence[str]) -> str:
    """What all names begin with, in whole segments, with its last dot."""
    parts = [name.split(".")[:-1] for name in names]
    shared: list[str] = []
    for segments in zip(*parts, strict=False):
        if len(set(segments)) > 1:
            break
        shared.append(segments[0])
    return "".join(f"{segment}." for segment in shared)


def same_weights(a: Fit, b: Fit) -> bool:
    return all(a.weights[name].equal(b.weights[name]) for name in a.weights)


def distinct(items: Sequence[Choice], same: Callable[[Choice, Choice], bool]) -> list[Choice]:
    """Without those that are the same as one before them: a file may name one thing twice."""
    kept: list[Choice] = []
    for item in items:
        if not any(same(item, other) for other in kept):
            kept.append(item)
    return kept


def _by_plain_name(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """The names without what torch's wrappers put in, each with its own; where that makes two the
    same, as they are."""
    plain = {
        ".".join(part for part in name.split(".") if part not in WRAPPERS): name for name in tensors
    }
    return plain if len(plain) == len(tensors) else {name: name for name in tensors}


def is_counter(name: str) -> bool:
    return name.rpartition(".")[2] in COUNTERS


def _is_averaged(place: str) -> bool:
    return any(AVERAGED.search(part.lower()) for part in place.split("."))
