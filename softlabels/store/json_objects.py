"""JSON objects from strangers' files, read with limits; and what is wrong with one, in words."""

import json
from functools import cache
from typing import Any

from pydantic import BaseModel, ValidationError

from softlabels.errors import DamagedDump

MAX_JSON_BYTES = 64 << 20
MAX_DEPTH = 100  # ours have fewer than ten levels; functions that walk a value call themselves
MAX_PROBLEMS = 1000
SHOWN = 80  # characters of a wrong value

Json = dict[str, Any]


def parse_object(content: bytes, where: str) -> Json:
    """Raises DamagedDump unless this is one JSON object of few levels. NaN and Infinity are not
    JSON."""
    try:
        value = json.loads(content, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise DamagedDump(f"{where} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise DamagedDump(f"{where} holds {type(value).__name__}, not an object")
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        cells = (item.values() if isinstance(item, dict) else item for item in level)
        level = [cell for some in cells for cell in some if isinstance(cell, dict | list)]
        if not level:
            return value
    raise DamagedDump(f"{where} is nested too deeply; expected are at most {MAX_DEPTH} levels")


def problem_of(error: ValidationError, model: type[BaseModel]) -> str:
    """The first thing that is wrong with a value for this model: its place, the value (shortened),
    and what was expected there, by the descriptions of the model's fields."""
    if error.error_count() > MAX_PROBLEMS:  # naming them would take more memory than they
        return f"has {error.error_count():,} wrong or unknown fields"
    first = error.errors(include_url=False)[0]
    path, expected = _find(model, first["loc"])
    kind = first["type"]
    if kind == "value_error":
        return f"{path}: {first['ctx']['error']}".removeprefix(": ")
    problem = f"is {_shown(first['input'])}, expected {expected}"
    if kind == "missing":
        above, _, name = path.rpartition(".")
        path, problem = above, f"lacks {name}: {expected}"
    elif kind == "extra_forbidden":
        problem = "is unknown to this softlabels; a later one may read it"
    elif kind == "string_unicode":
        problem = "has text that can't be UTF-8"
    return f"{path} {problem}".lstrip()


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")


def _shown(value: Any) -> str:
    """The value as JSON, shortened. Of a container only its kind, since it may be huge."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    text = json.dumps(value[:SHOWN] if isinstance(value, str) else value, ensure_ascii=True)
    return text if len(text) <= SHOWN + 2 else f"{text[:SHOWN]}…"


@cache
def _schema(model: type[BaseModel]) -> Json:
    return model.model_json_schema()


def _find(model: type[BaseModel], place: tuple[str | int, ...]) -> tuple[str, str]:
    """A place in a value as people write it, and what the model expects there."""
    definitions, node, path = _schema(model).get("$defs", {}), _schema(model), ""
    for part in place:
        inner = _enter(node, part, definitions)
        if inner is None and (isinstance(part, int) or "anyOf" in node):
            break  # this part is not a place but the type that was tried, of several
        path += f"[{part}]" if isinstance(part, int) else f".{json.dumps(part[:SHOWN])[1:-1]}"
        node = inner or {}
    return path.removeprefix("."), _expected(node, definitions)


def _enter(node: Json, part: str | int, definitions: Json) -> Json | None:
    """The schema of what is at `part` of a value that `node` describes."""
    for option in node.get("anyOf", [node]):
        whole = _resolve(option, definitions)
        if isinstance(part, int):
            inner = whole.get("items")
        else:
            inner = whole.get("properties", {}).get(part) or whole.get("additionalProperties")
        if isinstance(inner, dict):
            return inner
    return None


def _resolve(node: Json, definitions: Json) -> Json:
    resolved: Json = definitions[node["$ref"].rpartition("/")[2]] if "$ref" in node else node
    return resolved


def _expected(node: Json, definitions: Json) -> str:
    """The description of a field, and that of its type."""
    options = [_resolve(option, definitions) for option in node.get("anyOf", [])]
    if "$ref" in node:
        options = [_resolve(node, definitions)]
    own = str(node.get("description", ""))
    if own and any(option.get("type") == "object" for option in options):
        return own  # which says that it is an object
    types = [str(option.get("description", option.get("type"))) for option in options]
    return ": ".join(text for text in (own, ", or ".join(types)) if text)
