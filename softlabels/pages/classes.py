"""The classes of a report: which are held for alike, and how well each is known."""

from typing import Any

from softlabels.pages.portrait import Portrait
from softlabels.reports.classes import CLASS_COLUMNS, LABEL_COLUMNS
from softlabels.reports.confusions import MOST_CLASSES, SOFT, Confusions
from softlabels.reports.families import Families
from softlabels.reports.page import Block, Chart, Heat, Remark, Section, Table, Text
from softlabels.reports.page.blocks import Cell
from softlabels.store.reader import DumpReader
from softlabels.system.extras import need
from softlabels.system.humanize import probability, short

NAME = 32  # characters
PAIRS, MORE_PAIRS = 12, 60
WHOLE = 20  # classes of which all pairs are one matrix
BLOCKS, MORE_BLOCKS = 6, 60  # families of more classes
WHAT = f"Mean soft targets at T = {SOFT:g}, in percent"
LEAVES = 40  # of a tree on a page
WORST, MOST = 12, 1000  # classes of the table


def confusion_section(reader: DumpReader, portrait: Portrait, names: list[str]) -> Section:
    """Raises MissingExtra without scipy or matplotlib."""
    found = portrait.survey.confusions
    title = "Dark knowledge"
    if found is None:
        return Section(
            title,
            [Remark(f"Which classes are held for alike is found for up to {MOST_CLASSES:,} "
                    f"classes; this dump has {reader.plan.classes:,}.")],
        )  # fmt: skip
    names = [short(name, NAME) for name in names]
    families = Families.of(found)
    by = "label" if found.by == "label" else "top class, for want of labels"
    what = (
        "How probable the teacher holds each other label of rows that have one"
        if reader.plan.several_labels
        else "What the soft targets say beside the top class: how probable the teacher holds each "
        "other class for the rows of one"
    )
    blocks: list[Block] = [
        Text(f"{what}. It is the mean over all rows, by their {by}."),
        *_pairs(found, names),
    ]
    if len(families.order) <= WHOLE:
        blocks += [_matrix(found, families.order, names, f"{WHAT}; alike classes side by side")]
    else:
        blocks += _blocks(found, families, names)
    if 3 <= len(families.order) <= LEAVES:
        blocks.append(_tree(families, names))
    return Section(title, blocks)


def _pairs(found: Confusions, names: list[str]) -> list[Block]:
    pairs = found.pairs(MORE_PAIRS)
    if not pairs:
        return [Remark("No class is ever held for another.")]
    errors = found.taken is not None
    head = ["classes", "at T = 1", f"at T = {SOFT:g}", *["errors"] * errors]
    rows: list[list[Cell]] = [
        [f"{names[one.first]} ↔ {names[one.second]}", probability(one.probability),
         probability(one.softly), *[one.errors] * errors]
        for one in pairs
    ]  # fmt: skip
    columns = range(1, len(head))
    tables: list[Block] = [
        Table(
            "The most confused pairs: how probable rows of one are held for the other, both ways",
            head,
            rows[:PAIRS],
            tuple(columns),
        )
    ]
    if rows[PAIRS:]:
        more = f"{len(rows) - PAIRS} more pairs"
        tables.append(Table(more, head, rows[PAIRS:], tuple(columns), folded=True))
    return tables


def _matrix(found: Confusions, classes: list[int], names: list[str], caption: str) -> Heat:
    mean = found.mean(SOFT)[classes][:, classes]
    own = [names[c] for c in classes]
    return Heat(
        caption,
        f"{found.by} ↓, held for →",
        own,
        own,
        mean.tolist(),
        [[_percent(q) for q in row] for row in mean],
        diagonal=False,
    )


def _percent(q: float) -> str:
    return "0" if q == 0 else "<0.1" if q < 0.0005 else f"{100 * q:.1f}"


