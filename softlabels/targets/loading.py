"""`load`: open a dump and join it with its inputs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from softlabels.errors import UsageError
from softlabels.inputs.preprocess import Preprocess
from softlabels.inputs.rendering import DECODER
from softlabels.places.folders import dump_folder
from softlabels.places.remote_copies import local_copy
from softlabels.places.siblings import named_dumps
from softlabels.soft_targets import check_temperature
from softlabels.store.folder import Folder
from softlabels.store.inputs import Join, named_source
from softlabels.store.reader import DumpReader
from softlabels.store.shard_numbers import write_numbers
from softlabels.system.cache import LocalCache
from softlabels.system.devices import own_device, resolve_device
from softlabels.system.progress import SILENT, Progress
from softlabels.targets.concatenated import Concatenated
from softlabels.targets.joining import JoinedInputs, StoredInputs, check_shows_views, join_inputs
from softlabels.targets.mapped_rows import MappedRows, choose_keep
from softlabels.targets.side_by_side import SideBySide
from softlabels.targets.soft_dataset import Dump, SoftDataset
from softlabels.targets.streamed_rows import StreamedInputs, StreamedRows


def load(
    path: str | Path | Sequence[str | Path] | Mapping[str, str | Path],
    T: float | None = None,
    *,
    inputs: bool = True,
    source: Any = None,
    preprocess: str | Preprocess | Callable[[Any], Any] | None = None,
    keep: str = "auto",
    device: str = "cpu",
    cache: bool | str | Path = True,
    streaming: bool = False,
    shards: str | Sequence[int] | None = None,
    progress: Progress = SILENT,
) -> SoftDataset:
    """A dump as a torch map-style dataset.

    path: a folder, an address such as s3://…, or ORG/NAME[@REVISION] on the Hugging Face Hub. A
    list of them gives one dataset with the rows of all. A dict of them puts several teachers side
    by side: rows are joined by id and view, and `targets`, `logits` and `soft_target` are dicts.

    T: the temperature of `soft_target`. Without it rows have no `soft_target`;
    `with_temperature(T)` gives the same rows with one. `logits` and `targets` know no temperature.

    source: data to take the inputs from, a name or a data set in memory; by default the dump itself
    if it holds them, else the data that it names. Rows are joined by id, and the hash of each input
    is checked before it is used, so other data is refused and order does not matter. inputs=False
    leaves the inputs out.
    preprocess: replaces the teacher's; a function (see docs/python.md) is asked for again where the
    teacher's was one.

    keep: `disk` maps the files (shards that another program packed are decoded into memory now);
    `gpu` copies the logits onto `device`; `auto` is gpu if that is CUDA and has the room, else
    disk. cache: the folder for copies of remote dumps and for notes of verified files; True is
    $SOFTLABELS_CACHE or ~/.cache/softlabels, False is none.

    streaming: row groups are read when they are needed, and only the last few are kept; shuffled
    batches mix 16 row groups at a time. A remote dump without a cache is streamed.

    shards: only these, such as "0-9" or [0, 3]; the files of others are not touched.

    Raises UsageError for T ≤ 0, NaN or text, for a `keep` that is impossible, for shards that don't
    exist, and for packed shards larger than the free memory; StoreError, IncompleteDump or
    DamagedDump for a folder that is not a whole dump; SourceError or AlignmentError for inputs that
    are not the dump's.
    """
    T = None if T is None else check_temperature(T)
    shards = shards if shards is None or isinstance(shards, str) else list(shards)
    opening = Opening(inputs, source, preprocess, keep, device, cache, streaming, shards, progress)
    if not isinstance(path, str | Path) and not path:
        raise UsageError("no dump is named; name a folder, an address, or several")
    if isinstance(path, Mapping):
        (name, first), *others = named_dumps(path).items()
        without = replace(opening, inputs=False)
        dumps = {other: open_dump(where, T, without) for other, where in others}
        teachers = SideBySide(T, {name: open_dump(first, T, opening)} | dumps)
        for remark in (*teachers.remarks, *teachers.streams.remarks(teachers.title)):
            progress.say(remark)
        return teachers
    if not isinstance(path, str | Path):
        return Concatenated(T, [open_dump(one, T, opening) for one in path])
    return open_dump(path, T, opening)


@dataclass(frozen=True)
class Opening:
    """How a dump is opened; see `load`."""

    inputs: bool
    source: Any
    preprocess: str | Preprocess | Callable[[Any], Any] | None
    keep: str
    device: str
    cache: bool | str | Path
    streaming: bool
    shards: str | Sequence[int] | None
    progress: Progress


def open_dump(path: str | Path, T: float | None, how: Opening) -> Dump:
    """One dump."""
    place = None if how.cache is False else LocalCache(None if how.cache is True else how.cache)
    streamed = how.streaming or place is None
    folder = dump_folder(path, "nothing" if streamed else "rows", how.progress, how.shards)
    if how.streaming or (place is None and not folder.is_local):
        if how.keep not in ("auto", "disk"):
            raise UsageError(f"--keep is {how.keep!r}; a streamed dump is not kept, leave it out")
        return _streamed(_reader(folder, how), T, how)
    if place is not None and not folder.is_local:
        folder = local_copy(folder, place, how.progress, how.shards)
    reader = _reader(folder, how)
    device = own_device(resolve_device(how.device))
    rows = MappedRows(reader, place, how.keep, device, how.progress)
    if not how.inputs:
        return Dump(T, reader, rows, None)
    examples = join_inputs(reader, how.source, _preprocess(reader, how), place, how.progress)
    if choose_keep(how.keep, examples.decoded_bytes, device) == "gpu":
        examples.keep_on(device)
    return Dump(T, reader, rows, examples)


def _reader(folder: Folder, how: Opening) -> DumpReader:
    """Raises UsageError for shards of which every row was left out."""
    reader = DumpReader(folder, how.shards)
    if how.shards is not None and not len(reader):
        raise UsageError(
            f"--shards {write_numbers(reader.numbers)} of {folder} have no rows: the dump left all "
            f"of them out; choose others too"
        )
    return reader


def _streamed(reader: DumpReader, T: float | None, how: Opening) -> Dump:
    plan, preprocess = reader.plan, _preprocess(reader, how)
    if plan.mixing is not None and how.inputs:
        raise UsageError(
            f"the inputs of {reader.folder} are mixed with others of the whole dump by "
            f"{plan.mixing}, and a streamed dump holds a few row groups at a time: load it without "
            f"streaming, from a local copy (softlabels pull), or without inputs: inputs=False"
        )
    columns = ["id", "input_hash", *plan.label_columns]
    columns += ["view", *plan.parameters, *plan.partner_columns] if plan.has_views else []
    find: StoredInputs | JoinedInputs | None = None
    if how.inputs and plan.with_inputs and how.source is None:
        columns += plan.input_columns + [plan.hash_column] * (plan.stored is not None)
        find = StoredInputs(plan, str(reader.folder), preprocess)
    elif how.inputs:
        find = JoinedInputs(
            Join(named_source(plan, how.source, how.progress), str(reader.folder)), preprocess
        )
    rows = StreamedRows(reader, find, columns)
    examples = StreamedInputs(rows, preprocess) if how.inputs else None
    if examples is not None:
        examples.sample()  # refuses a wrong source now rather than in the first batch
    return Dump(T, reader, rows, examples)


def _preprocess(reader: DumpReader, how: Opening) -> Preprocess:
    """Raises UsageError for other steps on pictures than those after which views were drawn."""
    own = Preprocess.parse(reader.plan.preprocess)
    chosen = own if how.preprocess is None else Preprocess.of(how.preprocess)
    stored = reader.plan.stored if how.source is None else None
    if stored is not None:
        own, chosen = stored.of_stored(own), stored.of_stored(own, chosen)
    if how.inputs:
        chosen.check_here(str(reader.folder))
    if own.is_opaque and chosen.is_opaque and chosen != own:
        how.progress.say(
            f"warning: the inputs are preprocessed by {chosen}; the teacher of {reader.folder} saw "
            f"what {own} makes of them"
        )
    if how.inputs and stored is not None and chosen.is_opaque:
        how.progress.say(
            f"warning: {chosen} is given the pictures that {reader.folder} stores, upright and "
            f"{stored.title}, not those of the source, which source= gives it"
        )
    if how.inputs:
        check_shows_views(reader.plan, chosen, own, str(reader.folder))
        for warning in _rendered_otherwise(reader, own, chosen):
            how.progress.say(warning)
    return chosen


def _rendered_otherwise(reader: DumpReader, own: Preprocess, chosen: Preprocess) -> Iterator[str]:
    """Warnings where pixels are made otherwise than the teacher's were: nothing else shows it."""
    decoder = reader.plan.decoder
    if decoder is not None and decoder != DECODER:
        yield (
            f"warning: pictures are decoded by {DECODER}; those that the teacher of "
            f"{reader.folder} saw, by {decoder}"
        )
    if chosen.picture != own.picture and chosen.by_pillow.picture == own.by_pillow.picture:
        ours, theirs = ("|".join(map(str, each.picture)) for each in (chosen, own))
        yield (
            f"warning: pictures are resized by {ours}; those that the teacher of {reader.folder} "
            f"saw, by {theirs}: levels differ by one here and there"
        )
