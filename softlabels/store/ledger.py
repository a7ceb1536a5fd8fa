"""What is in a dump's folder: its plan, the shards that are committed, its manifest, and strays."""

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from softlabels.errors import DamagedDump, IncompleteDump, StoreError
from softlabels.store.fields import Record
from softlabels.store.folder import Folder
from softlabels.store.footers import whose_shard
from softlabels.store.names import MANIFEST, PLAN, commit_name
from softlabels.store.records import Commit, Manifest, Plan
from softlabels.system.humanize import counted, few

Kind = TypeVar("Kind", bound=Record)


@dataclass(frozen=True)
class Stray:
    """A file in `data/` or `commits/` that does not belong there. shard: the shard of which it is a
    copy under another name, if it is one."""

    name: str
    shard: int | None

    def __str__(self) -> str:
        if self.shard is None:
            return "is not a file of this dump"
        return f"is shard {self.shard} of this dump under another name"


class Ledger:
    """The state of a dump's folder, as its records tell it.

    Each record is read once, when it is first needed. Commits and withdrawals through this object
    are noted; `refresh` reads only what other processes have committed since.

    plan: the plan whose commits count; by default the folder's own
    records: by shard, the commits of this plan that were read
    problems: by name of file, the errors of records that could not be read
    strangers: the names of commit records of other plans or shards
    """

    def __init__(self, folder: Folder, plan: Plan | None = None) -> None:
        self.folder = folder
        self._plan = plan
        self.records: dict[int, Commit] = {}
        self.problems: dict[str, StoreError] = {}
        self.strangers: set[str] = set()
        self._seen: set[str] = set()  # names of all commit records that were read, good or bad
        self._listed: dict[str, int] = {}  # the files in data/, and their sizes
        self._is_read = False  # whether all records were read once

    @property
    def plan(self) -> Plan:
        plan = self._plan or self.earlier_plan()
        assert plan is not None, "the folder has a plan, or one is made before commits are read"
        return plan

    @plan.setter
    def plan(self, plan: Plan) -> None:
        if self._plan is not None and self._plan != plan:
            self.forget(range(self._plan.shards))
        self._plan = plan

    @cached_property
    def _plan_file(self) -> "Plan | DamagedDump | None":
        return self._read(PLAN, Plan)

    @cached_property
    def _manifest_file(self) -> "Manifest | DamagedDump | None":
        manifest = self._read(MANIFEST, Manifest)
        if isinstance(manifest, Manifest):
            try:
                _check_names(manifest, self.folder)
            except DamagedDump as error:
                return error
        return manifest

    @property
    def frozen(self) -> Plan | None:
        """The plan in plan.json; None if there is no such file or it can't be read."""
        return self._plan_file if isinstance(self._plan_file, Plan) else None

    def read_plan(self) -> Plan | None:
        """The plan in plan.json; None if there is no such file. Raises DamagedDump."""
        return _value(self._plan_file)

    @property
    def manifest(self) -> Manifest | None:
        """The manifest; None if there is none or it can't be read."""
        return self._manifest_file if isinstance(self._manifest_file, Manifest) else None

    def earlier_plan(self, mends: bool = True) -> Plan | None:
        """The plan in plan.json, else the one in the manifest; None if there is neither.

        mends: the caller will repair a damaged plan.json, so it is no error. Raises DamagedDump
        without it.
        """
        if isinstance(self._plan_file, DamagedDump) and not mends:
            raise self._plan_file
        return self.frozen or (self.manifest.plan if self.manifest else None)

    def complete(self) -> Manifest:
        """The manifest. Raises IncompleteDump if shards are missing, StoreError if there is no
        dump, DamagedDump if the manifest can't be read or contradicts itself."""
        manifest = _value(self._manifest_file)
        return manifest or _refuse(self)

    @property
    def commits(self) -> dict[int, Commit]:
        """By shard, the commits of this plan whose files exist in full size; no shard is opened.
        The shard of a damaged record counts as missing.

        Raises StoreError if a record can't be fetched.
        """
        if not self._is_read:
            self.refresh()
        return self._finished()

    def commits_of(self, shards: list[int]) -> dict[int, Commit]:
        """The commits of these shards; the records of others are not read."""
        if not self._is_read:
            self.refresh(shards)
        chosen = set(shards)  # there may be 200,000
        return {shard: c for shard, c in self._finished().items() if shard in chosen}

    def _finished(self) -> dict[int, Commit]:
        for problem in self.problems.values():
            if not isinstance(problem, DamagedDump):
                raise problem
        sizes = self._listed
        whole = {n: c for n, c in self.records.items() if sizes.get(c.file) == c.bytes}
        return dict(sorted(whole.items()))

    @property
    def missing(self) -> list[int]:
        """The shards without a commit, or without their file."""
        commits = self.commits
        return [shard for shard in range(self.plan.shards) if shard not in commits]

    @property
    def state(self) -> str:
        """How far the dump has got, in a clause for a message. Reads the folder anew."""
        self.refresh()
        return f"{len(self.commits)} of {self.plan.shards} shards are committed and safe"

    def refresh(self, shards: Iterable[int] | None = None) -> dict[int, Commit]:
        """List the files, and read the commit records that were not read before: all, or those of
        these shards. Returns `records`."""
        plan = self.plan
        self._is_read = self._is_read or shards is None
        self._listed = self.folder.files("data")
        chosen = range(plan.shards) if shards is None else shards
        expected = {commit_name(shard): shard for shard in chosen}
        names = self.folder.files("commits").items()
        # A record is written once and then only withdrawn. Whoever withdraws it, or learns that
        # another process did, calls `forget`, so a record that was read is never stale.
        unread = {n: size for n, size in names if n in expected and n not in self._seen}
        self._seen |= unread.keys()
        for name, value in self.folder.read_jsons(unread).items():
            try:
                if isinstance(value, StoreError):
                    raise value
                commit = Commit.parse(value, f"{self.folder}/{name}")
            except StoreError as error:
                self.problems[name] = error
                continue
            shard = expected[name]
            if (commit.shard, commit.plan, commit.file) == (shard, plan.hash, plan.file(shard)):
                self.records[shard] = commit
            else:
                self.strangers.add(name)
        return self.records

    def is_recorded(self) -> bool:
        """Whether every shard has a commit record by now. Lists names, reads no record."""
        names = self.folder.files("commits")
        return all(commit_name(shard) in names for shard in range(self.plan.shards))

    def note(self, commit: Commit) -> None:
        """Note that this process has committed a shard."""
        name = commit_name(commit.shard)
        self.forget([commit.shard])
        self._seen.add(name)
        self.records[commit.shard] = commit
        self._listed[commit.file] = commit.bytes

    def forget(self, shards: Iterable[int]) -> None:
        """Forget the records of these shards, which this or another process makes again."""
        for shard in shards:
            name = commit_name(shard)
            self.records.pop(shard, None)
            self.problems.pop(name, None)
            self.strangers.discard(name)
            self._seen.discard(name)

    def withdraw(self, shards: Iterable[int]) -> None:
        """Delete the manifest, and the commits of these shards."""
        self.folder.delete(MANIFEST)
        self._manifest_file = None
        for shard in shards:
            self.folder.delete(commit_name(shard))
            self.forget([shard])

    def write_plan(self, plan: Plan) -> None:
        self.folder.write_json(PLAN, plan.as_json)
        self.plan = self._plan_file = plan

    def write_manifest(self, manifest: Manifest) -> None:
        self.folder.write_json(MANIFEST, manifest.as_json)
        self._manifest_file = manifest

    def strays(self) -> list[Stray]:
        """The files in `data/` and `commits/` that are not this dump's."""
        plan, folder = self.plan, self.folder
        shards = range(plan.shards)
        files = folder.files("data")
        strays = []
        for name in sorted(set(folder.names("data")) - {plan.file(shard) for shard in shards}):
            shard = None
            if name in files:
                with suppress(DamagedDump, OSError), folder.open(name) as file:
                    shard = whose_shard(file, plan)
            strays.append(Stray(name, shard))
        files = folder.files("commits")
        for name in sorted(set(folder.names("commits")) - set(map(commit_name, shards))):
            shard = None
            if name in files:
                with suppress(DamagedDump, OSError):
                    commit = Commit.parse(folder.read_json(name), name)
                    shard = commit.shard if commit.plan == plan.hash else None
            strays.append(Stray(name, shard))
        return strays

    def _read(self, name: str, kind: type[Kind]) -> Kind | DamagedDump | None:
        try:
            if not self.folder.exists(name):
                return None
            return kind.parse(self.folder.read_json(name), f"{self.folder}/{name}")
        except DamagedDump as error:
            return error


