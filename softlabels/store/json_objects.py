"""JSON objects from files that may be anybody's."""

import json
from typing import Any

from softlabels.errors import DamagedDump

MAX_JSON_BYTES = 64 << 20


def parse_object(content: bytes, where: str) -> dict[str, Any]:
    """Raises DamagedDump unless this is one JSON object. NaN and Infinity are not JSON."""
    try:
        value = json.loads(content, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise DamagedDump(f"{where} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise DamagedDump(f"{where} holds {type(value).__name__}, not an object")
    return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")
