"""The dumps of a repository, as the header of its card tells them to `datasets` and the Hub.

A dump is a split of a configuration. At the top of the repository, and in a folder that is named
after its split, that is the configuration `default`; in other folders it has the folder's name.
"""

import re
from collections.abc import Collection, Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import yaml

from softlabels.errors import UsageError
from softlabels.store.card import size_category
from softlabels.store.records import Plan

PATH = re.compile(r"(?:([\w./-]+)/)?data/(.+)-\*\.parquet")
Header = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """Where a dump stands in its repository: its folder, empty for the top, and what `datasets`
    calls it."""

    folder: str
    config: str
    split: str

    @classmethod
    def of(cls, folder: str, plan: Plan) -> "Place":
        split = plan.source["split"]
        parts = folder.split("/") if folder else []
        named = parts[:-1] if parts[-1:] == [split] else parts
        return cls(folder, "-".join(named) or "default", split)

    @property
    def path(self) -> str:
        """Of its shards, as a pattern."""
        return f"{self.folder}/data/{self.split}-*.parquet".lstrip("/")


@dataclass(frozen=True)
class Told:
    """A dump that a header tells of."""

    place: Place
    rows: int


def merged(ours: Header, theirs: Header, place: Place, folders: Collection[str]) -> Header:
    """`ours`, the header of one dump alone, with what `theirs` tells of others, and of other files,
    in these folders; in an order that does not depend on which was pushed last.

    Raises UsageError where another dump has this configuration and split, where it has other
    columns than this configuration's other splits, and for a header that can't be read.
    """
    try:
        configs, infos = _without(theirs, place, folders)
        config = configs.setdefault(place.config, {"config_name": place.config, "data_files": []})
        files = config["data_files"]
        for file in files:
            if file["split"] == place.split:
                whose = "another dump of this repository"
                if _folder(file) is None:
                    whose = f"of other files in README.md's header ({str(file['path'])[:100]})"
                raise UsageError(
                    f"the split {place.split} of the configuration {place.config} is {whose}; push "
                    f"to ORG/NAME/CONFIGURATION/{place.split}"
                )
        info = {"config_name": place.config} | deepcopy(ours["dataset_info"])
        if before := infos.get(place.config):
            if _plain(before["features"]) != _plain(info["features"]):
                raise UsageError(
                    f"the configuration {place.config} has splits with other columns or classes; "
                    f"push to ORG/NAME/CONFIGURATION/{place.split}"
                )
            info["splits"] += before["splits"]
        infos[place.config] = info
        files.append({"split": place.split, "path": place.path})
        return ours | _together(configs, infos)
    except UsageError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UsageError(
            f"the configs or dataset_info in README.md's header can't be read "
            f"({type(error).__name__}: {error}); mend or remove them first"
        ) from error


def only_this(header: Header, place: Place) -> Header:
    """What `header` tells of one dump, as if it lay alone at the top."""
    info = _infos(header).get(place.config)
    if info is None:
        return header
    alone = Place("", "default", place.split)
    config = {"config_name": alone.config,
              "data_files": [{"split": alone.split, "path": alone.path}]}  # fmt: skip
    splits = [split for split in info["splits"] if split["name"] == place.split]
    info |= {"config_name": alone.config, "splits": splits}
    return header | _together({alone.config: config}, {alone.config: info})


def told(header: Header, folders: Collection[str]) -> Iterator[Told]:
    """The dumps of a header in these folders, in its order."""
    infos = _infos(header)
    for name, config in _configs(header).items():
        for file in config.get("data_files", []):
            folder = _folder(file)
            if folder is not None and folder in folders:
                splits = infos.get(name, {}).get("splits", [])
                rows = next((s["num_examples"] for s in splits if s["name"] == file["split"]), 0)
                yield Told(Place(folder, name, file["split"]), rows)


def _without(
    header: Header, place: Place, folders: Collection[str]
) -> tuple[dict[str, Header], dict[str, Header]]:
    """Configurations and infos without this place's dump, and without dumps that are gone."""
    configs, infos = _configs(header), _infos(header)
    for name, config in list(configs.items()):
        if "data_files" not in config:
            continue
        gone = [
            file["split"]
            for file in config["data_files"]
            if (folder := _folder(file)) == place.folder
            or (folder is not None and folder not in folders)
        ]
        config["data_files"] = [f for f in config["data_files"] if f["split"] not in gone]
        if gone and (info := infos.get(name)):
            info["splits"] = [split for split in info["splits"] if split["name"] not in gone]
            if not info["splits"]:
                del infos[name]
        if not config["data_files"]:
            del configs[name]
    return configs, infos


def _folder(file: Header) -> str | None:
    """The folder of the dump whose shards these are; None where they are no dump's."""
    path = file["path"]
    one = path[0] if isinstance(path, list) and len(path) == 1 else path
    found = PATH.fullmatch(str(one))
    return (found[1] or "") if found and found[2] == file["split"] else None


def _together(configs: dict[str, Header], infos: dict[str, Header]) -> Header:
    """Configurations by name, `default` first; their splits by folder, the top first. What is not
    of a dump stays as it is."""
    rows = 0
    for name, info in infos.items():
        files = configs.get(name, {}).get("data_files", [])
        if any(_folder(file) is not None for file in files):
            files.sort(key=lambda file: (_folder(file) or "", str(file["path"])))
            splits = [file["split"] for file in files]
            info["splits"].sort(key=lambda split: splits.index(split["name"]))
            info["download_size"] = sum(split["num_bytes"] for split in info["splits"])
            info["dataset_size"] = info["download_size"]
        rows += sum(split["num_examples"] for split in info.get("splits", []))
    listed = [infos[name] for name in _sorted(infos)]
    whole: Any = listed
    if list(infos) == ["default"]:
        whole = {name: value for name, value in listed[0].items() if name != "config_name"}
    return {
        "configs": [configs[name] for name in _sorted(configs)],
        "dataset_info": whole,
        "size_categories": [size_category(rows)],
    }


def _sorted(names: Iterable[str]) -> list[str]:
    return sorted(names, key=lambda name: (name != "default", name))


def _configs(header: Header) -> dict[str, Header]:
    """By name, with their splits and patterns as lists, of all ways in which these are written."""
    found = {}
    for config in deepcopy(header.get("configs") or []):
        files = config.get("data_files")
        if files is None:  # a data_dir, say
            found[config["config_name"]] = config
            continue
        if isinstance(files, dict):
            files = [{"split": split, "path": path} for split, path in files.items()]
        elif not isinstance(files, list) or not all(isinstance(file, dict) for file in files):
            files = [{"split": "train", "path": files}]
        found[config["config_name"]] = config | {"data_files": files}
    return found


def _infos(header: Header) -> dict[str, Header]:
    """By the name of their configuration."""
    found = deepcopy(header.get("dataset_info") or [])
    infos = [
        {"config_name": "default"} | i for i in (found if isinstance(found, list) else [found])
    ]
    return {info["config_name"]: info for info in infos}


def _plain(features: Any) -> Any:
    """As YAML gives it back."""
    return yaml.safe_load(yaml.safe_dump(features))
