"""Which row of a foreign file belongs to which row of the source.

Shapes: R rows of the file, S rows of the source.
"""

import csv
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from softlabels.errors import AlignmentError, SourceError
from softlabels.exchange.arrays import as_int64, load_numpy
from softlabels.exchange.foreign import Foreign, make_texts
from softlabels.inputs.sources import Source
from softlabels.store.inputs import find_ids

UNPROVEN = (
    "keys taken for the source's row numbers, though they are positions in the order of the "
    "data that the file was made of, which nothing proves to be the source's"
)
PLAIN = re.compile(r"0|-?[1-9][0-9]{0,18}")


def match(foreign: Foreign, given: Path | None, source: Source, where: str) -> tuple:
    """Where each source row stands in the file, int64 [S], −1 where it doesn't; and how they
    were matched, as text.

    The ids are those of the file `given`, else those that the file itself holds; without any, the
    source's order is taken if the counts are equal. Raises AlignmentError for unknown or repeated
    ids and for other counts, SourceError for an id file that can't be understood.
    """
    numbered = foreign.keys and source.columns.id is None
    ids, origin = _ids(foreign, given, where, numbered)
    if ids is None:
        if foreign.rows != len(source):
            raise AlignmentError(
                f"{where} has {foreign.rows:,} rows and no ids; {source.data!r}, split "
                f"{source.split!r}, has {len(source):,} rows. Name the rows with --ids, or point "
                f"--data and --split at the rows that the logits are of"
            )
        return np.arange(len(source)), origin
    if len(ids) != foreign.rows:
        raise AlignmentError(
            f"{given or where} has {len(ids):,} ids for {foreign.rows:,} rows of {where}; expected "
            f"is one id for each row"
        )
    ids = _as_the_source(ids, source, given or where, foreign.keys and given is None)
    order = np.argsort(ids, kind="stable")
    twice = np.flatnonzero(ids[order][1:] == ids[order][:-1])
    if len(twice):
        shown = ids[order][twice[0]].item()
        raise AlignmentError(
            f"{given or where} has the id {shown!r} more than once; ids are unique"
        )
    places = find_ids(ids, source.ids, order)
    if (places >= 0).sum() < len(ids):
        known = find_ids(source.ids, ids) >= 0
        shown = ", ".join(map(repr, ids[~known][:5].tolist()))
        example = ", ".join(map(repr, source.ids[:3].tolist()))
        raise AlignmentError(
            f"{(~known).sum():,} of {len(ids):,} ids of {given or where} are not in "
            f"{source.data!r}, split {source.split!r}: first {shown}. Its ids are {example}, …; "
            f"choose --split, or the column with --id-column"
        )
    return places, origin


def _ids(
    foreign: Foreign, given: Path | None, where: str, numbered: bool
) -> tuple[np.ndarray | None, str]:
    if given is None:
        if foreign.ids is None:
            return None, "rows in the source's order, since there are no ids"
        return foreign.ids, "ids as in the file" if not numbered else UNPROVEN
    held = read_ids(given)
    origin = f"ids from {given.name}"
    if not isinstance(held, dict):
        if foreign.keys:
            raise SourceError(
                f"{where} names its rows by keys; a --ids file for it is a .json object from those "
                f"keys to ids"
            )
        return held, origin
    if foreign.ids is None or not foreign.keys:
        raise SourceError(f"{given} is an object; {where} has no keys that it could translate")
    missing = [key for key in foreign.ids.tolist() if key not in held]
    if missing:
        raise AlignmentError(
            f"{given} has no id for {len(missing):,} of {foreign.rows:,} keys of {where}: first "
            f"{missing[0]!r}"
        )
    return _as_ids([held[key] for key in foreign.ids.tolist()], given), origin


def read_ids(path: Path) -> np.ndarray | dict[str, Any]:
    """An id file: int64 or str [R]; or a dict from keys to ids.

    .npy of whole numbers or text; .json, a list or an object; .csv, one column of lines without a
    header; .txt, a line an id. Raises SourceError for anything else.
    """
    if path.suffix == ".npy":
        held = load_numpy(path, mapped=True)  # no memory for what a header promises
        if not isinstance(held, np.ndarray):
            raise SourceError(f"{path} is a .npz, not a .npy; save the ids with np.save")
        if held.ndim != 1 or held.dtype.kind not in "iuU":
            raise SourceError(
                f"{path} is {held.dtype} of the shape {list(held.shape)}; ids are whole numbers or "
                f"text, one for each row"
            )
        return np.array(held) if held.dtype.kind == "U" else as_int64(held, str(path))
    if path.suffix not in (".txt", ".csv", ".json"):
        raise SourceError(f"{path} ends in {path.suffix!r}; ids are a .npy, .txt, .csv or .json")
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".json":
            content = json.loads(text)
            return content if isinstance(content, dict) else _as_ids(content, path)
        if path.suffix == ".txt":
            return make_texts(_lines(text), path)
        lines = list(csv.reader(io.StringIO(text)))
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise SourceError(f"{path} can't be read: {reason}") from error
    wide = next((line for line in lines if len(line) != 1), None)
    if wide is not None:
        shown = repr(wide)[:80]
        raise SourceError(f"{path} has a line of {len(wide)} cells: {shown}; expected is one id")
    return make_texts([line[0] for line in lines], path)


def _lines(text: str) -> list[str]:
    """Only a line feed ends one: an id may hold what else Unicode ends lines with."""
    return text.removesuffix("\n").split("\n") if text else []


def _as_ids(values: Any, path: Path) -> np.ndarray:
    kinds = {type(value) for value in values} if isinstance(values, Sequence) else set()
    if kinds == {int}:
        try:
            return np.array(values, np.int64)
        except OverflowError as error:
            raise SourceError(f"{path} has an id that is no int64") from error
    if kinds == {str}:
        return make_texts(values, path)
    raise SourceError(f"{path}: ids are whole numbers or texts, all of one kind")


def _as_the_source(ids: np.ndarray, source: Source, where: object, keys: bool) -> np.ndarray:
    """Lines of a text file are numbers where the source's ids are. keys: a file could translate."""
    if source.ids_are_text:
        if ids.dtype.kind != "U":
            raise AlignmentError(
                f"the ids of {where} are whole numbers, those of {source.data!r} text in the "
                f"column {source.columns.id!r}; choose another with --id-column"
            )
        return ids
    if ids.dtype.kind != "U":
        return ids
    wrong = next((text for text in ids.tolist() if not _is_plain(text)), None)
    if wrong is not None:
        column = "the rows' numbers" if source.columns.id is None else "whole numbers"
        other = ", or translate them with --ids, a .json object from them to ids" * keys
        raise AlignmentError(
            f"{where} has the id {wrong!r}; the ids of {source.data!r} are {column}. Name the "
            f"column of such ids with --id-column{other}"
        )
    return ids.astype(np.int64)


def _is_plain(text: str) -> bool:
    """Whether it is the usual way to write an int64: no two such texts are one number."""
    return bool(PLAIN.fullmatch(text)) and -(2**63) <= int(text) < 2**63
