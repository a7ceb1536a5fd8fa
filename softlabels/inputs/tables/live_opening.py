"""From an object to a table: a data set in memory, or the reason why it is none."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import datasets
import pyarrow as pa
import torch

from softlabels.errors import SourceError, UsageError
from softlabels.inputs.tables.live import MapTable
from softlabels.inputs.tables.opened import Opened, check_split, meaning_of
from softlabels.inputs.tables.table import DatasetTable

STREAM = (
    "is a stream: it has no length, and its rows have no numbers. A dump needs both, to resume and "
    "to join rows by id. Save it, such as with to_parquet, or give a data set with __len__ and "
    "__getitem__"
)


def open_live(data: Any, split: str, revision: str | None) -> Opened:
    """A data set in memory. It is one split: `datasets` may know its name, else it is `split`."""
    if revision is not None:
        raise UsageError(f"--revision is {revision!r}, and a data set in memory has none")
    if isinstance(data, datasets.DatasetDict):
        name = check_split("the DatasetDict", split, data)
        return Opened(DatasetTable(data[name]), name, notes=_notes_of(data[name]))
    if not isinstance(data, datasets.Dataset):
        _refuse_others(data)
        return Opened(MapTable(data), split)
    own = str(data.split or "")
    if not re.fullmatch(r"\w+", own):  # such as train[:10%]
        own = split
    if split != "train" and meaning_of(own) != meaning_of(split):  # train may be the default
        raise SourceError(f"the data set is the split {own!r}, not {split!r}; leave out split=")
    return Opened(DatasetTable(data), own, notes=_notes_of(data))


def _notes_of(data: datasets.Dataset) -> tuple[str, ...]:
    """A warning where rows are not what indexing gives: a transform may draw other rows each
    time."""
    if data.format["type"] != "custom":
        return ()
    return (
        "warning: the data set's transform is not applied: its columns are read as they are "
        "stored. What the teacher needs of it belongs into preprocess=",
    )


def _refuse_others(data: Any) -> None:
    """Raises UsageError, with the remedy, for an object that is no map-style data set."""
    kind = f"the data, a {type(data).__name__},"
    if isinstance(data, torch.utils.data.DataLoader):
        raise UsageError(f"{kind} gives batches, in an order of its own; give its .dataset")
    streams = (datasets.IterableDataset, datasets.IterableDatasetDict, Iterator)
    if isinstance(data, (torch.utils.data.IterableDataset, *streams)):
        raise UsageError(f"{kind} {STREAM}")
    frame = type(data).__module__.partition(".")[0] in ("pandas", "polars")
    if frame or isinstance(data, pa.Table):
        maker = (
            "(data)" if isinstance(data, pa.Table) else f".from_{type(data).__module__[:6]}(data)"
        )
        raise UsageError(
            f"{kind} is a table; give datasets.Dataset{maker}, or save it as Parquet and name the "
            f"file"
        )
    if isinstance(data, Mapping):
        raise UsageError(f"{kind} has its rows by key; give one split, or a list of rows")
    try:
        len(data)
    except (TypeError, NotImplementedError) as error:
        raise UsageError(f"{kind} {STREAM}") from error
