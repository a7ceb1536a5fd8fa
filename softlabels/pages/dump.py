"""The report of a dump as a page."""

from typing import Any

from softlabels.errors import UsageError
from softlabels.measures import BINS
from softlabels.pages.classes import class_section, confusion_section
from softlabels.pages.example_rows import row_section
from softlabels.pages.measures import calibration_section, softness_section
from softlabels.pages.portrait import Portrait, portray
from softlabels.reports.doubts import doubts
from softlabels.reports.facts import describe, readable
from softlabels.reports.page import Block, Command, Facts, Page, Remark, Section, Table, Text, Tile
from softlabels.reports.page.blocks import Cell
from softlabels.reports.recipe import as_block, what_is_teacher
from softlabels.store.reader import DumpReader
from softlabels.store.records import Plan
from softlabels.system.humanize import counted, measured, short, size_words
from softlabels.system.progress import Progress

SKIPPED = 20  # rows that were left out, by name
FLATTERED = (
    "These rows are the split {split}. If the teacher was trained on them, its accuracy and "
    "calibration are better here than on rows it has not seen."
)


def dump_page(
    reader: DumpReader, name: str, rows: int, progress: Progress, source: Any = None
) -> Page:
    """Reads all logits, and the inputs of the rows that are shown.

    name: of the dump, as its reader knows it; rows: of each kind, how many are shown at most;
    source: of the inputs, if not where the dump says.

    Raises MissingExtra without matplotlib or scipy, UsageError for a dump of no rows.
    """
    manifest, plan = reader.manifest, reader.plan
    if not manifest.rows:
        raise UsageError(f"{name} has no rows, so there is nothing to report; see softlabels info")
    portrait = portray(reader, rows, progress)
    names = plan.source.class_names or list(map(str, range(plan.classes)))
    sections = [
        confusion_section(reader, portrait, names),
        row_section(reader, portrait, rows, source),
        _views(portrait),
        calibration_section(portrait),
        softness_section(portrait),
        class_section(portrait, names),
        _about(reader),
        _storage(reader),
        _origin(reader),
    ]
    remarks = [Remark(text, "warning") for text in doubts(manifest, plan)]
    if plan.labelled and plan.source.split.startswith("train"):
        remarks.append(Remark(FLATTERED.format(split=short(plan.source.split))))
    made = manifest.versions.get("softlabels", "?")
    return Page(
        kind="Dump of soft targets",
        title=short(name, 200),
        lead=_lead(reader),
        sections=[section for section in sections if section is not None],
        tiles=_tiles(reader, portrait),
        remarks=remarks,
        foot=f"The dump was made by softlabels {made} on {manifest.created}; its plan is "
        f"{manifest.plan_hash}.",
    )


def _lead(reader: DumpReader) -> str:
    plan, source = reader.plan, reader.plan.source
    inputs = counted(len(reader.view_rows[0]), "input")
    views = f", each in {len(plan.views):,} views," if plan.has_views else ""
    several = ", of which a row may have several" if plan.several_labels else ""
    return (
        f"The raw logits of {short(plan.teacher.name)} for {inputs}{views} of "
        f"{short(source.data)}, split {short(source.split)}, over {plan.classes:,} "
        f"classes{several}."
    )


def _tiles(reader: DumpReader, portrait: Portrait) -> list[Tile]:
    plan, manifest = reader.plan, reader.manifest
    tiles = [
        Tile(f"{manifest.rows:,}", "row" if manifest.rows == 1 else "rows"),
        Tile(f"{plan.classes:,}", "class" if plan.classes == 1 else "classes"),
    ]
    measures = portrait.looked.score.measures
    if measures:
        of = f"of {counted(int(measures['rows']), 'labelled row')}"
        errors = counted(int(measures["errors"]), "error")
        if portrait.looked.by_view:
            of += f" of view {min(portrait.looked.by_view)}"
        tiles.append(Tile(f"{100 * measures['accuracy']:.2f} %", "accuracy", f"{errors} {of}"))
        if "top5" in measures:
            tiles.append(Tile(f"{100 * measures['top5']:.2f} %", "top-5 accuracy"))
        tiles.append(Tile(measured(measures["nll"]), "NLL", "nats"))
        tiles.append(Tile(f"{measures['ece']:.4f}", "calibration error", f"ECE, {BINS} bins"))
    elif portrait.survey.labels is not None:
        found = portrait.survey.labels.measures
        if found.get("map") is not None:
            tiles.append(Tile(f"{found['map']:.4f}", "mean average precision"))
        if portrait.survey.calibration.error is not None:
            error = portrait.survey.calibration.error
            tiles.append(Tile(f"{error:.4f}", "calibration error", f"ECE over labels, {BINS} bins"))
    entropy = portrait.looked.entropies[1.0].measures.get("entropy")
    if entropy is not None:
        tiles.append(Tile(measured(entropy), "mean entropy at T = 1", "nats"))
    return [*tiles, Tile(size_words(manifest.bytes), "on disk")]


