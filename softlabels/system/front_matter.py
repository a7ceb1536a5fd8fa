"""The YAML at the top of a Markdown file, between two lines of dashes: the header of a card."""

import re
from typing import Any

import yaml

BLOCK = re.compile(
    r"\A\ufeff?\s*---[ \t]*\r?\n(.*?)^---[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE
)


def split_front_matter(text: str) -> tuple[str, str]:
    """The YAML, empty where there is none, and the text below it."""
    block = BLOCK.match(text)
    return (block[1], text[block.end() :]) if block else ("", text.removeprefix("\ufeff"))


def read_front_matter(text: str) -> dict[str, Any]:
    """Its fields. Raises yaml.YAMLError for what is no mapping of names to values."""
    fields = yaml.safe_load(split_front_matter(text)[0]) or {}
    if not isinstance(fields, dict):
        raise yaml.YAMLError("it is no mapping of names to values")
    return fields
