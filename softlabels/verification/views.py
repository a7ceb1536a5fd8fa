"""The views of a dump held against their source: boxes are drawn again, and views are made again as
far as their pixels were hashed. N inputs, V views, R rows of the dump."""

from collections.abc import Collection
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image

from softlabels.errors import SourceError
from softlabels.inputs.cropping import Cropping
from softlabels.inputs.hashing import hash_arrays
from softlabels.inputs.preprocess import Preprocess
from softlabels.inputs.rendering import DECODER, Box, Picture
from softlabels.inputs.rows import Rows
from softlabels.inputs.sources import Source
from softlabels.inputs.viewed import ViewedInputs
from softlabels.inputs.views.augment import CLEAN
from softlabels.inputs.views.augmentations import BOX
from softlabels.inputs.views.chance import counters
from softlabels.models.checkpoint import library_versions
from softlabels.store.reader import DumpReader
from softlabels.system.humanize import few
from softlabels.system.progress import Progress
from softlabels.targets.joining import check_shows_views, find_inputs, stored_steps

BLOCK_ROWS, NONE = 256, 0
LIBRARIES = "torch", "pillow", "simplejpeg"  # which decide pixels


class Views:
    """What is found of a dump's views.

    data: where the source is from, if not where the dump says
    made: how many views were made again; differing: those whose pixels are others; impossible: why
    some could not be made; elsewhere: those that are not cut where the data seed draws it
    """

    def __init__(self, reader: DumpReader, data: Any) -> None:
        self.reader, self.data = reader, data
        self.made = 0
        self.differing: list[str] = []
        self.impossible: list[str] = []
        self.elsewhere: list[str] = []

    @cached_property
    def preprocess(self) -> Preprocess:
        """Of the pictures of the source."""
        plan = self.reader.plan
        own = Preprocess.parse(plan.preprocess)
        return own if plan.stored is None or self.data is not None else plan.stored.of_stored(own)

    @cached_property
    def cropping(self) -> Cropping | None:
        plan = self.reader.plan
        if plan.augmentation is None or plan.augmentation.crop is None:
            return None
        stored = stored_steps(plan, self.preprocess)
        return Cropping(self.preprocess, plan.augmentation.crop, stored)

    def check_boxes(self, block: Rows, part: slice, is_same_N: np.ndarray) -> None:
        """Draw the boxes of these inputs again, which by ids alone nobody can. Pictures are not
        decoded for it, but for those formats whose size is not known before.

        part: which of the dump's inputs they are; is_same_N: those that the teacher saw
        """
        if self.cropping is None or not isinstance(block.cells, list):
            return
        reader, plan = self.reader, self.reader.plan
        sizes = [
            self._size(cell, id) if is_same else None
            for cell, id, is_same in zip(block.cells, block.ids, is_same_N, strict=True)
        ]
        for view, rows in zip(plan.views, reader.view_rows[:, part], strict=True):
            if view == CLEAN:
                continue
            crop, keys_N = self.cropping.crop, counters(block.ids)
            stored = zip(*(reader.drawn[name][rows].tolist() for name in BOX), strict=True)
            chances = crop.chances(plan.data_seed or 0, keys_N, view)
            for row, size, box, drawn_by in zip(rows, sizes, stored, chances, strict=True):
                if size is not None and (drawn := crop.box(drawn_by.tolist(), *size)) != box:
                    self.elsewhere.append(
                        f"{self._named(row, view)}, which has {_shown(box)} in place of "
                        f"{_shown(drawn)}"
                    )

    def _size(self, cell: bytes, id: Any) -> tuple[int, int] | None:
        """Of the picture that boxes are cut from; None where it can't be read, which is said when
        it is made again."""
        assert self.cropping is not None, "it is asked for boxes"
        picture = Picture(cell)
        try:
            return self.cropping.shown(picture).size
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            return None
        finally:
            picture.close()

    def remake(self, source: Source, others: Collection[Any], progress: Progress) -> None:
        """Make the views again that have a hash of their pixels, and compare it.

        others: ids of inputs that are not what the teacher saw

        Raises UsageError where pictures are decoded otherwise here.
        """
        reader, plan = self.reader, self.reader.plan
        rows = np.flatnonzero(reader.view_hashes)
        rows = rows[~np.isin(reader.ids[rows], list(others))] if others else rows
        check_shows_views(plan, self.preprocess, self.preprocess, str(reader.folder))
        inputs = find_inputs(reader, source, self.preprocess, reader.hashes_of(self.data))
        assert isinstance(inputs, ViewedInputs), "there are views"
        with progress.bar("views", len(rows), "rows") as advance:
            for view in plan.views:
                of_view = rows[reader.views[rows] == view]
                for start in range(0, len(of_view), BLOCK_ROWS):
                    block = of_view[start : start + BLOCK_ROWS]
                    hashes = self._hashes(inputs, block, view)
                    made = hashes != NONE
                    differ = block[made & (hashes != reader.view_hashes[block])]
                    self.differing += [self._named(row, view) for row in differ]
                    self.made += int(made.sum())
                    advance(len(block))

    def _hashes(self, inputs: ViewedInputs, rows: np.ndarray, view: int) -> np.ndarray:
        """Of the pixels of these rows, uint64; `NONE` for a view that can't be made."""
        try:
            return hash_arrays(inputs.on_pictures(rows, view).numpy())
        except SourceError as error:
            if len(rows) == 1:
                self.impossible.append(str(error))
                return np.full(1, NONE, np.uint64)
            one_by_one = (rows[[place]] for place in range(len(rows)))
            return np.concatenate([self._hashes(inputs, row, view) for row in one_by_one])

    def _named(self, row: int, view: int) -> str:
        return f"id {self.reader.ids[row]!s} in view {view}"

    @property
    def findings(self) -> list[str]:
        """A sentence for each kind."""
        findings, plan = [], self.reader.plan
        if self.elsewhere:
            findings.append(
                f"{len(self.elsewhere):,} views are not cut where {plan.augment} draws it by the "
                f"data seed {plan.data_seed}: first {self.elsewhere[0]}"
            )
        if self.impossible:
            count = len(self.impossible)
            what = "a view" if count == 1 else f"{count:,} views"
            findings.append(f"{what} can't be made again: {self.impossible[0]}")
        if self.differing:
            findings.append(
                f"{len(self.differing):,} of {self.made:,} views that were made again are not what "
                f"the teacher saw, first {few(self.differing, most=5)}: {self._cause()}"
            )
        return findings

    def _cause(self) -> str:
        then, now = self.reader.manifest.versions, library_versions()
        changed = [
            f"{name} was {then[name]} and is {now[name]}"
            for name in LIBRARIES
            if name in then and name in now and then[name] != now[name]
        ]
        if changed:
            return f"what decodes and resizes pictures may be another: {', '.join(changed)}"
        return (
            f"their inputs are the teacher's, so their columns are wrong, or {DECODER} or the "
            f"resizer gives other pixels on this machine"
        )


def _shown(box: Box) -> str:
    return ", ".join(f"{name} {value}" for name, value in zip(BOX, box, strict=True))
