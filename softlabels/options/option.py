"""What an option is, and what all commands ask of theirs."""

import math
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from softlabels.errors import UsageError


def option(help: str, default: Any = MISSING, *, flag: str = "", positional: bool = False) -> Any:
    metadata = {"help": help, "flag": flag, "positional": positional}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What all commands ask of their options."""

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            name = one.name if one.metadata["positional"] else flag_of(one.name)
            if isinstance(value, str) and "\0" in value:
                raise UsageError(f"{name} is {value!r}; no name has a zero byte")
            if value == "" and one.name != "preprocess":  # which may ask for nothing
                raise UsageError(f"{name} is empty; write what is meant, or leave it out")


def flag_of(name: str) -> str:
    return "--" + name.replace("_", "-")


def check_whole(options: Any, *names: str, at_least: int) -> None:
    for name in names:
        value = getattr(options, name)
        if value is None:
            continue
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        if not whole or not at_least <= value < 2**63:
            limit = " and below 2⁶³" if whole and value > at_least else ""
            raise UsageError(
                f"{flag_of(name)} is {value}; it must be a whole number, {at_least} or more{limit}"
            )


def check_seed(options: Any) -> None:
    if options.seed != int(options.seed) or not 0 <= options.seed < 2**63:
        raise UsageError(
            f"--seed is {options.seed}; it must be a whole number, 0 or more, that 63 bits hold"
        )


def check_positive(options: Any, *names: str) -> None:
    for name in names:
        value = getattr(options, name)
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise UsageError(f"{flag_of(name)} is {value}; it must be a finite number above 0")


def check_fraction(options: Any, *names: str, below_one: bool = False) -> None:
    for name in names:
        value = getattr(options, name)
        if not 0 <= value <= 1 or (below_one and value == 1):
            upper = "up to but not including 1" if below_one else "to 1"
            raise UsageError(f"{flag_of(name)} is {value}; it must be a number from 0 {upper}")


def check_one_of(options: Any, name: str, *words: str) -> None:
    value = getattr(options, name)
    if value not in words:
        raise UsageError(f"{flag_of(name)} is {value!r}; use {' or '.join(words)}")
