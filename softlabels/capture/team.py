"""The ranks of one dump, and their only meeting, at the start.

torchrun, accelerate and Slurm tell a process its RANK and WORLD_SIZE, and the address of rank 0.
The ranks meet there once, through torch's key-value store. There is no process group and no
collective that could hang when a rank dies later. During the meeting, a rank that fails reports it,
and a rank that dies is detected, so no other rank waits forever.
"""

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch

from softlabels.errors import StoreError, UsageError
from softlabels.system.environment import number_in_environment

COMING = 1800.0  # seconds for a rank to open its teacher and data
LEAVING = 60.0  # seconds in which the store's host waits for ranks that never came
PAUSE, LOOK = 0.05, 2.0  # seconds between two looks at the store, and at who lives


def none_lost(rank: int) -> bool:
    """Before ranks hold claims, a lost one can't be told from one that is late."""
    return False


@dataclass
class Team:
    """One process alone, or one of `world` ranks.

    resumes: torchrun started the run again after it had begun the dump
    hosts_store: whether the key-value store ends with this process
    is_lost: whether a rank that had claimed its folder, or the first of several, is gone
    about: begins the keys of what is shared, where several dumps share values of the same names
    """

    rank: int = 0
    world: int = 1
    store: Any = None
    resumes: bool = False
    hosts_store: bool = False
    is_lost: Callable[[int], bool] = none_lost
    about: str = ""

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @contextmanager
    def meeting(self) -> Iterator[None]:
        """The block in which ranks exchange values. An exception that leaves it is reported to the
        others, which raise StoreError."""
        try:
            yield
        except BaseException as error:
            self._tell(f"stopped/{self.rank}", str(error) or type(error).__name__)
            raise
        finally:
            self._leave()

    @contextmanager
    def sharing(self, about: str) -> Iterator[None]:
        """The block in which the values of one of several dumps are shared."""
        self.about = f"{about}/"
        try:
            yield
        finally:
            self.about = ""

    def share(self, key: str, make: Callable[[], Any]) -> Any:
        """The value of `make()` on rank 0, on every rank; JSON."""
        return self._share(self.about + key, make)

    def _share(self, key: str, make: Callable[[], Any]) -> Any:
        if not self.is_first:
            return self._wait(key, 0)
        value = make()
        self._tell(key, value)
        return value

    def conclude(
        self, key: str, make: Callable[[], Any], combine: Callable[[list[Any]], Any]
    ) -> Any:
        """The value of `combine` on rank 0, on every rank. It gets the values of `make()` of all
        ranks, in order."""
        key = self.about + key
        if not self.is_first:
            self._tell(f"{key}/{self.rank}", make())
            return self._wait(key, 0)
        values = [make()] + [self._wait(f"{key}/{r}", r) for r in range(1, self.world)]
        return self._share(key, lambda: combine(values))

    def part_of(self, shards: list[int]) -> list[int]:
        """This rank's part: every `world`-th."""
        return shards[self.rank :: self.world]

    def came(self, is_lost: Callable[[int], bool]) -> None:
        """Report that this rank has claimed the folder: from now on its death can be detected. Of
        several folders, all of which it holds until its end, the first tells."""
        if self.is_lost is none_lost:
            self.is_lost = is_lost
            self._tell(f"came/{self.rank}", True)

    def begun(self) -> None:
        """Note that the dump has begun: if torchrun starts this run again, it resumes."""
        if self.store is not None:
            _root(self.store).set("softlabels/begun", "1")

    def _tell(self, key: str, value: Any) -> None:
        if self.store is not None:
            with self._touch():
                self.store.set(key, json.dumps(value))

    def _wait(self, key: str, rank: int) -> Any:
        """The value that `rank` sets as `key`. Rank 0 sees the failure of any rank, the others that
        of rank 0, which repeats what it saw."""
        began = looked = time.monotonic()
        others = range(1, self.world) if self.is_first else [0]
        while not self._has(key):
            for other in others:
                if self._has(f"stopped/{other}"):
                    raise StoreError(f"rank {other} stopped: {self._get(f'stopped/{other}')}")
            time.sleep(PAUSE)
            now = time.monotonic()
            if now - looked < LOOK:
                continue
            looked, came = now, self._has(f"came/{rank}")
            if came and self.is_lost(rank) and not self._has(key):
                raise StoreError(f"rank {rank} was lost before the dump began; start it again")
            if not came and now - began > COMING:
                raise StoreError(f"rank {rank} did not come in {COMING / 60:.0f} minutes")
        return self._get(key)

    def _leave(self) -> None:
        """End the meeting. A rank 0 that hosts the store stays until the others have read its last
        value, or are gone."""
        if self.store is None:
            return
        with suppress(StoreError):
            self._tell(f"left/{self.rank}", True)
            began = time.monotonic()
            waited_for = set(range(1, self.world)) if self.hosts_store else set()
            while waited_for:
                late = time.monotonic() - began > LEAVING
                waited_for = {r for r in waited_for if not self._is_gone(r, late)}
                time.sleep(PAUSE)

    def _is_gone(self, rank: int, late: bool) -> bool:
        if self._has(f"left/{rank}"):
            return True
        return self.is_lost(rank) if self._has(f"came/{rank}") else late

    def _has(self, key: str) -> bool:
        with self._touch():
            return bool(self.store.check([key]))

    def _get(self, key: str) -> Any:
        with self._touch():
            return json.loads(self.store.get(key))

    @contextmanager
    def _touch(self) -> Iterator[None]:
        try:
            yield
        except (torch.distributed.DistError, RuntimeError) as error:
            first = str(error).splitlines()[0]
            raise StoreError(f"rank {self.rank} lost touch with the others: {first}") from error


def join_team() -> Team:
    """The team that the environment describes. Raises UsageError where part of it is missing."""
    world, elastic = (
        number_in_environment("WORLD_SIZE", 1, least=1),
        "TORCHELASTIC_RUN_ID" in os.environ,
    )
    if world == 1 and not elastic:
        return Team()
    missing = [n for n in ("RANK", "MASTER_ADDR", "MASTER_PORT") if n not in os.environ]
    if missing:
        raise UsageError(
            f"WORLD_SIZE is {world}, but {' and '.join(missing)} are not set; start the ranks with "
            f"torchrun, or unset WORLD_SIZE"
        )
    rank = number_in_environment("RANK", 0)
    try:
        meeting = torch.distributed.rendezvous("env://", timeout=timedelta(seconds=COMING))
        store, rank, world = next(meeting)
    except (torch.distributed.DistError, RuntimeError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise StoreError(f"rank {rank} of {world} found no other: {first}") from error
    restarts = number_in_environment("TORCHELASTIC_RESTART_COUNT", 0)
    agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return Team(
        rank=rank,
        world=world,
        store=torch.distributed.PrefixStore(f"softlabels/{restarts}", store),
        resumes=restarts > 0 and bool(_root(store).check(["softlabels/begun"])),
        hosts_store=rank == 0 and not agent,
    )


def _root(store: Any) -> Any:
    """The store below the prefixes that torchrun gives to each attempt."""
    while isinstance(store, torch.distributed.PrefixStore):
        store = store.underlying_store
    return store
