"""What a training is given, what comes of it, and what it writes. Rows are numbers of rows."""

import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from softlabels.errors import UsageError
from softlabels.students.history import History
from softlabels.students.optimization import Batch, Loss
from softlabels.students.state_file import StateFile
from softlabels.students.student import Student
from softlabels.students.trackers import Trackers
from softlabels.system.humanize import counted
from softlabels.system.local_files import sweep_partials
from softlabels.targets.batches import steps

Part = TypeVar("Part")
Taken = TypeVar("Taken")


@dataclass(frozen=True)
class Score:
    """A held-out score.

    key: a smaller one is better; None is never chosen.
    summary: the score as one phrase, such as `3 errors of 120`.
    """

    key: tuple[float, ...] | None
    summary: str = ""
    measures: dict[str, Any] | None = None


@dataclass(frozen=True)
class Task:
    """What a student learns. Rows are numbers of rows, int64.

    order: (training rows, epoch) → the same rows in the order of that epoch.
    take: (rows, epoch, device) → a batch on that device, with `input` as the model takes it.
    loss: (logits, batch, how far training is, from 0 to 1) → a scalar, the mean over rows.
    score: (student, held-out rows) → their score; called on every rank, the same on each.
    settle: called after each epoch; raises the damage that background checks have seen.
    remedy: what to try where the loss becomes NaN or infinite.
    ahead: take each batch while the one before it is trained on.
    views_in: epoch → the views that it shows, for the history; None for inputs without views.
    T_at: how far training is → the temperature, for the history; None for one that stays.
    """

    order: Callable[[np.ndarray, int], np.ndarray]
    take: Callable[[np.ndarray, int, torch.device], Batch]
    loss: Loss
    score: Callable[[Student, np.ndarray], Score]
    settle: Callable[[], None]
    remedy: str
    ahead: bool = False
    views_in: Callable[[int], list[int]] | None = None
    T_at: Callable[[float], float] | None = None


@dataclass
class Outcome:
    """The chosen weights (on the CPU), the epoch they are from, and one entry an epoch."""

    state_dict: dict[str, Tensor]
    epoch: int
    rows: int
    history: list[dict[str, Any]]
    complete: bool = False


def seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def smallest_share(rows: int, size: int, world: int, accumulate: int = 1) -> int:
    """The fewest rows that a process gets of a batch. Raises UsageError where one would get none,
    and where an epoch has too few batches for a step."""
    if rows < world:
        raise UsageError(
            f"{counted(rows, 'row')} to train on can't be shared by {world} processes; start fewer"
        )
    if size < world:
        raise UsageError(
            f"--batch-size is {size}, and each of {world} processes takes a share of every batch; "
            f"use {world} or more"
        )
    parts = steps(rows, size, world)
    if accumulate > len(parts):
        raise UsageError(
            f"--accumulate is {accumulate:,}, and an epoch has {len(parts):,} "
            f"batch{'es' * (len(parts) > 1)} of {size:,} rows; use at most that many, or a smaller "
            f"--batch-size"
        )
    return min((stop - start) // world for start, stop in parts)


@dataclass(frozen=True)
class Outputs:
    """What training writes; rank 0 does.

    out: the checkpoint's file.
    save: writes it: at the end, on Ctrl-C, and before that at most every half minute.
    state: from which an unfinished training goes on: written between steps now and then, on Ctrl-C,
        and at the ends of epochs; removed when training is complete.
    history: gets a line an epoch.
    trackers: get numbers every LOG_STEPS steps and each epoch, and `options` at the beginning.
    """

    out: str
    save: Callable[[Outcome], None]
    state: StateFile
    history: History
    trackers: Trackers
    options: dict[str, Any]

    def settle(self) -> None:
        """Leave the checkpoint and the history alone: training is complete."""
        self.state.remove()
        for path in (self.out, self.state.path, self.history.path):
            sweep_partials(path)


def taken(take: Callable[[Part], Taken], parts: Sequence[Part], ahead: bool) -> Iterator[Taken]:
    """What `take` makes of each part, in order; ahead: the next one, in a thread, while one is
    trained on."""
    if not ahead:
        yield from map(take, parts)
        return
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as pool:
        waiting = [pool.submit(take, part) for part in parts[:1]]
        for part in [*parts[1:], None][: len(parts)]:
            now = waiting.pop()
            if part is not None:
                waiting.append(pool.submit(take, part))
            yield now.result()
