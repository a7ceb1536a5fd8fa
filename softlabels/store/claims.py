"""One dump at a time in a folder: each process that writes there holds a claim while it lives.

A claim is a file `.claims/RUN-RANK-TOKEN.json`. Processes with the same RUN are one dump and write
side by side. As long as one of them lives, processes of other runs are refused: each rank needs a
claim of its own, since any of them may die while the others still write.
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
    """The claim of a process, by the name of its file."""

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
    """Whether the folder holds no claims: where every write is a commit to a repository, a sign of
    life every few seconds would cost too much."""
    return getattr(folder.fs, "every_write_is_a_commit", False)


def new_run() -> str:
    return uuid.uuid4().hex[:12]


@contextmanager
def claimed(folder: Folder, run: str, rank: int = 0, progress: Progress = SILENT) -> Iterator[None]:
    """Hold the folder for this run within the block. If the folder did not exist and stays empty,
    it is removed again. Raises FolderInUse while another run holds it."""
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
            # Two runs claimed at the same moment and each saw the other. Both let go and wait for a
            # random time, so that one of them comes first.
            stack.close()
            time.sleep(random.uniform(0, 0.1 * 2 ** min(attempt, 5)))
        raise FolderInUse(f"{folder} is wanted by several dumps at once; start one of them again")


def claims(folder: Folder) -> list[Claim]:
    names = [name for name in folder.files(CLAIMS) if name.endswith(".json")]
    return [Claim(name) for name in names if NAME.fullmatch(name)]


def sweep(folder: Folder) -> None:
    """Remove the unfinished files of killed writers, not those of living ones."""
    if folder.is_local:
        life = life_in(folder)
        alive = {c.token for c in claims(folder) if life.is_alive(c.name)}
        folder.remove_partial(alive | {folder.token})


def is_lost(folder: Folder, run: str, rank: int) -> bool:
    """Whether no living process holds the claim of this rank."""
    if _is_unguarded(folder):
        return False
    life = life_in(folder)
    own = [c for c in claims(folder) if c.run == run and c.rank == rank]
    return not any(life.is_alive(c.name) for c in own)


def _refuse_others(folder: Folder, life: Life, run: str, progress: Progress) -> None:
    for claim in claims(folder):
        if claim.run == run:
            continue
        if life.is_alive(claim.name, 0.3, lambda text: progress.say(f"{folder}: {text}")):
            raise FolderInUse(
                f"{folder} is being written by another dump ({_who(folder, claim.name)}). Wait "
                f"until it is done, or choose another folder with --out"
            )
        life.bury(claim.name)


def _who(folder: Folder, name: str) -> str:
    with suppress(Exception):
        holder = folder.read_json(name)
        return f"process {holder['pid']} on {holder['host']}, since {holder['since']}"
    return "it has just begun"


def writer_of(folder: Folder) -> str | None:
    """The process that writes to a local folder now; None if there is none."""
    if folder.is_local:
        for claim in claims(folder):
            if life_in(folder).is_alive(claim.name):
                return _who(folder, claim.name)
    return None


@contextmanager
def _writable(folder: Folder) -> Iterator[None]:
    """Raises StoreError or DiskFull if the block can't write into the folder."""
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
