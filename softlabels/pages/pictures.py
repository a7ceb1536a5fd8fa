"""Inputs as a page shows them: pictures as small files within it, other inputs in lines."""

import base64
import io
import os
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from softlabels.errors import AlignmentError, SourceError, UnreadableInput
from softlabels.inputs.decoding import decode_image
from softlabels.inputs.preprocess import Preprocess
from softlabels.reports.inputs import cells_of, plain_values
from softlabels.reports.rows import ShownRow, input_lines, numbers_line
from softlabels.store.inputs import source_place
from softlabels.store.reader import DumpReader
from softlabels.system.humanize import short

SIDE = 160  # pixels of a picture at most
SMALL = 64  # pixels a side up to which each is shown as a square
QUALITY = 80  # of JPEGs
BUDGET = 2_000_000  # bytes of all pictures of a page
TEXT = 400  # characters of a text
AS_SHOWN = Preprocess.parse("upright|eight_bit")


@dataclass(frozen=True)
class ShownInput:
    """picture: as a data URI; is_small: of few pixels; lines: what is no picture, in words."""

    picture: str | None = None
    is_small: bool = False
    lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class ShownInputs:
    """inputs: of each row; missing: why there are none, or only some; else empty."""

    inputs: list[ShownInput]
    missing: str = ""


def show_inputs(
    reader: DumpReader,
    rows: np.ndarray,
    shown: list[ShownRow],
    source: Any = None,
    times: np.ndarray | None = None,
) -> ShownInputs:
    """The inputs of these rows, ascending, each once: where a picture can't be read, and where the
    data are not at hand, that is said in their place.

    source: where the inputs are, if not where the dump says; times: how often the page shows each
        of them, by default once.
    """
    if source is None and (gone := _gone(reader)):
        return ShownInputs([ShownInput()] * len(rows), gone)
    try:
        cells: Any = cells_of(reader, rows, source)
    except (SourceError, AlignmentError) as error:
        return ShownInputs([ShownInput()] * len(rows), f"The inputs are not shown: {error}.")
    kind = reader.plan.source.kind
    if kind is not None:
        values = [replace(row, **{str(kind): value})
                  for row, value in zip(shown, plain_values(cells), strict=True)]  # fmt: skip
        return ShownInputs([ShownInput(lines=tuple(input_lines(row, TEXT))) for row in values])
    made, left = [], BUDGET
    often = np.ones(len(rows), int) if times is None else times
    for row, cell, count in zip(shown, cells, often.tolist(), strict=True):
        one = _shown(cell, row.id)
        left -= count * len(one.picture or "")
        made.append(one if left >= 0 else ShownInput(lines=("its picture is left out",)))
    too_many = "" if left >= 0 else "Some pictures are left out, so that the page stays small."
    return ShownInputs(made, too_many)


def _gone(reader: DumpReader) -> str:
    """Why no inputs can be at hand, to whoever reads the page; empty where they may be."""
    plan = reader.plan
    if plan.with_inputs or plan.source.origin not in ("local", "live"):
        return ""
    place = source_place(plan)
    if plan.source.origin == "local" and os.path.exists(place):
        return ""
    which = "were a data set in memory"
    if plan.source.origin == "local":
        which = f"({short(place)}) were not on the machine that made this page"
    return (
        f"The inputs are not shown: the dump does not hold them, and its data {which}. To show "
        f"them from a copy: softlabels report DUMP --source COPY"
    )


def _shown(cell: bytes | np.ndarray, id: Any) -> ShownInput:
    if isinstance(cell, bytes):
        try:
            pixels = decode_image(cell, AS_SHOWN, id)
        except UnreadableInput:
            return ShownInput(lines=("its picture can't be read",))
        assert isinstance(pixels, np.ndarray), "one picture a cell"
        return _picture(pixels.transpose(1, 2, 0))
    as_picture = _as_pixels(cell)
    return ShownInput(lines=(numbers_line(cell),)) if as_picture is None else _picture(as_picture)


def _as_pixels(values: np.ndarray) -> np.ndarray | None:
    """Numbers that lie as those of a picture do, uint8 [H, W, 1 or 3], the smallest black and the
    largest white; None for others."""
    values = np.asarray(values)
    if values.ndim == 2:
        values = values[:, :, None]
    elif values.ndim == 3 and values.shape[0] in (1, 3):
        values = values.transpose(1, 2, 0)
    if values.ndim != 3 or values.shape[2] not in (1, 3) or min(values.shape[:2]) < 4:
        return None
    if values.dtype == np.uint8:
        return values
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        return None
    low, high = values.min(), values.max()
    levels: np.ndarray = np.round((values - low) / max(high - low, 1e-12) * 255).astype(np.uint8)
    return levels


def _picture(pixels_HWC: np.ndarray) -> ShownInput:
    """A PNG of few pixels, or a JPEG of at most SIDE a side."""
    is_grey = pixels_HWC.shape[2] == 1
    image = Image.fromarray(np.ascontiguousarray(pixels_HWC[:, :, 0] if is_grey else pixels_HWC))
    file = io.BytesIO()
    is_small = max(image.size) <= SMALL
    if is_small:
        image.save(file, "PNG", optimize=True)
    else:
        image.thumbnail((SIDE, SIDE))
        image.save(file, "JPEG", quality=QUALITY, optimize=True)
    kind = "png" if is_small else "jpeg"
    data = base64.b64encode(file.getvalue()).decode()
    return ShownInput(f"data:image/{kind};base64,{data}", is_small)