def _value(record: Kind | DamagedDump | None) -> Kind | None:
    if isinstance(record, DamagedDump):
        raise record
    return record


def read_manifest(folder: Folder) -> tuple[Manifest, Plan]:
    """The manifest and the plan in it. Raises what `Ledger.complete` raises."""
    manifest = Ledger(folder).complete()
    return manifest, manifest.plan


def read_plan(folder: Folder) -> Plan | None:
    """The plan in this folder; None where there is none. Raises DamagedDump if unreadable."""
    return Ledger(folder).read_plan()


def _check_names(manifest: Manifest, folder: Folder) -> None:
    """Raises DamagedDump if the manifest contradicts its own plan."""
    plan, where = manifest.plan, f"{folder}/{MANIFEST}"
    if plan.hash != manifest.plan_hash:
        raise DamagedDump(f"{where}: the plan's hash is {plan.hash}, not as recorded")
    if len(manifest.shards) != plan.shards:
        raise DamagedDump(
            f"{where} lists {len(manifest.shards)} shards; its plan has {plan.shards}"
        )
    for shard, record in enumerate(manifest.shards):
        if record.file != plan.file(shard):
            raise DamagedDump(
                f"{folder}: shard {shard} is named {record.file[:200]!r} in {MANIFEST}"
            )


