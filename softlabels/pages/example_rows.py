"""The rows of a report: examples, those where the teacher errs, the softest."""

from typing import Any

import numpy as np

from softlabels.logits import Logits
from softlabels.pages.pictures import ShownInput, show_inputs
from softlabels.pages.portrait import Portrait
from softlabels.reports.choosing import first_views, spread
from softlabels.reports.page import Block, Group, Remark, Section, SoftRow, SoftRows, Text
from softlabels.reports.page.soft_rows import START, packed
from softlabels.reports.rows import ShownRow, shown_rows
from softlabels.store.reader import DumpReader
from softlabels.system.humanize import counted, few, probability, short

TOP = 5  # classes of a row
NAME = 60  # characters
VALUES = 1_500_000  # bytes of all logits of a page, as it writes them
WRITTEN = 5.4  # bytes of a value: four, in base64
COUNTED = 4  # and of its count, where it stands for several classes


def row_section(reader: DumpReader, portrait: Portrait, count: int, source: Any = None) -> Section:
    """count: rows of each group, at most; source: of the inputs, if not where the dump says."""
    plan, groups = reader.plan, _groups(reader, portrait, count)
    rows = np.unique(np.concatenate([chosen for _, _, chosen in groups]))
    logits, which = reader.logits_of(rows)
    temperatures = (1.0, START) if logits.is_dense else (1.0,)
    shown = shown_rows(reader, rows, temperatures, TOP).rows
    times = sum(np.isin(rows, chosen).astype(int) for _, _, chosen in groups)
    firsts = [shown[i] for i in np.unique(which, return_index=True)[1]]
    inputs = show_inputs(reader, rows, firsts, source, np.asarray(times))
    values, rests = kept_values(logits, shown), _rests(logits, shown, temperatures[-1])
    cards = [
        _card(reader, row, inputs.inputs[place], value, rest)
        for row, place, value, rest in zip(shown, which.tolist(), values, rests, strict=True)
    ]
    placed = [
        Group(title, text, [int(p) for row in chosen for p in np.flatnonzero(rows[which] == row)])
        for title, text, chosen in groups
    ]
    blocks: list[Block] = [
        Text(_intro(reader, logits.is_dense, any(counts is not None for _, counts in values)))
    ]
    blocks += [Remark(inputs.missing)] if inputs.missing else []
    return Section("Rows", [*blocks, SoftRows(cards, placed, plan.link, logits.is_dense)])


def _groups(
    reader: DumpReader, portrait: Portrait, count: int
) -> list[tuple[str, str, np.ndarray]]:
    """Of each group its heading, a sentence, and its rows in their order."""
    sample = spread(first_views(reader), count)
    groups = [("Examples", f"{counted(len(sample), 'row')}, spread over the dump.", sample)]
    if portrait.mistaken is not None and len(portrait.mistaken):
        what = (
            "Rows with a label that is furthest from what it should be."
            if reader.plan.several_labels
            else "Rows whose top class is not the label, the most confident first. Some of these "
            "labels may be wrong."
        )
        groups.append(("Where the teacher errs", what, portrait.mistaken))
    if portrait.softest is not None:
        what = "Rows with the most entropy at T = 1: here the teacher is least sure."
        groups.append(("The softest", what, portrait.softest))
    return groups


def _intro(reader: DumpReader, is_dense: bool, is_packed: bool) -> str:
    of_views = " Of an input with several views the first is shown." * reader.plan.has_views
    of_views += " Pictures are shown as they are, not as the view draws them." * (
        reader.plan.has_views and reader.plan.source.kind is None
    )
    if not is_dense:
        return f"Soft targets at T = 1: this dump does not store all logits.{of_views}"
    of_views += (
        " So that the page stays small, it holds the smaller logits of a row in groups of nearly "
        "equal ones: what the slider shows is right to about 0.001. softlabels show is exact."
    ) * is_packed
    return (
        f"The dump stores raw logits, so the temperature is yours to choose: move the slider, "
        f"which starts at T = {START:g}, and the page recomputes the soft targets.{of_views}"
    )


def kept_values(logits: Logits, shown: list[ShownRow]) -> list:
    """What the page holds of each row's logits."""
    classes = [[one.number for one in row.top] for row in shown]
    most = int(VALUES / WRITTEN / len(shown))
    if logits.classes > most:
        most = int(VALUES / (WRITTEN + COUNTED) / len(shown))
    soft = logits.dense() if logits.is_dense else logits.temper(1).log_probs()
    values_MC = soft.float().numpy()
    return [packed(z, own, most) for z, own in zip(values_MC, classes, strict=True)]


def _rests(logits: Logits, shown: list[ShownRow], T: float) -> list[float]:
    """The probability of the classes of each row that are not shown."""
    q_MC = logits.temper(T).probs().double().cpu().numpy()
    for q_C, row in zip(q_MC, shown, strict=True):
        q_C[[one.number for one in row.top]] = 0
    return list(map(float, q_MC.sum(-1)))


def _card(
    reader: DumpReader, row: ShownRow, shown: ShownInput, value: tuple, rest: float
) -> SoftRow:
    labels = row.label if isinstance(row.label, list) else [row.label]
    values, counts = value
    return SoftRow(
        title=f"id {short(str(row.id), NAME)}",
        facts=list(_facts(row)),
        classes=[
            (short(one.name, NAME), one.number in labels, one.probabilities[-1]) for one in row.top
        ],
        rest=rest,
        values=values,
        counts=counts,
        lines=shown.lines,
        picture=shown.picture,
        is_small=shown.is_small,
    )


def _facts(row: ShownRow) -> list[str]:
    facts = [] if row.view is None else [f"view {row.view}"]
    facts += [] if row.position is None else [f"position {row.position}"]
    if isinstance(row.label_name, list):
        names = few([short(name, NAME) for name in row.label_name])
        facts.append(f"labels {names}" if names else "no label")
    elif row.label_name is not None:
        facts.append(f"label {short(row.label_name, NAME)}")
    if row.label_source is not None:
        facts.append(f"own label {short(row.label_source, NAME)}")
    top = row.top[0]
    facts.append(
        f"top class at T = 1: {short(top.name, NAME)}, {probability(top.probabilities[0])}"
    )
    return facts
