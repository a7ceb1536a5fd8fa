"""Optional libraries, imported where they are first needed."""

import importlib
import importlib.util
from types import ModuleType

from softlabels.errors import MissingExtra


def need(module: str, extra: str, purpose: str) -> ModuleType:
    """The module, imported. Raises MissingExtra, which begins `purpose needs …`, where its library
    is not installed or broken."""
    library = module.partition(".")[0]
    if importlib.util.find_spec(library) is None:
        raise MissingExtra(library, extra, purpose)
    try:
        return importlib.import_module(module)
    except Exception as error:  # torchvision beside a torch that it was not built for: many kinds
        lines = str(error).strip().splitlines()
        raise MissingExtra(library, extra, purpose, (lines or [type(error).__name__])[0]) from error
