"""Some rows of a dump, as people read them: the top classes by name, at several temperatures."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from softlabels.inputs.label_lists import Labels
from softlabels.inputs.whereabouts import recall
from softlabels.options import ShowOptions
from softlabels.options.verb import verb
from softlabels.places.folders import dump_folder
from softlabels.places.newest import newest_dump
from softlabels.reports.choosing import chosen_rows, first_views, rows_of_ids, spread
from softlabels.reports.inputs import plain_inputs
from softlabels.reports.markdown import shown, table
from softlabels.store.reader import DumpReader
from softlabels.store.records import Plan
from softlabels.system.humanize import counted, few, probability, short
from softlabels.system.progress import Progress

NAME, BAR = 32, 16  # characters of a class's name and of the longest bar
TEXT = 96  # characters of a text
TOKENS = 16  # of a row, or numbers of a column
EIGHTHS = " ▏▎▍▌▋▊▉█"
SAMPLE, SAMPLE_TOP, SAMPLE_T = 5, 3, (1.0, 4.0)  # of a card
SAMPLE_TEXT = 60  # characters


@dataclass(frozen=True)
class TopClass:
    """A class, its name (its number where it has none), and its probability at each T."""

    number: int
    name: str
    probabilities: list[float]


@dataclass(frozen=True)
class ShownRow:
    """A row of a dump, or one position of it.

    view, position: None where a row is the whole of an input, and where it has one position
    label, label_name: the hard label, or the list of those of a multi-label dump; None where there
        is none
    label_source: the name of its class among those of the data, where these are not the teacher's
    top: the classes of the largest logits, the largest first
    path: of the picture, if its id is a path and its folder is on this disk
    text: of a dump of texts, if the dump holds it or its data are on this disk; a pair as a dict
    tokens: of a dump of tokens likewise, its columns by name
    columns: of a dump of columns of numbers likewise, each a number or (nested) lists
    """

    id: int | str
    view: int | None
    position: int | None
    label: int | list[int] | None
    label_name: str | list[str] | None
    label_source: str | None
    top: list[TopClass]
    path: str | None
    text: str | dict[str, str] | None = None
    tokens: dict[str, list[int]] | None = None
    columns: dict[str, Any] | None = None


@dataclass(frozen=True)
class ShownRows:
    """Rows of a dump at these temperatures; prints as a table for each row."""

    dump: str
    classes: int
    link: str
    temperatures: list[float]
    rows: list[ShownRow]

    def __repr__(self) -> str:
        return f"ShownRows({self.dump}: {counted(len(self.rows), 'row')})"

    def __str__(self) -> str:
        return "\n\n".join("\n".join(self._lines(row)) for row in self.rows)

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"

    @property
    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def _lines(self, row: ShownRow) -> Iterator[str]:
        yield _head(row)
        yield from (f"    {line}" for line in input_lines(row))
        left = self.classes - len(row.top) if self.link == "softmax" else 0  # others sum to nothing
        others = f"{left:,} others" if left else ""
        width = max(len(text) for text in (others, *(short(one.name, NAME) for one in row.top)))
        columns = [f"T = {T:g}".ljust(8 + BAR) for T in self.temperatures]
        yield f"    {'':<{width}}  {'  '.join(columns)}".rstrip()
        largest = row.top[0].probabilities
        for one in row.top:
            mark = "*" if one.number in _as_list(row.label) else " "
            bars = [_bar(q / most) for q, most in zip(one.probabilities, largest, strict=True)]
            yield _line(f"  {mark} {short(one.name, NAME):<{width}}", one.probabilities, bars)
        if left:
            sums = [sum(one.probabilities[i] for one in row.top) for i in range(len(largest))]
            rest = [max(0.0, 1 - part) for part in sums]
            yield _line(f"    {others:<{width}}", rest, [""] * len(rest))


@verb(ShowOptions)
def show(options: ShowOptions, progress: Progress) -> ShownRows:
    """Some rows of a dump: the top classes of each by name, with their probabilities at some T.

    The rows are spread over the dump, in its order. Only their logits are read, unless `wrong` has
    to look at all. Raises UsageError for an id or a class that the dump does not have, and where
    no row is left; IncompleteDump, StoreError or DamagedDump for what is no complete dump.
    """
    dump = options.dump
    if dump is None:
        dump = str(newest_dump())
        progress.say(f"dump: {dump}, the newest complete one")
    reader = DumpReader(dump_folder(dump, "nothing", progress))
    if options.id:
        rows = rows_of_ids(reader, [str(id) for id in options.id])
    else:
        rows = chosen_rows(reader, options.class_, options.wrong, options.rows)
    made = shown_rows(reader, rows, options.T, options.top)
    kind = reader.plan.source.kind
    if kind is None:
        return made
    inputs = plain_inputs(reader, rows, progress)
    of_row = [{str(kind): inputs.get(row.id)} for row in made.rows]  # a field is called so
    rows_with = [replace(row, **own) for row, own in zip(made.rows, of_row, strict=True)]  # type: ignore[arg-type]
    return replace(made, rows=rows_with)


def shown_rows(
    reader: DumpReader, rows: np.ndarray, temperatures: Sequence[float], top: int
) -> ShownRows:
    """These rows (ascending) with their `top` most probable classes, and their label's."""
    plan, names = reader.plan, reader.plan.source.class_names
    logits, which = reader.logits_of(rows)
    top_MK = logits.temper(1).top(min(top, plan.classes))[1]  # in the same order at any T
    log_q = [logits.temper(T).log_probs().double() for T in temperatures]
    ids, labels = reader.ids[rows], _records(reader.labels, rows)
    own = None if reader.labelled else _records(reader.source_labels, rows)
    views = reader.views[rows] if plan.has_views else None
    path_of = _paths(plan)
    made = []
    for position, row in enumerate(which.tolist()):
        label = None if labels is None else labels[row]
        classes = dict.fromkeys([*top_MK[position].tolist(), *_as_list(label)])
        id = ids[row].item()
        made.append(
            ShownRow(
                id=id,
                view=None if views is None else int(views[row]),
                position=None if plan.positions == 1 else position - int((which < row).sum()),
                label=label,
                label_name=_label_name(label, names),
                label_source=None if own is None else _own_name(plan, own[row]),
                top=[
                    TopClass(c, _name(c, names), [float(q[position, c].exp()) for q in log_q])
                    for c in classes
                ],
                path=path_of(id),
            )
        )
    return ShownRows(str(reader.folder), plan.classes, plan.link, list(temperatures), made)


