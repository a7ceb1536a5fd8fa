"""From an options dataclass to a command's flags, its YAML file, its errors' exit codes."""

import inspect
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import MISSING
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import typer

from softlabels.errors import SoftlabelsError, UsageError
from softlabels.options.option import (
    Options,
    flag_of,
    hints_of,
    make_options,
    no_option,
    objects_of,
)
from softlabels.options.verb import Verb, help_of, own_first, owners_of
from softlabels.system.humanize import elapsed_words, json_text
from softlabels.system.progress import SILENT, Progress

R = TypeVar("R")
MAPPINGS = "softlabels.mappings"  # where a run keeps what its YAML file says by names


class Terminated(KeyboardInterrupt):
    """SIGTERM: stop as after Ctrl-C, with another exit code."""


class Terminal:
    """The input and output of one run of a command."""

    def __init__(self, as_json: bool, log_json: bool) -> None:
        self.as_json, self.log_json = as_json, log_json
        self.began = time.monotonic()

    @property
    def took(self) -> str:
        """`took 3.7 s`, from the command's beginning to now."""
        return f"took {elapsed_words(time.monotonic() - self.began)}"

    @property
    def progress(self) -> Progress:
        from softlabels.cli.terminal import LogProgress, TerminalProgress

        if self.log_json:
            return LogProgress()
        return TerminalProgress() if os.environ.get("RANK", "0") == "0" else SILENT

    def run(self, verb: Verb[..., R], options: Options) -> R:
        """Run a verb; what it reports goes to stderr."""
        return verb.run(options, self.progress)

    def result(self, text: str, value: dict[str, Any] | list[Any]) -> None:
        """Print the result: one JSON object, or list, with --json, else text."""
        line = json_text(value) if self.as_json else text
        sys.stdout.write(line + "\n")  # in one write: ranks may print at the same time
        sys.stdout.flush()

    def error(self, text: str, kind: str) -> None:
        if self.log_json:
            from softlabels.cli.terminal import log_event

            log_event("error", text=text, kind=kind)
        else:
            print(f"softlabels: {text}", file=sys.stderr)


Body = Callable[..., None]

PANELS = {
    "SourceOptions": "Data", "LabelOptions": "Labels", "TrainingOptions": "Training",
    "ViewOptions": "Views", "TextOptions": "Texts", "MixOptions": "Several teachers",
}  # fmt: skip


def make_command(app: typer.Typer) -> Callable[[type], Callable[[Body], Body]]:
    """A decorator that registers a function as a command of `app`, whose flags are the fields of
    an options dataclass. The function gets a Terminal and the options; errors become text and
    exit codes.
    """

    def command(options: type) -> Callable[[Body], Body]:
        return lambda body: _register(app, options, body)

    return command


def _register(app: typer.Typer, options: type, body: Body) -> Body:
    def run(**given: Any) -> None:
        debug = given.pop("debug")
        terminal = Terminal(given.pop("json"), given.pop("log_json"))
        given.pop("config")
        given |= _mappings_of_file(given.pop("context"))

        def work() -> None:  # wrong options are refused before heavy imports
            body(terminal, make_options(options, given))

        guarded(debug, terminal, work)

    hints, owners = get_type_hints(options), owners_of(options)
    by_name = _by_name(hints_of(options))
    parameters = [
        _parameter(
            one,
            hints[one.name],
            help_of(options, one),
            PANELS.get(owners[one.name].__name__, "Options"),
        )
        for one in own_first(options)
        if not one.metadata["only_python"]
    ] + _common(by_name)
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__doc__ = body.__doc__
    app.command(body.__name__.rstrip("_"))(run)
    return body


def guarded(debug: bool, terminal: Terminal, work: Callable[[], None]) -> None:
    """Run a command; print its error to stderr and exit with 1 or 2, 130 after Ctrl-C, 143 after
    SIGTERM."""
    try:
        work()
    except KeyboardInterrupt as stop:
        if debug:
            raise
        raise SystemExit(143 if isinstance(stop, Terminated) else 130) from None
    except SoftlabelsError as error:
        if debug:
            raise
        terminal.error(str(error), type(error).__name__)
        raise SystemExit(error.exit_code) from None
    except BrokenPipeError:
        raise SystemExit(1) from None
    except Exception as error:
        if debug:
            raise
        terminal.error(unexpected(error), type(error).__name__)
        raise SystemExit(1) from None


def unexpected(error: Exception) -> str:
    """The message of an error that no verb translated: a file that can't be used, memory that is
    full, else a bug of this program."""
    from softlabels.system.memory import is_out_of_memory

    text = " ".join(str(error).split()) or "no message"
    text = text if len(text) <= 300 else f"{text[:300]}…"
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    if is_out_of_memory(error):
        return f"out of memory: {text}. A smaller --batch-size, model or picture takes less"
    return (
        f"a bug in softlabels: {type(error).__name__}, {text}. --debug shows where; please report "
        f"it"
    )


