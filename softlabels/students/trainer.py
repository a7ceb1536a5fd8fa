"""One training loop for every loss: AdamW, warm-up and cosine, held-out selection.

Under torchrun or `accelerate launch` each process takes its share of every batch, and gradients
are averaged over its rows; see `ranks` for what they decide together.
"""

import json
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from softlabels.errors import TrainingError, UsageError
from softlabels.students.history import History
from softlabels.students.ranks import Ranks
from softlabels.students.state_file import (
    SaveTimes,
    StateFile,
    random_state,
    restore_random,
    restore_tensors,
    tensors_of,
)
from softlabels.students.student import Student, as_training_errors
from softlabels.system.devices import autocast
from softlabels.system.humanize import counted, measured
from softlabels.system.interrupts import Interrupts
from softlabels.system.local_files import sweep_partials
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


@dataclass(frozen=True)
class Outputs:
    """What training writes; rank 0 does.

    out: the checkpoint's file.
    save: writes it: at the end, on Ctrl-C, and before that at most every half minute.
    state: from which an unfinished training goes on: written between steps now and then, on Ctrl-C,
        and at the ends of epochs; removed when training is complete.
    history: gets a line an epoch.
    """

    out: str
    save: Callable[[Outcome], None]
    state: StateFile
    history: History

    def settle(self) -> None:
        """Leave the checkpoint and the history alone: training is complete."""
        self.state.remove()
        for path in (self.out, self.state.path, self.history.path):
            sweep_partials(path)


