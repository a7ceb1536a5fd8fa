"""A model before it is trained: what is built, and the weights that it starts with. C classes.

mlp:800x800, timm:resnet18, hf:FOLDER, …   random weights, unless others are named
package.module:factory, or a function      the weights that it makes
a module                                   the weights that it has; it is trained itself
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from softlabels.errors import TeacherError, UsageError
from softlabels.models.blueprints import Blueprint
from softlabels.models.checkpoint import Checkpoint
from softlabels.models.factories import make_module
from softlabels.models.model import ModelFile
from softlabels.models.naming import FACTORY, ModelName, parse_name
from softlabels.models.objects import class_name
from softlabels.models.opening import find_weights, open_file
from softlabels.models.sources import SOURCES
from softlabels.models.specs import SPELLINGS, build_model, check_state, is_factory, is_own
from softlabels.models.tokenizers import OwnTokenizer, Tokenizer, reads_tokens
from softlabels.system.humanize import few

PRETRAINED = "pretrained"  # in place of a file of weights


@dataclass(frozen=True)
class ModelChoice:
    """What a command says of the model that it trains.

    model: a name, a module, or a function that makes one
    weights: `pretrained`, or a file; None for those that it is built with
    """

    model: Any
    weights: str | None = None
    dropout: float = 0.0
    input_dropout: float = 0.0

    @property
    def title(self) -> str:
        """What messages and records call it."""
        if isinstance(self.model, nn.Module):
            return class_name(self.model)
        return self.model if isinstance(self.model, str) else function_name(self.model)


@dataclass(frozen=True)
class Beginning:
    """A model before it is trained.

    module: on the CPU, unless it is the user's
    spec: what records call it, and what builds it again, where something does
    weights: what it starts with, as in "from random weights"
    preprocess: how inputs were prepared for its weights, else how its library prepares pictures for
        it, if that is known
    pretrained: whether these weights were trained on pictures that were prepared so
    is_users: whether it is an object of the user's, which is trained itself
    reads_text: whether it takes tokens by name, as models of transformers do
    own_tokenizer: what opens its own tokenizer, where it has one
    class_names: of the classes that its last layer was trained to tell apart, where it starts with
        that layer and their names are known
    remarks: what there is to say of its weights
    """

    module: nn.Module
    spec: str
    weights: str = "random weights"
    preprocess: str | None = None
    pretrained: bool = False
    is_users: bool = False
    reads_text: bool = False
    own_tokenizer: Callable[[], Tokenizer] | None = None
    class_names: list[str] | None = None
    remarks: list[str] = field(default_factory=list)


def reads_texts(choice: ModelChoice) -> bool:
    """Whether it takes tokens by name, as far as that is known before it is built: what a function
    makes is not."""
    if isinstance(choice.model, nn.Module):
        return reads_tokens(choice.model)
    if not isinstance(choice.model, str) or is_own(choice.model):
        return False
    name = _parse(choice.model)
    return name.source == "hf" and SOURCES[name.source](name.ident).tokenizer is not None


def begin(choice: ModelChoice, input_shape: Sequence[int], classes: int) -> Beginning:
    """The model for inputs [N, *input_shape] and logits [N, C]; torch's random state decides what
    is random in it.

    Raises UsageError for a name that is none, for what can't be built, and for weights or dropout
    where the model has its own; TeacherError for weights that can't be read, or are another
    model's.
    """
    if isinstance(choice.model, str) and is_own(choice.model):
        return _own(choice, input_shape, classes)
    if choice.dropout or choice.input_dropout:
        raise UsageError(
            f"--dropout is for linear, mlp and cnn, and can't be put into {choice.title}; build it "
            f"in there"
        )
    if not isinstance(choice.model, str):
        return _object(choice, classes)
    name = _parse(choice.model)
    blueprint = SOURCES[name.source](name.ident)
    module, spec = blueprint.build(classes), str(name)
    if name.source == FACTORY:
        begun = Beginning(
            module, spec, "the weights that it makes", reads_text=reads_tokens(module)
        )
    else:  # a folder's path is left out of records
        spec = blueprint.spec if name.source == "hf" else spec
        own = blueprint.tokenizer
        begun = Beginning(
            _in_float32(module), spec, preprocess=blueprint.preprocess, reads_text=own is not None,
            own_tokenizer=own if isinstance(own, OwnTokenizer) and own.is_there else None,
        )  # fmt: skip
    if choice.weights == PRETRAINED:
        return _pretrained(begun, name, blueprint)
    return _from_file(begun, choice, str(name), input_shape)


def _own(choice: ModelChoice, input_shape: Sequence[int], classes: int) -> Beginning:
    spec, dropout = choice.model, (choice.dropout, choice.input_dropout)
    begun = Beginning(build_model(spec, input_shape, classes, *dropout), spec)
    if choice.weights == PRETRAINED:
        raise UsageError(f"--weights is {PRETRAINED}, and {spec} has no such weights; name a file")
    return _from_file(begun, choice, spec, input_shape)


def _object(choice: ModelChoice, classes: int) -> Beginning:
    """A module, or what a function of the user's makes."""
    model, spec = choice.model, choice.title
    if choice.weights is not None:
        raise UsageError(
            f"--weights is {choice.weights!r}, for a model by name, and {spec} has its own; load "
            f"them into it"
        )
    if not isinstance(model, nn.Module):
        made = make_module(model, spec, classes)
        return Beginning(made, spec, "the weights that it makes", reads_text=reads_tokens(made))
    check_state(model, spec)
    place = str(getattr(model, "name_or_path", "") or "")
    own = OwnTokenizer(place, {"local_files_only": True}) if place else None
    return Beginning(
        model, spec, "the weights that it has", is_users=True, reads_text=reads_tokens(model),
        own_tokenizer=own if own is not None and own.is_there else None,
    )  # fmt: skip


