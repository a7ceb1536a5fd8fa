"""The page of a comparison: how far two models are apart, and where."""

from itertools import pairwise
from typing import Any

from softlabels.pages.pictures import ShownInputs
from softlabels.reports.comparison import Comparison, Side, WorstRow, nats
from softlabels.reports.contrast import EDGES
from softlabels.reports.page import (
    Block,
    Chart,
    Facts,
    Heat,
    Page,
    PairedClass,
    PairedRow,
    PairedRows,
    Remark,
    Section,
    Table,
    Text,
    Tile,
    charts,
)
from softlabels.reports.wording import SMALL, verdict
from softlabels.system.humanize import counted, measured, short

NAME = 40  # characters
LONG = 60
MOST = 12  # classes of the matrix
LINES = 50  # of a table
CLASSES = 5  # of a row
PERCENTILES = {"p50": "50 %", "p90": "90 %", "p99": "99 %", "max": "largest"}
MEASURES = {
    "accuracy": "accuracy", "map": "mean average precision", "top5": "top-5 accuracy",
    "nll": "NLL, nats", "ece": "calibration error", "entropy": "entropy, nats",
}  # fmt: skip


def comparison_page(found: Comparison, inputs: ShownInputs) -> Page:
    """inputs: of the worst rows, in their order."""
    sections = [
        Section("What changed", _changes(found)),
        Section("Distance", _distance(found)),
        Section("Classes", _classes(found)),
    ]
    if found.views:
        sections.append(Section("Views", [_of_views(found)]))
    if found.worst:
        sections.append(Section("Rows", _rows(found, inputs)))
    a, b = (short(side.name, LONG) for side in (found.reference, found.other))
    answer = verdict(found.temperatures, found.flips, found.task == "multilabel")
    return Page(
        kind="Comparison",
        title=f"{b} compared with {a}",
        lead=f"Is {b} still {a}? {answer} Compared over {counted(found.rows, 'row')} of "
             f"{short(found.data)}, split {found.split}.",
        sections=sections,
        tiles=_tiles(found),
        foot=_foot(found),
    )  # fmt: skip


def _tiles(found: Comparison) -> list[Tile]:
    first, several = found.temperatures[0], found.task == "multilabel"
    same = "same label decisions" if several else "same top-1 prediction"
    tiles = [
        Tile(measured(found.agreement), same,
             f"share of {'the labels of ' * several}{counted(found.rows, 'row')}"),
        Tile(nats(first.kl["mean"]), f"mean KL at T = {first.T:g}", "nats"),
        Tile(nats(first.kl["p99"]), f"99th percentile of KL at T = {first.T:g}", "nats"),
    ]  # fmt: skip
    measure = "map" if several else "accuracy"
    both = [side.measures.get(measure) for side in (found.reference, found.other)]
    if None not in both:
        arrow = " → ".join(f"{value:.4f}" for value in both)
        tiles.append(Tile(arrow, MEASURES[measure], counted(found.labelled, "labelled row")))
    return tiles


def _foot(found: Comparison) -> str:
    both = zip("AB", (found.reference, found.other), strict=True)
    return "; ".join(f"{letter}: {side.made}" for letter, side in both) + "."


def _changes(found: Comparison) -> list[Block]:
    names = ("A, the reference", "B")
    facts = dict(zip(names, map(_title, (found.reference, found.other)), strict=True))
    what = "same label decisions" if found.task == "multilabel" else "same top-1 prediction"
    facts[what] = f"{100 * found.agreement:.2f} %"
    if found.top5_agreement is not None:
        facts["overlap of the top 5 classes"] = f"{100 * found.top5_agreement:.2f} %"
    both = (found.reference.measures, found.other.measures)
    rows: list[list[Any]] = [
        [title, *(None if name not in one else measured(one[name]) for one in both)]
        for name, title in MEASURES.items()
        if any(one.get(name) is not None for one in both)
    ]
    blocks: list[Block] = [Text(" ".join(found.summary)), Facts(facts)]
    first = found.temperatures[0]
    if first.is_of_storage and first.kl["max"]:
        blocks.insert(1, Remark(
            "The mean KL is no larger than rounding in storage explains. Nothing here shows that "
            "the models differ.", "warning"))  # fmt: skip
    head = ["measure, at T = 1", "A", "B"]
    return [*blocks, Table("Both against the labels", head, rows, (1, 2))]


def _title(side: Side) -> str:
    return f"{short(side.teacher, NAME)}, {side.codec}, in {side.dump}"


