"""The JSON Schema of the records, `softlabels-1.schema.json`, as functions that check a value.

Every reader holds records against it, a large dump has 200,000 of them, and the package jsonschema
takes 0.1 s to import and 0.03 to 0.1 ms for each: so the few keywords that the schema uses are
compiled here, and another keyword is refused. The tests hold the answers against jsonschema's.
"""

import json
import re
from collections.abc import Callable, Iterable
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

SCHEMA = "softlabels-1.schema.json"
SHOWN = 80  # characters of a wrong value

Json = dict[str, Any]


class Problem(NamedTuple):
    """What is wrong, in the words that follow a place; `path` leads there from the value."""

    words: str
    path: tuple[str | int, ...] = ()

    def at(self, part: str | int) -> "Problem":
        return Problem(self.words, (part, *self.path))

    def __str__(self) -> str:
        steps = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in self.path)
        return f"{''.join(steps).removeprefix('.')} {self.words}".lstrip()


Check = Callable[[Any], Problem | None]


@cache
def read_schema() -> Json:
    schema: Json = json.loads(files(__package__).joinpath(SCHEMA).read_text(encoding="utf-8"))
    return schema


@cache
def record_check(name: str) -> Check:
    """The check of a `plan`, a `commit` or a `manifest`: the first problem of a value, or None."""
    return _compile(read_schema()["$defs"][name])


def _compile(schema: Json) -> Check:
    wrong = f"expected {schema.get('description', 'another value')}"
    checks: list[Check] = []
    unknown = set(schema) - set(KEYWORDS) - {"description", "else"}
    assert not unknown, f"keywords without a rule: {unknown}"
    for keyword, rule in KEYWORDS.items():
        if keyword in schema:
            checks.append(rule(schema[keyword], schema, wrong))
    if len(checks) == 1:
        return checks[0]

    def check(value: Any) -> Problem | None:
        for one in checks:
            problem = one(value)
            if problem is not None:
                return problem
        return None

    return check


def _must(holds: Callable[[Any], bool], wrong: str) -> Check:
    return lambda value: None if holds(value) else Problem(f"is {_shown(value)}, {wrong}")


def _shown(value: Any) -> str:
    """The value as JSON has it, cut short. A container says only what it is: it may be huge."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    text = json.dumps(value[:SHOWN] if isinstance(value, str) else value, ensure_ascii=True)
    return text if len(text) <= SHOWN + 2 else f"{text[:SHOWN]}…"


def _ref(target: str, schema: Json, wrong: str) -> Check:
    found: Json = read_schema()
    for part in target.removeprefix("#/").split("/"):
        found = found[part]
    if "description" in schema:
        found = found | {"description": f"{schema['description']}: {found['description']}"}
    return _compile(found)


def _type(names: str | list[str], schema: Json, wrong: str) -> Check:
    kinds: tuple[type, ...] = ()
    for name in [names] if isinstance(names, str) else names:
        kinds += TYPES[name]
    return _must(lambda value: type(value) in kinds, wrong)  # a bool is no int here


def _bound(keyword: str) -> Callable[[Any, Json, str], Check]:
    def rule(bound: int | float, schema: Json, wrong: str) -> Check:
        if keyword == "minimum":
            return _must(lambda v: not _is_number(v) or v >= bound, wrong)
        return _must(lambda v: not _is_number(v) or v <= bound, wrong)

    return rule


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _length(kind: type[str] | type[list]) -> Callable[[Any, Json, str], Check]:
    return lambda most, schema, wrong: _must(
        lambda v: not isinstance(v, kind) or len(v) <= most, wrong
    )


def _pattern(text: str, schema: Json, wrong: str) -> Check:
    assert (text[0], text[-1]) == ("^", "$"), "the whole text; and Python's $ lets a newline follow"
    matches = re.compile(text[1:-1]).fullmatch
    return _must(lambda v: not isinstance(v, str) or matches(v) is not None, wrong)


def _required(names: list[str], schema: Json, wrong: str) -> Check:
    wanted = schema.get("properties", {})
    told = {name: wanted.get(name, {}).get("description") for name in names}

    def check(value: Any) -> Problem | None:
        if isinstance(value, dict):
            for name in names:
                if name not in value:
                    return Problem(f"lacks {name}" + (f": {told[name]}" if told[name] else ""))
        return None

    return check


def _properties(schemas: dict[str, Json], schema: Json, wrong: str) -> Check:
    checks = {name: _compile(inner) for name, inner in schemas.items()}
    return lambda value: (
        _first((n, value[n], c) for n, c in checks.items() if n in value)
        if isinstance(value, dict)
        else None
    )


def _additional(inner: bool | Json, schema: Json, wrong: str) -> Check:
    known = set(schema.get("properties", {}))
    if isinstance(inner, bool):
        assert not inner
        words = "is unknown to this softlabels; a later one may read it"
        each: Check = lambda value: Problem(words)  # noqa: E731
    else:
        each = _compile(inner)
    return lambda value: (
        _first((json.dumps(n[:SHOWN])[1:-1], v, each) for n, v in value.items() if n not in known)
        if isinstance(value, dict)
        else None
    )


def _items(inner: Json, schema: Json, wrong: str) -> Check:
    each = _compile(inner)
    return lambda value: (
        _first((i, v, each) for i, v in enumerate(value)) if isinstance(value, list) else None
    )


def _first(parts: Iterable[tuple[str | int, Any, Check]]) -> Problem | None:
    for name, value, check in parts:
        problem = check(value)
        if problem is not None:
            return problem.at(name)
    return None


def _if(condition: Json, schema: Json, wrong: str) -> Check:
    holds, other = _compile(condition), _compile(schema["else"])
    return lambda value: other(value) if holds(value) is not None else None


TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
# in the order of checking: a pattern sees only what is short
KEYWORDS: dict[str, Callable[[Any, Json, str], Check]] = {
    "$ref": _ref,
    "type": _type,
    "const": lambda one, schema, wrong: _must(lambda v: type(v) is type(one) and v == one, wrong),
    "enum": lambda some, schema, wrong: _must(lambda v: isinstance(v, str) and v in some, wrong),
    "minimum": _bound("minimum"),
    "maximum": _bound("maximum"),
    "maxLength": _length(str),
    "maxItems": _length(list),
    "pattern": _pattern,
    "required": _required,
    "properties": _properties,
    "additionalProperties": _additional,
    "items": _items,
    "if": _if,
}
