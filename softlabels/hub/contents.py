"""The dumps of a repository, as the header of its card lists them for `datasets` and the Hub.

A dump is a split of a configuration. At the top of the repository, and in a folder that is named
after its split, that is the configuration `default`; in other folders it has the folder's name.

Headers are plain mappings, as YAML gives them: entries of other data must stay as they are, and the
classes of `datasets` would rewrite them.
"""

import re
from collections.abc import Collection, Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import yaml
from datasets.data_files import sanitize_patterns

from softlabels.errors import UsageError
from softlabels.reports.card import size_category
from softlabels.store.records import Plan

PATH = re.compile(r"(?:([\w./-]+)/)?data/(.+)-\*\.parquet")
Header = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """Where a dump lies in its repository: its folder, empty for the top, and the names that
    `datasets` has for it."""

    folder: str
    config: str
    split: str

    @classmethod
    def of(cls, folder: str, plan: Plan) -> "Place":
        split = plan.source.split
        parts = folder.split("/") if folder else []
        named = parts[:-1] if parts[-1:] == [split] else parts
        return cls(folder, "-".join(named) or "default", split)

    @property
    def path(self) -> str:
        """A pattern of its shards' paths."""
        return f"{self.folder}/data/{self.split}-*.parquet".lstrip("/")


class Contents:
    """The configurations of a header, by name: their files, a list of patterns for each split, and
    their `dataset_info`."""

    def __init__(self, header: Header) -> None:
        self.configs = {c["config_name"]: c for c in deepcopy(header.get("configs") or [])}
        for config in self.configs.values():
            if config.get("data_files") is not None:  # else it has a data_dir, say
                config["data_files"] = sanitize_patterns(config["data_files"])
        infos = deepcopy(header.get("dataset_info") or [])
        listed = infos if isinstance(infos, list) else [infos]
        named = [{"config_name": "default"} | info for info in listed]
        self.infos: dict[str, Header] = {info["config_name"]: info for info in named}

    def dumps(self) -> Iterator[Place]:
        """The splits whose files are named as a dump's shards are."""
        for name, config in self.configs.items():
            for split, patterns in (config.get("data_files") or {}).items():
                match = PATH.fullmatch(str(patterns[0])) if len(patterns) == 1 else None
                if match and match[2] == split:
                    yield Place(match[1] or "", name, split)

    def rows(self, place: Place) -> int:
        """The number of rows in the header; 0 where it has none."""
        splits = self.infos.get(place.config, {}).get("splits", [])
        return next((s["num_examples"] for s in splits if s["name"] == place.split), 0)

    def remove(self, place: Place) -> None:
        files = self.configs[place.config]["data_files"]
        del files[place.split]
        if not files:
            del self.configs[place.config]
        if info := self.infos.get(place.config):
            info["splits"] = [split for split in info["splits"] if split["name"] != place.split]
            if not info["splits"]:
                del self.infos[place.config]

    def add(self, place: Place, info: Header) -> None:
        """Add a dump with its `dataset_info`. Raises UsageError where its configuration already has
        this split, or has splits with other columns."""
        config = self.configs.setdefault(
            place.config, {"config_name": place.config, "data_files": {}}
        )
        if there := config["data_files"].get(place.split):
            whose = f"of other files in README.md's header ({str(there[0])[:100]})"
            if any((p.config, p.split) == (place.config, place.split) for p in self.dumps()):
                whose = "another dump of this repository"
            raise UsageError(
                f"the split {place.split} of the configuration {place.config} is {whose}; push "
                f"to ORG/NAME/CONFIGURATION/{place.split}"
            )
        info = {"config_name": place.config} | deepcopy(info)
        if before := self.infos.get(place.config):
            if before["features"] != yaml.safe_load(yaml.safe_dump(info["features"])):
                raise UsageError(
                    f"the configuration {place.config} has splits with other columns or classes; "
                    f"push to ORG/NAME/CONFIGURATION/{place.split}"
                )
            info["splits"] += before["splits"]
        self.infos[place.config] = info
        config["data_files"][place.split] = [place.path]

    def fields(self) -> Header:
        """The fields of a header. Their order does not depend on which dump was pushed last."""
        for name in {place.config for place in self.dumps()} & self.infos.keys():
            info = self.infos[name]
            info["splits"].sort(key=lambda split: split["name"])
            info["download_size"] = sum(split["num_bytes"] for split in info["splits"])
            info["dataset_size"] = info["download_size"]
        infos = [self.infos[name] for name in _default_first(self.infos)]
        rows = sum(split["num_examples"] for info in infos for split in info.get("splits", []))
        whole: Any = infos
        if list(self.infos) == ["default"]:
            whole = {name: value for name, value in infos[0].items() if name != "config_name"}
        return {
            "configs": [self._listed(name) for name in _default_first(self.configs)],
            "dataset_info": whole,
            "size_categories": [size_category(rows)],
        }

    def _listed(self, name: str) -> Header:
        """A configuration with its files as a list."""
        config = self.configs[name]
        if config.get("data_files") is None:
            return config
        files = [
            {"split": split, "path": patterns[0] if len(patterns) == 1 else patterns}
            for split, patterns in sorted(config["data_files"].items())
        ]
        return config | {"data_files": files}


def _default_first(names: Iterable[str]) -> list[str]:
    return sorted(names, key=lambda name: (name != "default", name))


def merged(ours: Header, theirs: Header, place: Place, folders: Collection[str]) -> Header:
    """Merge the header of one dump into that of its repository.

    ours: the header of the dump alone.
    theirs: the header of the card at the top; dumps outside of `folders` are dropped from it.

    Raises UsageError as `Contents.add` does, and for a header that can't be read.
    """
    try:
        contents = Contents(theirs)
        for there in list(contents.dumps()):
            if there.folder == place.folder or there.folder not in folders:
                contents.remove(there)
        contents.add(place, ours["dataset_info"])
        return ours | contents.fields()
    except UsageError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UsageError(
            f"the configs or dataset_info in README.md's header can't be read "
            f"({type(error).__name__}: {error}); repair or remove them first"
        ) from error


def only_this(header: Header, place: Place) -> Header:
    """The header of one dump of several, as if it lay alone at the top."""
    info = Contents(header).infos.get(place.config)
    if info is None:
        return header
    splits = [split for split in info["splits"] if split["name"] == place.split]
    alone = Contents({})
    alone.add(
        Place("", "default", place.split), info | {"config_name": "default", "splits": splits}
    )
    return header | alone.fields()