def _parameter(field: Any, hint: Any, help: str, panel: str) -> inspect.Parameter:
    flag = field.metadata["flag"] or flag_of(field.name)
    default = field.default
    if get_origin(hint) is tuple:  # said again for each value
        kind = get_args(hint)[0]
        hint = list[kind if kind in (int, float) else str]  # type: ignore[misc]
        default = default if default is MISSING else list(default)
    # No column of types, and defaults in the text: in 80 columns there is room for what counts.
    looks: dict[str, Any] = {"help": help, "metavar": "", "show_default": False}
    for kind, name in ((int, "integer"), (float, "number")):
        if kind in (hint, *get_args(hint)):
            literals = [one for part in get_args(hint) for one in get_args(part)]  # such as auto
            text = str in get_args(hint)  # which the options check
            looks |= {"parser": _number(kind, name, literals, text)}
            hint = kind if literals or text else hint
    if field.metadata["positional"]:
        door = typer.Argument(**looks | {"metavar": field.name.upper()})
    else:
        door = typer.Option(*flag.split(), rich_help_panel=panel, **looks)
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=... if default is MISSING else default,
        annotation=Annotated[hint, door],
    )


def _number(kind: type, name: str, literals: list[str], text: bool) -> Callable[[Any], Any]:
    """A parser of numbers whose error gives the value; these literals stay, or all text does."""

    def parse(value: Any) -> Any:
        if value in literals:
            return value
        try:
            if isinstance(value, bool):
                raise ValueError
            return kind(value)
        except (TypeError, ValueError):
            if text and isinstance(value, str):
                return value
            kinds = " or ".join([f"valid {name}", *literals])
            raise typer.BadParameter(f"{value!r} is not a {kinds}") from None

    return parse


def _by_name(hints: dict[str, Any]) -> list[str]:
    """The options that take a mapping from names."""
    objects = {name: objects_of(hint) for name, hint in hints.items()}
    return [name for name, kind in objects.items() if kind is not None and kind.by_name]


def _common(by_name: list[str]) -> list[inspect.Parameter]:
    """The flags of every command. by_name: the options that take a mapping in a YAML file"""
    doors = [
        (
            "config",
            str | None,
            None,
            typer.Option(
                help="A YAML file with these options; a flag beats the file.",
                callback=_reading_config(by_name),
                is_eager=True,
                rich_help_panel="General",
            ),
        ),
        (
            "json",
            bool,
            False,
            typer.Option("--json", help="Print one JSON object.", rich_help_panel="General"),
        ),
        (
            "log_json",
            bool,
            False,
            typer.Option(
                "--log-json",
                help="Messages and progress as JSON lines on stderr.",
                rich_help_panel="General",
            ),
        ),
        (
            "debug",
            bool,
            False,
            typer.Option("--debug", help="Show tracebacks.", rich_help_panel="General"),
        ),
    ]
    keyword = inspect.Parameter.KEYWORD_ONLY
    return [
        inspect.Parameter("context", keyword, annotation=typer.Context),
        *(
            inspect.Parameter(name, keyword, default=default, annotation=Annotated[hint, door])
            for name, hint, default, door in doors
        ),
    ]


def _reading_config(
    by_name: list[str],
) -> Callable[[typer.Context, str | None], str | None]:
    """The callback of --config. by_name: the options that take a mapping"""

    def read(context: typer.Context, path: str | None) -> str | None:
        if path is not None:
            _take_defaults(context, path, by_name)
        return path

    return read


def _take_defaults(context: typer.Context, path: str, by_name: list[str]) -> None:
    """Make a YAML file's values the defaults of this command's flags."""
    known = [p.name for p in context.command.params if p.name not in ("config", "help")]
    try:
        values = load_config(path, known)
    except UsageError as error:
        raise typer.BadParameter(str(error)) from None
    mappings = context.meta.setdefault(MAPPINGS, {})
    for param in context.command.params:  # of several values one may stand alone
        name = param.name or ""
        value = values.get(name)
        several = getattr(param, "multiple", False) or param.nargs == -1
        if isinstance(value, dict) and name not in by_name:
            instead = "write a list" if several else "write one value"
            raise typer.BadParameter(f"{path}: {name} is a mapping; {instead}")
        if isinstance(value, dict):  # no flag can say it, so it is put in their place afterwards
            mappings[name] = value
            value = [str(part) for part in value.values()]
        if several and value is not None:
            values[name] = value if isinstance(value, list) else [value]
        elif not several and isinstance(value, list):  # as on the command line: 0.7,0.3
            values[name] = ",".join(map(str, value))
    context.default_map = values


def _mappings_of_file(context: typer.Context) -> dict[str, Any]:
    """The options that the YAML file of this run says by names, and no flag says otherwise."""
    return {
        name: value
        for name, value in context.meta.get(MAPPINGS, {}).items()
        if (source := context.get_parameter_source(name)) and source.name == "DEFAULT_MAP"
    }


def load_config(path: str, known: Sequence[str | None]) -> dict[str, Any]:
    """A YAML mapping of option names, with `-` or `_`. Raises UsageError for anything else."""
    import yaml

    try:
        with open(path, encoding="utf-8") as file:
            content = yaml.safe_load(file) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"can't read {path}: {error}") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path} holds {type(content).__name__}; write lines such as 'epochs: 20'")
    named = {str(key).replace("-", "_"): value for key, value in content.items()}
    named = {f"{key}_" if f"{key}_" in known else key: value for key, value in named.items()}
    unknown = [key for key in named if key not in known]
    if unknown:
        raise UsageError(f"{path}: {no_option(unknown[0], map(str, known))}")
    return named
