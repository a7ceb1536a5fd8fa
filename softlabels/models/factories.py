"""Models that a function of the user's makes, weights and all. C classes."""

import importlib
import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from softlabels.errors import UsageError
from softlabels.models.blueprints import Blueprint, Weighed
from softlabels.models.causes import cause
from softlabels.models.specs import check_state, look_here

COUNTS = ("num_classes", "n_classes", "classes", "num_labels")  # parameters that mean C


def factory_blueprint(spec: str) -> Blueprint:
    """What `package.module:factory` returns. Importing it runs its code, which naming it allows.

    Raises UsageError, when it is built, where it can't be imported or called, or returns no module
    with weights.
    """

    def build(classes: int | None = None) -> nn.Module:
        return make_module(_import(spec), spec, classes)

    name = spec.partition(":")[2]
    return Blueprint("factory", name, spec, build, lambda: Weighed(build()))


def make_module(factory: Callable[..., Any], spec: str, classes: int | None) -> nn.Module:
    """What `factory` returns, called with C where a parameter of it is one of COUNTS, and else
    without arguments. Another parameter may mean anything, so it is never given C.

    Raises UsageError where it fails, or returns no module with weights.
    """
    counts = {name: classes for name in _parameters(factory) if name in COUNTS}
    given = dict(list(counts.items())[:1]) if classes is not None else {}
    try:
        module = factory(**given)
    except Exception as error:
        how = ", ".join(f"{name}={value}" for name, value in given.items())
        raise UsageError(
            f"model {spec} can't be built: {cause(error)}. It is called "
            f"{f'with {how} alone' if how else 'without arguments'}"
        ) from error
    if not isinstance(module, nn.Module):
        raise UsageError(
            f"model {spec}: it returned {type(module).__name__}, not a torch nn.Module"
        )
    check_state(module, spec)
    return module


def _parameters(factory: Callable[..., Any]) -> list[str]:
    try:
        return list(inspect.signature(factory).parameters)
    except (TypeError, ValueError):  # of a builtin, or of what is no function
        return []


def _import(spec: str) -> Callable[..., Any]:
    """Import `package.module:factory`, also from the current folder."""
    module_name, _, name = spec.partition(":")
    look_here()
    try:
        factory: Callable[..., Any] = getattr(importlib.import_module(module_name), name)
    except ImportError as error:
        raise UsageError(f"model {spec}: can't import {module_name} ({error})") from error
    except AttributeError:
        raise UsageError(f"model {spec}: {module_name} has no {name!r}") from None
    except Exception as error:
        raise UsageError(f"model {spec}: importing {module_name} failed: {cause(error)}") from error
    return factory
