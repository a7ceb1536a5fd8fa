"""The batches of an epoch, divided among ranks and workers; an epoch can be resumed in its middle.

Step k of an epoch takes the rows at the positions [k·B, (k+1)·B) of its order, B = batch_size ·
world; rank r takes every world-th of them, from the r-th on. So no row is missing and none comes
twice, ranks take equally many steps, and neither depends on the number of workers. A last step
that would leave a rank one row or none is joined with the one before: batch norm can't train on
one row.
"""

import copy
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from softlabels.errors import UsageError
from softlabels.targets.batch import Batch
from softlabels.targets.orders import Order
from softlabels.targets.turns import Turns

Take = Callable[[np.ndarray], Batch]


def steps(
    rows: int, size: int, world: int, start: int = 0, drop_last: bool = False
) -> list[tuple[int, int]]:
    """The positions [start, stop) of each step of `size` rows, from this position on, so that each
    of `world` ranks gets two or more, where `size` has as many and as many are left."""
    least = min(2 * world, size)
    stops = list(range(start + size, rows + 1, size))
    done = stops[-1] if stops else start
    if not drop_last and done < rows:
        if rows - done < least and stops:
            stops[-1] = rows
        else:
            stops.append(rows)
    return list(zip([start, *stops], stops, strict=False))


class Batches(IterableDataset):
    """Iterate over it for the batches of one epoch; `len()` is the number of steps.

    take: rows → a batch
    ahead: called with rows that will be needed soon
    settle: called when an epoch has been read to its end

    For a DataLoader, use `batch_size=None` and `collate_fn=softlabels.targets.as_it_is`: its
    default would make a dict of each batch.

    After `state_dict()` and `load_state_dict()`, also with another number of workers, the next
    batch is the one that would have come. `set_epoch()` chooses another order and starts over.
    """

    def __init__(
        self,
        take: Take,
        order: Order | Turns,
        batch_size: int,
        *,
        rank: int = 0,
        world: int = 1,
        drop_last: bool = False,
        workers: int = 0,
        pin_memory: bool = False,
        identity: str = "",
        ahead: Callable[[np.ndarray], None] | None = None,
        settle: Callable[[], None] = lambda: None,
    ) -> None:
        if batch_size < 1:
            raise UsageError(f"batch_size is {batch_size}; it must be a whole number, 1 or more")
        if not 0 <= rank < world:
            raise UsageError(f"rank is {rank} of a world of {world}; ranks count from 0")
        if len(order) < world:
            raise UsageError(f"{len(order)} rows can't be shared by {world} ranks")
        self.take, self.order, self.batch_size = take, order, batch_size
        self.rank, self.world, self.drop_last = rank, world, drop_last
        self.workers, self.pin_memory = workers, pin_memory
        self.identity, self.ahead, self.settle = identity, ahead, settle
        self._position = 0  # rows of the epoch that all ranks together have taken
        self._resumed = False

    @property
    def epoch(self) -> int:
        return self.order.epoch

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch. A loaded position is kept if it is of the same epoch."""
        if epoch != self.order.epoch:
            self.order = replace(self.order, epoch=epoch)
            self._position, self._resumed = 0, False

    def __len__(self) -> int:
        """The steps of a whole epoch, the same on each rank."""
        return len(self._steps(0))

    def __iter__(self) -> Iterator[Batch]:
        if not self._resumed:
            self._position = 0
        self._resumed = False
        if self.workers and get_worker_info() is None:
            return self._from_workers()
        return self._here()

    def state_dict(self) -> dict[str, Any]:
        """The epoch and the position in it after the last batch, as plain numbers and text.

        Raises UsageError in one of several workers, since each knows only its own batches.
        """
        worker = get_worker_info()
        if worker is not None and worker.num_workers > 1:
            raise UsageError("a worker can't tell how far all are; use batches(…, workers=2)")
        return {
            "position": self._position,
            "epoch": self.order.epoch,
            "seed": self.order.seed,
            "shuffle": self.order.text,
            "rows": len(self.order),
            "data": self.identity,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from this state. Raises UsageError for the state of other rows or another
        shuffle."""
        ours = self.state_dict()
        for name in ("data", "rows", "shuffle"):
            if state.get(name) != ours[name]:
                raise UsageError(
                    f"this state is of batches whose {name} is {state.get(name)!r}; here it is "
                    f"{ours[name]!r}"
                )
        position = state.get("position")
        if type(position) is not int or not 0 <= position <= len(self.order):
            raise UsageError(f"this state's position is {position!r}, of {len(self.order)} rows")
        self.order = replace(self.order, seed=state["seed"], epoch=state["epoch"])
        self._position, self._resumed = state["position"], True

    def _steps(self, start: int) -> list[tuple[int, int]]:
        size = self.batch_size * self.world
        return steps(len(self.order), size, self.world, start, self.drop_last)

    def _here(self) -> Iterator[Batch]:
        worker = get_worker_info()
        first, every = (worker.id, worker.num_workers) if worker else (0, 1)
        mine = self._steps(self._position)[first::every]
        order = self.order  # of this pass: set_epoch chooses that of the next
        with _Ahead(order, self.ahead) as ahead:
            for start, stop in mine:
                ahead.reaching(start, stop)
                batch = self.take(order.part(start, stop)[self.rank :: self.world])
                if self.order is order:
                    self._position = stop
                yield batch
        self.settle()

    def _from_workers(self) -> Iterator[Batch]:
        theirs = copy.copy(self)
        theirs._resumed = True
        loader = DataLoader(
            theirs,
            batch_size=None,
            num_workers=self.workers,
            pin_memory=self.pin_memory,
            collate_fn=as_it_is,
        )
        batches, order = iter(loader), self.order
        try:
            for (_, stop), batch in zip(self._steps(self._position), batches, strict=True):
                if self.order is order:
                    self._position = stop
                yield batch
        finally:
            # An error's traceback holds the iterator; the collector of cycles would end its queues
            # first, and then wait 5 seconds for each worker that hears nothing.
            getattr(batches, "_shutdown_workers", lambda: None)()


def as_it_is(batch: Any) -> Any:
    """A collate function for a DataLoader over whole batches: returns the batch as it is."""
    return batch


class _Ahead:
    """A thread that reads ahead: the window of blocks after the one that batches are drawn from,
    and before them the first window."""

    def __init__(self, order: Order | Turns, read: Callable[[np.ndarray], None] | None) -> None:
        self.order, self.read = order, read
        self.read_to = -1  # the last window that was requested
        self.pending: Future[None] | None = None

    def __enter__(self) -> "_Ahead":
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="ahead") if self.read else None
        return self

    def __exit__(self, *error: Any) -> None:
        if self.pool:
            self.pool.shutdown(wait=True, cancel_futures=True)

    def reaching(self, start: int, stop: int) -> None:
        """Note the positions of the next batch, and request the window after them."""
        if self.pool is None or self.read is None:
            return
        starts = self.order.window_starts
        first = int(np.searchsorted(starts, start, side="right")) - 1
        last = int(np.searchsorted(starts, stop, side="left")) - 1
        if last < self.read_to:
            return
        if self.pending:
            self.pending.result()
        for window in range(max(first, self.read_to + 1), min(last + 2, len(starts) - 1)):
            self.pending = self.pool.submit(self.read, self.order.window(window))
        self.read_to = last + 1