def sample(reader: DumpReader, progress: Progress) -> str:
    """A few rows for the card, in Markdown; beside them the beginnings of their texts, if the dump
    holds its inputs: whoever has the card has these, and no others are given away."""
    plan, rows = reader.plan, spread(first_views(reader), SAMPLE)
    made = shown_rows(reader, rows, SAMPLE_T, SAMPLE_TOP)
    has_texts = plan.source.kind == "text" and plan.with_inputs
    texts = plain_inputs(reader, rows, progress) if has_texts else {}
    names = plan.source.columns.inputs if texts else []
    has_labels = any(row.label is not None for row in made.rows)
    heads = ["id", *map(shown, names), *(["label"] if has_labels else [])]
    heads += [f"T = {T:g}" for T in SAMPLE_T]
    lines = []
    for row in made.rows:
        cells = [
            ", ".join(f"{shown(short(one.name, NAME))} {probability(one.probabilities[i])}"
                      for one in row.top[:SAMPLE_TOP])
            for i in range(len(SAMPLE_T))
        ]  # fmt: skip
        label = [shown(_label_text(row, NAME))] if has_labels else []
        text = texts.get(row.id, "")
        parts = [text] if isinstance(text, str) else [text[name] for name in names]
        beginnings = [shown(short(part, SAMPLE_TEXT)) for part in parts] if names else []
        lines.append([shown(short(str(row.id))), *beginnings, *label, *cells])
    return f"Soft targets of some rows, the {SAMPLE_TOP} most probable classes:\n\n" + table(
        heads, lines
    )