class Trainer:
    """Trains a student in place; `run` returns the best epoch's weights. `go_on` takes up a state.

    The best epoch has the best held-out score; without a hold-out it is the last.
    """

    def __init__(
        self,
        student: Student,
        task: Task,
        rows: tuple[np.ndarray, np.ndarray],
        recipe: Recipe,
        outputs: Outputs,
        ranks: Ranks,
        progress: Progress,
        use_differs: bool = False,
    ) -> None:
        self.student, self.task, self.recipe, self.outputs = student, task, recipe, outputs
        self.ranks, self.device, self.progress = ranks, ranks.device, progress
        self.train_rows, self.held_rows = rows
        self.wrapped = ranks.wrap(student, use_differs)
        self.optimizer = torch.optim.AdamW(
            student.model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay
        )
        self.parts = steps(len(self.train_rows), recipe.batch_size, ranks.world)
        total_steps = recipe.epochs * len(self.parts)
        self._factor = partial(learning_rate_factor, steps=total_steps, warmup=recipe.warmup)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._factor)
        # the epoch that is trained, its steps so far and their losses
        self.epoch, self.step, self.losses = 1, 0, list[Tensor]()
        self.best: tuple[float, ...] = (math.inf,)
        self.outcome = Outcome({}, 0, len(self.train_rows), [])
        self.pace = 0.0  # rows a second of the last epoch, of what was trained since a resume
        self.saved = time.monotonic()
        self.interrupts = Interrupts()
        self.times = SaveTimes(ranks)

    @property
    def rows_done(self) -> int:
        """Rows of all epochs that the steps so far have taken."""
        in_epoch = self.parts[self.step - 1][1] if self.step else 0
        return (self.epoch - 1) * len(self.train_rows) + in_epoch

    @property
    def place(self) -> str:
        """How far it is: `epoch 3 of 20, step 40 of 85`."""
        epoch = f"epoch {self.epoch:,} of {self.recipe.epochs:,}"
        return f"{epoch}, step {self.step:,} of {len(self.parts):,}"

    def run(self) -> Outcome:
        """Raises TrainingError where the loss stops being a number, or no epoch has a score."""
        total, summary = self.recipe.epochs * len(self.train_rows), ""
        bar = self.progress.bar("train", total, "rows", self.rows_done)
        with self.interrupts, bar as advance:
            try:
                while not self._is_over():
                    self._train_epoch(advance)
                    with self.interrupts.held():
                        epoch, loss, summary = self._judge()
                    advance(0, f"epoch {epoch}, loss {measured(loss)}{summary}")
                    if self.times.after_epoch():
                        self._save_state()
            except (KeyboardInterrupt, TrainingError, RuntimeError) as error:
                self._stopped(error)
                raise
        if not self.outcome.epoch:
            raise self._hopeless(f"no epoch can be chosen{summary}")
        self.outcome.complete = True
        self._save()
        if self.ranks.is_first:
            self.outputs.settle()
        self.ranks.wait()
        return self.outcome

    def _is_over(self) -> bool:
        done, patience = self.epoch - 1, self.recipe.patience
        tired = patience is not None and done - self.outcome.epoch >= patience
        return done >= self.recipe.epochs or tired

    def _train_epoch(self, advance: Advance) -> None:
        """What is left of the epoch."""
        self.wrapped.train()
        order = self.task.order(self.train_rows, self.epoch)
        began, before = time.monotonic(), self.rows_done
        for rows, share, batch in self._batches(order):
            with self.interrupts.held():
                self.losses.append(self._step(batch, share * self.ranks.world / rows))
                self.step += 1
            advance(rows, "")
            if self.times.after_step() and self.step < len(self.parts):
                self._save_state()
        self.pace = (self.rows_done - before) / (time.monotonic() - began)
        self.task.settle()

    def _batches(self, order: np.ndarray) -> Iterator[tuple[int, int, Batch]]:
        """(rows of the batch, rows of this process's share, the share) of each step to come."""
        rank, world, epoch = self.ranks.rank, self.ranks.world, self.epoch
        parts = [order[start:stop] for start, stop in self.parts[self.step :]]

        def take(rows: np.ndarray) -> tuple[int, int, Batch]:
            mine = rows[rank::world]
            return len(rows), len(mine), self.task.take(mine, epoch, self.device)

        if not self.task.ahead:
            yield from map(take, parts)
            return
        with ThreadPoolExecutor(1, thread_name_prefix="ahead") as pool:
            waiting = [pool.submit(take, part) for part in parts[:1]]
            for part in [*parts[1:], None][: len(parts)]:
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

    def _judge(self) -> tuple[int, float, str]:
        """End the epoch: its number, its loss, and its held-out score as text."""
        epoch, loss = self.epoch, self.ranks.mean(float(torch.stack(self.losses).mean()))
        if not math.isfinite(loss):
            raise self._hopeless(f"the loss became {loss} in epoch {epoch}")
        rate = self.recipe.lr * self._factor(self.schedule.last_epoch - 1)
        entry: dict[str, Any] = {"epoch": epoch, "loss": loss, "learning_rate": rate}
        entry["rows_per_second"] = round(self.pace, 1)
        score = Score((-epoch,))
        self.ranks.align(self.student)
        if len(self.held_rows):
            score = self.task.score(self.student, self.held_rows)
            entry["held_out"] = score.measures
        self.outcome.history.append(entry)
        self._write_history()
        better = score.key is not None and score.key < self.best
        if score.key is not None and better:
            self.outcome.state_dict = {
                name: value.detach().to("cpu", copy=True)
                for name, value in self.student.model.state_dict().items()
            }
            self.best, self.outcome.epoch = score.key, epoch
        self.epoch, self.step, self.losses = epoch + 1, 0, []
        if better and time.monotonic() - self.saved > SAVE_SECONDS:
            self._save()
        return epoch, loss, f", held out: {score.summary}" if score.summary else ""

    def _write_history(self) -> None:
        if self.ranks.is_first:
            try:
                self.outputs.history.add(self.outcome.history)
            except OSError as error:
                self.progress.say(
                    f"warning: {self.outputs.history.path} can't be written: {error.strerror}"
                )

    def _save(self) -> None:
        if self.ranks.is_first:
            self.outputs.save(self.outcome)
        self.saved = time.monotonic()

    def _hopeless(self, problem: str) -> TrainingError:
        """The error of a training that would end so again: there is nothing to go on with."""
        if self.ranks.is_first:
            self.outputs.state.remove()
        return TrainingError(f"{problem}; {self.task.remedy}")

    def _stopped(self, error: BaseException) -> None:
        """Save what can be saved. A state only of a step that is whole, and of ranks that are all
        at hand: else the last one stays."""
        if self.outcome.epoch:
            self._save()
            self.progress.say(f"stopped: the best so far, epoch {self.outcome.epoch}, is saved")
        interrupted = isinstance(error, KeyboardInterrupt) and self.ranks.world == 1
        if interrupted and not self.interrupts.half_done and self._is_worth_saving():
            self._save_state()
        if self.ranks.is_first and self.outputs.state.exists():
            self.progress.say("--resume goes on with this training")

    def _is_worth_saving(self) -> bool:
        return self.times.worth_it or self.outputs.state.exists()

    def _save_state(self) -> None:
        began = time.monotonic()
        losses = torch.stack(self.losses).cpu() if self.losses else torch.empty(0)
        each = self.ranks.all({"random": random_state(self.device), "losses": losses})
        if self.ranks.is_first:
            try:
                self.outputs.state.write(self._state(each))
            except (OSError, RuntimeError) as error:  # RuntimeError: torch's, of a full disk
                reason = str(error).splitlines()[0]
                self.progress.say(
                    f"warning: {self.outputs.state.path} can't be written: {reason}; after a stop, "
                    f"--resume would go on from the state before, or anew"
                )
        self.times.note(began)

    def _state(self, each: list[Any]) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "step": self.step,
            "place": self.place,
            "device": self.device.type,
            "torch": str(torch.__version__),
            "model": tensors_of(self.student.model),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "ranks": each,
            "best": list(self.best),
            "outcome": {"epoch": self.outcome.epoch, "state_dict": self.outcome.state_dict},
            "history": json.dumps(self.outcome.history, default=lambda value: value.tolist()),
        }

    def go_on(self, state: dict[str, Any]) -> None:
        """Take up a training where this state was saved."""
        mine = state["ranks"][self.ranks.rank]
        self.epoch, self.step = state["epoch"], state["step"]
        self.losses = list(mine["losses"].to(self.device))
        restore_tensors(self.student.model, state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.best = tuple(state["best"])
        best = state["outcome"]
        self.outcome.epoch, self.outcome.state_dict = best["epoch"], best["state_dict"]
        self.outcome.history = json.loads(state["history"])
        restore_random(mine["random"], self.device)


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
