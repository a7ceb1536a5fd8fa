"""A finished dump held against its source: every input is hashed again, and some views are made
again."""

from dataclasses import dataclass
from typing import Any

from softlabels.errors import AlignmentError, LabelSpaceMismatch, UsageError
from softlabels.inputs.label_lists import differing
from softlabels.inputs.sources import BLOCK_ROWS, Source
from softlabels.label_spaces import LabelSpace, match_label_spaces
from softlabels.store.inputs import Join, open_inputs
from softlabels.store.reader import DumpReader
from softlabels.system.progress import Progress
from softlabels.verification.partners import wrong_partners
from softlabels.verification.views import Views


@dataclass(frozen=True)
class Recheck:
    """A sentence for each finding, and how many views were made again; None where there are
    none."""

    findings: list[str]
    views_made: int | None = None


def recheck_source(reader: DumpReader, data: Any, progress: Progress) -> Recheck:
    """Hash every input again and compare hashes, labels and what depends on the size of a picture;
    make the views again of which pixels were hashed.

    Raises SourceError where the source can't be opened.
    """
    source = open_inputs(reader, data, progress)
    rows = reader.view_rows[0]  # an input has the same hash and label in all its views
    try:
        positions = Join(source, str(reader.folder)).positions(reader.ids[rows])
    except AlignmentError as error:
        return Recheck([str(error)])
    findings, hashes = _renamed_classes(reader, source), reader.hashes_of(data)
    findings += wrong_partners(reader)
    views = Views(reader, data)
    wrong: dict[str, list[Any]] = {"inputs": [], "labels": []}
    with progress.bar("source", len(positions), "rows") as advance:
        for start in range(0, len(positions), BLOCK_ROWS):
            part = slice(start, start + BLOCK_ROWS)
            block, chosen = source.take(positions[part]), rows[part]
            is_same = block.hashes == hashes[chosen]
            wrong["inputs"] += block.ids[~is_same].tolist()
            if reader.source_labels is not None:
                differs = differing(block.labels, reader.source_labels[chosen])
                wrong["labels"] += block.ids[differs].tolist()
            views.check_boxes(block, part, is_same)
            advance(len(block))
    findings += [
        f"{len(ids):,} of {len(positions):,} {what} are not what the teacher saw, first those with "
        f"id {', '.join(map(str, ids[:5]))}"
        for what, ids in wrong.items()
        if ids
    ]
    if not reader.plan.has_views:
        return Recheck(findings)
    try:
        views.remake(source, wrong["inputs"], progress)
    except UsageError as error:  # decoded otherwise here
        return Recheck([*findings, str(error)], 0)
    return Recheck(findings + views.findings, views.made)


def _renamed_classes(reader: DumpReader, source: Source) -> list[str]:
    """A finding where the source's class names are not the dump's: numbers may mean other classes
    now."""
    plan = reader.plan
    if plan.label_column is None:
        return []
    try:
        matched = match_label_spaces(
            LabelSpace("the dump", plan.classes if plan.labelled else None, plan.label_names),
            LabelSpace("the source", None, source.class_names),
        )
    except LabelSpaceMismatch as error:
        return [str(error)]
    return [] if matched.order is None else [str(matched.note)]
