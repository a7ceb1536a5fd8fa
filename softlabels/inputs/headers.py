"""The header of a folder's README.md, where it says which files are which split: `configs`, as the
Hub and `datasets` have it. Clones of the Hub's datasets and dumps have one."""

import re
from pathlib import Path, PurePosixPath

from datasets.data_files import sanitize_patterns
from datasets.utils.metadata import MetadataConfigs
from fsspec.utils import glob_translate
from huggingface_hub import DatasetCard

from softlabels.errors import SourceError
from softlabels.inputs.folders import Listing, data_ending, refuse_two_kinds


def declared_splits(folder: Path) -> dict[str, list[str]] | None:
    """The patterns of each split, below the folder; None where no header declares any.

    Raises SourceError for a header that can't be read, and one with several configurations.
    """
    file = folder / "README.md"
    if not file.is_file():
        return None
    try:
        card = DatasetCard(file.read_text(encoding="utf-8"), ignore_metadata_errors=True)
        configs = dict(MetadataConfigs.from_dataset_card_data(card.data))
    except Exception as error:  # whatever YAML and the two libraries raise
        reason = " ".join(str(error).split())[:200]
        raise SourceError(f"{file}: its header can't be read: {reason}") from error
    declaring = {name: c for name, c in configs.items() if c.get("data_files") or c.get("data_dir")}
    if not declaring:
        return None
    name = _chosen(file, declaring)
    config = declaring[name]
    base = str(config.get("data_dir") or "").strip("/")
    patterns = sanitize_patterns(config.get("data_files") or "**")
    return {
        str(split): [f"{base}/{p}" if base else str(p) for p in listed]
        for split, listed in patterns.items()
    }


def declared_files(listing: Listing, declared: dict[str, list[str]], split: str) -> list[Path]:
    """The data files of one split. Raises SourceError where a pattern finds none."""
    found: list[PurePosixPath] = []
    for pattern in declared[split]:
        paths = _matching(pattern, listing.data)
        if not paths:
            raise SourceError(
                f"{listing.folder}/README.md says that the split {split!r} lies in {pattern!r}; no "
                f"data file here has such a name"
            )
        found += [path for path in paths if path not in found]
    refuse_two_kinds(listing.folder, split, found)
    return [listing.folder / path for path in found if data_ending(path.name)]


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
    """The paths that are or match a header's pattern; a file of this very name comes first."""
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
