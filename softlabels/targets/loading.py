"""`load`: open a dump and join it with its inputs."""

from pathlib import Path

import numpy as np

from softlabels.devices import own_device, resolve_device
from softlabels.errors import AlignmentError
from softlabels.inputs.columns import Columns
from softlabels.inputs.examples import Examples
from softlabels.inputs.opening import table_dataset
from softlabels.inputs.preprocess import Preprocess
from softlabels.inputs.sources import Source, open_source
from softlabels.logits import check_temperature
from softlabels.progress import SILENT, Progress
from softlabels.store.folder import Folder
from softlabels.store.reader import DumpReader
from softlabels.targets.cache import LocalCache
from softlabels.targets.kept_logits import KeptLogits, choose_keep
from softlabels.targets.mirror import local_copy
from softlabels.targets.soft_dataset import SoftDataset


def load(
    path: str | Path,
    T: float,
    *,
    inputs: bool = True,
    source: str | None = None,
    preprocess: str | None = None,
    keep: str = "auto",
    device: str = "cpu",
    cache: bool | str | Path = True,
    progress: Progress = SILENT,
) -> SoftDataset:
    """A dump as a torch map-style dataset at temperature T.

    The inputs come from the dump where it holds them, else from the dataset that the dump names,
    or from `source`; `inputs=False` leaves them out. Rows are joined by id and each input's hash is
    checked before it is used, so order does not matter and other data is refused. `preprocess`
    replaces the teacher's.

    keep: where logits are read from. `disk` maps files, own shards as they are and others once
    decoded; `ram` copies into memory; `gpu` onto `device`; `auto` is gpu where that is CUDA and has
    the room, else disk. cache: the folder for decoded shards and copies of remote dumps, True for
    the usual one ($SOFTLABELS_CACHE, or ~/.cache/softlabels), False for none.

    Raises UsageError for T ≤ 0, NaN or text and for a `keep` that can't be; StoreError,
    IncompleteDump or DamagedDump for a folder that is no whole dump; SourceError or AlignmentError
    where the inputs don't belong.
    """
    T = check_temperature(T)
    place = None if cache is False else LocalCache(None if cache is True else cache)
    folder = Folder(path)
    if place is not None and not folder.is_local:
        folder = local_copy(folder, place, progress)
    reader = DumpReader(folder)
    on = own_device(resolve_device(device))
    logits = KeptLogits(reader, place, keep, on)
    examples = join_inputs(reader, source, preprocess) if inputs else None
    if examples is not None and choose_keep(keep, examples.decoded_bytes, on) == "gpu":
        examples.device = on
    return SoftDataset(reader, logits, examples, T)


def join_inputs(reader: DumpReader, source: str | None, preprocess: str | None) -> Examples:
    """The inputs of a dump's rows, in their order."""
    text = reader.plan.preprocess if preprocess is None else preprocess
    found = open_inputs(reader, source)
    positions = join(reader.ids, found, str(reader.folder))
    examples = Examples(found, Preprocess.parse(text), positions, reader.hashes)
    examples.sample()  # a wrong source is refused now, not in the first epoch
    return examples


def join(ids: np.ndarray, source: Source, dump: str) -> np.ndarray:
    """Where each id stands in the source, int64 [rows]. Raises AlignmentError for missing ids."""
    theirs = source.ids
    if theirs.dtype.kind == ids.dtype.kind:
        order = np.argsort(theirs, kind="stable")
        places = np.searchsorted(theirs, ids, sorter=order)
        places[places == len(theirs)] = 0
        positions = order[places]
        missing = np.flatnonzero(theirs[positions] != ids)
    else:
        positions, missing = np.zeros(len(ids), np.int64), np.arange(len(ids))
    if len(missing):
        shown = ", ".join(str(ids[i]) for i in missing[:5])
        raise AlignmentError(
            f"{len(missing)} of {len(ids)} rows of {dump} are not in {source.data!r}, split "
            f"{source.split!r}: first the ids {shown}. Point --source at the data that was dumped"
        )
    return positions


def open_inputs(reader: DumpReader, source: str | None) -> Source:
    """The inputs that a dump holds, else those of the data that it names; or those of `source`."""
    plan = reader.plan
    recorded = plan.source["columns"]
    if plan.with_inputs and source is None:
        names = ["id", "input"] + (["label"] if recorded["label"] is not None else [])
        columns = Columns(("input",), "label" if recorded["label"] is not None else None, "id")
        dataset = table_dataset(reader.table(names))
        return Source(dataset, columns, str(reader.folder), plan.source["split"])
    return open_source(
        source or plan.source["data"],
        plan.source["split"],
        revision=None if source else plan.source["revision"],
        input_column=",".join(recorded["inputs"]),
        label_column=recorded["label"],
        id_column=recorded["id"],
        class_names=plan.source["class_names"],
    )
