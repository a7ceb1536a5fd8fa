"""From the value of `--data` to a table of one split."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from softlabels.errors import SourceError, UsageError
from softlabels.inputs.plain import is_text
from softlabels.inputs.tables import image_folders
from softlabels.inputs.tables.folders import (
    ABOUT,
    ALIASES,
    DATA_ENDINGS,
    Listing,
    data_ending,
    list_files,
    refuse_cut_sets,
    shown,
    splits_of_data,
)
from softlabels.inputs.tables.headers import Header, check_images, declared_files, read_header
from softlabels.inputs.tables.identity import Contents
from softlabels.inputs.tables.live import name_of
from softlabels.inputs.tables.live_opening import open_live
from softlabels.inputs.tables.opened import Opened, check_split, meaning_of
from softlabels.inputs.tables.parquet import ParquetTable
from softlabels.inputs.tables.table import (
    ArrowTable,
    DatasetTable,
    Table,
    is_padded,
    mark_padded,
)
from softlabels.inputs.tables.text_files import DELIMITERS, READERS, read_written
from softlabels.system.humanize import counted

EMBEDDED = "digits"


def open_data(data: Any, split: str, revision: str | None = None) -> Opened:
    """`digits`, a file, a folder (files, save_to_disk, or images in class folders), a Hub id, or a
    data set in memory.

    split: its name or a synonym, such as `val` for validation. A path that exists wins over a Hub
    id. Raises SourceError that says what was tried, and UsageError for a revision of data that has
    none, and for an object that is no data set.
    """
    if not isinstance(data, str):
        return open_live(data, split, revision)
    if not data.strip():
        raise SourceError(f"no data is named: --data is {data!r}")
    path = local_path(data)
    if revision is not None and (path is not None or data == EMBEDDED):
        what = "comes with this package" if path is None else "is a file or folder here"
        raise UsageError(
            f"--revision is {revision!r}, and {data!r} {what}, which has no revisions: leave out "
            f"--revision, or name a dataset of the Hub with --data"
        )
    if data == EMBEDDED and path is None:
        return _open_embedded(split)
    if path is not None:
        return _open_file(path, split) if path.is_file() else _open_folder(path, split)
    if not re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", data) or data_ending(data):
        where = "" if Path(data).is_absolute() else f" in {Path.cwd()}"
        raise SourceError(
            f"no file or folder {data!r}{where}, and it can't be a Hub id (owner/name). Say where "
            f"the data is (--data, or --source for a dump's)"
        )
    return _open_hub(data, split, revision)


def is_one_split(data: Any) -> bool:
    """Whether it is one split by its kind, which `train` stands for: a file, or a data set in
    memory."""
    if isinstance(data, str):
        path = local_path(data)
        return path is not None and (path.is_file() or (path / "state.json").is_file())
    return not isinstance(data, datasets.DatasetDict)


def _open_hub(data: str, split: str, revision: str | None) -> Opened:
    with _quiet():
        try:
            return _load_hub(data, split, revision)
        except Exception as error:  # `datasets` calls many libraries
            raise SourceError(
                f"can't load {data!r}, split {split!r}: no such file or folder here, and as a Hub "
                f"id: {_cause(error)}"
            ) from error


def _load_hub(data: str, split: str, revision: str | None) -> Opened:
    """Tries the given name of the split, then its synonyms."""
    try:
        dataset = datasets.load_dataset(data, split=split, revision=revision)
        return Opened(DatasetTable(dataset), split)
    except ValueError as error:
        if "Unknown split" not in str(error):
            raise
        for name in (n for n in ALIASES if n != split and meaning_of(n) == meaning_of(split)):
            with suppress(ValueError):
                dataset = datasets.load_dataset(data, split=name, revision=revision)
                return Opened(DatasetTable(dataset), name)
        raise


def local_path(data: str) -> Path | None:
    """The file or folder of exactly this name, else with `~` expanded; None if neither exists."""
    for path in (Path(data), _expanded(data)):
        try:
            if path.exists():
                return path
        except (OSError, ValueError):  # a name too long, or with a NUL
            continue
    return None


def title_of(data: Any) -> str:
    """What messages call the data: what was written, of an object its name."""
    return data if isinstance(data, str) else name_of(data)


def dataset_name(data: str) -> str:
    """A short name for folders and records: `digits`, `mnist`, `owner-name`."""
    path = local_path(data)
    if path is not None:
        path = path.resolve()
        return Path(path.name.removesuffix(".gz")).stem if path.is_file() else path.name
    return data.replace("/", "-")


def _expanded(data: str) -> Path:
    try:
        return Path(data).expanduser()
    except RuntimeError:  # a user who isn't there
        return Path(data)


def _open_embedded(split: str) -> Opened:
    name = check_split("digits", split, ("train", "test"))
    with as_file(files("softlabels") / "embedded" / f"digits-{name}.parquet") as path:
        table = pq.read_table(path)
    return Opened(ArrowTable(table), name)


def _open_file(path: Path, split: str) -> Opened:
    if data_ending(path.name) is None:
        raise SourceError(
            f"{path} ends in {path.suffix!r}; a data file is one of {', '.join(DATA_ENDINGS)}, "
            f"and images belong in a folder; an archive is unpacked first"
        )
    return Opened(_open_files([path]), check_split(path, split, ("train",)))


def _open_folder(folder: Path, split: str) -> Opened:
    if (folder / "state.json").exists() and (folder / "dataset_info.json").exists():
        name = check_split(folder, split, ("train",))
        return Opened(DatasetTable(_saved(folder)), name)
    if (folder / "dataset_dict.json").exists():
        saved = _saved(folder)
        name = check_split(folder, split, saved)
        return Opened(DatasetTable(saved[name]), name)
    return _open_listed(list_files(folder), read_header(folder), split)


def _open_listed(listing: Listing, header: Header, split: str) -> Opened:
    """One split of the files of a folder, by the folder's header or by the files' names."""
    folder, notes = listing.folder, list[str]()
    if header.splits and not image_folders.is_alone(listing):
        name = check_split(folder, split, header.splits)
        paths = declared_files(listing, header.splits, name)
    else:
        if header.splits:
            check_images(listing, header.splits, image_folders.image_splits(listing))
        listing = _below_data(listing)
        if listing.images:
            splits = image_folders.image_splits(listing)
            name = check_split(folder, split, splits)
            images, notes = image_folders.open_images(listing, splits, name)
            return Opened(images, name, image_folders.ID, tuple(notes))
        if not listing.data:
            raise SourceError(_nothing(folder, listing))
        tables = splits_of_data(listing)
        name = check_split(folder, split, tables)
        paths = tables[name]
        others = [p for p in listing.others if p.name.partition(".")[0].lower() not in ABOUT]
        notes = [f"{shown(others)} left out: no data"] if others else []
        parents = sorted({str(path.parent.relative_to(folder)) for path in paths})
        if len(parents) > 1:
            notes.append(
                f"{shown(parents, 'folder')}: their rows follow each other, and no column says "
                f"which folder they are from"
            )
    refuse_cut_sets(folder, paths)
    table = _named_classes(_open_files(paths), header.classes)
    if header.rows.get(name, len(table)) != len(table):
        notes.append(
            f"warning: README.md tells of {header.rows[name]:,} rows in the split {name!r}; its "
            f"{counted(len(paths), 'file')} hold {len(table):,}"
        )
    return Opened(table, name, notes=tuple(notes))


def _named_classes(table: Table, classes: dict[str, list[str]]) -> Table:
    """The table with the class names that a header gives to columns of whole numbers."""
    for name, names in classes.items():
        feature = table.features.get(name)
        if isinstance(feature, datasets.Value) and "int" in feature.dtype:
            table.features = table.features | {name: datasets.ClassLabel(names=names)}
    return table


def _below_data(listing: Listing) -> Listing:
    """The files in `data/`, if all data files lie there."""
    tops = {path.parts[0] for path in listing.data + listing.images if len(path.parts) > 1}
    flat = [path for path in listing.data + listing.images if len(path.parts) == 1]
    return list_files(listing.folder / "data") if tops == {"data"} and not flat else listing


def _nothing(folder: Path, listing: Listing) -> str:
    read = f"a folder of data holds files that end in {', '.join(DATA_ENDINGS)}, or images"
    if not listing.others:
        return f"{folder} is an empty folder; {read}"
    return f"{folder} holds no data: {shown(listing.others)}; {read}. Archives are unpacked first"


def _open_files(paths: list[Path]) -> Table:
    """The rows of files of one kind, one file after the other."""
    ending = data_ending(paths[0].name)
    if ending == ".parquet":
        return ParquetTable(paths)
    if ending == ".arrow":
        return DatasetTable(datasets.concatenate_datasets([_open_arrow(path) for path in paths]))
    identity = Contents.of(paths)
    tables = [READERS[str(ending)](path) for path in paths]
    for path, table in zip(paths, tables, strict=True):
        other = set(table.column_names) ^ set(tables[0].column_names)
        if other:
            raise SourceError(
                f"{paths[0].name} and {path.name} are files of one split with other columns: only "
                f"one of them has {', '.join(sorted(other)[:5])}. Name the file that is meant"
            )
    if ending in DELIMITERS:
        pairs = zip(paths, tables, strict=True)
        tables = [_with_texts(path, table, tables) for path, table in pairs]
    tables = _alike(tables)
    try:
        table = pa.concat_tables(tables, promote_options="permissive").combine_chunks()
    except pa.ArrowException as error:
        raise SourceError(
            f"{paths[0].parent}: files of one split have columns of other types: "
            f"{str(error).splitlines()[0][:150]}"
        ) from error
    written = partial(_written, paths, identity) if ending in DELIMITERS else None
    return ArrowTable(table, identity=identity, written=written)


def _written(paths: Sequence[Path], identity: Contents, names: Sequence[str]) -> pa.Table:
    """These columns of CSV files as texts. Raises SourceError where a file was written again since
    it was opened: its other columns would be of other rows."""
    delimiter = DELIMITERS[str(data_ending(paths[0].name))]
    tables = [read_written(path, names, delimiter) for path in paths]
    if Contents.of(paths) != identity:
        raise SourceError(f"{paths[0]} was written again while it was open; start again")
    return pa.concat_tables(tables).combine_chunks()


def _with_texts(path: Path, table: pa.Table, all: list[pa.Table]) -> pa.Table:
    """The table of a CSV file in which columns that are texts in another file of the split are
    texts, too, as they would be in one file of all rows."""
    others = [field for other in all for field in other.schema if not is_padded(field)]
    texts = {field.name for field in others if is_text(field.type)}
    own = [field for field in table.schema if field.name in texts]
    names = [field.name for field in own if is_padded(field) or not is_text(field.type)]
    if names:
        written = read_written(path, names, DELIMITERS[str(data_ending(path.name))])
        for name in names:
            place = table.schema.get_field_index(name)
            table = table.set_column(place, pa.field(name, pa.string()), written[name])
    return table


def _alike(tables: list[pa.Table]) -> list[pa.Table]:
    """Tables in which a column of padded numbers (`001`) in one file is text in all of them."""
    padded = {field.name for table in tables for field in table.schema if is_padded(field)}
    for name in padded:
        types = {table.schema.field(name).type for table in tables}
        if types <= {pa.string(), pa.int64()}:
            columns = [table[name].cast(pa.string()) for table in tables]
            numbers = [
                is_padded(f) or f.type == pa.int64() for f in (t.schema.field(name) for t in tables)
            ]
            field = pa.field(name, pa.string())
            field = mark_padded(field) if all(numbers) else field
            tables = [
                table.set_column(table.schema.get_field_index(name), field, column)
                for table, column in zip(tables, columns, strict=True)
            ]
    return tables


def _open_arrow(path: Path) -> datasets.Dataset:
    try:
        with path.open("rb") as file:
            is_file = file.read(6) == b"ARROW1"
        if not is_file:
            return datasets.Dataset.from_file(str(path))
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
        return datasets.Dataset(datasets.table.InMemoryTable(table))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise SourceError(f"{path} can't be read as Arrow: {_cause(error)}") from error


def _saved(folder: Path) -> datasets.Dataset | datasets.DatasetDict:
    try:
        return datasets.load_from_disk(str(folder))
    except Exception as error:  # save_to_disk may have left the folder unfinished
        raise SourceError(f"{folder} can't be read: {_cause(error)}") from error


def _cause(error: BaseException) -> str:
    """An error's message in one line; for an error that only wraps another, that one's."""
    while isinstance(error, datasets.exceptions.DatasetGenerationError) and error.__cause__:
        error = error.__cause__
    return " ".join(str(error).split())[:300] or type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the progress bars of `datasets`; the command line shows its own."""
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()
