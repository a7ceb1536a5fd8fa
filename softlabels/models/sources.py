"""Where models by name come from."""

from collections.abc import Callable

from softlabels.models.blueprints import Blueprint
from softlabels.models.factories import factory_blueprint
from softlabels.models.naming import FACTORY
from softlabels.models.specs import is_factory
from softlabels.models.timm import timm_blueprint
from softlabels.models.torchvision import torchvision_blueprint
from softlabels.models.transformers import transformers_blueprint

SOURCES: dict[str, Callable[[str], Blueprint]] = {
    FACTORY: factory_blueprint,
    "timm": timm_blueprint,
    "torchvision": torchvision_blueprint,
    "hf": transformers_blueprint,
}


def find_blueprint(spec: str) -> Blueprint | None:
    """The model of this name; None for the specs of our own, such as mlp:800x800."""
    source, colon, ident = spec.partition(":")
    if colon and source in SOURCES:
        return SOURCES[source](ident)
    return factory_blueprint(spec) if is_factory(spec) else None
