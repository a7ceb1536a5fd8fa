"""Which files of a folder are rows of which split.

The rules are in docs/getting-started.md; a name is never a pattern. Every visible file is counted:
where some files are in a split, the others are named.
"""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePosixPath

from PIL import Image

from softlabels.errors import SourceError
from softlabels.system.humanize import counted

DATA_ENDINGS = (".parquet", ".csv", ".tsv", ".json", ".jsonl", ".arrow")
PACKED_ENDINGS = (".csv", ".tsv", ".json", ".jsonl")  # may be followed by .gz
ALIASES = {
    "train": "train", "training": "train",
    "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation",
    "test": "test", "testing": "test", "eval": "test", "evaluation": "test",
}  # fmt: skip
WORD = re.compile(rf"(?<![a-z])({'|'.join(sorted(ALIASES, key=len)[::-1])})(?![a-z])")
DIGITS = re.compile(r"(\d+)")
NUMBERED = re.compile(r"(\w+)-(\d{5})-of-(\d{5})(?:-[0-9a-f]+)?")  # older files end in a hash
STUBS = {"BUFR", "GRIB", "HDF5", "MPEG"}  # formats that Pillow knows by name only
PICTURES = {".heic", ".heif", ".svg", ".raw", ".dng", ".cr2", ".nef", ".arw", ".jxl", ".avif"}
METADATA = ("metadata.csv", "metadata.jsonl")
ABOUT = {"readme", "license", "licence", "dataset_infos", "dataset_info", "citation"}  # stems


@dataclass
class Listing:
    """The visible files below a folder, as paths relative to it: those of data, the images, and
    the others."""

    folder: Path
    data: list[PurePosixPath] = field(default_factory=list)
    images: list[PurePosixPath] = field(default_factory=list)
    others: list[PurePosixPath] = field(default_factory=list)


def data_ending(name: str) -> str | None:
    """`.csv` for `a.csv` and for `A.CSV.gz`; None for a file that is not data."""
    stem, ending = os.path.splitext(name.lower())  # of many thousand names, faster than a path's
    if ending == ".gz" and (packed := os.path.splitext(stem)[1]) in PACKED_ENDINGS:
        return packed
    return ending if ending in DATA_ENDINGS else None


@cache
def image_endings() -> frozenset[str]:
    """The endings of all formats that Pillow opens."""
    known = Image.registered_extensions().items()
    return frozenset(e for e, kind in known if kind in Image.OPEN and kind not in STUBS)


def list_files(folder: Path) -> Listing:
    """All visible files below the folder, in natural order. Raises SourceError for a name that is
    not UTF-8."""
    listing, images = Listing(folder), image_endings()
    for path in sorted(map(PurePosixPath, _walk(folder, "")), key=natural):
        if data_ending(path.name):
            listing.data.append(path)
        elif path.suffix.lower() in images:
            listing.images.append(path)
        else:
            listing.others.append(path)
    return listing


def natural(path: PurePosixPath) -> tuple:
    """The order of rows: folder by folder, numbers in names by their value, then by the text."""
    *folders, name = path.parts or ("",)
    return [*map(_folder_order, folders), _name_order(name)], str(path)


def _name_order(name: str) -> list[tuple[int, int, str]]:
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in DIGITS.split(name) if p]


_folder_order = cache(_name_order)  # many files lie in one


def split_of(name: str) -> str | None:
    """The split that a name stands for: `train`, `val`, `Test`; None for any other name."""
    return ALIASES.get(name.lower())


def split_of_file(name: str) -> str | None:
    """The split of `train.csv`, `train-00000-of-00004.parquet`, `dev-b.jsonl.gz`, and of any
    `name-00000-of-00004.parquet`."""
    stem = PurePosixPath(name).name.partition(".")[0]
    split = split_of(stem) or split_of(stem.partition("-")[0])
    if split is None and (numbered := NUMBERED.fullmatch(stem)):
        return numbered[1]
    return split


def splits_of_data(listing: Listing) -> dict[str, list[Path]]:
    """The data files of each split. Raises SourceError if some belong to no split, or if a split
    has files of two kinds."""
    _refuse_engines(listing)
    splits: dict[str, list[PurePosixPath]] = {}
    nowhere, below = [], set()
    for path in listing.data:
        split = split_of(path.parts[0]) if len(path.parts) > 1 else None
        if split is not None:
            _refuse_other_split(listing.folder, path, split)
        if split is None and (split := split_of_file(path.name)) and len(path.parts) > 1:
            below.add(path.parts[:-1])
        if split is None:
            nowhere.append(path)
        else:
            splits.setdefault(split, []).append(path)
    if len(below) > 1:
        folders = ", ".join(sorted("/".join(parts) for parts in below)[:5])
        raise SourceError(
            f"{listing.folder} has files of a split in several folders: {folders}; name the one "
            f"that is meant"
        )
    if not splits:
        refuse_alike(listing.folder, [*nowhere, *folders_of(nowhere)])
        splits = {"train": nowhere}
    elif nowhere:
        refuse_splitless(listing.folder, splits, nowhere)
    for split, paths in splits.items():
        refuse_two_kinds(listing.folder, split, paths)
        refuse_alike(listing.folder, paths)
    return {split: [listing.folder / path for path in paths] for split, paths in splits.items()}


def _refuse_other_split(folder: Path, path: PurePosixPath, split: str) -> None:
    """Raises SourceError where a name inside a split's folder names another split, such as
    `train/x_test.csv`: one of the two is wrong, and the rows would be mixed."""
    named = {word[1] for word in WORD.finditer(_parted("/".join(path.parts[1:])))}
    others = {ALIASES[name] for name in named}
    if split == "validation":  # which `eval` may mean as well
        others = {ALIASES[name] for name in named - {"eval", "evaluation"}}
    if others and split not in others:
        raise SourceError(
            f"{folder}: {path} lies in the folder of the split {split!r} and is called like one of "
            f"{' and '.join(sorted(others))}; its rows would be {split}. Move it to a folder "
            f"{min(others)}/, or rename it"
        )


