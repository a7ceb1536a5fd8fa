"""What is in a folder: the facts of one dump, a list of several."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from softlabels.errors import StoreError, UsageError
from softlabels.places.folders import dump_folder, open_folder
from softlabels.reports.classes import ClassTable, LabelTable
from softlabels.reports.facts import describe, readable
from softlabels.reports.survey import survey_classes
from softlabels.store.folder import Folder
from softlabels.store.ledger import Ledger, read_manifest
from softlabels.store.names import MANIFEST, PLAN
from softlabels.store.reader import DumpReader
from softlabels.system.humanize import counted, fact_lines, html_table


class Info(dict[str, Any]):
    """What `info` returns; a notebook shows its facts as a table.

    table: the teacher's measures class by class, where these were asked for.
    """

    table: ClassTable | LabelTable | None = None

    def __repr__(self) -> str:
        facts = self["facts"]
        return f"Info({self['path']}: {facts['rows']:,} rows × {facts['classes']:,} classes)"

    def _repr_html_(self) -> str:
        return html_table(self.readable)

    @property
    def readable(self) -> dict[str, str]:
        """The facts as people read them."""
        return readable(self["facts"])

    @property
    def lines(self) -> list[str]:
        """The facts, what was left out, and the table, a line each."""
        skipped = [f"  left out: id {s['id']}, {s['reason']}" for s in self["manifest"]["skipped"]]
        table = ["", *self.table.lines] if self.table else []
        return fact_lines(self.readable) + skipped + table


def dump_info(path: str | Path, per_class: bool = False) -> Info:
    """Describe a dump: `facts`, with numbers as numbers, and the `manifest` as written.

    per_class: read all logits and add `per_class`, the teacher's measures of each class, as those
    of `evaluate`; of several labels a row also the mean average precision to the facts.

    Raises UsageError for a dump without labels of the teacher's classes where per_class asks for
    them; IncompleteDump for an unfinished one, StoreError or DamagedDump for other folders.
    """
    folder = dump_folder(path, "manifest")
    if dumps := dumps_in(folder):
        raise StoreError(
            f"{path} is no dump but holds {counted(len(dumps), 'dump')}, which "
            f"softlabels.list_dumps({str(path)!r}) lists; name one, such as {dumps[0].path}"
        )
    if _is_other(folder):
        raise StoreError(
            f"{path} is no dump, and holds none: neither it nor a folder below it has {PLAN} or "
            f"{MANIFEST}. Make one with softlabels dump --out DIR"
        )
    manifest, plan = read_manifest(folder)
    found = Info(path=str(path), facts=describe(manifest, plan), manifest=manifest.as_json)
    if per_class:
        if not plan.labelled:
            raise UsageError(
                f"--per-class: {path} has no labels of the teacher's classes, so it does not say "
                f"how well the teacher knows them; leave it out"
            )
        found.table = survey_classes(DumpReader(dump_folder(path, "nothing")))
        found["per_class"] = found.table.values
        if isinstance(found.table, LabelTable):
            found["facts"]["mean average precision"] = found.table.measures["map"]
    return found


@dataclass(frozen=True)
class Listed:
    """A dump in a list.

    rows, classes, teacher, codec: by its plan.
    shards: how many it has when it is complete.
    done: how many are there with their recorded size.
    bytes: the size of these.
    complete: whether it has its manifest and all shards.
    problem: why its records can't be read, else empty.
    """

    path: str
    rows: int = 0
    classes: int = 0
    teacher: str = ""
    codec: str = ""
    shards: int = 0
    done: int = 0
    bytes: int = 0
    complete: bool = False
    problem: str = ""

    @property
    def state(self) -> str:
        """`complete`, `2 of 5 shards`, or the problem."""
        if self.problem:
            return self.problem
        return "complete" if self.complete else f"{self.done:,} of {self.shards:,} shards"


def dumps_in(folder: Folder) -> list[Listed]:
    """The dumps below a folder of this disk that is none itself; else nothing."""
    return list_dumps(folder.url) if _is_other(folder) else []


def _is_other(folder: Folder) -> bool:
    """Whether it is a folder of this disk that is no dump."""
    is_dump = folder.exists(PLAN) or folder.exists(MANIFEST)
    return folder.is_local and os.path.isdir(folder.root) and not is_dump


def list_dumps(under: str | Path = "data") -> list[Listed]:
    """The dumps below a folder of this disk, complete or not, sorted by path. Raises StoreError
    where there is no such folder."""
    if not Path(under).is_dir():
        raise StoreError(f"{under} is not a folder on this disk; name one that holds dumps")
    dumps = []
    for place, folders, files in os.walk(under):
        if {PLAN, MANIFEST} & set(files):
            folders.clear()  # what is in a dump is part of it
            dumps.append(_listed(place))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
    return sorted(dumps, key=lambda one: one.path)


def _listed(place: str) -> Listed:
    ledger = Ledger(open_folder(place))
    try:
        plan = ledger.earlier_plan(mends=False) or ledger.complete().plan
        manifest = ledger.manifest
        shards = ledger.commits.values() if manifest is None else manifest.shards
        sizes = [shard.bytes for shard in shards if _is_there(place, shard.file, shard.bytes)]
    except StoreError as error:
        return Listed(place, problem=str(error))
    return Listed(
        path=place,
        rows=plan.rows,
        classes=plan.classes,
        teacher=plan.teacher.name,
        codec=plan.codec,
        shards=plan.shards,
        done=len(sizes),
        bytes=sum(sizes),
        complete=manifest is not None and len(sizes) == plan.shards,
    )


def _is_there(place: str, file: str, size: int) -> bool:
    path = Path(place, file)
    return path.is_file() and path.stat().st_size == size
