"""What a checkpoint remembers of where its data is."""

from collections.abc import Sequence
from typing import Any

from softlabels.inputs.tables.opening import title_of
from softlabels.store.inputs import source_place
from softlabels.store.records import Plan


def place(data: str, live: bool) -> dict[str, Any]:
    return {"data": data} | ({"live": True} if live else {})


def place_of(plan: Plan, source: Any) -> dict[str, Any]:
    """Of the inputs of a dump. source: --source"""
    if source is None:
        return place(source_place(plan), plan.source.origin == "live")
    return place(title_of(source), not isinstance(source, str))


def remembered(named: Sequence[str]) -> str | list[str] | None:
    """--input-column: what was said once as text."""
    return (named[0] if len(named) == 1 else list(named)) if named else None