def _parted(name: str) -> str:
    """In lower case, with `xTrain` split into `x_train`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def refuse_splitless(folder: Path, splits: Iterable[str], nowhere: list[PurePosixPath]) -> None:
    raise SourceError(
        f"{folder} has files of {', '.join(sorted(splits))}, and {shown(nowhere)} in no split: "
        f"rename {'it' if len(nowhere) == 1 else 'them'} (train, validation, test), move "
        f"{'it' if len(nowhere) == 1 else 'them'} away, or name one file or folder with --data"
    )


def folders_of(paths: Iterable[PurePosixPath]) -> list[PurePosixPath]:
    """All folders below the top that these files lie in, at any depth."""
    places = {path.parts[:-1] for path in paths}
    folders = {place[:depth] for place in places for depth in range(1, len(place) + 1)}
    return sorted((PurePosixPath(*parts) for parts in folders), key=natural)


def refuse_alike(folder: Path, paths: Iterable[PurePosixPath]) -> None:
    """Raises SourceError where two names differ only in the name of a split (`mnist_train.csv` and
    `mnist_test.csv`): no rule makes splits of them, so their rows would be mixed."""
    seen: dict[str, tuple[str, PurePosixPath]] = {}
    for path in paths:
        text = _parted(str(path))
        for word in WORD.finditer(text):
            rest = f"{text[: word.start()]}/{text[word.end() :]}"
            split, other = seen.setdefault(rest, (ALIASES[word[1]], path))
            if split != ALIASES[word[1]]:
                raise SourceError(
                    f"{folder}: {other} and {path} look like splits, and would be one: a split is "
                    f"a folder or file right below the folder that is named, called train, "
                    f"validation or test. Rename them, or name another file or folder with --data"
                )


def _refuse_engines(listing: Listing) -> None:
    """Raises SourceError for folders of Spark and Hive: one that an unfinished job left, or one
    whose name holds a column's value, which the files inside lack."""
    for folder in folders_of(listing.data):
        if folder.name == "_temporary":
            raise SourceError(
                f"{listing.folder / folder} is of a job that did not end: its rows may be there "
                f"twice. Remove it"
            )
        column, equals, _ = folder.name.partition("=")
        if equals:
            raise SourceError(
                f"{listing.folder} is partitioned: the column {column!r} stands in names of "
                f"folders, such as {folder}, and in no file. Write the rows into files that have "
                f"it; pyarrow.parquet.read_table(folder) reads them so"
            )


def refuse_two_kinds(folder: Path, split: str, paths: list[PurePosixPath]) -> None:
    kinds: dict[str | None, PurePosixPath] = {}
    for path in paths:
        kinds.setdefault(data_ending(path.name), path)
    if len(kinds) > 1:
        one, two = list(kinds.values())[:2]
        raise SourceError(
            f"{folder}, split {split!r}, has files of two kinds: {one} and {two}; name the one "
            f"that is meant with --data"
        )


def shown(paths: list[PurePosixPath] | list[str], noun: str = "file") -> str:
    """`3 files (a.txt, b.txt, …)`."""
    first = ", ".join(str(path) for path in paths[:3])
    return f"{counted(len(paths), noun)} ({first}{', …' if len(paths) > 3 else ''})"


def _walk(folder: Path, below: str, above: tuple = ()) -> Iterator[str]:
    """All visible files, as paths below the first folder. Links are followed, circles of links are
    not."""
    here = os.stat(folder)
    if (here.st_dev, here.st_ino) in above:
        return
    for entry in os.scandir(folder):
        if entry.name.startswith(".") or entry.name in ("__MACOSX", "__pycache__"):
            continue
        if not entry.name.isprintable() and _is_broken(entry.name):
            raise SourceError(f"{folder} has a name that is no UTF-8: {entry.name!r}; rename it")
        if entry.is_dir():
            inside = (*above, (here.st_dev, here.st_ino))
            yield from _walk(folder / entry.name, f"{below}{entry.name}/", inside)
        else:
            yield below + entry.name


def _is_broken(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return True
    return False


def refuse_cut_sets(folder: Path, paths: list[Path]) -> None:
    """Raises SourceError if one of the files numbered 00000-of-00004 is missing or comes twice, or
    if a folder holds two such sets."""
    sets: dict[tuple[Path, str], dict[tuple[int, int], Path]] = {}
    for path in paths:
        if parts := NUMBERED.fullmatch(path.name.partition(".")[0]):
            numbered = sets.setdefault((path.parent, parts[1]), {})
            number = int(parts[2]), int(parts[3])
            other = numbered.setdefault(number, path)
            if other != path:
                raise SourceError(f"{folder}: {other.name} and {path.name} have one number")
    for (_, name), numbered in sets.items():
        counts = sorted({count for _, count in numbered})
        if len(counts) > 1:
            raise SourceError(
                f"{folder} holds two sets of files, {name}-…-of-{counts[0]:05d} and "
                f"{name}-…-of-{counts[1]:05d}; move the old one away"
            )
        lost = sorted(set(range(counts[0])) - {number for number, _ in numbered})
        if lost:
            raise SourceError(
                f"{folder}: of {counted(counts[0], 'file')} {name}-…-of-{counts[0]:05d}, "
                f"{len(lost):,} {'is' if len(lost) == 1 else 'are'} missing, first number {lost[0]}"
            )
