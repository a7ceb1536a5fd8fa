"""One training loop for every loss: AdamW, warm-up and cosine, held-out selection.

`accelerate` gives the device and, under `accelerate launch`, the other processes: each takes its
share of every batch, and gradients are averaged.
"""

import math
import random
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import accelerate
import numpy as np
import torch
from torch import Tensor, nn

from softlabels.config import TrainingOptions
from softlabels.devices import autocast, resolve_device
from softlabels.errors import TrainingError, UsageError
from softlabels.progress import Advance, Progress
from softlabels.targets.batches import steps

Batch = Mapping[str, Any]

SAVE_SECONDS = 30.0


@dataclass(frozen=True)
class Score:
    """A held-out score: smaller `key` is better; `words` says it to a person."""

    key: tuple[float, ...]
    words: str = ""
    measures: dict[str, Any] | None = None


@dataclass(frozen=True)
class Task:
    """What is learned. Rows are positions, int64.

    order: training rows and epoch → the same rows as they come in that epoch; take: rows, epoch and
    device → a batch there, with `input` as the model gets it, begun one batch ahead with `ahead`;
    loss: logits and a batch → a scalar; score: a model and held-out rows → how good it is; settle:
    called after each epoch, raises what was found wrong with its data.
    """

    order: Callable[[np.ndarray, int], np.ndarray]

    take: Callable[[np.ndarray, int, torch.device], Batch]
    loss: Callable[[Tensor, Batch], Tensor]
    score: Callable[[nn.Module, np.ndarray], Score]
    labels: np.ndarray | None
    settle: Callable[[], None]
    ahead: bool = False


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


def choose_rows(
    total: int, labels: np.ndarray | None, options: TrainingOptions
) -> tuple[np.ndarray, np.ndarray]:
    """(training rows, held-out rows), by the seed. `rows` of them, evenly over the classes.

    Raises UsageError where there are fewer rows than asked for.
    """
    order = np.random.default_rng([options.seed, 0xDA7A]).permutation(total)
    held = round(options.holdout * total)
    kept, out = order[held:], order[:held]
    if options.rows is None:
        return np.sort(kept), np.sort(out)
    if options.rows > len(kept):
        raise UsageError(f"--rows is {options.rows}; only {len(kept)} rows are there to train on")
    return np.sort(_evenly(kept, labels, options.rows)), np.sort(out)


def _evenly(rows: np.ndarray, labels: np.ndarray | None, count: int) -> np.ndarray:
    """The first `count` of `rows`, taking the classes in turn."""
    if labels is None:
        return rows[:count]
    turn = np.empty(len(rows), dtype=np.int64)
    for value in np.unique(labels[rows]):
        members = np.flatnonzero(labels[rows] == value)
        turn[members] = np.arange(len(members))
    return rows[np.argsort(turn, kind="stable")[:count]]


