"""The YAML at the top of a card: the owner's lines, unchanged, beside ours."""

import re
from collections.abc import Mapping
from typing import Any

import yaml

from softlabels.errors import UsageError
from softlabels.reports.card import card_yaml
from softlabels.system.front_matter import read_front_matter, split_front_matter

LISTS = ("tags", "task_categories", "source_datasets")  # an owner may add to them
FIELD = re.compile(r"([A-Za-z_][\w-]*):(?:\s|$)")


def split_header(card: str) -> tuple[dict[str, str], str]:
    """The fields of a card's YAML, each with its lines as they are written, and the text below.

    Raises UsageError for a header that is no YAML mapping.
    """
    header_fields(card)
    header, text = split_front_matter(card)
    blocks: dict[str, str] = {}
    name = ""
    for line in header.splitlines(keepends=True):
        if key := FIELD.match(line):
            name = key[1]
        blocks[name] = blocks.get(name, "") + line.rstrip("\r\n") + "\n"
    return blocks, text


def write_header(
    ours: dict[str, Any], theirs: dict[str, str], given: Mapping[str, str | None]
) -> str:
    """The YAML of a card: `theirs` as written, then ours.

    given: fields of the command line, which replace theirs where they are not None.
    """
    theirs = dict(theirs)
    lists = {name: _together(name, theirs.pop(name, ""), ours.get(name) or []) for name in LISTS}
    ours = {name: values for name, values in lists.items() if values} | {
        name: value for name, value in ours.items() if name not in LISTS
    }
    for name, value in given.items():
        if value:
            theirs[name] = yaml.safe_dump({name: value})
    kept = "".join(block for name, block in theirs.items() if name not in ours)
    return f"---\n{kept}{card_yaml(ours)}---\n\n"


def header_fields(card: str) -> dict[str, Any]:
    """The header of a card. Raises UsageError for one that is no YAML mapping."""
    try:
        return read_front_matter(card)
    except yaml.YAMLError as error:
        raise UsageError(
            f"the header of README.md can't be read; repair it first: {error}"
        ) from error


def _together(name: str, block: str, ours: list[str]) -> list[str]:
    """The values of a list field: the owner's, then ours."""
    value = yaml.load(block, yaml.BaseLoader)[name] if block else []
    theirs = value if isinstance(value, list) else [value] if value else []
    if not all(isinstance(value, str) for value in theirs):
        raise UsageError(f"the {name} in README.md's header are {theirs}; write a list of texts")
    both = dict.fromkeys([*theirs, *ours])
    return list(both) if name == "tags" else sorted(both)  # whichever dump was pushed last
