"""Files of torch.save and safetensors: our checkpoints, and state dicts that need a model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

from torch import Tensor, nn

from softlabels.errors import TeacherError, UntrustedPickle
from softlabels.models.checkpoint import Checkpoint
from softlabels.models.layers import describe_layers, find_by_layer
from softlabels.models.model import Model, ModelFile
from softlabels.models.pickles import TRUST, read_pickle, read_without_objects, unsafe_names
from softlabels.models.shards import read_safetensors, read_shards
from softlabels.models.specs import build_model, check_state, is_factory
from softlabels.models.state_dicts import (
    NAMELESS,
    Fit,
    WeightSet,
    check_weights,
    choose,
    describe_lists,
    describe_misfit,
    distinct,
    find_fits,
    find_sets,
    same_weights,
)
from softlabels.system.humanize import few


def load_pickle(file: ModelFile) -> Model:
    left: list[str] = []
    try:
        content = read_pickle(file.path, file.trust_pickle)
    except UntrustedPickle:
        content, left = read_without_objects(file.path), unsafe_names(file.path)
        if file.spec is None or not find_sets(content):
            raise
    modules = _find_modules(content)
    if modules and file.spec is None:
        chosen, remark = choose(modules, file.key, file.path)
        chosen.module.eval()
        return Model(
            name=file.path.stem,
            kind="pickle",
            module=chosen.module,
            key=chosen.place or None,
            remarks=[remark] if remark else [],
        )
    if not left and _is_ours(content):
        return _from_checkpoint(Checkpoint.from_content(content, str(file.path)), file)
    return _from_weights(content, file, unread=left)


def _is_ours(content: Any) -> bool:
    return isinstance(content, dict) and str(content.get("format", "")).startswith("softlabels-")


@dataclass(frozen=True)
class _Placed:
    place: str
    module: nn.Module


def _find_modules(content: Any) -> list[_Placed]:
    """A pickled module, or those in the dict that a training script pickled."""
    items = content.items() if isinstance(content, dict) else [("", content)]
    modules = [_Placed(str(key), item) for key, item in items if isinstance(item, nn.Module)]
    return distinct(modules, lambda a, b: a.module is b.module)


def load_safetensors(file: ModelFile) -> Model:
    return _from_weights(read_safetensors(file.path), file, ordered=False)


def load_shards(file: ModelFile) -> Model:
    weights, shards = read_shards(file.path, file.trust_pickle)
    model = _from_weights(weights, file, ordered=False)
    name = file.path.resolve().parent.name or model.name  # files of an index have one name anywhere
    return replace(model, name=name, files=[file.path, *shards])


def _from_checkpoint(checkpoint: Checkpoint, file: ModelFile) -> Model:
    if file.spec is not None and file.spec != checkpoint.model:
        raise TeacherError(
            f"{file.path} holds the model {checkpoint.model}; --model says {file.spec}"
        )
    return Model(
        name=file.path.stem,
        kind="checkpoint",
        module=checkpoint.build(allow_factory=file.spec),
        spec=checkpoint.model,
        preprocess=checkpoint.preprocess,
        class_names=checkpoint.class_names,
        data=checkpoint.data,
        classes=checkpoint.num_classes,
    )


def _from_weights(
    content: Any, file: ModelFile, ordered: bool = True, unread: Sequence[str] = ()
) -> Model:
    """A state dict, wherever it lies in `content`, in the model that --model names.

    ordered: the file keeps the order of the model's tensors
    unread: code that the file names, whose objects are not in `content`
    """
    path, spec, sets = file.path, file.spec, find_sets(content)
    if not sets:
        raise TeacherError(f"{path} holds {_in_words(content)}")
    if spec is None:
        raise TeacherError(
            f"{path} is a bare state dict, which does not say its model: add --model mlp:1200x1200 "
            f"(or linear, cnn:32x64, package.module:factory)"
        )
    build = _builder(spec, file)
    fits = _find_fits(sets, build, ordered, is_factory(spec))
    _refuse_list(sets, fits, file)
    fit, remarks = _choose_fit(fits, file)
    if fit is None:
        nearest = _nearest(sets, build(1).state_dict())
        ours = build(_class_counts(nearest)[-1]).state_dict()
        why = describe_misfit(nearest, ours)
        if not is_factory(spec) and not set(nearest.tensors) & set(ours):
            why = describe_layers(nearest, ours, ordered)
        lists = describe_lists(sets, build(_class_counts(nearest)[-1]))
        why += f"; {lists}" if lists else ""
        why += f". {_unread(unread)}; if weights are in them, and {TRUST}" if unread else ""
        raise TeacherError(f"the weights in {path} don't fit --model {spec}: {why}")
    module = build(list(fit.weights.values())[-1].shape[:1].numel())
    check_weights(fit, module.state_dict(), path)
    module.load_state_dict(fit.weights)
    module.eval()
    if lists := describe_lists([s for s in sets if s.place != fit.place], module):
        remarks.append(f"{path}: {lists}")
    if unread:
        remarks.append(f"{path}: {_unread(unread)}")
    return Model(
        name=path.stem,
        kind="state_dict",
        module=module,
        spec=spec,
        key=fit.place or None,
        remarks=remarks,
    )


def _nearest(sets: Sequence[WeightSet], model: Mapping[str, Tensor]) -> WeightSet:
    """The set that is most like the model: by the last segments of its names, as weight and bias,
    which an optimizer's state lacks, then by its size."""
    leaves = {name.rpartition(".")[2] for name in model}

    def likeness(group: WeightSet) -> tuple[int, int]:
        alike = sum(name.rpartition(".")[2] in leaves for name in group.tensors)
        return alike, sum(tensor.numel() for tensor in group.tensors.values())

    return max(sets, key=likeness)


