"""Classes of the data matched with those of the model: by name, by a file, or by number."""

import csv
import json
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from softlabels.errors import LabelSpaceMismatch, UsageError
from softlabels.label_spaces import LabelSpace, match_label_spaces
from softlabels.system.humanize import counted, few, short
from softlabels.system.progress import Progress

BY_NUMBER = "by-number"
HOW = (
    'write JSON, {"class of the data": "class of the model"}, or a CSV file of two columns; null, '
    "or an empty cell, leaves the rows of a class out"
)


def match_classes(
    model: LabelSpace, data: LabelSpace, given: str | None, progress: Progress
) -> Tensor | None:
    """Of each class of the data its number in the model, int64, −1 for none; None where both number
    them alike. given: --map-labels.

    Raises LabelSpaceMismatch for other classes, UsageError for a map that does not fit.
    """
    if given is None:
        try:
            return match_by_name(model, data, progress)
        except LabelSpaceMismatch as error:
            raise LabelSpaceMismatch(f"{error}. {_ways_out(model, data)}") from error
    if given == BY_NUMBER:
        _check_counts(model, data)
        progress.say(
            f"classes of {data.who} are matched by number, as --map-labels {BY_NUMBER} has it: "
            f"{_pairs(data, model, range(data.classes or 0))}"
        )
        return None
    numbers = _numbers(read_label_map(given), model, data, given)
    progress.say(f"classes of {data.who} are matched by {given}: {_pairs(data, model, numbers)}")
    return torch.tensor(numbers, dtype=torch.int64)


def match_by_name(ours: LabelSpace, theirs: LabelSpace, progress: Progress) -> Tensor | None:
    """Of each class of theirs its number in ours, int64 [C]; None where they are the same."""
    matched = match_label_spaces(ours, theirs)
    if matched.note:
        progress.say(matched.note + "; they are matched by name" * (matched.order is not None))
    return None if matched.order is None else torch.tensor(matched.order)


def read_label_map(file: str) -> dict[str, str | None]:
    """A class of the data → the model's, None for none. Raises UsageError for a file that can't be
    read, and that says two things of a class."""
    try:
        text = Path(file).expanduser().read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise UsageError(
            f"--map-labels: there is no file {file}; {HOW}. {BY_NUMBER} takes classes by their "
            f"numbers"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--map-labels {file} can't be read as text ({error}); {HOW}") from error
    is_json = file.lower().endswith(".json") or text.lstrip()[:1] == "{"
    pairs = list(_of_json(text, file) if is_json else _of_csv(text, file))
    if not pairs:
        raise UsageError(f"--map-labels {file} maps no class; {HOW}")
    found: dict[str, str | None] = {}
    for name, target in pairs:
        if found.setdefault(name, target) != target:
            raise UsageError(
                f"--map-labels {file} maps {short(name)!r} to {_named(found[name])} and to "
                f"{_named(target)}; map each class of the data once"
            )
    return found


def _of_json(text: str, file: str) -> Iterable[tuple[str, str | None]]:
    def pairs(entries: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
        return entries  # a dict would keep the last of a key that comes twice

    try:
        value = json.loads(text, object_pairs_hook=pairs)
    except ValueError as error:
        raise UsageError(f"--map-labels {file} is no JSON ({error}); {HOW}") from error
    if not text.lstrip().startswith("{"):
        raise UsageError(f"--map-labels {file} holds {short(str(value))}; {HOW}")
    for name, target in value:
        is_number = isinstance(target, int) and not isinstance(target, bool)
        if not (target is None or isinstance(target, str) or is_number):
            shown = short(json.dumps(target, default=str))
            raise UsageError(f"--map-labels {file} maps {short(name)!r} to {shown}; {HOW}")
        yield name, None if target is None else str(target)


def _of_csv(text: str, file: str) -> Iterable[tuple[str, str | None]]:
    for line, cells in enumerate(csv.reader(text.splitlines()), 1):
        if not cells:
            continue
        if len(cells) != 2:
            raise UsageError(
                f"--map-labels {file}: line {line} has {counted(len(cells), 'cell')}, expected are "
                f"a class of the data and one of the model; {HOW}"
            )
        name, target = (cell.strip() for cell in cells)
        if line == 1 and (name.lower(), target.lower()) == ("data", "model"):
            continue
        yield name, target or None


def _numbers(
    mapped: dict[str, str | None], model: LabelSpace, data: LabelSpace, file: str
) -> list[int]:
    """Of each class of the data its number in the model, −1 for none. A class that the file does
    not name is the model's of the same name."""
    names = data.names or list(map(str, range(max(data.classes or 0, _beyond(mapped)))))
    ours = model.names or list(map(str, range(model.classes or 0)))
    for what, asked, known, who in (
        ("maps", list(mapped), names, data.who),
        ("maps a class to", [t for t in mapped.values() if t is not None], ours, model.who),
    ):
        for name in asked:
            if name not in known:
                near = few([repr(short(one)) for one in get_close_matches(name, known, 3)])
                raise UsageError(
                    f"--map-labels {file} {what} {short(name)!r}, which is no class of {who}; "
                    f"{'near it are ' + near if near else 'its classes are ' + few(known)}"
                )
    if twins := [t for t in mapped.values() if t is not None and ours.count(t) > 1]:
        raise UsageError(
            f"--map-labels {file} maps a class to {short(twins[0])!r}, which is the name of "
            f"{ours.count(twins[0])} classes of {model.who}; name one that comes once"
        )
    place = {name: number for number, name in enumerate(ours)}
    whole = {name: name for name in names} | mapped
    missing = [name for name in names if (to := whole[name]) is not None and to not in place]
    if missing:
        raise LabelSpaceMismatch(
            f"--map-labels {file} does not name {len(missing)} of the classes of {data.who}, none "
            f"of which {model.who} has: "
            f"{few([short(name) for name in missing])}; {HOW}"
        )
    return [-1 if (to := whole[name]) is None else place[to] for name in names]


def _beyond(mapped: dict[str, str | None]) -> int:
    """One more than the largest number that a map of unnamed classes names."""
    return max((int(name) + 1 for name in mapped if name.isdecimal()), default=0)


def _check_counts(model: LabelSpace, data: LabelSpace) -> None:
    if data.classes not in (None, model.classes):
        raise LabelSpaceMismatch(
            f"--map-labels {BY_NUMBER}: {data}, {model}; classes are matched by their numbers only "
            f"if there are as many. {HOW[0].upper()}{HOW[1:]}"
        )
    ours, theirs = model.names or [], data.names or []
    if ours != theirs and sorted(ours) == sorted(theirs):
        raise LabelSpaceMismatch(
            f"--map-labels {BY_NUMBER}: {data}, {model}: these are the same names in another "
            f"order, so their numbers mean other classes. Leave it out: they are matched by name"
        )


def _ways_out(model: LabelSpace, data: LabelSpace) -> str:
    numbers = f"; --map-labels {BY_NUMBER} takes them by number"
    same = model.classes == data.classes
    return f"--map-labels FILE says which class of the model each is{numbers * same}"


def _pairs(data: LabelSpace, model: LabelSpace, numbers: Iterable[int]) -> str:
    pairs = [
        f"{_name(data, here)} is {'left out' if there < 0 else _name(model, there)}"
        for here, there in enumerate(numbers)
    ]
    return few(pairs, most=5) or "numbers are the model's"


def _name(space: LabelSpace, number: int) -> str:
    return repr(short(space.names[number])) if space.names else str(number)


def _named(target: str | None) -> str:
    return "none" if target is None else repr(short(target))