def function_name(function: Callable[..., Any]) -> str:
    """`package.module:factory`, which builds the model again, for what can be imported under that
    name; else the name with dots, which builds none."""
    module = getattr(function, "__module__", None) or type(function).__module__
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    spec = f"{module}:{name}"
    is_named = inspect.isfunction(function) or inspect.isclass(function)
    if is_named and is_factory(spec) and module != "__main__":
        return spec
    return f"{module}.{name}"


def _parse(text: str) -> ModelName:
    """Raises UsageError for what is no name of a model."""
    try:
        name = parse_name(text, SOURCES)
    except TeacherError:
        raise UsageError(f"no model is called {text!r}; write {SPELLINGS}") from None
    if isinstance(name, ModelName):
        return name
    if (name / "config.json").is_file() or name.name == "config.json":
        return ModelName("hf", str(name))
    raise UsageError(
        f"{text} is a path, and a model that is trained is given by its name: {SPELLINGS}. To "
        f"start from the weights in a file, name the file with --weights"
    )


def _in_float32(module: nn.Module) -> nn.Module:
    """A configuration may say half precision, in which small steps are rounded away."""
    half = any(p.is_floating_point() and p.dtype.itemsize < 4 for p in module.parameters())
    return module.float() if half else module


def _pretrained(begun: Beginning, name: ModelName, blueprint: Blueprint) -> Beginning:
    if name.source == FACTORY:
        raise UsageError(
            f"--weights is {PRETRAINED}, and {name} makes its own; leave it out, or name a file"
        )
    weighed = blueprint.pretrained()
    every = weighed.module.state_dict()
    weights = {key: every[key] for key in every if key not in weighed.missing}
    title = f"the pretrained weights of {blueprint.name}"
    return _with_weights(begun, weights, title, weighed.remarks, blueprint.class_names)


def _from_file(
    begun: Beginning, choice: ModelChoice, spec: str, input_shape: Sequence[int]
) -> Beginning:
    if choice.weights is None:
        return begun
    path, title = find_weights(choice.weights), f"the weights in {choice.weights}"
    checkpoint = Checkpoint.read(path)
    if checkpoint is not None:
        _check_names(begun, checkpoint.state_dict, title)
        begun = replace(begun, preprocess=checkpoint.preprocess)
        return _with_weights(begun, checkpoint.state_dict, title, [], checkpoint.class_names)
    model = open_file(ModelFile(path=path, spec=spec, input_shape=lambda: input_shape))
    if model.kind != "state_dict":
        raise TeacherError(f"--weights is {choice.weights!r}, a {model.kind}; give a state dict")
    return _with_weights(begun, model.module.state_dict(), title, model.remarks)


def _check_names(begun: Beginning, theirs: Mapping[str, Tensor], title: str) -> None:
    """Raises TeacherError where one of both has a tensor that the other lacks. A net of another
    depth has: most of its layers fit, and the rest would pass for a last layer of other classes."""
    ours = begun.module.state_dict()
    there = [
        f"{n}, {list(theirs[n].shape)} there, is not in the model" for n in theirs.keys() - ours
    ]
    here = [f"{n}, {list(ours[n].shape)} in the model, is not there" for n in ours.keys() - theirs]
    if there or here:
        raise TeacherError(f"{title} are not those of {begun.spec}: {min(there or here)}")


def _with_weights(
    begun: Beginning,
    theirs: Mapping[str, Tensor],
    title: str,
    remarks: list[str],
    class_names: list[str] | None = None,
) -> Beginning:
    """With these weights, by name. A last layer for another number of classes stays random, and so
    does one that they lack. class_names: of the classes that they were trained for

    Raises TeacherError for the weights of another model.
    """
    ours = begun.module.state_dict()
    fitting = {
        name: theirs[name]
        for name, own in ours.items()
        if name in theirs and theirs[name].shape == own.shape
    }
    left = [name for name in ours if name not in fitting]
    differing = [name for name in left if name in theirs]
    if not (_differ_in_classes(ours, theirs, differing) and 2 * len(left) <= len(ours)):
        name = (differing or left)[0]
        theirs_is = f"is {list(theirs[name].shape)} there" if name in theirs else "is not there"
        raise TeacherError(
            f"{title} are not those of {begun.spec}: {name}, {list(ours[name].shape)} in the "
            f"model, {theirs_is}"
        )
    begun.module.load_state_dict(ours | fitting)
    random = f"{few(left)} of {begun.spec} start at random: {title} have none for these classes"
    return replace(
        begun,
        weights=title,
        pretrained=True,
        class_names=None if left else class_names,
        remarks=[*remarks, random] if left else remarks,
    )


def _differ_in_classes(
    ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], names: list[str]
) -> bool:
    """Whether these tensors differ in their first size alone, each from the same to the same."""
    pairs = [(ours[name].shape, theirs[name].shape) for name in names]
    alike = all(own[1:] == other[1:] and own and other for own, other in pairs)
    return alike and len({(own[0], other[0]) for own, other in pairs}) <= 1
