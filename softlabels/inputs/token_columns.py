"""Which columns of a table are tokens: `input_ids`, and by name what belongs to it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import datasets

from softlabels.errors import SourceError
from softlabels.models.tokens import BESIDE, IDS, MASK
from softlabels.system.humanize import few

# columns of a dump, and keys of its batches
TAKEN = ("id", "view", "input", "input_hash", "label", "label_source", "logits", "soft_target",
         "targets", "positions", "loss_mask")  # fmt: skip


@dataclass(frozen=True)
class TokenColumns:
    """inputs: `input_ids` first, the others by name; mask: `attention_mask`, where it is there;
    notes: for the user"""

    inputs: tuple[str, ...]
    mask: str | None
    notes: tuple[str, ...] = ()


def named_tokens(features: dict[str, Any], named: Sequence[str]) -> TokenColumns | None:
    """Of the columns that the user named; None where `input_ids` is not among them. A mask comes
    along: without it, padding would be taken for tokens.

    Raises SourceError where one of them holds no lists of whole numbers.
    """
    if IDS not in named:
        return None
    for name in named:
        if not is_tokens(features[name]) and not (name == MASK and is_mask(features[name])):
            raise SourceError(
                f"--input-column: {name!r} holds {_kind(features[name])}, and beside {IDS!r} each "
                f"column is a list of whole numbers a row, one a token"
                + _remedy(features[name])
                * (name == IDS)
            )
        if name in TAKEN:
            raise SourceError(
                f"--input-column: rows of a dump have a column {name!r} of their own; rename it"
            )
    mask = _mask(features)
    notes = () if mask is None or mask in named else (f"{MASK} says how long rows are",)
    return TokenColumns(_ordered([name for name in named if name != MASK]), mask, notes)


def found_tokens(features: dict[str, Any], rest: Sequence[str]) -> TokenColumns | None:
    """Of the columns `rest`, which are neither label nor id; None where `input_ids` is not among
    them. Raises SourceError where other columns could be the input too."""
    if IDS not in rest or not is_tokens(features[IDS]):
        return None
    mask = _mask(features)
    beside = [name for name in BESIDE if name in rest and is_tokens(features[name])]
    inputs = _ordered([IDS, *beside])
    others = [name for name in rest if name not in (*inputs, MASK)]
    pictures = [name for name in others if isinstance(features[name], datasets.Image)]
    if pictures:
        raise SourceError(
            f"several columns could be the input: {', '.join([*pictures, IDS])}; choose with "
            f"--input-column"
        )
    along = [*inputs[1:], *([] if mask is None else [mask])]
    note = f"inputs: {IDS}{' with ' * bool(along)}{few(along)}, by name"
    if others:
        note += f"; left out: {few(others)}"
    return TokenColumns(inputs, mask, (note,))


def refuse_written_out(features: dict[str, Any], rest: Sequence[str]) -> None:
    """Raises SourceError where the tokens are written out as texts, `[101, 2023, …]`, and nothing
    else could be the input."""
    texts = [name for name in rest if "string" in _dtype(features[name])]
    if IDS in texts and not set(texts) - {IDS, MASK, *BESIDE}:
        raise SourceError(
            f"the column {IDS!r} holds {_kind(features[IDS])}, no lists of whole numbers"
            + _remedy(features[IDS])
        )


def is_tokens(feature: Any) -> bool:
    """Whether a column holds lists of whole numbers."""
    return isinstance(feature, datasets.List) and _dtype(feature.feature).startswith(
        ("int", "uint")
    )


def is_mask(feature: Any) -> bool:
    """Whether a column holds lists of whole numbers, or of true and false."""
    inner = _dtype(feature.feature) if isinstance(feature, datasets.List) else ""
    return inner.startswith(("int", "uint", "bool"))


def _mask(features: dict[str, Any]) -> str | None:
    if MASK not in features:
        return None
    if not is_mask(features[MASK]):
        raise SourceError(
            f"the column {MASK!r} holds {_kind(features[MASK])}; beside {IDS!r} it is a list a row "
            f"of 1 for a token and 0 for padding. Rename it if it is something else"
        )
    return MASK


def _ordered(names: Sequence[str]) -> tuple[str, ...]:
    return (IDS, *sorted(name for name in names if name != IDS))


def _dtype(feature: Any) -> str:
    return str(getattr(feature, "dtype", "")) if isinstance(feature, datasets.Value) else ""


def _kind(feature: Any) -> str:
    if isinstance(feature, datasets.List):
        return f"lists of {_dtype(feature.feature) or 'lists'}"
    return _dtype(feature) or type(feature).__name__


def _remedy(feature: Any) -> str:
    if "string" in _dtype(feature):
        return ": a CSV file holds none; write tokens as lists in JSONL or Parquet"
    return ""
