"""From what a person writes after --data to a `datasets` dataset of one split."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from softlabels.errors import SourceError

BUILDERS = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".arrow": "arrow",
}
EMBEDDED = "digits"


def open_dataset(data: str, split: str, revision: str | None = None) -> datasets.Dataset:
    """`digits`, a file, a folder (files, save_to_disk, or images in class folders), or a Hub id.

    A path that exists wins over a Hub id. Raises SourceError that says what was tried.
    """
    path = Path(data).expanduser()
    if data == EMBEDDED and not path.exists():
        return _open_embedded(split)
    is_id = re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", data) and path.suffix.lower() not in BUILDERS
    if not path.exists() and not is_id:
        where = "" if path.is_absolute() else f" in {Path.cwd()}"
        raise SourceError(
            f"no file or folder {data!r}{where}, and it can't be a Hub id (owner/name). Say where "
            f"the data is (--data, or --source for a dump's)"
        )
    with _quiet():
        try:
            if path.exists():
                return _open_local(path, split)
            return datasets.load_dataset(data, split=split, revision=revision)
        except SourceError:
            raise
        except Exception as error:
            what = "" if path.exists() else "no such file or folder here, and as a Hub id: "
            raise SourceError(f"can't load {data!r}, split {split!r}: {what}{error}") from error


def dataset_name(data: str) -> str:
    """A short name for folders and records: `digits`, `mnist`, `owner-name`."""
    path = Path(data).expanduser()
    if path.exists():
        return path.resolve().stem if path.is_file() else path.resolve().name
    return data.replace("/", "-")


def _open_embedded(split: str) -> datasets.Dataset:
    if split not in ("train", "test"):
        raise SourceError(f"digits has no split {split!r}; it has train and test")
    with as_file(files("softlabels") / "embedded" / f"digits-{split}.parquet") as path:
        return table_dataset(pq.read_table(path))


def table_dataset(table: pa.Table) -> datasets.Dataset:
    """A dataset over a table in memory, its features read from the table's metadata."""
    return datasets.Dataset(datasets.table.InMemoryTable(table))


def _open_local(path: Path, split: str) -> datasets.Dataset:
    if path.is_file():
        builder = BUILDERS.get(path.suffix.lower())
        if builder is None:
            raise SourceError(
                f"{path} ends in {path.suffix!r}; a data file is one of {', '.join(BUILDERS)}, "
                f"and images belong in a folder"
            )
        words = {"sep": "\t"} if path.suffix == ".tsv" else {}
        found = datasets.load_dataset(builder, data_files={"train": str(path)}, **words)
    elif (path / "state.json").exists() and (path / "dataset_info.json").exists():
        found = {"train": datasets.load_from_disk(str(path))}
    elif (path / "dataset_dict.json").exists():
        found = datasets.load_from_disk(str(path))
    elif not any(path.iterdir()):
        raise SourceError(f"{path} is an empty folder; it should hold data files")
    else:
        found = datasets.load_dataset(str(path))
    if split not in found:
        raise SourceError(f"{path} has no split {split!r}; it has {', '.join(found)}: use --split")
    return found[split]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the bars of `datasets`: the command line shows its own."""
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()
