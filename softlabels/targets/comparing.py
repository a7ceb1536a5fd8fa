"""`compare`: two dumps over the same rows, such as a teacher's and that of its quantised self."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from softlabels.errors import AlignmentError, StoreError, UsageError
from softlabels.places.siblings import named_pair
from softlabels.reports.comparison import Comparison, Side
from softlabels.reports.contrast import Contrast
from softlabels.reports.ensemble import Block, OfLabel, OfLabels, survey_each
from softlabels.reports.worst import worst_rows
from softlabels.soft_targets import check_temperature
from softlabels.store.reader import DumpReader
from softlabels.system.progress import Progress
from softlabels.targets.abreast import blocks_of, open_teachers
from softlabels.targets.side_by_side import SideBySide

ALIKE = "Two dumps are compared over the same rows, views and classes: make both from the same data"


@dataclass(frozen=True)
class Compared:
    """readers: of the reference and of the other; rows: places of the worst rows in the first, in
    the order of `found.worst`, int64."""

    found: Comparison
    readers: Sequence[DumpReader]
    rows: np.ndarray


def compared(a: str, b: str, T: Sequence[float], rows: int, progress: Progress) -> Compared:
    """See `softlabels.compare`. a, b: folders or addresses; rows: how many of the worst."""
    temperatures = list(dict.fromkeys(check_temperature(one) for one in T))
    if not temperatures:
        raise UsageError("--T names no temperature; name some, such as --T 1 --T 4")
    places = named_pair(a, b)
    teachers = _aligned(places, progress)
    plan = teachers.base.reader.plan
    several = plan.task == "multilabel"
    contrast = Contrast(len(teachers), plan.classes, temperatures, several)
    with progress.bar("compare", len(teachers) * (2 if several else 1), "rows") as advance:

        def blocks() -> Iterator[Block]:
            for block in blocks_of(teachers):
                yield block
                advance(len(block.labels))

        def add(block: Block) -> None:
            reference, other = block.teachers.values()
            contrast.add(reference, other, block.labels)

        measured = survey_each(blocks, len(places), plan.classes, several, add)
    teachers.settle()
    return _told(teachers, contrast, measured, rows)


def _aligned(places: dict[str, str], progress: Progress) -> SideBySide:
    """Both over the same rows. Raises for all in which they differ, at once."""
    try:
        return open_teachers(places, progress, _check_alike)
    except AlignmentError as error:
        remedy = "" if ALIKE in str(error) else f". {ALIKE}"
        raise AlignmentError(f"{error}{remedy}") from error


def _check_alike(teachers: SideBySide) -> None:
    if found := teachers.differences():
        raise found[0].error(f"{'; '.join(one.text for one in found)}. {ALIKE}")
    if not len(teachers):
        raise StoreError(f"{teachers.base.reader.folder} has no rows, so there is no difference")


def _told(
    teachers: SideBySide,
    contrast: Contrast,
    measured: Sequence[OfLabel | OfLabels],
    most: int,
) -> Compared:
    readers = [dump.reader for dump in teachers.dumps.values()]
    base, plan = teachers.base, readers[0].plan
    names = plan.source.class_names or readers[1].plan.source.class_names
    names = names or list(map(str, range(plan.classes)))
    at = [contrast.at(T, [_stated(reader, T) for reader in readers]) for T in contrast.sums]
    rows = contrast.worst(at[0].T, most)
    places = teachers.places_of(list(teachers.dumps)[1], rows)
    sides = [
        _side(name, reader, sums)
        for name, reader, sums in zip(teachers.dumps, readers, measured, strict=True)
    ]
    found = Comparison(
        reference=sides[0],
        other=sides[1],
        data=plan.source.data,
        split=plan.source.split,
        task=plan.task,
        classes=plan.classes,
        rows=len(base),
        labelled=measured[0].labelled,
        temperatures=at,
        agreement=contrast.agreement,
        top5_agreement=contrast.top5,
        flips=contrast.changed(names),
        views=_views(base.reader, contrast),
        worst=worst_rows(readers, [rows, places], contrast),
    )
    return Compared(found, readers, rows)


def _side(name: str, reader: DumpReader, sums: OfLabel | OfLabels) -> Side:
    plan = reader.plan
    of_labels = sums.of_labels if isinstance(sums, OfLabels) and sums.labelled else None
    codec = plan.dtype if plan.codec == "dense" else plan.codec
    measures = {name: value for name, value in sums.measures.items() if name != "rows"}
    manifest = reader.manifest
    version = manifest.versions.get("softlabels", "?")
    made = f"made by softlabels {version} on {manifest.created}, plan {manifest.plan_hash}"
    return Side(name, str(reader.folder), plan.teacher.name, codec, made, measures, of_labels)


def _stated(reader: DumpReader, T: float) -> float | None:
    """The mean KL that the codec's error made at T, as the records say it: over all rows, or over
    those of its pilot."""
    statistics, pilot = reader.manifest.statistics, reader.plan.pilot
    if T == 1 and statistics is not None and statistics.kl is not None:
        return statistics.kl
    errors = [] if pilot is None else pilot.kl
    return next((error.mean for error in errors if error.T == T), None)


def _views(reader: DumpReader, contrast: Contrast) -> list[dict]:
    """Of each view its rows, agreement and mean KL at each T."""
    if not reader.plan.has_views:
        return []
    views = reader.views
    return [
        {"view": int(view), "rows": int(which.sum()), **contrast.of_rows(which)}
        for view in np.unique(views)
        for which in [views == view]
    ]