def _views(portrait: Portrait) -> Section | None:
    """The teacher on each view, where there are several: None without, or without labels."""
    scores = {view: one.measures for view, one in sorted(portrait.looked.by_view.items())}
    rows: list[list[Cell]] = [
        [
            view,
            int(one["rows"]),
            f"{one['accuracy']:.4f}",
            measured(one["nll"]),
            f"{one['ece']:.4f}",
        ]
        for view, one in scores.items()
        if one
    ]
    if not rows:
        return None
    text = (
        f"The numbers at the top of the page are of view {min(scores)}. Calibration, softness and "
        f"the confused classes are over the rows of all views."
    )
    head = ["view", "labelled rows", "accuracy", "NLL, nats", "ECE"]
    return Section("Views", [Text(text), Table("View by view", head, rows, (0, 1, 2, 3, 4))])


def _about(reader: DumpReader) -> Section:
    manifest, plan = reader.manifest, reader.plan
    facts = readable(describe(manifest, plan))
    blocks: list[Block] = [Facts({name: short(value, 500) for name, value in facts.items()})]
    if manifest.skipped:
        rows = [[short(str(one.id)), short(one.reason, 200)] for one in manifest.skipped[:SKIPPED]]
        more = len(manifest.skipped) - len(rows)
        what = f"Left out, and why{f'; {more:,} more' if more else ''}"
        blocks.append(Table(what, ["id", "reason"], rows, folded=True))
    return Section("About", blocks)


def _storage(reader: DumpReader) -> Section:
    manifest, plan = reader.manifest, reader.plan
    logits = manifest.rows * (plan.positions or 1) * plan.classes
    plain = f"{4 * logits / manifest.bytes:.3g} times the size on disk" if manifest.bytes else ""
    facts = {
        "size on disk": size_words(manifest.bytes),
        "a row": f"{manifest.bytes / manifest.rows:,.1f} bytes, with id, hash and what else it has",
        "its logits as float32": f"{size_words(4 * logits)} in all, {plain}",
    }
    return Section("Storage", [Facts(facts), *_codec_error(plan)])


def _codec_error(plan: Plan) -> list[Block]:
    """How far soft targets of the stored logits are from the teacher's."""
    if plan.pilot is None:
        exact = plan.codec == "dense"
        text = f"The codec is exact but for the rounding to {plan.dtype}." * exact
        return [Text(text)] if text else []
    rows = [[f"{one.T:g}", f"{one.mean:.1e}", f"{one.p99:.1e}"] for one in plan.pilot.kl]
    caption = (
        f"The codec's error: KL(teacher, stored), in nats, of {counted(plan.pilot.rows, 'row')}"
    )
    return [Table(caption, ["T", "mean", "99 % below"], rows, (0, 1, 2))]


def _origin(reader: DumpReader) -> Section:
    manifest, plan = reader.manifest, reader.plan
    facts = {
        "plan": manifest.plan_hash,
        "format": manifest.format,
        **{short(name): short(version) for name, version in manifest.versions.items()},
    }
    blocks: list[Block] = [Facts(facts)]
    if not plan.is_imported:
        blocks.append(Text(f"The command that makes it again{what_is_teacher(plan)}:"))
        lines = as_block(plan, bool(manifest.skipped)).splitlines()
        blocks.append(Command("\n".join(line.removeprefix("    ") for line in lines)))
    return Section("Provenance", blocks)
