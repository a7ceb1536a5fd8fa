"""Models compiled by torch.compile, teachers and students alike."""

import sys
from collections.abc import Callable
from typing import Any

import torch

from softlabels.errors import UsageError
from softlabels.models.causes import cause


def compiled(module: Any) -> Callable[..., Any]:
    """A module that compiles itself with its first inputs. Raises UsageError on a Python or a
    system that torch does not compile on."""
    try:
        result: Callable[..., Any] = torch.compile(module)
    except RuntimeError as error:
        raise UsageError(f"--compile is not possible here: {cause(error)}") from error
    return result


def is_of_compiler(error: BaseException) -> bool:
    """Whether an error is the compiler's, such as that there is no C++ compiler on this machine:
    other inputs won't help."""
    dynamo = sys.modules.get("torch._dynamo.exc")  # not loaded before something is compiled
    return dynamo is not None and isinstance(error, dynamo.TorchDynamoException)
