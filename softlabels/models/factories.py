"""Models that a function of the user's makes, weights and all."""

from torch import nn

from softlabels.models.blueprints import Blueprint, Weighed
from softlabels.models.specs import call_factory, check_state


def factory_blueprint(spec: str) -> Blueprint:
    """What `package.module:factory` returns. Importing it runs its code, which naming it allows.

    Raises UsageError, when it is built, where it can't be imported or called, or returns no module
    with weights.
    """

    def build(classes: int | None = None) -> nn.Module:
        module = call_factory(spec)
        check_state(module, spec)
        return module

    name = spec.partition(":")[2]
    return Blueprint("factory", name, spec, build, lambda: Weighed(build()))