def _distance(found: Comparison) -> list[Block]:
    head = ["T", "mean", *(f"{name[1:]} %" for name in ("p50", "p90", "p99", "p99.9")), "largest",
            "total variation", "KL of storage"]  # fmt: skip
    rows = [
        [f"{at.T:g}", *map(nats, at.kl.values()), nats(at.total_variation["mean"]),
         None if at.storage is None else nats(at.storage)]
        for at in found.temperatures
    ]  # fmt: skip
    table = Table("KL(A ‖ B) in nats at each temperature: the mean and percentiles over rows", head,
                  rows, range(len(head)))  # fmt: skip
    blocks: list[Block] = [
        Text(
            "KL(A ‖ B) is the divergence of B's soft target from A's, in nats. Total variation is "
            "the largest difference in probability over all sets of classes. KL of storage is the "
            "part that storing the logits explains, as the codec recorded it or as estimated from "
            "their rounding; a dash where it is unknown, or where T is too low for an estimate."
        )
    ]
    first = found.temperatures[0].kl
    if not first["max"]:
        return [*blocks, table]
    description = (
        f"Lines of the KL of rows over T on logarithmic axes; at T = "
        f"{found.temperatures[0].T:g} the mean is {nats(first['mean'])} nats, the largest "
        f"{nats(first['max'])}."
    )
    blocks.append(Chart("KL over the temperature", description, _draw_kl(found), table,
                        "A higher T flattens both soft targets."))  # fmt: skip
    blocks.append(_histogram(found))
    return blocks


def _draw_kl(found: Comparison) -> Any:
    def draw(figure: Any) -> None:
        axes = figure.subplots()
        at = sorted(found.temperatures, key=lambda one: one.T)
        T = [one.T for one in at]
        axes.plot(T, [one.kl["mean"] for one in at], marker="o", color=charts.INK, label="mean")
        for place, (name, title) in enumerate(PERCENTILES.items()):
            axes.plot(T, [one.kl[name] for one in at], marker="o", markersize=4,
                      color=charts.SERIES[place], label=title)  # fmt: skip
        if all(one.storage and one.storage > SMALL * one.kl["mean"] for one in at):
            axes.plot(T, [one.storage for one in at], color=charts.MUTED, linestyle="--",
                      linewidth=1.2, label="of storage")  # fmt: skip
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks(T, [f"{value:g}" for value in T])
        axes.set_xticks([], minor=True)
        axes.yaxis.set_major_formatter(_plain)
        axes.yaxis.set_minor_formatter("")
        axes.set_xlabel("T")
        axes.set_ylabel("KL, nats")
        columns = 3 if charts.is_narrow(figure) else 6
        figure.legend(loc="outside upper left", ncols=columns)

    return draw


def _plain(value: float, place: int | None = None) -> str:
    """A number at an axis: matplotlib's own powers of ten are no text."""
    return f"{value:g}"


def _histogram(found: Comparison) -> Chart:
    shown = found.temperatures[: len(charts.SERIES)]
    filled = [place for place in range(len(shown[0].histogram))
              if any(at.histogram[place] for at in shown)]  # fmt: skip
    first, last = filled[0], filled[-1] + 1
    edges = EDGES[first : last + 1]

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for place, at in enumerate(shown):
            shares = [count / found.rows for count in at.histogram[first:last]]
            axes.stairs(shares, edges, color=charts.SERIES[place], linewidth=2,
                        label=f"T = {at.T:g}")  # fmt: skip
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(_plain)
        axes.xaxis.set_minor_formatter("")
        axes.set_xlabel("KL of a row, nats")
        axes.set_ylabel("share of the rows")
        axes.set_ylim(bottom=0)
        figure.legend(loc="outside upper left", ncols=3 if charts.is_narrow(figure) else 6)

    head = ["KL from", "to", *(f"rows, T = {at.T:g}" for at in shown)]
    rows: list[list[Any]] = [
        [nats(low) if low > EDGES[0] else "0", nats(high),
         *(at.histogram[place] for at in shown)]
        for place, (low, high) in enumerate(pairwise(edges), first)
    ]  # fmt: skip
    numbers = Table("Rows by their KL", head, rows, range(len(head)), folded=True)
    return Chart("KL of the rows", "Distribution of KL over rows, on a logarithmic axis, a line "
                 "for each temperature.", draw, numbers)  # fmt: skip


