"""The inputs of a dump as a source: those that it holds, or the data that its plan names; and where
its rows are in it, by id."""

import os
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from softlabels.errors import AlignmentError, SourceError
from softlabels.inputs.columns import Columns
from softlabels.inputs.hashing import ascending
from softlabels.inputs.listed_labels import Spelling
from softlabels.inputs.opening import LabelChoice, open_source
from softlabels.inputs.sources import Source
from softlabels.inputs.tables.table import ArrowTable
from softlabels.inputs.whereabouts import recall
from softlabels.store.reader import DumpReader
from softlabels.store.records import Plan
from softlabels.system.progress import SILENT, Progress


def find_ids(among: np.ndarray, ids: np.ndarray, order: np.ndarray | None = None) -> np.ndarray:
    """The place of each id among others, int64 [N]; −1 for none. order: sorts the others."""
    if among.dtype.kind != ids.dtype.kind or not len(among):
        return np.full(len(ids), -1)
    if np.array_equal(among, ids) and ascending([ids]):
        return np.arange(len(ids))
    if among.dtype.kind == "U" and order is None:  # a table of hashes; to sort texts takes longer
        places = pc.index_in(pa.array(ids), pa.array(among))
        return places.fill_null(-1).to_numpy().astype(np.int64)
    order = np.argsort(among, kind="stable") if order is None else order
    places = np.searchsorted(among, ids, sorter=order)
    places[places == len(among)] = 0
    positions = order[places]
    return np.where(among[positions] == ids, positions, -1)


@dataclass(frozen=True)
class Join:
    """Finds rows of a dump in a source."""

    source: Source
    dump: str

    @cached_property
    def _sorted(self) -> np.ndarray:
        return np.argsort(self.source.ids, kind="stable")

    def positions(self, ids: np.ndarray) -> np.ndarray:
        """The place of each id in the source, int64 [N]. Raises AlignmentError for missing ids."""
        # who asks for some rows asks again for others, for which to sort once is worth it
        order = self._sorted if 2 * len(ids) < len(self.source.ids) else None
        positions = find_ids(self.source.ids, ids, order)
        missing = np.flatnonzero(positions < 0)
        if len(missing):
            shown = ", ".join(str(ids[i]) for i in missing[:5])
            raise AlignmentError(
                f"{len(missing)} of {len(ids)} rows of {self.dump} are not in "
                f"{self.source.data!r}, split {self.source.split!r}: first the ids {shown}. Point "
                f"--source at the data that was dumped"
            )
        return positions


def open_inputs(reader: DumpReader, source: Any, progress: Progress = SILENT) -> Source:
    """The inputs of `source`; by default those that the dump holds, else those of its source."""
    plan = reader.plan
    if plan.with_inputs and source is None:
        table = reader.table([*stored_names(plan), *["view"] * plan.has_views])
        if plan.has_views:  # an input is stored only with its first view
            table = table.filter(pc.equal(table["view"], plan.views[0]))
        return stored_source(table.select(stored_names(plan)), plan, str(reader.folder))
    return named_source(plan, source, progress)


def stored_names(plan: Plan) -> list[str]:
    return ["id", *plan.input_columns, *plan.label_columns]


def stored_source(table: pa.Table, plan: Plan, dump: str) -> Source:
    """The rows of a dump that holds its inputs, as a source."""
    apart = plan.source.kind == "columns"
    columns = Columns(tuple(plan.input_columns), plan.label_column, "id", apart=apart)
    own = plan.label_column == "label_source"
    spelling: Spelling | None = "numbers" if plan.several_labels else None
    return Source(
        ArrowTable(table), columns, dump, plan.source.split, own_labels=own, spelling=spelling
    )


def source_place(plan: Plan) -> str:
    """Where the data of a plan lies on this machine: the path where the same rows were last seen,
    else the name in the plan."""
    seen = recall(plan.source.identity) if plan.source.origin == "local" else None
    return seen or plan.source.data


def named_source(plan: Plan, source: Any, progress: Progress = SILENT) -> Source:
    """The data that a plan names, or `source` (a name or a data set in memory), with the plan's
    columns. Raises SourceError if the plan names what is not on this machine."""
    recorded = plan.source.columns
    place = source_place(plan) if source is None else source
    if source is None and plan.source.origin == "live":
        raise SourceError(
            f"the inputs are not in the dump, and their source, {place!r}, was a data set in "
            f"memory. Give the same rows in Python with source=DATASET (to verify data=DATASET), "
            f"or a file of them with --source; or load with inputs=False. A dump that was made "
            f"with store_inputs='original' needs no source"
        )
    if source is None and plan.source.origin == "local" and not os.path.exists(place):
        raise SourceError(
            f"the inputs are not in the dump, and their source, {place!r}, a file or folder of who "
            f"made it, is not here. Say where your copy is: --source PATH, in Python source=PATH, "
            f"to verify --data PATH"
        )
    return open_source(
        place,
        plan.source.split,
        revision=plan.source.revision if source is None else None,
        input_column=recorded.inputs,
        label_column=recorded.label or recorded.label_source,
        id_column=recorded.id,
        class_names=plan.label_names,
        labels=LabelChoice(
            plan.label_column is not None, recorded.label_source is not None, plan.task
        ),
        spelling=recorded.label_lists,
        texts=plan.source.kind == "text",
        apart=plan.source.kind == "columns",
        progress=progress,
    )
