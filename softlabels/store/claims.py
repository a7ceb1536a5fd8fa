"""One dump at a time in a folder: each process that writes there says so while it lives.

A claim is a file `.claims/RUN-RANK-TOKEN.json`. Processes with the same RUN are one dump and
welcome each other; a process of another run turns back while the one that claimed lives.
"""

import random
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass

from softlabels.errors import FolderInUse, StoreError
from softlabels.store.folder import PARTIAL, Folder
from softlabels.store.lives import CLAIMS, NAME, Life, life_in
from softlabels.system.local_files import needing_space, tidied
from softlabels.system.progress import SILENT, Progress

TRIES = 12


@dataclass(frozen=True)
class Claim:
    """Somebody's claim as found in the folder."""

    name: str

    @property
    def run(self) -> str:
        return self.name.partition("/")[2].partition("-")[0]

    @property
    def rank(self) -> int:
        return int(self.name.split("-")[1])

    @property
    def token(self) -> str:
        return self.name.rpartition("-")[2].removesuffix(".json")


def _is_unguarded(folder: Folder) -> bool:
    """Where every write is a commit to a repository, a sign of life every few seconds is too
    dear."""
    return getattr(folder.fs, "every_write_is_a_commit", False)


def new_run() -> str:
    return uuid.uuid4().hex[:12]


@contextmanager
def claimed(folder: Folder, run: str, rank: int = 0, progress: Progress = SILENT) -> Iterator[None]:
    """Within this block the folder is this run's; where nothing comes into it, it is not made.
    Raises FolderInUse where it is another's."""
    if _is_unguarded(folder):
        yield
        return
    tidy = tidied(folder.root) if folder.is_local else nullcontext()
    with tidy, _claimed(folder, run, rank, progress):
        yield


@contextmanager
def _claimed(folder: Folder, run: str, rank: int, progress: Progress) -> Iterator[None]:
    with _writable(folder):
        folder.refuse_links(CLAIMS, PARTIAL, "data", "commits")
    life = life_in(folder)
    name = f"{CLAIMS}/{run}-{rank}-{folder.token}.json"
    with ExitStack() as stack:
        for attempt in range(TRIES):
            with _writable(folder):
                _refuse_others(folder, life, run, progress)
                stack.enter_context(_hold(life, name))
                alone = not [c for c in claims(folder) if c.run != run and life.is_alive(c.name)]
            if alone:
                yield
                return
            stack.close()  # both came at the same moment: both step back, and one comes first
            time.sleep(random.uniform(0, 0.1 * 2 ** min(attempt, 5)))
        raise FolderInUse(f"{folder} is wanted by several dumps at once; start one of them again")


def claims(folder: Folder) -> list[Claim]:
    names = [name for name in folder.files(CLAIMS) if name.endswith(".json")]
    return [Claim(name) for name in names if NAME.fullmatch(name)]


def sweep(folder: Folder) -> None:
    """Remove what killed writers left half written; what living ones write stays."""
    if folder.is_local:
        life = life_in(folder)
        alive = {c.token for c in claims(folder) if life.is_alive(c.name)}
        folder.remove_partial(alive | {folder.token})


def is_lost(folder: Folder, run: str, rank: int) -> bool:
    """Whether no process lives that claimed the folder as this rank of the run."""
    if _is_unguarded(folder):
        return False
    life = life_in(folder)
    found = [c for c in claims(folder) if c.run == run and c.rank == rank]
    return not any(life.is_alive(c.name) for c in found)


def _refuse_others(folder: Folder, life: Life, run: str, progress: Progress) -> None:
    for claim in claims(folder):
        if claim.run == run:
            continue
        if life.is_alive(claim.name, 0.3, lambda words: progress.say(f"{folder}: {words}")):
            raise FolderInUse(
                f"{folder} is being written by another dump ({_who(folder, claim.name)}). Wait "
                f"until it is done, or choose another folder with --out"
            )
        life.bury(claim.name)


def _who(folder: Folder, name: str) -> str:
    with suppress(Exception):
        told = folder.read_json(name)
        return f"process {told['pid']} on {told['host']}, since {told['since']}"
    return "it has just begun"


def writer_of(folder: Folder) -> str | None:
    """Who writes to a local folder at this moment, in words."""
    if folder.is_local:
        for claim in claims(folder):
            if life_in(folder).is_alive(claim.name):
                return _who(folder, claim.name)
    return None


@contextmanager
def _writable(folder: Folder) -> Iterator[None]:
    """Raises StoreError, or DiskFull, where nothing can be written into the folder."""
    try:
        with needing_space(str(folder)):
            yield
    except OSError as error:
        raise StoreError(
            f"can't write in {folder}: {error.strerror or error}; choose another folder with --out"
        ) from error


@contextmanager
def _hold(life: Life, name: str) -> Iterator[None]:
    try:
        life.begin(name)
        yield
    finally:
        life.end(name)
