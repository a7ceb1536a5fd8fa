"""A file that names a model's classes: one name a line, or JSON. C classes."""

import json
from pathlib import Path
from typing import Any

from softlabels.errors import UsageError
from softlabels.system.humanize import short

HOW = 'write one name a line, or JSON: ["cat", "dog"], or {"0": "cat", "1": "dog"}'


def read_class_names(file: str) -> list[str]:
    """The names of class 0, 1, …, without blanks around them.

    Raises UsageError for a file that can't be read, is empty, or whose names are not one text for
    each number from 0 on.
    """
    try:
        text = Path(file).expanduser().read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise UsageError(f"--class-names: there is no file {file}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--class-names {file} can't be read as text ({error}); {HOW}") from error
    is_json = file.lower().endswith(".json") or text.lstrip()[:1] in ("[", "{")
    names = _of_json(text, file) if is_json else text.rstrip().splitlines()
    for number, name in enumerate(names):
        if not isinstance(name, str) or not name.strip():
            shown = "is empty" if isinstance(name, str) else f"is {short(repr(name))}"
            raise UsageError(f"--class-names {file}: the name of class {number} {shown}; {HOW}")
    if not names:
        raise UsageError(f"--class-names {file} names no class; {HOW}")
    return [name.strip() for name in names]


def _of_json(text: str, file: str) -> list[Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UsageError(f"--class-names {file} is no JSON ({error}); {HOW}") from error
    if isinstance(value, list):
        return value
    if not isinstance(value, dict):
        raise UsageError(f"--class-names {file} holds {short(repr(value))}; {HOW}")
    missing = [number for number in range(len(value)) if str(number) not in value]
    if missing:
        strange = next(key for key in value if not key.isdecimal() or int(key) >= len(value))
        raise UsageError(
            f"--class-names {file} has {len(value):,} entries, one of them for "
            f"{short(repr(strange))} and none for class {missing[0]}; {HOW}"
        )
    return [value[str(number)] for number in range(len(value))]
