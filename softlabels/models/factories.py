"""Models that a function of the user's makes, weights and all."""

from softlabels.models.model import Model
from softlabels.models.specs import call_factory, check_state


def load_factory(spec: str) -> Model:
    """What `package.module:factory` returns. Importing it runs its code, which naming it allows.

    Raises UsageError where it can't be imported or called, or returns no module with weights.
    """
    module = call_factory(spec)
    check_state(module, spec)
    name = spec.partition(":")[2]
    return Model(name=name, kind="factory", module=module.eval(), spec=spec)
