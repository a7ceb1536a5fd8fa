"""JSON objects from files that may be anybody's."""

import json
from typing import Any

from softlabels.errors import DamagedDump

MAX_JSON_BYTES = 64 << 20
MAX_DEPTH = 100  # ours are below ten; what walks through them calls itself at each


def parse_object(content: bytes, where: str) -> dict[str, Any]:
    """Raises DamagedDump unless this is one JSON object, of few levels. NaN and Infinity are not
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


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")