def _unread(names: Sequence[str]) -> str:
    return f"objects that could run code were left out, and nothing of them was run: {few(names)}"


def _refuse_list(sets: list[WeightSet], fits: list[Fit], file: ModelFile) -> None:
    """Raises TeacherError where --key names a list of tensors that no order of layers fits."""
    fitting = {fit.place for fit in fits}
    for group in sets:
        if group.listed and group.place == file.key and file.key not in fitting:
            raise TeacherError(
                f"--key is {file.key!r}, in {file.path} a list of "
                f"{len(group.tensors):,} tensors. {NAMELESS}"
            )


def _in_words(content: Any) -> str:
    """What a file without a state dict holds."""
    if _find_modules(content):
        return "a whole module; leave out --model"
    what = type(content).__name__
    if isinstance(content, dict):
        what = (
            f"a dict with {few([str(key)[:40] for key in content])}" if content else "an empty dict"
        )
    return f"{what}, not a model or its state dict: no tensors by name"


def _builder(spec: str, file: ModelFile) -> Callable[[int], nn.Module]:
    """The model for a number of classes; a factory's has its own."""
    if is_factory(spec):
        module = build_model(spec, [], 0)
        check_state(module, spec)
        return lambda classes: module
    shape = file.input_shape() if file.input_shape else [1]
    return cache(lambda classes: build_model(spec, shape, classes))


def _find_fits(
    sets: list[WeightSet], build: Callable[[int], nn.Module], ordered: bool, by_name: bool
) -> list[Fit]:
    """Every way in which the file's tensors are the model's, by their names, else by layers."""
    for find in (find_fits, partial(find_by_layer, ordered=ordered))[: 1 if by_name else 2]:
        fits = [
            fit
            for group in sets
            for classes in (_class_counts(group) if not by_name else [0])
            for fit in find(group, build(classes).state_dict())
        ]
        if fits:
            return distinct(fits, same_weights)
    return []


def _class_counts(group: WeightSet) -> list[int]:
    """What the number of classes may be, the last tensor's last."""
    counts = [len(tensor) for tensor in group.tensors.values() if tensor.ndim]
    return list(dict.fromkeys(counts[::-1]))[::-1] or [1]


def _choose_fit(fits: list[Fit], file: ModelFile) -> tuple[Fit | None, list[str]]:
    """The weights that are meant, and a remark on the others."""
    if not fits:
        return None, []
    most = [fit for fit in fits if fit.is_most]
    if file.key is None and not most:
        names = ", ".join(fit.place for fit in fits)
        raise TeacherError(
            f"{file.path}: {names} fits the model, but is less than half of the tensors beside it; "
            f"if it is meant, say so with --key {fits[0].place}"
        )
    fit, remark = choose(fits if file.key else most, file.key, file.path)
    left = fit.left
    more = f", … ({len(left):,} tensors)" if len(left) > 3 else ""
    beside = f"{file.path}: not the model's, left out: {', '.join(left[:3])}{more}"
    return fit, [text for text in (remark, beside if left else "") if text]
