"""Files of torch.save and safetensors: our checkpoints, and state dicts that need a model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

from torch import Tensor, nn

from softlabels.errors import TeacherError, UntrustedPickle
from softlabels.models.blueprints import Blueprint
from softlabels.models.checkpoint import Checkpoint, is_ours
from softlabels.models.layers import describe_layers, find_by_layer
from softlabels.models.model import Model, ModelFile
from softlabels.models.pickles import TRUST, read_pickle, read_without_objects, unsafe_names
from softlabels.models.shards import read_safetensors, read_shards
from softlabels.models.sources import find_blueprint
from softlabels.models.specs import build_model
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
    other_classes,
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
    if not left and is_ours(content):
        return _from_checkpoint(Checkpoint.from_content(content, str(file.path)), file)
    return _from_weights(content, file, unread=left)


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
    return Model(
        name=file.path.stem,
        kind="checkpoint",
        module=checkpoint.build(file.spec),
        spec=file.spec or checkpoint.model,
        preprocess=checkpoint.preprocess,
        class_names=checkpoint.class_names,
        data=checkpoint.data,
        classes=checkpoint.num_classes,
        own_tokenizer=None
        if checkpoint.tokenizer is None
        else partial(checkpoint.own_tokenizer, str(file.path)),
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
        beside = (path.parent / "config.json").is_file()  # as save_pretrained leaves it
        folder = f", or name its folder, {path.parent}, instead" if beside else ""
        raise TeacherError(
            f"{path} is a bare state dict, which does not say its model: add --model mlp:1200x1200 "
            f"(or linear, cnn:32x64, package.module:factory, timm:resnet50, torchvision:resnet50)"
            f"{folder}"
        )
    maker = _Named(blueprint) if (blueprint := find_blueprint(spec)) else _Own(spec, file, ordered)
    fits = maker.find_fits(sets)
    _refuse_list(sets, fits, file)
    fit, remarks = _choose_fit(fits, file)
    if fit is None:
        nearest = _nearest(sets, maker.near(sets[0]).state_dict())
        why, lists = maker.describe_misfit(nearest), describe_lists(sets, maker.near(nearest))
        why += f"; {lists}" if lists else ""
        why += f". {_unread(unread)}; if weights are in them, and {TRUST}" if unread else ""
        raise TeacherError(f"the weights in {path} don't fit --model {spec}: {why}")
    module = maker.module_of(fit)
    check_weights(fit, module.state_dict(), path)
    module.load_state_dict(fit.weights)
    if lists := describe_lists([s for s in sets if s.place != fit.place], module):
        remarks.append(f"{path}: {lists}")
    if unread:
        remarks.append(f"{path}: {_unread(unread)}")
    model = maker.model(path.stem, module, fit)
    model.key, model.remarks = fit.place or None, remarks
    return model


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


class _Own:
    """Models of our own specs, whose shapes follow from an input and from the number of classes."""

    def __init__(self, spec: str, file: ModelFile, ordered: bool) -> None:
        shape = file.input_shape() if file.input_shape else [1]
        self.spec, self.ordered = spec, ordered
        self.build = cache(lambda classes: build_model(spec, shape, classes))

    def find_fits(self, sets: list[WeightSet]) -> list[Fit]:
        """Every way in which the file's tensors are the model's, by their names, else by layers."""
        for find in (find_fits, partial(find_by_layer, ordered=self.ordered)):
            fits = [
                fit
                for group in sets
                for classes in _class_counts(group)
                for fit in find(group, self.build(classes).state_dict())
            ]
            if fits:
                return distinct(fits, same_weights)
        return []

    def near(self, group: WeightSet) -> nn.Module:
        """The model that these tensors were meant for, if they were."""
        return self.build(_class_counts(group)[-1])

    def describe_misfit(self, group: WeightSet) -> str:
        ours = self.near(group).state_dict()
        if set(group.tensors) & set(ours):
            return describe_misfit(group, ours)
        return describe_layers(group, ours, self.ordered)

    def module_of(self, fit: Fit) -> nn.Module:
        return self.build(list(fit.weights.values())[-1].shape[:1].numel())

    def model(self, name: str, module: nn.Module, fit: Fit) -> Model:
        return Model(name=name, kind="state_dict", module=module.eval(), spec=self.spec)


class _Named:
    """Models by name, of their own number of classes, or of the file's where only the last layer
    differs: a net that was trained further on other classes."""

    def __init__(self, blueprint: Blueprint) -> None:
        self.blueprint = blueprint
        self.build = cache(blueprint.build)

    def find_fits(self, sets: list[WeightSet]) -> list[Fit]:
        """Every way in which the file's tensors are the model's by their names; else by the names
        that its library converts."""
        fits = [fit for group in sets for fit in self._fits(group)]
        if not fits and self.blueprint.convert is not None:
            fits = [fit for group in sets for fit in self._fits(self._converted(group))]
        return distinct(fits, same_weights)

    def _fits(self, group: WeightSet) -> list[Fit]:
        own = self.build(None)
        fits = find_fits(group, own.state_dict())
        for classes in [] if fits else other_classes(group, own.state_dict()):
            fits += find_fits(group, self.build(classes).state_dict())
        return fits

    def _converted(self, group: WeightSet) -> WeightSet:
        assert self.blueprint.convert is not None, "it was asked"
        try:
            return replace(group, tensors=dict(self.blueprint.convert(group.tensors)))
        except Exception:  # it is for the library's own files, and this may be any
            return group

    def near(self, group: WeightSet) -> nn.Module:
        return self.build(None)

    def describe_misfit(self, group: WeightSet) -> str:
        return describe_misfit(group, self.near(group).state_dict())

    def module_of(self, fit: Fit) -> nn.Module:
        own = self.build(None)
        for classes in other_classes(WeightSet("", fit.weights), own.state_dict()):
            return self.build(classes)
        return own

    def model(self, name: str, module: nn.Module, fit: Fit) -> Model:
        classes = other_classes(WeightSet("", fit.weights), self.build(None).state_dict())
        return replace(self.blueprint, name=name).model("state_dict", module, *classes)


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
