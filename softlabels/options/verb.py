"""From a dataclass of options to a verb: a keyword function with a signature and help. Options
whose field is not `kw_only` may also be given by their place."""

import inspect
import textwrap
from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any, ParamSpec, Protocol, TypeVar, cast, get_args, get_type_hints

from softlabels.errors import UsageError
from softlabels.options.option import Options, choices_of, hints_of, make_options, objects_of
from softlabels.system.progress import SILENT, Progress

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
O = TypeVar("O", bound=Options)  # noqa: E741
WIDTH = 96
PROGRESS = "Hears what the verb does: a line at a time, and bars. Default: says nothing."


class Verb(Protocol[P, R_co]):
    """A keyword function made from options. `run` takes the options as one object."""

    def __call__(self, *args: P.args, **given: P.kwargs) -> R_co: ...

    def run(self, options: Any, progress: Progress = SILENT) -> R_co: ...


def verb(
    options: Callable[P, O],
) -> Callable[[Callable[[O, Progress], R]], Verb[P, R]]:
    """A decorator: `body(options, progress)` becomes a function that takes the options as keywords.

    Its signature shows every option with its default, and its docstring their help.
    """
    kind = cast(type[Options], options)
    places = [one.name for one in fields(kind) if not one.kw_only]  # few verbs have such

    def decorate(body: Callable[[O, Progress], R]) -> Verb[P, R]:
        def call(*args: Any, progress: Progress = SILENT, **given: Any) -> R:
            if len(args) > len(places):
                raise UsageError(_no_positions(body.__name__, kind, args[len(places) :]))
            for name, value in zip(places, args, strict=False):
                if name in given:
                    raise UsageError(f"{name} is given twice: {value!r} and {given[name]!r}")
                given[name] = value
            return body(make_options(kind, given), progress)  # type: ignore[arg-type]

        call.__name__ = call.__qualname__ = body.__name__
        call.__module__ = body.__module__
        call.__doc__ = _doc(body, kind)
        result = get_type_hints(body).get("return", Any)
        call.__signature__ = signature(kind, result)  # type: ignore[attr-defined]
        parameters = call.__signature__.parameters.values()  # type: ignore[attr-defined]
        call.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": result}
        call.run = body  # type: ignore[attr-defined]
        return cast(Verb[P, R], call)

    return decorate


def signature(options: type[Options], result: Any) -> inspect.Signature:
    """Every option as a keyword: required ones first, the others in their order, progress last."""
    types = get_type_hints(options)  # without bounds, which only `checked` needs
    for name, hint in hints_of(options).items():
        if objects := objects_of(hint):
            may_be_none = type(None) in get_args(types[name])
            types[name] = objects.types() | None if may_be_none else objects.types()
    keywords = [
        inspect.Parameter(
            one.name,
            inspect.Parameter.KEYWORD_ONLY
            if one.kw_only
            else inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=inspect.Signature.empty if one.default is MISSING else one.default,
            annotation=types[one.name],
        )
        for one in own_first(options)
    ]
    progress = inspect.Parameter(
        "progress", inspect.Parameter.KEYWORD_ONLY, default=SILENT, annotation=Progress
    )
    keywords.sort(key=lambda one: one.default is not inspect.Signature.empty)
    return inspect.Signature([*keywords, progress], return_annotation=result)


def own_first(options: type[Options]) -> list[Any]:
    """The fields of a command; its own come before those that it shares with others."""
    owners = owners_of(options)
    return sorted(fields(options), key=lambda one: owners[one.name] is not options)


def owners_of(options: type[Options]) -> dict[str, type]:
    """For each option the class that declares it, the most derived one."""
    return {
        name: owner
        for owner in reversed(options.__mro__)
        for name in vars(owner).get("__annotations__", ())
    }


def described(options: type[Options], one: Any) -> str:
    """The help of an option, and its choices."""
    choices = choices_of(hints_of(options)[one.name])
    text: str = one.metadata["help"]
    return f"{text} One of {', '.join(choices)}." if choices else text


def help_of(options: type[Options], one: Any) -> str:
    """The help of an option, and its default unless the help names it."""
    default, text = one.default, described(options, one)
    if default in (MISSING, None, ()) or isinstance(default, bool):
        return text
    values = default if isinstance(default, tuple) else (default,)
    shown = [f"{value:g}" if isinstance(value, float) else str(value) for value in values]
    return f"{text} Default: {', '.join(shown)}."


def _doc(body: Callable[..., Any], options: type[Options]) -> str:
    lines = [f"{one.name}: {help_of(options, one)}" for one in own_first(options)]
    all_keywords = all(one.kw_only for one in fields(options))
    heading = "Options, all of them keywords:" if all_keywords else "Options:"
    lines.append(f"progress: {PROGRESS}")
    wrapped = [
        textwrap.fill(
            line, WIDTH, initial_indent="    ", subsequent_indent="        ", break_on_hyphens=False
        )
        for line in lines
    ]
    return "\n".join([inspect.getdoc(body) or "", "", heading, *wrapped])


def _no_positions(name: str, options: type[Options], args: tuple[Any, ...]) -> str:
    others = [one for one in own_first(options) if one.kw_only]
    first = "progress" if isinstance(args[0], Progress) else others[0].name
    places = [repr(one.name) for one in fields(options) if not one.kw_only]
    alone = f"alone after {' and '.join(places)}" if places else "alone"
    return f"{name} takes keywords {alone}; name what {args[0]!r:.60} is, such as {first}=…"
