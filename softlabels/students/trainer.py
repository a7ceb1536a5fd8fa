"""One training loop for every loss: AdamW, warm-up and cosine, held-out selection.

Under torchrun or `accelerate launch` each process takes its share of every batch, and gradients
are averaged over its rows; see `ranks` for what they decide together.
"""

import math
import random
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from softlabels.errors import TrainingError, UsageError
from softlabels.students.ranks import Ranks
from softlabels.students.student import Student, as_training_errors
from softlabels.system.devices import autocast
from softlabels.system.humanize import counted, measured
from softlabels.system.progress import Advance, Progress
from softlabels.targets.batches import steps

Batch = Mapping[str, Any]

SAVE_SECONDS = 30.0


@dataclass(frozen=True)
class Recipe:
    """How a model is trained, whatever the loss: the options of these names."""

    epochs: int
    batch_size: int
    lr: float
    warmup: float
    weight_decay: float
    dropout: float
    input_dropout: float
    max_norm: float | None
    rows: int | None
    holdout: float
    patience: int | None
    seed: int
    data_seed: int
    precision: str


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
    loss: (logits, batch) → a scalar, the mean over rows.
    score: (student, held-out rows) → their score; called on every rank, the same on each.
    settle: called after each epoch; raises the damage that background checks have seen.
    remedy: what to try where the loss becomes NaN or infinite.
    ahead: take each batch while the one before it is trained on.
    """

    order: Callable[[np.ndarray, int], np.ndarray]
    take: Callable[[np.ndarray, int, torch.device], Batch]
    loss: Callable[[Tensor, Batch], Tensor]
    score: Callable[[Student, np.ndarray], Score]
    settle: Callable[[], None]
    remedy: str
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


def smallest_share(rows: int, size: int, world: int) -> int:
    """The fewest rows that a process gets in a step. Raises UsageError where one would get none."""
    if rows < world:
        raise UsageError(
            f"{counted(rows, 'row')} to train on can't be shared by {world} processes; start fewer"
        )
    if size < world:
        raise UsageError(
            f"--batch-size is {size}, and each of {world} processes takes a share of every batch; "
            f"use {world} or more"
        )
    return min((stop - start) // world for start, stop in steps(rows, size, world))


class Trainer:
    """Trains a student in place; `run` returns the best epoch's weights.

    The best epoch has the best held-out score; without a hold-out it is the last. `save` is called
    with it at the end, on Ctrl-C, and before that at most every half minute.
    """

    def __init__(
        self,
        student: Student,
        task: Task,
        rows: tuple[np.ndarray, np.ndarray],
        recipe: Recipe,
        save: Callable[[Outcome], None],
        ranks: Ranks,
        use_differs: bool = False,
    ) -> None:
        self.student, self.task, self.recipe, self.save = student, task, recipe, save
        self.ranks, self.device = ranks, ranks.device
        self.train_rows, self.held_rows = rows
        self.wrapped = ranks.wrap(student, use_differs)
        self.optimizer = torch.optim.AdamW(
            student.model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay
        )
        each = len(steps(len(self.train_rows), recipe.batch_size, ranks.world))
        total_steps = recipe.epochs * each
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: learning_rate_factor(step, total_steps, recipe.warmup)
        )
        self.best: tuple[float, ...] = (math.inf,)
        self.outcome = Outcome({}, 0, len(self.train_rows), [])
        self.saved = time.monotonic()

    def run(self, progress: Progress) -> Outcome:
        """Raises TrainingError where the loss stops being a number, or no epoch has a score."""
        epochs, patience = self.recipe.epochs, self.recipe.patience
        with progress.bar("train", epochs * len(self.train_rows), "rows") as advance:
            try:
                for epoch in range(1, epochs + 1):
                    loss = self._train_epoch(epoch, advance)
                    summary = self._judge(epoch, loss)
                    advance(0, f"epoch {epoch}, loss {measured(loss)}{summary}")
                    if patience and epoch - self.outcome.epoch >= patience:
                        break
            except (KeyboardInterrupt, TrainingError, RuntimeError):
                if self.outcome.epoch:
                    self._save()
                    progress.say(f"stopped: the best so far, epoch {self.outcome.epoch}, is saved")
                raise
        if not self.outcome.epoch:
            raise TrainingError(f"no epoch can be chosen{summary}; {self.task.remedy}")
        self.outcome.complete = True
        self._save()
        self.ranks.wait()
        return self.outcome

    def _train_epoch(self, epoch: int, advance: Advance) -> float:
        self.wrapped.train()
        order = self.task.order(self.train_rows, epoch)
        losses = []
        for rows, share, batch in self._batches(order, epoch):
            losses.append(self._step(batch, share * self.ranks.world / rows))
            advance(rows, "")
        self.task.settle()
        mean = self.ranks.mean(float(torch.stack(losses).mean()))
        if not math.isfinite(mean):
            raise TrainingError(f"the loss became {mean} in epoch {epoch}; {self.task.remedy}")
        return mean

    def _batches(self, order: np.ndarray, epoch: int) -> Iterator[tuple[int, int, Batch]]:
        """(rows of the batch, rows of this process's share, the share) of each step."""
        rank, world = self.ranks.rank, self.ranks.world
        parts = [order[s:t] for s, t in steps(len(order), self.recipe.batch_size, world)]

        def take(rows: np.ndarray) -> tuple[int, int, Batch]:
            mine = rows[rank::world]
            return len(rows), len(mine), self.task.take(mine, epoch, self.device)

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

    def _step(self, batch: Batch, weight: float) -> Tensor:
        """weight: this rank's share of the batch, times the number of ranks. Gradients are averaged
        over ranks as if all shares were equal; the weight corrects for those that are not."""
        inputs, spec = batch["input"], self.student.spec
        with as_training_errors(spec, len(inputs)), autocast(self.device, self.recipe.precision):
            logits_NC = self.wrapped(inputs)
        loss = self.task.loss(logits_NC, batch)
        if weight != 1:
            loss = loss * weight
        self.optimizer.zero_grad(set_to_none=True)
        with as_training_errors(spec, len(inputs)):
            self.ranks.accelerator.backward(loss)
        self.optimizer.step()
        self.schedule.step()
        if self.recipe.max_norm is not None:
            limit_norms(self.student.model, self.recipe.max_norm)
        return loss.detach()

    def _judge(self, epoch: int, loss: float) -> str:
        entry: dict[str, Any] = {"epoch": epoch, "loss": loss}
        score = Score((-epoch,))
        self.ranks.align(self.student)
        if len(self.held_rows):
            score = self.task.score(self.student, self.held_rows)
            entry["held_out"] = score.measures
        self.outcome.history.append(entry)
        if score.key is not None and score.key < self.best:
            self.outcome.state_dict = {
                name: value.detach().to("cpu", copy=True)
                for name, value in self.student.model.state_dict().items()
            }
            self.best, self.outcome.epoch = score.key, epoch
            if time.monotonic() - self.saved > SAVE_SECONDS:
                self._save()
        return f", held out: {score.summary}" if score.summary else ""

    def _save(self) -> None:
        if self.ranks.is_first:
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