def _blocks(found: Confusions, families: Families, names: list[str]) -> list[Block]:
    """Of many classes the families within which they are confused, the most confused first."""
    branches = families.branches()
    blocks: list[Block] = [
        Text(
            f"Of {len(families.order):,} classes these families are the most confused within. "
            f"{WHAT}."
        )
    ]
    for place, family in enumerate(branches[:BLOCKS], 1):
        blocks.append(_matrix(found, family, names, f"Family {place}"))
    rest = branches[BLOCKS : BLOCKS + MORE_BLOCKS]
    if rest:
        rows: list[list[Cell]] = [
            [", ".join(names[c] for c in family), len(family), probability(families.within(family))]
            for family in rest
        ]
        head = ["classes", "how many", f"held for another of them, at T = {SOFT:g}"]
        blocks.append(Table(f"{len(rest)} more families", head, rows, (1, 2), folded=True))
    return blocks


def _tree(families: Families, names: list[str]) -> Chart:
    own = [names[c] for c in families.classes]

    def draw(figure: Any) -> None:
        hierarchy: Any = need("scipy.cluster.hierarchy", "plot", "the order of classes")
        from softlabels.reports.page import charts

        axes = figure.subplots()
        hierarchy.dendrogram(
            families.tree, labels=own, orientation="left", ax=axes,
            link_color_func=lambda node: charts.SERIES[0], leaf_font_size=12,
        )  # fmt: skip
        axes.set(xlabel="distance of mean soft targets (Hellinger)")
        axes.grid(False, axis="y")
        axes.spines[["left"]].set_visible(False)
        axes.tick_params(axis="y", labelcolor=charts.INK)

    return Chart(
        "A tree of the classes",
        "A dendrogram. Classes that join at a small distance are held for alike: in its order, "
        + ", ".join(names[c] for c in families.order),
        draw,
        caption="Classes that join early have mean soft targets alike: the teacher holds them for "
        "much the same.",
        height=90 + 22 * len(own),
    )


def class_section(portrait: Portrait, names: list[str]) -> Section | None:
    """How well the teacher knows each class; None without labels."""
    if portrait.survey.labels is not None:
        entries, columns = portrait.survey.labels.sorted, LABEL_COLUMNS
        last: list[str] = []
        what = "labels, the worst found first"
    else:
        table = portrait.looked.table(names)
        entries = sorted(
            (one for one in table.classes if one["rows"]),
            key=lambda one: (one["recall"], -one["rows"]),
        )
        columns, last = CLASS_COLUMNS, ["taken_for"]
        what = "classes, the least recalled first"
    if not entries:
        return None
    head = ["label" if last == [] else "class", *columns.values(), *["often taken for"] * len(last)]
    rows = [
        [short(one["name"], NAME), *(_cell(one[name]) for name in columns),
         *(short(one[name] or "", NAME) for name in last)]
        for one in entries
    ]  # fmt: skip
    numbers = tuple(range(1, 1 + len(columns)))
    shown = rows[:WORST]
    blocks: list[Block] = [
        Table(f"{len(shown)} of {len(rows):,} {what}", head, shown, numbers)
        if len(rows) > WORST
        else Table(what[:1].upper() + what[1:], head, shown, numbers)
    ]
    if rows[WORST:]:
        more = rows[WORST:MOST]
        beyond = len(rows) - WORST - len(more)
        left = f"; {beyond:,} are left out" if beyond else ""
        blocks.append(Table(f"The other {len(more):,}{left}", head, more, numbers, folded=True))
    if not last:
        measures = portrait.survey.labels
        assert measures is not None, "several labels have a table of them"
        blocks.insert(0, Text(f"{measures.summary[:1].upper()}{measures.summary[1:]}."))
    else:
        unseen = len(names) - len(rows)
        blocks += [Text(f"No row has the label of {unseen:,} more.")] if unseen else []
    return Section("Class by class", blocks)


def _cell(value: float | None) -> str | int | None:
    return value if value is None or isinstance(value, int) else f"{value:.4f}"