def _classes(found: Comparison) -> list[Block]:
    flips, several = found.flips, found.task == "multilabel"
    if not flips.changed:
        what = "label decisions" if several else "top-1 predictions"
        return [Text(f"A and B make the same {what} in all rows.")]
    blocks: list[Block] = []
    if not several:
        blocks += [*_matrix(found), _pairs(found)]
    named = {"reference": "A", "other": "B", "left": "A only", "came": "B only"} if several else {
        "reference": "predicted by A", "other": "predicted by B", "left": "A only",
        "came": "B only",
    }  # fmt: skip
    if flips.right_to_wrong is not None:
        named |= {"right_to_wrong": "became wrong", "wrong_to_right": "became right"}
    changed = sorted((one for one in flips.classes if one["left"] or one["came"]),
                     key=lambda one: -one["left"] - one["came"])  # fmt: skip
    rows = [[short(one["name"], NAME), *(one[name] for name in named)] for one in changed[:LINES]]
    more = (
        f": the {LINES} with the most changes, of {len(changed):,}" if len(changed) > LINES else ""
    )
    what = "label" if several else "class"
    caption = f"Changes by {what}{more}"
    table = Table(caption, [what, *named.values()], rows, range(1, len(named) + 1), not several)
    return [*blocks, table]


def _matrix(found: Comparison) -> list[Block]:
    """Between the classes of the most frequent pairs."""
    most: list[int] = []
    for pair in found.flips.pairs:
        new = [number for number in (pair["from"], pair["to"]) if number not in most]
        if len(most) + len(new) <= MOST:
            most += new
    chosen = sorted(most)
    counts = {(pair["from"], pair["to"]): pair["rows"] for pair in found.flips.pairs}
    values = [[float(counts.get((i, j), 0)) for j in chosen] for i in chosen]
    texts = [[f"{counts[i, j]:,}" if (i, j) in counts else "" for j in chosen] for i in chosen]
    names = [short(found.flips.classes[c]["name"], NAME) for c in chosen]
    changed = sum(1 for one in found.flips.classes if one["left"] or one["came"])
    of = f"; the {len(chosen)} of {changed:,} with the most changes" if changed > MOST else ""
    caption = f"Changed top-1 predictions: A's in rows, B's in columns{of}"
    return [Heat(caption, "A ↓  B →", names, names, values, texts, diagonal=False)]


def _pairs(found: Comparison) -> Table:
    pairs, labelled = found.flips.pairs, found.flips.right_to_wrong is not None
    head = [
        "A predicts",
        "B predicts",
        "rows",
        *(["became wrong", "became right"] if labelled else []),
    ]
    rows = [
        [short(pair["from_name"], NAME), short(pair["to_name"], NAME), pair["rows"],
         *([pair["right_to_wrong"], pair["wrong_to_right"]] if labelled else [])]
        for pair in pairs[:LINES]
    ]  # fmt: skip
    more = f": the {LINES} most frequent of {len(pairs):,}" if len(pairs) > LINES else ""
    return Table(
        f"Changed top-1 predictions by pair of classes{more}",
        head,
        rows,
        range(2, len(head)),
        folded=True,
    )


def _of_views(found: Comparison) -> Table:
    head = ["view", "rows", "agreement", *(f"KL, T = {at.T:g}" for at in found.temperatures)]
    rows = [[str(one["view"]), one["rows"], one["agreement"], *map(nats, one["kl"])]
            for one in found.views]  # fmt: skip
    return Table("By view of the inputs", head, rows, range(1, len(head)))


def _rows(found: Comparison, inputs: ShownInputs) -> list[Block]:
    first, last = found.temperatures[0], found.temperatures[-1]
    places = [0] if first is last else [0, len(found.temperatures) - 1]
    rows = [
        _row(
            row,
            [(one.T, row.kl[place]) for place, one in zip(places, (first, last), strict=False)],
            places,
            shown,
        )
        for row, shown in zip(found.worst, inputs.inputs, strict=True)
    ]
    names = (f"A, {short(found.reference.name, NAME)}", f"B, {short(found.other.name, NAME)}")
    text = f"The {counted(len(rows), 'row')} with the largest KL at T = {first.T:g}."
    titles = [f"T = {found.temperatures[place].T:g}" for place in places]
    missing = [Remark(inputs.missing)] if inputs.missing else []
    return [Text(text), *missing, PairedRows(names, titles, rows)]


def _row(row: WorstRow, kls: list[tuple[float, float]], places: list[int], shown: Any) -> PairedRow:
    labels = row.label if isinstance(row.label, list) else [row.label]
    names = row.label_name if isinstance(row.label_name, list) else [row.label_name]
    facts = [] if row.view is None else [f"view {row.view}"]
    if row.label is not None:
        facts.append(f"label {', '.join(short(str(name), NAME) for name in names) or 'none'}")
    facts.append("KL " + ", ".join(f"{nats(kl)} at T = {T:g}" for T, kl in kls))
    return PairedRow(
        title=f"id {short(str(row.id), LONG)}",
        facts=facts,
        classes=[
            PairedClass(short(one.name, NAME), one.number in labels,
                        [(one.reference[place], one.other[place]) for place in places])
            for one in row.classes[:CLASSES]
        ],
        lines=shown.lines,
        picture=shown.picture,
        is_small=shown.is_small,
    )  # fmt: skip
