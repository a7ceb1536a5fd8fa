"""The rows of a report: examples, those where the teacher errs, the softest."""

import numpy as np

from softlabels.logits import Logits
from softlabels.pages.pictures import ShownInput, show_inputs
from softlabels.pages.portrait import Portrait
from softlabels.reports.choosing import first_views, spread
from softlabels.reports.page import Block, Group, Remark, Section, SoftRow, SoftRows, Text
from softlabels.reports.page.soft_rows import packed
from softlabels.reports.rows import ShownRow, shown_rows
from softlabels.store.reader import DumpReader
from softlabels.system.humanize import few, short

TOP = 5  # classes of a row
NAME = 60  # characters
VALUES = 1_500_000  # bytes of all logits of a page


def row_section(reader: DumpReader, portrait: Portrait, count: int) -> Section:
    """count: rows of each group, at most."""
    plan, groups = reader.plan, _groups(reader, portrait, count)
    rows = np.unique(np.concatenate([chosen for _, _, chosen in groups]))
    shown = shown_rows(reader, rows, (1.0,), TOP).rows
    logits, which = reader.logits_of(rows)
    inputs = show_inputs(reader, rows, [shown[i] for i in np.unique(which, return_index=True)[1]])
    values = _values(logits, shown, 4 * len(shown))
    cards = [
        _card(reader, row, inputs.inputs[place], value)
        for row, place, value in zip(shown, which.tolist(), values, strict=True)
    ]
    placed = [
        Group(title, text, [int(p) for row in chosen for p in np.flatnonzero(rows[which] == row)])
        for title, text, chosen in groups
    ]
    blocks: list[Block] = [Text(_intro(reader, logits.is_dense))]
    blocks += [Remark(inputs.missing)] if inputs.missing else []
    return Section("Rows", [*blocks, SoftRows(cards, placed, plan.link, logits.is_dense)])


def _groups(
    reader: DumpReader, portrait: Portrait, count: int
) -> list[tuple[str, str, np.ndarray]]:
    """Of each group its heading, a sentence, and its rows in their order."""
    sample = spread(first_views(reader), count)
    groups = [("Examples", f"{len(sample):,} rows, spread over the dump.", sample)]
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


def _intro(reader: DumpReader, is_dense: bool) -> str:
    of_views = " Of an input with several views the first is shown." * reader.plan.has_views
    of_views += " Pictures are shown as they are, not as the view draws them." * (
        reader.plan.has_views and reader.plan.source.kind is None
    )
    if not is_dense:
        return f"Soft targets at T = 1: this dump does not store all logits.{of_views}"
    return (
        f"The dump stores raw logits, so the temperature is yours to choose: move the slider, and "
        f"the page makes the soft targets anew.{of_views}"
    )


def _values(logits: Logits, shown: list[ShownRow], bytes_each: int) -> list:
    """What the page holds of each row's logits."""
    classes = [[one.number for one in row.top] for row in shown]
    most = VALUES // bytes_each  # of all rows that there may be, more than 1,000 each
    soft = logits.dense() if logits.is_dense else logits.temper(1).log_probs()
    values_MC = soft.float().numpy()
    return [packed(z, own, most) for z, own in zip(values_MC, classes, strict=True)]


def _card(reader: DumpReader, row: ShownRow, shown: ShownInput, value: tuple) -> SoftRow:
    labels = row.label if isinstance(row.label, list) else [row.label]
    values, counts = value
    return SoftRow(
        title=f"id {short(str(row.id), NAME)}",
        facts=list(_facts(row)),
        classes=[
            (short(one.name, NAME), one.number in labels, one.probabilities[0]) for one in row.top
        ],
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
    return facts
