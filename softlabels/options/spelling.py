"""From options to the command that gives them."""

import shlex
from dataclasses import fields
from typing import Any

from softlabels.options.option import Options, flag_of

LINE = 100  # characters, after which the next option begins a line


def command_of(verb: str, options: Options, without: tuple[str, ...] = ()) -> str | None:
    """What a shell runs for these options, of which those at their defaults are left out. None
    where one is an object in memory, or a mapping, which no command can say.

    without: names of options that are left out, too
    """
    values, flags = [f"softlabels {verb}"], []
    for one in fields(options):
        value = getattr(options, one.name)
        if value == one.default or one.name in without:
            continue
        each = value if isinstance(value, tuple) else (value,)
        if one.metadata["only_python"] or not all(isinstance(v, str | int | float) for v in each):
            return None
        if one.metadata["positional"]:
            values += [shlex.quote(_spelled(part)) for part in each]
        elif isinstance(value, bool):
            flags.append(flag_of(one.name) if value else f"--no-{flag_of(one.name)[2:]}")
        else:
            flag = (one.metadata["flag"] or flag_of(one.name)).split()[0]
            flags += [f"{flag} {shlex.quote(_spelled(part))}" for part in each]
    lines = [" ".join(values)]
    for flag in flags:
        if len(lines[-1]) + len(flag) < LINE:
            lines[-1] += f" {flag}"
        else:
            lines.append(f"    {flag}")
    return " \\\n".join(lines)


def _spelled(value: Any) -> str:
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)
