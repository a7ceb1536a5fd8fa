"""`load`: open a dump and join it with its inputs."""

from pathlib import Path

from softlabels.devices import own_device, resolve_device
from softlabels.errors import UsageError
from softlabels.inputs.preprocess import Preprocess
from softlabels.logits import check_temperature
from softlabels.progress import SILENT, Progress
from softlabels.store.folder import Folder
from softlabels.store.reader import DumpReader
from softlabels.targets.cache import LocalCache
from softlabels.targets.joining import Join, JoinedInputs, StoredInputs, join_inputs, named_source
from softlabels.targets.kept_logits import KeptLogits, choose_keep
from softlabels.targets.mirror import local_copy
from softlabels.targets.soft_dataset import SoftDataset
from softlabels.targets.streaming import StreamedInputs, StreamedRows


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
    streaming: bool = False,
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

    streaming: row groups are read as they are needed, wherever the dump lies, and only the last few
    kept; shuffled batches mix 16 row groups at a time. A remote dump without a cache is streamed.

    Raises UsageError for T ≤ 0, NaN or text and for a `keep` that can't be; StoreError,
    IncompleteDump or DamagedDump for a folder that is no whole dump; SourceError or AlignmentError
    where the inputs don't belong.
    """
    T = check_temperature(T)
    place = None if cache is False else LocalCache(None if cache is True else cache)
    folder = Folder(path)
    if streaming or (place is None and not folder.is_local):
        if keep not in ("auto", "disk"):
            raise UsageError(f"--keep is {keep!r}, but a streamed dump is not kept; leave it out")
        return _streamed(DumpReader(folder), T, inputs, source, preprocess)
    if place is not None and not folder.is_local:
        folder = local_copy(folder, place, progress)
    reader = DumpReader(folder)
    on = own_device(resolve_device(device))
    logits = KeptLogits(reader, place, keep, on)
    examples = join_inputs(reader, source, _preprocess(reader, preprocess)) if inputs else None
    if examples is not None and choose_keep(keep, examples.decoded_bytes, on) == "gpu":
        examples.device = on
    return SoftDataset(reader, logits, examples, T)


def _streamed(
    reader: DumpReader, T: float, inputs: bool, source: str | None, preprocess: str | None
) -> SoftDataset:
    plan, words = reader.plan, _preprocess(reader, preprocess)
    columns = ["id", "input_hash"] + ["label"] * reader.labelled
    find: StoredInputs | JoinedInputs | None = None
    if inputs and plan.with_inputs and source is None:
        columns.append("input")
        find = StoredInputs(plan, str(reader.folder), words)
    elif inputs:
        find = JoinedInputs(Join(named_source(plan, source), str(reader.folder)), words)
    rows = StreamedRows(reader, find, columns)
    examples = StreamedInputs(rows, words) if inputs else None
    if examples is not None:
        examples.sample()  # a wrong source is refused now
    return SoftDataset(reader, rows, examples, T)


def _preprocess(reader: DumpReader, told: str | None) -> Preprocess:
    return Preprocess.parse(reader.plan.preprocess if told is None else told)
