"""Numbers that a launcher, such as torchrun, leaves in the environment."""

import os

from softlabels.errors import UsageError


def number_in_environment(name: str, default: int, least: int = 0) -> int:
    """A whole number, `least` or more. Raises UsageError for anything else."""
    text = os.environ.get(name, str(default))
    number = int(text) if text.isdecimal() else -1
    if number < least:
        raise UsageError(
            f"{name} is {text!r} in the environment; expected a whole number, {least} or more, as "
            f"torchrun sets it: correct it, or unset it"
        )
    return number
