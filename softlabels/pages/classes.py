"""The classes of a report: which are confused, and how well each is known."""

from typing import Any

from softlabels.pages.portrait import Portrait
from softlabels.reports.classes import CLASS_COLUMNS, LABEL_COLUMNS
from softlabels.reports.confusions import MOST_CLASSES, SOFT, Confusions, Pair
from softlabels.reports.families import Families
from softlabels.reports.page import Block, Chart, Heat, Remark, Section, Table, Text
from softlabels.reports.page.blocks import Cell
from softlabels.store.reader import DumpReader
from softlabels.system.extras import need
from softlabels.system.humanize import counted, probability, shortened

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
            [Remark(f"Which classes are confused is found for up to {MOST_CLASSES:,} classes; "
                    f"this dump has {reader.plan.classes:,}.")],
        )  # fmt: skip
    whole, names = names, shortened(names, NAME)
    families = Families.of(found)
    blocks: list[Block] = [Text(_over(found, reader.plan.several_labels)), *_pairs(found, names)]
    if len(families.order) <= WHOLE:
        blocks += [_matrix(found, families.order, names, whole,
                           f"{WHAT}; similar classes side by side")]  # fmt: skip
    else:
        blocks += _blocks(found, families, names, whole)
    if 3 <= len(families.order) <= LEAVES:
        blocks.append(_tree(families, names))
    return Section(title, blocks)


def _over(found: Confusions, several: bool) -> str:
    """What the means of the section are over."""
    rows, there = int(found.rows.sum()), int((found.rows > 0).sum())
    if several:
        text = (
            "Which labels the teacher gives to rows that don't have them: for rows with one label, "
            "the mean probability of each other label among the rows without that one."
        )
    elif found.by == "label":
        text = (
            f"What the soft targets say beyond the top class: for rows of one class, the mean "
            f"probability of each other class, over {counted(rows, 'row')} with a label."
        )
    else:
        text = (
            f"What the soft targets say beyond the top class: for rows of one class, the mean "
            f"probability of each other class, over {counted(rows, 'row')}. The rows have no "
            f"labels, so they are grouped by their top class."
        )
    without = len(found.rows) - there
    if without:
        text += (
            f" {without:,} of {len(found.rows):,} classes have no rows, and are not among the "
            f"classes below."
            if several or found.by == "label"
            else f" {without:,} of {len(found.rows):,} classes are the top class of no row."
        )
    return text


def _pairs(found: Confusions, names: list[str]) -> list[Block]:
    pairs = found.pairs(MORE_PAIRS)
    if not pairs:
        return [Remark("No class is ever confused with another.")]
    errors = found.taken is not None
    head = ["classes", "rows of each", "at T = 1", f"at T = {SOFT:g}", *["errors"] * errors]
    rows: list[list[Cell]] = [
        [*_direction(one, names), probability(one.probability), probability(one.softly),
         *[one.errors] * errors]
        for one in pairs
    ]  # fmt: skip
    columns = range(1, len(head))
    tables: list[Block] = [
        Table(
            "The most confused pairs: the mean probability of the other class, both ways (→: one "
            "way, where only the first class has rows). Classes of few rows rank lower",
            head,
            rows[:PAIRS],
            tuple(columns),
        )
    ]
    if rows[PAIRS:]:
        more = f"{len(rows) - PAIRS} more pairs"
        tables.append(Table(more, head, rows[PAIRS:], tuple(columns), folded=True))
    return tables


def _direction(pair: Pair, names: list[str]) -> tuple[str, str]:
    """The classes of a pair, and the rows of each: the only one that has rows comes first."""
    order = [(pair.first, pair.rows[0]), (pair.second, pair.rows[1])]
    order.sort(key=lambda one: one[1] == 0)
    (first, rows), (second, others) = order
    return f"{names[first]} {'↔' if others else '→'} {names[second]}", f"{rows:,} + {others:,}"


def _matrix(
    found: Confusions, classes: list[int], names: list[str], whole: list[str], caption: str
) -> Heat:
    """names: of all classes, short; whole: as they are."""
    mean = found.mean(SOFT)[classes][:, classes]
    own = [names[c] for c in classes]
    return Heat(
        caption,
        f"{found.by} ↓, confused with →",
        own,
        own,
        mean.tolist(),
        [[_percent(q) for q in row] for row in mean],
        diagonal=False,
        whole_names=[whole[c] for c in classes],
    )


def _percent(q: float) -> str:
    return "0" if q == 0 else "<0.1" if q < 0.0005 else f"{100 * q:.1f}"


def _blocks(
    found: Confusions, families: Families, names: list[str], whole: list[str]
) -> list[Block]:
    """Of many classes the families within which they are confused, the most confused first."""
    branches = families.branches()
    blocks: list[Block] = [
        Text(
            f"Of {len(families.order):,} classes, these are the groups whose classes are confused "
            f"with each other the most. {WHAT}."
        )
    ]
    for place, family in enumerate(branches[:BLOCKS], 1):
        blocks.append(_matrix(found, family, names, whole, f"Group {place}"))
    rest = branches[BLOCKS : BLOCKS + MORE_BLOCKS]
    if rest:
        rows: list[list[Cell]] = [
            [", ".join(names[c] for c in family), len(family), probability(families.within(family))]
            for family in rest
        ]
        head = ["classes", "how many", f"probability of the others, at T = {SOFT:g}"]
        blocks.append(Table(f"{len(rest)} more groups", head, rows, (1, 2), folded=True))
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
        "A dendrogram. Classes that join at a small distance have similar soft targets. Its order: "
        + ", ".join(names[c] for c in families.order),
        draw,
        caption="Classes that join early have similar mean soft targets.",
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
    shorter = dict(zip(names, shortened(names, NAME), strict=True))
    head = [
        "label" if last == [] else "class",
        *columns.values(),
        *["often mistaken for"] * len(last),
    ]
    rows = [
        [shorter[one["name"]], *(_cell(one[name]) for name in columns),
         *(shorter.get(one[name], "") for name in last)]
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
