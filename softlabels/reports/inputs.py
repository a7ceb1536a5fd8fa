"""The inputs of some rows of a dump, as they are stored or as their data have them."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from softlabels.errors import AlignmentError, SourceError
from softlabels.inputs.chosen_rows import check_hashes
from softlabels.inputs.texts import Texts
from softlabels.models.tokens import Tokens
from softlabels.store.inputs import Join, named_source, stored_names, stored_source
from softlabels.store.reader import DumpReader
from softlabels.system.progress import Progress

Cells = list[bytes] | np.ndarray | Texts | Tokens


def cells_of(reader: DumpReader, rows: np.ndarray, data: Any = None) -> Cells:
    """The inputs of these rows, ascending, whose hashes are those that the teacher saw; see `Rows`.
    Of several views of an input the dump may hold it with the first one alone.

    data: what to read them from, if not from the dump or where it says.

    Raises SourceError or AlignmentError where the dump does not hold them and their data are not
    on this disk, or are others.
    """
    plan, where = reader.plan, str(reader.folder)
    if plan.with_inputs and data is None:
        source = stored_source(reader.table_of(rows, stored_names(plan)), plan, where)
        block = source.read(0, len(source))
    elif plan.source.origin == "hub" and data is None:
        raise SourceError(
            f"they are in {plan.source.data!r} on the Hub, and to look at a dump fetches no data: "
            f"one that was made with --store-inputs original holds them"
        )
    else:
        source = named_source(plan, data)
        block = source.take(Join(source, where).positions(reader.ids[rows]))
    check_hashes(block, reader.hashes_of(None)[rows], source.data)
    return block.cells


def plain_inputs(reader: DumpReader, rows: np.ndarray, progress: Progress) -> dict[int | str, Any]:
    """The text of each of these rows by its id, or its columns, as the teacher saw them; empty,
    with a warning, where `cells_of` has none."""
    try:
        cells = cells_of(reader, rows)
    except (SourceError, AlignmentError) as error:
        what = "texts" if reader.plan.source.kind == "text" else reader.plan.source.kind
        progress.say(f"warning: the {what} are not shown: {error}")
        return {}
    return dict(zip(reader.ids[rows].tolist(), plain_values(cells), strict=True))


def plain_values(cells: Any) -> Iterator[Any]:
    """Texts as they are, pairs and columns as a dictionary of texts, numbers or lists of them."""
    if isinstance(cells, Texts):
        return iter(cells)
    if isinstance(cells, np.ndarray):
        cells = ({name: row[name] for name in row.dtype.names} for row in cells)
    return ({name: values.tolist() for name, values in row.items()} for row in cells)