def _dumps_in(folder: Folder) -> list[str]:
    """The names of the folders directly in it that are complete dumps; none for a remote one."""
    if not folder.is_local or not os.path.isdir(folder.root):
        return []
    names = sorted(os.listdir(folder.root))
    return [name for name in names if os.path.isfile(os.path.join(folder.root, name, MANIFEST))]


def _refuse(ledger: Ledger) -> Manifest:
    """Raise the error that says why a folder without a manifest can't be read as a dump."""
    folder, plan = ledger.folder, ledger.read_plan()
    if plan is None:
        if folder.is_local and os.path.isfile(folder.root):
            raise StoreError(f"{folder} is a file; a dump is a folder")
        if inside := _dumps_in(folder):
            raise StoreError(
                f"{folder} is no dump and holds {counted(len(inside), 'dump')}, {few(inside)}: "
                f"name one, such as {folder}/{inside[0]}"
            )
        what = "has no dump in it" if folder.exists() else "does not exist"
        raise StoreError(f"{folder} {what}; make one with softlabels dump --out {folder}")
    verb = "import" if plan.is_imported else "dump"
    again = f"the same softlabels {verb} command and --resume"
    done = f"{len(ledger.commits):,} of {plan.shards:,} shards are committed"
    if len(ledger.commits) == plan.shards:
        done = f"its shards are committed, and its record, {MANIFEST}, is missing"
    raise IncompleteDump(
        f"{folder} holds an unfinished dump: {done}. Finish it with "
        f"{folder.origin.command or again}"
    )
