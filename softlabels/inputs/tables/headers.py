"""The YAML header of a folder's README.md, which may declare the files of each split (`configs`),
as the Hub and `datasets` read it. Clones of the Hub's datasets have one, and so do dumps."""

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from datasets import ClassLabel
from datasets.data_files import sanitize_patterns
from datasets.info import DatasetInfosDict
from datasets.utils.metadata import MetadataConfigs
from fsspec.utils import glob_translate

from softlabels.errors import SourceError
from softlabels.inputs.tables.folders import Listing, data_ending, refuse_two_kinds
from softlabels.system.front_matter import read_front_matter


@dataclass(frozen=True)
class Header:
    """What a header declares: the file patterns of each split, the class names of columns, the
    number of rows of each split."""

    splits: dict[str, list[str]]
    classes: dict[str, list[str]]
    rows: dict[str, int]


def read_header(folder: Path) -> Header:
    """Raises SourceError for a header that can't be read or has several configurations."""
    file = folder / "README.md"
    if not file.is_file():
        return Header({}, {}, {})
    try:
        fields = read_front_matter(file.read_text(encoding="utf-8"))
        configs = dict(MetadataConfigs.from_dataset_card_data(fields))
        infos = dict(DatasetInfosDict.from_dataset_card_data(fields))
    except Exception as error:  # YAML and `datasets` raise errors of many types
        reason = " ".join(str(error).split())[:200]
        raise SourceError(f"{file}: its header can't be read: {reason}") from error
    declaring = {name: c for name, c in configs.items() if c.get("data_files") or c.get("data_dir")}
    name = _chosen(file, declaring) if declaring else next(iter(infos), "")
    info = infos.get(name)
    features = (info.features if info else None) or {}
    classes = {n: list(f.names) for n, f in features.items() if isinstance(f, ClassLabel)}
    for column, names in classes.items():
        if not all(isinstance(name, str) for name in names):  # YAML's no, yes, 1, null
            raise SourceError(
                f"{file}: the class names of {column!r} are {names[:4]} as YAML reads them; put "
                f"them in quotes"
            )
    rows = {str(n): s.num_examples for n, s in ((info.splits if info else None) or {}).items()}
    return Header(_splits(declaring[name]) if declaring else {}, classes, rows)


def _splits(config: dict) -> dict[str, list[str]]:
    base = str(config.get("data_dir") or "").strip("/")
    patterns = sanitize_patterns(config.get("data_files") or "**")
    return {
        str(split): [f"{base}/{p}" if base else str(p) for p in listed]
        for split, listed in patterns.items()
    }


def declared_files(listing: Listing, declared: dict[str, list[str]], split: str) -> list[Path]:
    """The data files of one split. Raises SourceError if a pattern matches none."""
    files: list[PurePosixPath] = []
    for pattern in declared[split]:
        paths = _matching(pattern, listing.data)
        if not paths:
            raise SourceError(
                f"{listing.folder}/README.md says that the split {split!r} lies in {pattern!r}; no "
                f"data file here has such a name"
            )
        files += [path for path in paths if path not in files]
    refuse_two_kinds(listing.folder, split, files)
    return [listing.folder / path for path in files if data_ending(path.name)]


def check_images(
    listing: Listing, declared: dict[str, list[str]], splits: dict[str, list[PurePosixPath]]
) -> None:
    """Raises SourceError where a header puts images into other splits than their folders do."""
    for split, patterns in declared.items():
        images = {path for pattern in patterns for path in _matching(pattern, listing.images)}
        if images and images != set(splits.get(split, ())):
            raise SourceError(
                f"{listing.folder}/README.md declares a split {split!r} of {len(images):,} images; "
                f"by their folders it has {len(splits.get(split, ())):,}. Name the folder that is "
                f"meant with --data"
            )


def _matching(pattern: str, paths: list[PurePosixPath]) -> list[PurePosixPath]:
    """The paths that match a header's pattern. A file of exactly this name wins, since names may
    hold characters of patterns."""
    inside = re.sub(r"^(\./)+", "", pattern)
    matches = re.compile(glob_translate(inside))
    exact = [path for path in paths if str(path) == inside]
    return exact or [path for path in paths if matches.fullmatch(str(path))]


def _chosen(file: Path, configs: dict[str, dict]) -> str:
    default = [name for name, c in configs.items() if c.get("default") or name == "default"]
    if len(configs) == 1 or default:
        return (default or list(configs))[0]
    raise SourceError(
        f"{file} declares several datasets: {', '.join(list(configs)[:5])}; name a file or folder "
        f"of the one that is meant with --data"
    )
