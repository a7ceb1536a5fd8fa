"""The views of a dump made again, as far as their pixels were hashed."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from softlabels.errors import SourceError, UsageError
from softlabels.inputs.hashing import hash_arrays
from softlabels.inputs.preprocess import Preprocess
from softlabels.inputs.rendering import DECODER
from softlabels.inputs.sources import Source
from softlabels.inputs.viewed import ViewedInputs
from softlabels.models.checkpoint import library_versions
from softlabels.store.reader import DumpReader
from softlabels.system.humanize import few
from softlabels.system.progress import Progress
from softlabels.targets.joining import check_shows_views, find_inputs

BLOCK_ROWS, NONE = 256, 0
LIBRARIES = "torch", "pillow", "simplejpeg"  # which decide pixels


@dataclass
class Remade:
    """rows: how many views were made again; wrong: those that differ; impossible: why some could
    not be made"""

    rows: int = 0
    wrong: list[str] = field(default_factory=list)
    impossible: list[str] = field(default_factory=list)

    def findings(self, reader: DumpReader) -> list[str]:
        """A sentence for each kind."""
        findings = [_differing(reader, self.wrong, self.rows)] if self.wrong else []
        if (count := len(self.impossible)) > 1:
            findings.append(f"{count:,} views can't be made again, first: {self.impossible[0]}")
        return findings + self.impossible * (count == 1)


def remake_views(
    reader: DumpReader, source: Source, data: Any, left_out: Collection[Any], progress: Progress
) -> Remade:
    """Make the views again that have a hash of their pixels, and compare it.

    data: where the source is from, if not where the dump says; left_out: ids of inputs that are
    known to be others
    """
    plan, remade = reader.plan, Remade()
    rows = np.flatnonzero(reader.view_hashes)
    rows = rows[~np.isin(reader.ids[rows], list(left_out))] if left_out else rows
    if not len(rows):
        return remade
    preprocess = Preprocess.parse(plan.preprocess)
    if plan.stored is not None and data is None:
        preprocess = plan.stored.of_stored(preprocess)
    try:
        check_shows_views(plan, preprocess, preprocess, str(reader.folder))
    except UsageError as error:
        remade.impossible.append(str(error))
        return remade
    inputs = find_inputs(reader, source, preprocess, reader.hashes_of(data))
    assert isinstance(inputs, ViewedInputs), "there are views"
    with progress.bar("views", len(rows), "rows") as advance:
        for view in plan.views:
            of_view = rows[reader.views[rows] == view]
            for start in range(0, len(of_view), BLOCK_ROWS):
                block = of_view[start : start + BLOCK_ROWS]
                hashes = _hashes(inputs, block, view, remade)
                differ = block[(hashes != reader.view_hashes[block]) & (hashes != NONE)]
                remade.wrong += [f"id {reader.ids[row]!s} in view {view}" for row in differ]
                remade.rows += int(np.count_nonzero(hashes != NONE))
                advance(len(block))
    return remade


def _hashes(inputs: ViewedInputs, rows: np.ndarray, view: int, remade: Remade) -> np.ndarray:
    """Of the pixels of these rows, uint64; `NONE` for a view that can't be made."""
    try:
        return hash_arrays(inputs.on_pictures(rows, view).numpy())
    except SourceError as error:
        if len(rows) == 1:
            remade.impossible.append(str(error))
            return np.full(1, NONE, np.uint64)
        return np.concatenate([_hashes(inputs, rows[[i]], view, remade) for i in range(len(rows))])


def _differing(reader: DumpReader, wrong: list[str], made: int) -> str:
    then, now = reader.manifest.versions, library_versions()
    changed = [
        f"{name} {then[name]}, here {now[name]}"
        for name in LIBRARIES
        if name in then and name in now and then[name] != now[name]
    ]
    cause = f"libraries are others than when it was dumped: {', '.join(changed)}"
    if not changed:
        cause = (
            f"the inputs have their hashes, so the columns of these views, or what decodes "
            f"({DECODER}) or resizes pictures, are not those of the dump"
        )
    return (
        f"{len(wrong):,} of {made:,} views that were made again are not what the teacher saw, "
        f"first {few(wrong, most=5)}: {cause}"
    )
