"""An option: a field of a dataclass, with a type that says which values it takes, and its help.

Values are checked when the dataclass is made, whether they come from flags, from YAML or from
Python: text, True or False, one of a `Literal`'s choices, a number within bounds, or several such
values, `tuple[…, ...]`.
"""

import difflib
import math
import operator
import os
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, InitVar, dataclass, field, fields
from typing import (
    Annotated,
    Any,
    Literal,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from softlabels.errors import UsageError
from softlabels.options.objects import Objects
from softlabels.schedules import EXAMPLE, check_schedule
from softlabels.system.humanize import either
from softlabels.system.progress import SILENT, Progress

LARGEST = 2**63  # seeds and counts are stored as int64
PLAIN = str | int | float | bool | None

O = TypeVar("O", bound="Options")  # noqa: E741
P = TypeVar("P")


@dataclass(frozen=True)
class Bounds:
    """The numbers that an option takes. holds: whether a number is one; text: says so to people;
    literals: what it takes in place of a number; reads: raises UsageError unless a text can stand
    in the place of a number, given the option's name and the text."""

    text: str
    holds: Callable[[float], bool]
    literals: tuple[str, ...] = ()
    reads: Callable[[str, str], None] | None = None


Count = Annotated[int, Bounds("a whole number, 1 or more", lambda n: n >= 1)]
CountOrAuto = Annotated[
    int | Literal["auto"],
    Bounds("a whole number, 1 or more, or auto", lambda n: n >= 1, ("auto",)),
]
CountOrAll = Annotated[
    int | Literal["all"],
    Bounds("a whole number, 1 or more, or all", lambda n: n >= 1, ("all",)),
]
Natural = Annotated[int, Bounds("a whole number, 0 or more", lambda n: n >= 0)]
Positive = Annotated[float, Bounds("a finite number above 0", lambda x: 0 < x < math.inf)]
TemperatureOrSchedule = Annotated[
    float | str,
    Bounds(
        f"a finite number above 0, or text such as {EXAMPLE!r} or 'auto'",
        lambda x: 0 < x < math.inf,
        literals=("auto",),
        reads=check_schedule,
    ),
]
NotNegative = Annotated[float, Bounds("a finite number, 0 or more", lambda x: 0 <= x < math.inf)]
Fraction = Annotated[float, Bounds("a number from 0 to 1", lambda x: 0 <= x <= 1)]
BelowOne = Annotated[
    float, Bounds("a number from 0 up to but not including 1", lambda x: 0 <= x < 1)
]
Between = Annotated[float, Bounds("a number between 0 and 1", lambda x: 0 < x < 1)]


def option(
    help: str,
    default: Any = MISSING,
    *,
    flag: str = "",
    positional: bool = False,
    only_python: bool = False,
) -> Any:
    """only_python: a keyword of the verb, and no flag: it is about an object."""
    metadata = {"help": help, "flag": flag, "positional": positional, "only_python": only_python}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of a command. Types are checked one by one; `check_together` checks several.

    progress is a keyword of every verb, not an option, and is not kept. It is declared here because
    editors and type checkers take a verb's keywords from this class.
    """

    progress: InitVar[Progress] = SILENT

    def __post_init__(self, progress: Progress) -> None:
        types = hints_of(type(self))
        for one in fields(self):
            given = getattr(self, one.name)
            if given is None and one.default == ():  # None is no name, too
                given = ()
            value = checked(name_of(one), given, types[one.name])
            object.__setattr__(self, one.name, value)
            values = value if isinstance(value, tuple) else (value,)
            empty = any(isinstance(each, str) and not each for each in values)
            if empty and one.name != "preprocess":  # an empty preprocessing is one
                raise UsageError(f"{name_of(one)} is empty; write what is meant, or leave it out")
        self.check_together()

    def part(self, kind: Callable[..., P]) -> P:
        """Those of these options that are the fields of the dataclass `kind`, as one of it: what is
        below the verbs takes no options, but what it needs of them."""
        return kind(**{one.name: getattr(self, one.name) for one in fields(cast(type, kind))})

    @property
    def plain(self) -> dict[str, Any]:
        """All options as plain values, for records and for ranks to compare; of an object its
        type's name."""
        return {one.name: _plain(getattr(self, one.name)) for one in fields(self)}

    def check_together(self) -> None:
        """Raises UsageError for options that exclude each other or need another one."""


def hints_of(options: type) -> dict[str, Any]:
    """The type of each option, with bounds."""
    return get_type_hints(options, include_extras=True)


def flag_of(name: str) -> str:
    return "--" + name.rstrip("_").replace("_", "-")  # class_ is a keyword of Python's


def name_of(one: Field) -> str:
    """The name of an option in messages."""
    plain = one.metadata["positional"] or one.metadata["only_python"]
    return one.name if plain else flag_of(one.name)


def choices_of(hint: Any) -> tuple[str, ...]:
    """The choices of a `Literal` or a `Literal | None`; empty for other types."""
    kind, _ = _parts(hint)
    return get_args(kind) if get_origin(kind) is Literal else ()


def make_options(options: type[O], given: Mapping[str, Any]) -> O:
    """Options from keywords. Raises UsageError for unknown names and for missing ones."""
    known = {one.name: one for one in fields(options)}
    if unknown := [name for name in given if name not in known]:
        raise no_option(unknown[0], known)
    for name, one in known.items():
        if one.default is MISSING and name not in given:
            raise UsageError(f"{name} is missing: {one.metadata['help']}")
    return options(**given)


def no_option(name: str, known: Iterable[str]) -> UsageError:
    """The error for an unknown option; suggests one with a similar name."""
    known = list(known)
    near = difflib.get_close_matches(name, known, 1)
    return UsageError(
        f"no option {name!r}; did you mean {near[0]!r}?"
        if near
        else f"no option {name!r}; there are {', '.join(known)}"
    )


def checked(name: str, value: Any, hint: Any) -> Any:
    """The value in the option's type: a path as text, 8.0 as 8, an object as it is. Raises
    UsageError."""
    kind, mark = _parts(hint)
    if value is None and _may_be_none(hint):
        return None
    if get_origin(kind) is tuple:  # of several values one may stand alone
        if isinstance(value, Mapping) and isinstance(mark, Objects) and mark.takes(value):
            return value
        several = value if isinstance(value, list | tuple) else [value]
        return tuple(checked(name, one, get_args(kind)[0]) for one in several)
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise UsageError(f"{name} is {value!r}; use {either(get_args(kind))}")
        return value
    if kind is bool:
        if not isinstance(value, bool):
            raise UsageError(f"{name} is {value!r}; it must be True or False")
        return value
    if kind is str:
        return _text(name, value, mark if isinstance(mark, Objects) else None)
    bounds = mark if isinstance(mark, Bounds) else None
    if bounds and value in bounds.literals:
        return value
    if bounds and bounds.reads is not None and isinstance(value, str):
        bounds.reads(name, value)
        return value
    if kind in (int, float):
        return _number(name, value, kind, bounds)
    return value


def _text(name: str, value: Any, objects: Objects | None) -> Any:
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(text, str) and objects is not None:
        return objects.checked(name, value)
    if not isinstance(text, str):
        raise UsageError(f"{name} is {value!r}; it must be text")
    if "\0" in text:
        raise UsageError(f"{name} is {text!r}; no name has a zero byte")
    return text if objects is None else objects.reads(name, text)


def _number(name: str, value: Any, kind: type, bounds: Bounds | None) -> int | float:
    text = bounds.text if bounds else "a whole number" if kind is int else "a number"
    number = _whole(value) if kind is int else _real(value)
    shown = repr(value) if isinstance(value, str) else value
    if number is None or (bounds and not bounds.holds(number)):
        raise UsageError(f"{name} is {shown}; it must be {text}")
    if kind is int and abs(number) >= LARGEST:
        raise UsageError(f"{name} is {shown}; it must be {text} and below 2⁶³")
    return number


def _whole(value: Any) -> int | None:
    """A whole number of any type, numpy's included; None for other values."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    try:
        return operator.index(value)
    except TypeError:
        return None


def _real(value: Any) -> float | None:
    whole = _whole(value)
    if whole is not None:
        return float(whole)
    return float(value) if isinstance(value, float) else None


def objects_of(hint: Any) -> Objects | None:
    """The objects that an option of this type takes in Python, if any."""
    _, mark = _parts(hint)
    return mark if isinstance(mark, Objects) else None


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, Mapping):
        parts = {str(name): _path(part) for name, part in value.items()}
        if all(isinstance(part, PLAIN) for part in parts.values()):
            return parts
    return value if isinstance(value, PLAIN | list) else type(value).__name__


def _path(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _parts(hint: Any) -> tuple[Any, Bounds | Objects | None]:
    """A type without `| None` and its mark; and the mark."""
    if _is_union(hint):
        parts = [part for part in get_args(hint) if part is not type(None)]
        hint = parts[0] if len(parts) == 1 else hint
    if get_origin(hint) is Annotated:
        kind, mark = get_args(hint)[:2]
        also_text = isinstance(mark, Bounds) and (mark.literals or mark.reads)
        return get_args(kind)[0] if also_text else kind, mark
    return hint, None


def _may_be_none(hint: Any) -> bool:
    return _is_union(hint) and type(None) in get_args(hint)


def _is_union(hint: Any) -> bool:
    return get_origin(hint) in (Union, types.UnionType)
