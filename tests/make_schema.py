"""The JSON Schema of the records from their models: `python -m tests.make_schema` writes it."""

import json
from pathlib import Path
from typing import Any

from pydantic.json_schema import models_json_schema

from softlabels.store import fields, records

FILE = Path(records.__file__).with_name("softlabels-1.schema.json")
KINDS = {"plan": records.Plan, "commit": records.Commit, "manifest": records.Manifest}


def make_schema() -> dict[str, Any]:
    _, schema = models_json_schema([(kind, "validation") for kind in KINDS.values()])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:softlabels:format:1",
        "title": fields.FORMAT,
        "description": "The JSON files of a dataset of teacher logits: plan.json is "
        "#/$defs/Plan, commits/NNNNN.json are #/$defs/Commit, softlabels.json is "
        "#/$defs/Manifest. docs/format.md says the rest.",
        "anyOf": [{"$ref": f"#/$defs/{kind.__name__}"} for kind in KINDS.values()],
        "$defs": {name: untitled(inner) for name, inner in schema["$defs"].items()},
    }


def untitled(part: Any) -> Any:
    """Without the titles that pydantic makes of names."""
    if isinstance(part, list):
        return [untitled(inner) for inner in part]
    if not isinstance(part, dict):
        return part
    return {
        name: untitled(inner)
        for name, inner in part.items()
        if name != "title" or not isinstance(inner, str)
    }


def as_text() -> str:
    return json.dumps(make_schema(), indent=2) + "\n"


if __name__ == "__main__":
    FILE.write_text(as_text())
