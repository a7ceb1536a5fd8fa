"""Why a column of text can't be an input, as far as its cells show it: one broken number among
numbers, numbers as another country or a spreadsheet writes them, names of image files."""

import pyarrow as pa
import pyarrow.compute as pc

from softlabels.inputs.tables.folders import image_endings
from softlabels.inputs.tables.table import Table
from softlabels.system.humanize import short

ROWS = 100_000  # looked at, from the first on
NUMBER = r"^\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*$"
WRITTEN = r"^\s*[-+€$£]*\s*\d[\d.,' ]*\s*[%€$£]?\s*$"  # 1,5; 1.234,5; 12 %; or a plain number


def hint_of_text(table: Table, name: str) -> str | None:
    """A sentence about a column of text, or None where it is plain text."""
    cells = table.read([name], 0, min(len(table), ROWS))[name]
    plain = _matching(cells, NUMBER)
    if not pc.all(plain).as_py() and pc.mean(plain).as_py() >= 0.5:
        row = pc.index(plain, False).as_py()
        return (
            f"The column {name!r} is text because of row {row + 1:,}, "
            f"{short(cells[row].as_py(), 30)!r}; {pc.sum(plain).as_py():,} of its first cells are "
            f"numbers"
        )
    first = next((cell for cell in cells.to_pylist() if cell), "")
    if pc.all(_matching(cells, WRITTEN)).as_py() and first:
        return (
            f"The column {name!r} holds numbers as text, such as {short(first, 30)!r}; write them "
            f"as 1234.5, without quotation marks, other signs and separators"
        )
    endings = "|".join(ending.lstrip(".") for ending in sorted(image_endings()))
    if first and pc.all(_matching(cells, rf"(?i)\.({endings})$")).as_py():
        return (
            f"The column {name!r} names images. For their pixels, put this table as metadata.csv, "
            f"with the column 'file_name', into the folder of images, and give that as --data"
        )
    return None


def _matching(cells: pa.ChunkedArray, pattern: str) -> pa.ChunkedArray:
    """Whether each cell matches; empty cells do."""
    return pc.fill_null(pc.match_substring_regex(cells, pattern), True)
