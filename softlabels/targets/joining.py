"""A dump's rows and the inputs that belong to them: joined by id, checked by hash."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from softlabels.errors import UsageError
from softlabels.inputs.cells import read_ids
from softlabels.inputs.examples import Examples
from softlabels.inputs.preprocess import Preprocess
from softlabels.inputs.rendering import DECODER
from softlabels.inputs.sources import Source
from softlabels.inputs.text_inputs import TextInputs, open_inputs_of
from softlabels.inputs.token_inputs import TokenInputs
from softlabels.inputs.viewed import ViewedInputs
from softlabels.store.inputs import Join, find_ids, open_inputs, stored_names, stored_source
from softlabels.store.reader import DumpReader
from softlabels.store.records import Plan
from softlabels.system.cache import LocalCache
from softlabels.system.progress import SILENT, Progress


def join_inputs(
    reader: DumpReader,
    source: Any,
    preprocess: Preprocess,
    cache: LocalCache | None = None,
    progress: Progress = SILENT,
) -> Examples | TextInputs | TokenInputs:
    """The inputs of all rows of a dump, in their order, decoded ahead. cache: notes what was
    checked, and keeps decoded pictures."""
    opened = open_inputs(reader, source, progress)
    examples = find_inputs(reader, opened, preprocess, reader.hashes_of(source))
    if cache is not None and isinstance(examples, Examples):
        examples.remember_in(cache, progress)
    examples.prepare()
    return examples


def find_inputs(
    reader: DumpReader, source: Source, preprocess: Preprocess, hashes: np.ndarray
) -> Examples | TextInputs | TokenInputs:
    """The inputs of all rows of a dump, in their order, as each row's view shows them. Raises
    AlignmentError where the source has not all ids.

    hashes: those that they must have, uint64 [R]
    """
    join = Join(source, str(reader.folder))
    if not reader.plan.has_views:
        return open_inputs_of(source, preprocess, join.positions(reader.ids), hashes)
    view_rows = reader.view_rows
    first = view_rows[0]
    examples = Examples(source, preprocess, join.positions(reader.ids[first]), hashes[first])
    numbers = np.empty(len(reader), np.int64)
    numbers[view_rows] = np.arange(len(first))
    assert reader.plan.augmentation is not None, "there are views"
    return ViewedInputs(
        examples, reader.plan.augmentation, numbers, reader.views, reader.drawn,
        reader.plan.view_shape or [], stored_steps(reader.plan, preprocess), partner_rows(reader),
    )  # fmt: skip


def partner_rows(reader: DumpReader) -> np.ndarray | None:
    """The row of the same view of the input that each row is mixed with, itself for those that are
    not, int64 [R]; None where none are. Raises UsageError where such an input is not among these
    rows: of some shards alone."""
    if reader.plan.mixing is None:
        return None
    rows, missing = np.arange(len(reader)), 0
    ids = reader.ids[reader.view_rows[0]]
    for of_view in reader.view_rows:
        mixed = of_view[reader.mixed[of_view]]
        places = find_ids(ids, reader.partners[mixed])
        missing += int((places < 0).sum())
        rows[mixed] = of_view[places]
    if missing:
        raise UsageError(
            f"{missing:,} of {len(reader):,} rows of {reader.folder} are mixed with inputs that "
            f"{'are in other shards' if len(reader.numbers) < reader.plan.shards else 'it lacks'}: "
            f"load all shards, or these without inputs, with inputs=False"
        )
    return rows


def check_shows_views(plan: Plan, preprocess: Preprocess, own: Preprocess, dump: str) -> None:
    """Raises UsageError where pictures would be decoded, resized or shown otherwise than those of
    which a dump's views were made: nothing else would tell that a student sees other pixels.

    own: the dump's preprocessing
    """
    if not plan.has_views:
        return
    if preprocess.left != own.left:
        theirs, ours = ("|".join(map(str, each.left)) or "none" for each in (own, preprocess))
        raise UsageError(
            f"--preprocess is {str(preprocess)!r}; the views of {dump} are made of pictures with "
            f"the steps {theirs}, and not {ours}: keep these, with their filter and resizer, and "
            f"change only the steps on numbers, such as scale(255)"
        )
    if plan.decoder is not None and plan.decoder != DECODER:
        raise UsageError(
            f"the views of {dump} are made of pictures that {plan.decoder} decoded, and here "
            f"{DECODER} decodes them: a student would see other pixels than the teacher. Use the "
            f"softlabels that dumped it, or load its rows alone with inputs=False"
        )


def stored_steps(plan: Plan, preprocess: Preprocess) -> int:
    """How many steps make of the pictures that this prepares those that a dump stores, from which
    the boxes of its views are cut; 0 where it is given these."""
    if plan.stored is None or preprocess.done:
        return 0
    return plan.stored.done_in(preprocess.picture) or 0


@dataclass(frozen=True)
class StoredInputs:
    """The inputs of a table of rows that holds them."""

    plan: Plan
    dump: str
    preprocess: Preprocess

    def __call__(self, table: pa.Table) -> Examples | TextInputs | TokenInputs:
        source = stored_source(table.select(stored_names(self.plan)), self.plan, self.dump)
        hashes = table[self.plan.hash_column].to_numpy()
        return open_inputs_of(source, self.preprocess, None, hashes)


@dataclass(frozen=True)
class JoinedInputs:
    """The inputs of a table of rows, from a source."""

    join: Join
    preprocess: Preprocess

    def __call__(self, table: pa.Table) -> Examples | TextInputs | TokenInputs:
        positions = self.join.positions(read_ids(table["id"], "id"))
        hashes = table["input_hash"].to_numpy()
        return open_inputs_of(self.join.source, self.preprocess, positions, hashes)