class Trainer:
    """Trains `model` in place; `run` returns the best epoch's weights.

    The best epoch has the best held-out score; without a hold-out it is the last. `save` hears of
    it at the end, at most every half minute before that, and on Ctrl-C.
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        total: int,
        options: TrainingOptions,
        save: Callable[[Outcome], None],
    ) -> None:
        self.accelerator = accelerate.Accelerator(device_placement=False)
        alone = self.accelerator.num_processes == 1
        self.device = resolve_device(options.device) if alone else self.accelerator.device
        self.model, self.task, self.options, self.save = model.to(self.device), task, options, save
        self.train_rows, self.held_rows = choose_rows(total, task.labels, options)
        self.wrapped = self.accelerator.prepare_model(self.model, device_placement=False)
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=options.lr, weight_decay=options.weight_decay
        )
        each = len(steps(len(self.train_rows), options.batch_size, self.accelerator.num_processes))
        total_steps = options.epochs * each
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: learning_rate_factor(step, total_steps, options.warmup)
        )
        self.best: tuple[float, ...] = (math.inf,)
        self.outcome = Outcome({}, 0, len(self.train_rows), [])
        self.saved = time.monotonic()

    def run(self, progress: Progress) -> Outcome:
        """Raises TrainingError where the loss stops being a number."""
        epochs, patience = self.options.epochs, self.options.patience
        with progress.bar("train", epochs * len(self.train_rows), "rows") as advance:
            try:
                for epoch in range(1, epochs + 1):
                    loss = self._train_epoch(epoch, advance)
                    words = self._judge(epoch, loss)
                    advance(0, f"epoch {epoch}, loss {loss:.4f}{words}")
                    if patience and epoch - self.outcome.epoch >= patience:
                        break
            except KeyboardInterrupt:
                if self.outcome.epoch:
                    self._save()
                    progress.say(f"stopped: the best so far, epoch {self.outcome.epoch}, is saved")
                raise
        self.outcome.complete = True
        self._save()
        self.accelerator.wait_for_everyone()
        return self.outcome

    def _train_epoch(self, epoch: int, advance: Advance) -> float:
        self.wrapped.train()
        order = self.task.order(self.train_rows, epoch)
        losses = []
        for rows, batch in self._batches(order, epoch):
            losses.append(self._step(batch))
            advance(rows, "")
        self.task.settle()
        mean = float(torch.stack(losses).mean())
        if not math.isfinite(mean):
            raise TrainingError(
                f"the loss became {mean} in epoch {epoch}; try a smaller --lr than "
                f"{self.options.lr:g}, or a longer --warmup"
            )
        return mean

    def _batches(self, order: np.ndarray, epoch: int) -> Iterator[tuple[int, Batch]]:
        """This process's share of each batch, and how many rows all of them have."""
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        parts = [order[s:t] for s, t in steps(len(order), self.options.batch_size, world)]

        def take(rows: np.ndarray) -> tuple[int, Batch]:
            return len(rows), self.task.take(rows[rank::world], epoch, self.device)

        if not self.task.ahead:
            yield from map(take, parts)
            return
        with ThreadPoolExecutor(1, thread_name_prefix="ahead") as pool:
            waiting = [pool.submit(take, part) for part in parts[:1]]
            for part in [*parts[1:], None]:
                now = waiting.pop()
                if part is not None:
                    waiting.append(pool.submit(take, part))
                yield now.result()

    def _step(self, batch: Batch) -> Tensor:
        with autocast(self.device, self.options.precision):
            logits_NC = self.wrapped(batch["input"])
        loss = self.task.loss(logits_NC, batch)
        self.optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(loss)
        self.optimizer.step()
        self.schedule.step()
        if self.options.max_norm is not None:
            limit_norms(self.model, self.options.max_norm)
        return loss.detach()

    def _judge(self, epoch: int, loss: float) -> str:
        entry: dict[str, Any] = {"epoch": epoch, "loss": loss}
        score = Score((-epoch,))
        if len(self.held_rows):
            score = self.task.score(self.model, self.held_rows)
            entry["held_out"] = score.measures
        self.outcome.history.append(entry)
        if score.key < self.best:
            self.best, self.outcome.epoch = score.key, epoch
            self.outcome.state_dict = {
                name: value.detach().to("cpu", copy=True)
                for name, value in self.model.state_dict().items()
            }
            if time.monotonic() - self.saved > SAVE_SECONDS:
                self._save()
        return f", held out: {score.words}" if score.words else ""

    def _save(self) -> None:
        if self.accelerator.is_main_process:
            self.save(self.outcome)
        self.saved = time.monotonic()


def learning_rate_factor(step: int, steps: int, warmup: float) -> float:
    """Rises linearly from near 0 to 1 over `warmup · steps`, then falls to 0 as a half cosine."""
    rising = round(warmup * steps)
    if step < rising:
        return (step + 1) / (rising + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


@torch.no_grad()
def limit_norms(model: nn.Module, largest: float) -> None:
    """Shrink the weights coming into each hidden unit to a norm of at most `largest`.

    Hinton et al. 2012, "Improving neural networks by preventing co-adaptation of feature
    detectors": an L2 limit on each hidden unit's incoming weights. The last layer has no hidden
    units and is left alone.
    """
    layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    for layer in layers[:-1]:
        layer.weight.copy_(torch.renorm(layer.weight, p=2, dim=0, maxnorm=largest))
