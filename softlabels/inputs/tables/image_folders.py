"""A folder of images as a table: image, file_name, label, and what metadata.csv adds.

The class of an image is the first folder below the split, however deep the file lies, as in
torchvision. The classes of all splits are counted together, so that a split in which one is missing
has the same numbers. Files are opened when their rows are read.
"""

import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from softlabels.errors import SourceError
from softlabels.inputs.labels import LABEL_NAMES, in_order
from softlabels.inputs.tables.folders import (
    ABOUT,
    METADATA,
    PICTURES,
    Listing,
    folders_of,
    natural,
    refuse_alike,
    refuse_splitless,
    shown,
    split_of,
)
from softlabels.inputs.tables.identity import Lines
from softlabels.inputs.tables.table import ArrowTable
from softlabels.inputs.tables.text_files import read_csv, read_json

ID = "file_name"  # in metadata files too, as in `datasets`


def is_alone(listing: Listing) -> bool:
    """Whether there are images, and no other tables than metadata files about them."""
    return bool(listing.images) and not _tables(listing)


def _tables(listing: Listing) -> list[PurePosixPath]:
    return [path for path in listing.data if path.name.lower() not in METADATA]


def image_splits(listing: Listing) -> dict[str, list[PurePosixPath]]:
    """The images of each split, as paths below the folder."""
    tables = _tables(listing)
    if tables:
        raise SourceError(
            f"{listing.folder} holds {shown(listing.images, 'image')} and "
            f"{shown([str(p) for p in tables], 'data file')}: name what is meant with --data. A "
            f"table about the images is called metadata.csv and has a column file_name"
        )
    splits: dict[str, list[PurePosixPath]] = {}
    for path in listing.images:
        split = split_of(path.parts[0]) if len(path.parts) > 1 else None
        splits.setdefault(split or "", []).append(path)
    nowhere = splits.pop("", [])
    if splits and nowhere:
        refuse_splitless(listing.folder, splits, nowhere)
    if not splits:
        refuse_alike(listing.folder, folders_of(nowhere))
    for images in splits.values() if splits else [nowhere]:
        _refuse_splits_below(listing.folder, images)
    return splits or {"train": nowhere}


def _refuse_splits_below(folder: Path, images: list[PurePosixPath]) -> None:
    """Raises SourceError where the folders right below the classes name several splits, which
    would be mixed."""
    inside = [_inside(path) for path in images]
    below = {path.parts[:2] for path in inside if len(path.parts) > 2 and split_of(path.parts[1])}
    if len({split_of(split) for _, split in below}) > 1:
        places = sorted("/".join(parts) for parts in below)
        raise SourceError(
            f"{folder} has splits below its classes: {', '.join(places[:5])}; the split comes "
            f"first: move them to folders such as {split_of(places[-1].split('/')[1])}/"
            f"{places[0].split('/')[0]}"
        )


def open_images(
    listing: Listing, splits: dict[str, list[PurePosixPath]], split: str
) -> tuple[ArrowTable, list[str]]:
    """The images of one split of `image_splits`, and remarks about its files."""
    images = splits[split]
    inside = [_inside(path) for path in images]
    names = {"image": _paths(listing.folder, images), ID: pa.array(map(str, inside), pa.string())}
    features: dict[str, Any] = {"image": datasets.Image()}
    added = _metadata(listing, images)
    for name in added.column_names:
        names[name] = added[name]
    classes = _classes(listing, splits)
    notes = _others(listing)
    if classes and len(inside[0].parts) > 1 and not set(LABEL_NAMES) & set(added.column_names):
        _refuse_beside(listing.folder, images, classes)
        numbers = {name: number for number, name in enumerate(classes)}
        labels = [numbers[path.parts[0]] for path in inside]
        names["label"] = pa.array(labels, pa.int64())
        features["label"] = datasets.ClassLabel(names=classes)
        lacking = sorted(set(classes) - {path.parts[0] for path in inside}, key=classes.index)
        if len(classes) == 1 and (below := _folders_inside(inside)):
            notes.append(
                f"warning: all images lie in the one class folder {classes[0]!r}, in "
                f"{shown(below, 'folder')} below it; where those are the classes, give the folder "
                f"that they are in as --data"
            )
        if lacking:
            notes.append(f"no image of {shown(lacking, 'class folder')} in the split {split!r}")
    elif not added.column_names:
        _refuse_beside(listing.folder, images, classes)
    return ArrowTable(pa.table(names), features, Lines([str(path) for path in inside])), notes


def _inside(path: PurePosixPath) -> PurePosixPath:
    """The path below the split's folder."""
    parts = path.parts
    is_split = len(parts) > 1 and split_of(parts[0]) is not None
    return PurePosixPath(*parts[1:]) if is_split else path


