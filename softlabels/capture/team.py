"""Several processes that make one dump: who they are, and what they must agree on at the start.

torchrun, accelerate and Slurm tell a process its RANK and WORLD_SIZE, and where rank 0 can be
met. The ranks meet there once, through torch's key-value store, and never again: no process
group, no collective that could hang when a rank dies later.
"""

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch

from softlabels.errors import StoreError, UsageError

MEETING = timedelta(minutes=30)  # to come together
PLANNING = timedelta(days=2)  # rank 0 reads every input once before the others begin
LEAVING = 5.0  # seconds, for ranks that wait already to read what they wait for


@dataclass(frozen=True)
class Team:
    """One process alone, or one of `world` ranks."""

    rank: int = 0
    world: int = 1
    store: Any = None
    restarted: bool = False

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def share(self, key: str, make: Callable[[], Any]) -> Any:
        """What `make()` gives on rank 0, on every rank. It must be JSON.

        Raises StoreError on the other ranks where rank 0 raised.
        """
        if self.store is None:
            return make()
        if not self.is_first:
            return self._get(key)
        try:
            value = make()
        except BaseException as error:
            self.store.set(key, json.dumps({"stopped": str(error) or type(error).__name__}))
            self.leave()
            raise
        self.store.set(key, json.dumps({"value": value}))
        return value

    def conclude(
        self,
        key: str,
        make: Callable[[], Any],
        combine: Callable[[list[Any]], Any],
        is_lost: Callable[[int], bool],
    ) -> Any:
        """What rank 0's `combine` gives for the list of every rank's `make()`, on every rank.

        Raises StoreError where another rank raised, or where `is_lost(rank)` before it answered.
        """
        if self.store is None:
            return combine([make()])
        if self.is_first:
            return self.share(key, lambda: combine(
                [make(), *(self._answer(key, r, is_lost) for r in range(1, self.world))]
            ))  # fmt: skip
        own = f"{key}/{self.rank}"
        try:
            value = make()
        except BaseException as error:
            self.store.set(own, json.dumps({"stopped": str(error) or type(error).__name__}))
            self.leave()
            raise
        self.store.set(own, json.dumps({"value": value}))
        return self._get(key)

    def part_of(self, shards: list[int]) -> list[int]:
        """This rank's part: every `world`-th."""
        return shards[self.rank :: self.world]

    def leave(self) -> None:
        """Nothing more is asked of the others. Rank 0 may be the store's host, and stays a moment
        until all have heard the last word."""
        if self.store is None:
            return
        with suppress(torch.distributed.DistError, RuntimeError):
            self.store.add("left", 1)
            end = time.monotonic() + LEAVING
            while self.is_first and self.store.add("left", 0) < self.world:
                if time.monotonic() > end:
                    return
                time.sleep(0.05)

    def _answer(self, key: str, rank: int, is_lost: Callable[[int], bool]) -> Any:
        name = f"{key}/{rank}"
        while not self.store.check([name]):
            time.sleep(0.2)
            if is_lost(rank) and not self.store.check([name]):
                raise StoreError(f"rank {rank} was lost before the dump began; start it again")
        return self._get(name, rank)

    def _get(self, key: str, rank: int = 0) -> Any:
        try:
            told = json.loads(self.store.get(key))
        except (torch.distributed.DistError, RuntimeError) as error:
            raise StoreError(f"rank {self.rank} lost touch with rank 0: {error}") from error
        if "stopped" in told:
            if not self.is_first:
                self.leave()
            raise StoreError(f"rank {rank} stopped: {told['stopped']}")
        return told["value"]


def join_team() -> Team:
    """The team that the environment tells of. Raises UsageError for half an environment."""
    world = _number("WORLD_SIZE", 1)
    if world == 1:
        return Team()
    missing = [n for n in ("RANK", "MASTER_ADDR", "MASTER_PORT") if n not in os.environ]
    if missing:
        raise UsageError(
            f"WORLD_SIZE is {world}, but {' and '.join(missing)} are not set; start the ranks with "
            f"torchrun, or unset WORLD_SIZE"
        )
    rank = _number("RANK", 0)
    try:
        store, rank, world = next(torch.distributed.rendezvous("env://", timeout=MEETING))
    except (torch.distributed.DistError, RuntimeError, ValueError) as error:
        raise StoreError(f"rank {rank} of {world} found no other: {error}") from error
    store.set_timeout(PLANNING)
    restarts = _number("TORCHELASTIC_RESTART_COUNT", 0)
    store = torch.distributed.PrefixStore(f"softlabels/{restarts}", store)
    return Team(rank, world, store, restarted=restarts > 0)


def own_device(device: torch.device) -> torch.device:
    """On a machine with several ranks: this rank's GPU, where no other was named."""
    if device.type != "cuda" or device.index is not None or "LOCAL_RANK" not in os.environ:
        return device
    return torch.device("cuda", _number("LOCAL_RANK", 0) % torch.cuda.device_count())


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"{name} is {text!r} in the environment; expected a number") from None