def _records(labels: Labels | None, rows: np.ndarray) -> list[Any] | None:
    """The labels of these rows as numbers or lists of them, None where they are unknown."""
    if labels is None:
        return None
    chosen = labels[rows]
    return [None if value == -1 else value for value in chosen.tolist()]


def _as_list(label: int | list[int] | None) -> list[int]:
    return label if isinstance(label, list) else [] if label is None else [label]


def _label_name(label: int | list[int] | None, names: list[str] | None) -> str | list[str] | None:
    if isinstance(label, list):
        return [_name(number, names) for number in label]
    return None if label is None else _name(label, names)


def _label_text(row: ShownRow, length: int) -> str:
    """A row's label, or its several, in a line."""
    if isinstance(row.label_name, list):
        return few([short(name, length) for name in row.label_name]) or "none"
    return short(row.label_name or "", length)


def _paths(plan: Plan) -> Callable[[int | str], str | None]:
    """Where the picture of an id lies on this disk."""
    root = recall(plan.source.identity) if plan.source.origin == "local" else None

    def path_of(id: int | str) -> str | None:
        if root is None or not isinstance(id, str) or not os.path.isdir(root):
            return None
        for folder in (Path(root), Path(root, plan.source.split)):
            path = folder / id
            if path.is_file() and path.resolve().is_relative_to(Path(root).resolve()):
                return str(path)
        return None

    return path_of


def _name(number: int, names: list[str] | None) -> str:
    return names[number] if names else str(number)


def _own_name(plan: Plan, number: int | None) -> str | None:
    return None if number is None else _name(number, plan.source.label_source_names)


def _head(row: ShownRow) -> str:
    parts = [f"id {short(str(row.id))}"]
    parts += [] if row.view is None else [f"view {row.view}"]
    parts += [] if row.position is None else [f"position {row.position}"]
    if row.label_name is not None:
        many = isinstance(row.label_name, list) and len(row.label_name) != 1
        parts.append(f"label{'s' * many} {_label_text(row, NAME)} *")
    if row.label_source is not None:
        parts.append(f"own label {short(row.label_source, NAME)}")
    parts += [] if row.path is None else [short(row.path, 200)]
    return "   ".join(parts)


def input_lines(row: ShownRow, most: int = TEXT) -> Iterator[str]:
    """The input of a row in lines, of a text up to `most` characters."""
    if isinstance(row.text, str):
        yield short(row.text, most)
    elif row.text is not None:
        yield from (f"{name}: {short(text, most)}" for name, text in row.text.items())
    for name, numbers in (row.tokens or {}).items():
        shown_numbers = " ".join(map(str, numbers[:TOKENS])) + " …" * (len(numbers) > TOKENS)
        yield f"{name}: {shown_numbers} ({counted(len(numbers), 'token')})"
    for name, value in (row.columns or {}).items():
        yield f"{short(name, NAME)}: {numbers_line(value)}"


def numbers_line(value: Any) -> str:
    """The first numbers of an array, and its shape where there are more."""
    flat = np.array(value)
    some = " ".join(f"{number:.4g}" for number in flat.ravel()[:TOKENS])
    return some + f" … ({list(flat.shape)})" * (flat.size > TOKENS)


def _line(name: str, parts: list[float], bars: list[str]) -> str:
    cells = [f"{probability(q):<7} {bar:<{BAR}}" for q, bar in zip(parts, bars, strict=True)]
    return f"{name}  {'  '.join(cells)}".rstrip()


def _bar(part: float) -> str:
    """A bar of up to BAR characters, in eighths of one."""
    eighths = round(part * BAR * 8)
    whole, rest = divmod(eighths, 8)
    return "█" * whole + EIGHTHS[rest].strip()