def _folders_inside(paths: list[PurePosixPath]) -> list[str]:
    """The folders right below the class folders, if every image lies in one."""
    deep = all(len(path.parts) > 2 for path in paths)
    return sorted({path.parts[1] for path in paths}) if deep else []


def _paths(folder: Path, images: Iterable[PurePosixPath]) -> pa.Array:
    top = str(folder.absolute())
    paths = pa.array([os.path.join(top, path) for path in images], pa.string())
    return pa.StructArray.from_arrays(
        [pa.nulls(len(paths), pa.binary()), paths], names=["bytes", "path"]
    )


def _classes(listing: Listing, splits: dict[str, list[PurePosixPath]]) -> list[str]:
    """The folders right below each split's folder, empty ones included."""
    inside = (_inside(path) for paths in splits.values() for path in paths)
    names = {path.parts[0] for path in inside if len(path.parts) > 1}
    if not names:
        return []
    tops = {path.parts[0] for path in listing.images if split_of(path.parts[0])}
    for folder in [listing.folder / top for top in tops] or [listing.folder]:
        if folder.is_dir():
            names |= {f.name for f in folder.iterdir() if f.is_dir() and not _hidden(f.name)}
    return in_order(names)


def _hidden(name: str) -> bool:
    return name.startswith(".") or name in ("__MACOSX", "__pycache__")


def _refuse_beside(folder: Path, images: list[PurePosixPath], classes: list[str]) -> None:
    """Raises SourceError where some images lie in class folders and others beside them."""
    beside = [path for path in images if len(_inside(path).parts) == 1]
    if beside and len(beside) < len(images):
        raise SourceError(
            f"{folder} has {shown(beside, 'image')} beside the class folders "
            f"{', '.join(classes[:5])}: move each image into the folder of its class, or away"
        )


def _others(listing: Listing) -> list[str]:
    """Remarks about files that are not images."""
    others = [p for p in listing.others if p.name.partition(".")[0].lower() not in ABOUT]
    pictures = [path for path in others if path.suffix.lower() in PICTURES]
    rest = [path for path in others if path not in set(pictures)]
    notes = []
    if pictures:
        notes.append(
            f"warning: {shown(pictures, 'picture')} left out: Pillow can't read "
            f"{', '.join(sorted({p.suffix.lower() for p in pictures}))} here; convert them to be "
            f"part of the data"
        )
    if rest:
        one = len(rest) == 1
        notes.append(f"{shown(rest)} left out: no {'image' if one else 'images'}")
    return notes


def _metadata(listing: Listing, images: list[PurePosixPath]) -> pa.Table:
    """The columns of the metadata files for these images, in their order, without file_name; no
    columns if there is no such file. Raises SourceError if rows and images don't match."""
    files = [p for p in listing.data if p.name.lower() in METADATA]
    tops = {path.parts[0] for path in images if len(path.parts) > 1}
    files = [
        p for p in files if len(p.parts) == 1 or not split_of(p.parts[0]) or p.parts[0] in tops
    ]
    if not files:
        return pa.table({})
    tables, places = [], []
    for file in files:
        table = (read_csv if file.suffix.lower() == ".csv" else read_json)(listing.folder / file)
        if ID not in table.column_names or table[ID].null_count:
            raise SourceError(
                f"{listing.folder / file} names no file in its column {ID!r} for each row"
            )
        places += [file.parent / str(name) for name in table[ID].to_pylist()]
        tables.append(table)
    if "image" in tables[0].column_names:
        raise SourceError(f"{listing.folder / files[0]} has a column 'image'; call it otherwise")
    try:
        table = pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise SourceError(f"{listing.folder}: its metadata files have other columns") from error
    where = {place: row for row, place in enumerate(places)}
    _refuse_uncounted(listing, files[0], where, places, images)
    rows = np.array([where[path] for path in images], dtype=np.int64)
    return table.drop_columns([ID]).take(pa.array(rows))


def _refuse_uncounted(
    listing: Listing,
    file: PurePosixPath,
    where: dict[PurePosixPath, int],
    places: list[PurePosixPath],
    images: list[PurePosixPath],
) -> None:
    known = set(listing.images)
    astray = sorted((place for place in where if place not in known), key=natural)
    nameless = [path for path in images if path not in where]
    if astray:
        raise SourceError(
            f"{listing.folder / file} names {shown(astray, 'image')} that are not there"
        )
    if nameless:
        raise SourceError(f"{listing.folder / file} has no row for {shown(nameless, 'image')}")
    if len(where) < len(places):
        twice = next(p for n, p in enumerate(places) if where[p] != n)
        raise SourceError(f"{listing.folder / file} has two rows for {twice}")
