"""One training loop for every loss: AdamW, warm-up and cosine, held-out selection.

Under torchrun or `accelerate launch` each process takes its share of every batch, and gradients
are averaged over its rows; see `ranks` for what they decide together.
"""

import json
import math
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from softlabels.errors import TrainingError
from softlabels.students.optimization import Batch, Optimization
from softlabels.students.ranks import Ranks
from softlabels.students.recipe import Recipe
from softlabels.students.state_file import (
    SaveTimes,
    random_state,
    restore_random,
)
from softlabels.students.student import Student
from softlabels.students.task import Outcome, Outputs, Score, Task, taken
from softlabels.students.trackers import LOG_STEPS
from softlabels.system.humanize import counted, measured
from softlabels.system.interrupts import Interrupts
from softlabels.system.progress import Advance, Progress
from softlabels.targets.batches import steps

SAVE_SECONDS = 30.0
NOTE_SECONDS = 0.5  # between two losses beside the bar
NOTED_STEPS = 1000  # in such a loss, at most: to read all of a long epoch takes long each time
MOST_LEFT = 0.05  # of an average, for the weights with which it began


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
        self.task, self.recipe, self.outputs = task, recipe, outputs
        self.ranks, self.device, self.progress = ranks, ranks.device, progress
        self.train_rows, self.held_rows = rows
        parts = steps(len(self.train_rows), recipe.batch_size, ranks.world)
        # an epoch's steps, each of some batches, each from one position of the order to another
        self.steps = [
            parts[i : i + recipe.accumulate] for i in range(0, len(parts), recipe.accumulate)
        ]
        self.optimization = Optimization(
            student, task.loss, recipe, recipe.epochs * len(self.steps), ranks, use_differs
        )
        # the epoch that is trained, its steps so far and the losses of those that were taken
        self.epoch, self.step, self.losses = 1, 0, list[Tensor]()
        self.best: tuple[float, ...] = (math.inf,)
        self.outcome = Outcome({}, 0, len(self.train_rows), [])
        self.pace = 0.0  # rows a second of the last epoch, of what was trained since a resume
        self.summary = self.note = ""  # of the last epoch: its held-out score, and all
        self.saved = self.noted = time.monotonic()
        self.interrupts = Interrupts()
        self.times = SaveTimes(ranks)

    @property
    def rows_done(self) -> int:
        """Rows of all epochs that the steps so far have taken."""
        in_epoch = self.steps[self.step - 1][-1][1] if self.step else 0
        return (self.epoch - 1) * len(self.train_rows) + in_epoch

    @property
    def _tried(self) -> int:
        """The steps so far, with those that were skipped."""
        return (self.epoch - 1) * len(self.steps) + self.step

    @property
    def place(self) -> str:
        """How far it is: `epoch 3 of 20, step 40 of 85`."""
        epoch = f"epoch {self.epoch:,} of {self.recipe.epochs:,}"
        return f"{epoch}, step {self.step:,} of {len(self.steps):,}"

    @property
    def remarks(self) -> list[str]:
        """What to say before training."""
        decay, count = self.recipe.ema, self.recipe.epochs * len(self.steps)
        if decay is None:
            return []
        remarks = [f"an average of the weights is scored and saved (--ema {decay:g})"]
        left = decay ** (count - 1)
        if left > MOST_LEFT:
            remedy = f"use a smaller one, such as {1 - 5 / count:.2g}" if count > 10 else "omit it"
            remarks.append(
                f"warning: in {counted(count, 'step')} --ema {decay:g} leaves {left:.0%} of the "
                f"average to the weights after the first step; {remedy}"
            )
        return remarks

    def run(self) -> Outcome:
        """Raises TrainingError where the loss stops being a number, or no epoch has a score."""
        total = self.recipe.epochs * len(self.train_rows)
        bar = self.progress.bar("train", total, "rows", self.rows_done)
        tracked = self.outputs.trackers.running(self.outputs.options)
        with self.interrupts, tracked, bar as advance:
            try:
                while not self._is_over():
                    self._train_epoch(advance)
                    with self.interrupts.held():
                        self._judge()
                    advance(0, self.note)
                    if self.times.after_epoch():
                        self._save_state()
            except BaseException as error:  # also of the data: a file that is gone, a damaged dump
                self._stopped(error)
                raise
        if not self.optimization.steps:
            raise self._overflowing()
        if remark := self.optimization.scale.remark(self._tried):
            self.progress.say(remark)
        if not self.outcome.epoch:
            raise self._hopeless(f"no epoch can be chosen{self.summary}")
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
        self.optimization.wrapped.train()
        order = self.task.order(self.train_rows, self.epoch)
        began, before = time.monotonic(), self.rows_done
        batches = self._batches(order)
        for parts in self.steps[self.step :]:
            with self.interrupts.held():
                taken = islice(batches, len(parts))
                loss = self.optimization.step(taken, len(parts))
                self.step += 1
                if loss is not None:
                    self.losses.append(loss)
                elif self.optimization.scale.has_collapsed:
                    raise self._overflowing()
            advance(parts[-1][1] - parts[0][0], self._report())
            if self.times.after_step() and self.step < len(self.steps):
                self._save_state()
        self.pace = (self.rows_done - before) / (time.monotonic() - began)
        self.task.settle()

    def _report(self) -> str:
        """Log the step, now and then. What to show beside the bar; most of the time nothing new,
        since reading a loss waits for an accelerator."""
        trackers = self.outputs.trackers
        if not self.losses:
            return ""
        if trackers.are_on and self.step % LOG_STEPS == 0:
            values = {"loss": self._recent(LOG_STEPS), "learning_rate": self.optimization.rate}
            trackers.log(self._tried, "train", values)
        now = time.monotonic()
        if now - self.noted < NOTE_SECONDS:
            return ""
        self.noted = now
        return self._note(self.epoch, self._recent(NOTED_STEPS))

    def _recent(self, steps: int) -> float:
        """The mean loss of the last steps of the epoch; of several ranks, of this one's share."""
        return float(torch.stack(self.losses[-steps:]).mean())

    def _note(self, epoch: int, loss: float | None) -> str:
        rate = f"lr {self.optimization.rate:.2g}"
        shown = "no step taken" if loss is None else f"loss {measured(loss)}"
        return f"epoch {epoch}, {shown}, {rate}{self.summary}"

    def _batches(self, order: np.ndarray) -> Iterator[tuple[Batch, float]]:
        """This process's share of each batch to come, and its part in the loss of the step: its
        rows among those of the step, times the number of ranks. Gradients are averaged over ranks
        as if all shares were equal; the weight corrects for those that are not."""
        rank, world, epoch = self.ranks.rank, self.ranks.world, self.epoch
        parts = [
            (order[start:stop], parts[-1][1] - parts[0][0])
            for parts in self.steps[self.step :]
            for start, stop in parts
        ]

        def take(part: tuple[np.ndarray, int]) -> tuple[Batch, float]:
            mine = part[0][rank::world]
            return self.task.take(mine, epoch, self.device), len(mine) * world / part[1]

        yield from taken(take, parts, self.task.ahead)

    def _judge(self) -> None:
        """End the epoch: its loss, its held-out score, and whether it is the best so far.

        All its steps may have been skipped: a loss scale is found in some steps, of which an epoch
        may have one. Then it has no loss and is not chosen.
        """
        epoch, tried = self.epoch, self._tried
        loss = None
        if self.losses:
            loss = self.ranks.mean(float(torch.stack(self.losses).mean()))
            if not math.isfinite(loss):
                raise self._hopeless(f"the loss became {loss} in epoch {epoch}")
        entry: dict[str, Any] = {"epoch": epoch, "loss": loss}
        entry["learning_rate"] = self.optimization.rate
        entry["rows_per_second"] = round(self.pace, 1)
        if self.task.views_in is not None:
            entry["views"] = self.task.views_in(epoch)
        if self.task.T_at is not None:
            entry["T"] = self.task.T_at(self.optimization.reached)
        if self.optimization.scale.is_on:
            entry["skipped_steps"] = self.step - len(self.losses)
        score = Score(None if loss is None else (-epoch,))
        judged = self.optimization.judged
        self.ranks.align(judged)
        if len(self.held_rows) and loss is not None:
            score = self.task.score(judged, self.held_rows)
            entry["held_out"] = score.measures
            self.summary = f", held out: {score.summary}"
        self.outcome.history.append(entry)
        self._write_history()
        for group, values in (("epoch", entry), ("held_out", entry.get("held_out") or {})):
            self.outputs.trackers.log(tried, group, values)
        self.note = self._note(epoch, loss)
        better = score.key is not None and score.key < self.best
        if score.key is not None and better:
            self.outcome.state_dict = {
                name: value.detach().to("cpu", copy=True)
                for name, value in judged.model.state_dict().items()
            }
            self.best, self.outcome.epoch = score.key, epoch
        self.epoch, self.step, self.losses = epoch + 1, 0, []
        if better and time.monotonic() - self.saved > SAVE_SECONDS:
            self._save()

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

    def _overflowing(self) -> TrainingError:
        skipped = self.optimization.scale.describe(self._tried)
        return self._hopeless(
            f"{skipped}; use --precision bf16 or float32, or inputs of a smaller scale"
        )

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
            "optimization": self.optimization.state(),
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
        self.optimization.load_state(state["optimization"])
        self.best = tuple(state["best"])
        best = state["outcome"]
        self.outcome.epoch, self.outcome.state_dict = best["epoch"], best["state_dict"]
        self.outcome.history = json.loads(state["history"])
        restore_random(mine["random"], self.device)
