"""A table that was opened, and which of the data's splits it is."""

from dataclasses import dataclass

from softlabels.errors import SourceError
from softlabels.inputs.tables.folders import ALIASES
from softlabels.inputs.tables.table import Table


@dataclass(frozen=True)
class Opened:
    """A table, the name of its split, its column of ids where the kind of data has one (a folder of
    images: the paths), and remarks for the user."""

    table: Table
    split: str
    id: str | None = None
    notes: tuple[str, ...] = ()


def check_split(where: object, split: str, splits: object) -> str:
    """The name that the data has for this split: the same, or its only synonym. Raises SourceError
    if there is none."""
    names = [str(name) for name in splits]  # type: ignore[attr-defined]
    meant = [name for name in names if meaning_of(name) == meaning_of(split)]
    if split in names or len(meant) == 1:
        return split if split in names else meant[0]
    raise SourceError(f"{where} has no split {split!r}; it has {', '.join(names)}: use --split")


def meaning_of(split: str) -> str:
    return ALIASES.get(split.lower(), split)
