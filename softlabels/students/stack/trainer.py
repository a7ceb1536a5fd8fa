"""The training loop of a stack: that of `Trainer`, for S students at once, in one process.

A student whose loss stops being a number is out; the others go on, since none sees another's
parameters. One that would have stopped early by `--patience` is trained on with the others, and
what it becomes then is not looked at.
"""

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from softlabels.students.optimization import Batch
from softlabels.students.recipe import Recipe
from softlabels.students.stack.judging import StackJudge
from softlabels.students.stack.layers import Stacked
from softlabels.students.stack.optimization import StackLoss, StackOptimization
from softlabels.students.state_file import SaveTimes, StateFile
from softlabels.students.task import Outcome, Score, taken
from softlabels.system.humanize import measured
from softlabels.system.interrupts import Interrupts
from softlabels.system.progress import Progress
from softlabels.targets.batches import steps


@dataclass(frozen=True)
class StackTask:
    """What students of a stack learn: all the same rows in the same order.

    order, take, settle, ahead, views_in: as of `Task`
    loss: as of `StackOptimization`
    spec: what messages call a student
    rows: numbers of the rows to train on, and of those that are held out
    T_at: of each student as of `Task`
    """

    order: Callable[[np.ndarray, int], np.ndarray]
    take: Callable[[np.ndarray, int, torch.device], Batch]
    loss: StackLoss
    judge: StackJudge
    rows: tuple[np.ndarray, np.ndarray]
    spec: str
    settle: Callable[[], None]
    T_at: Sequence[Callable[[float], float] | None]
    ahead: bool = False
    views_in: Callable[[int], list[int]] | None = None


@dataclass
class Member:
    """What is kept of one student: its best epoch so far, and one entry an epoch.

    failure: why it is out; empty while it is not
    over: whether it has stopped early
    """

    key: tuple[float, ...] = (math.inf,)
    epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    failure: str = ""
    over: bool = False

    def add(self, entry: dict[str, Any], score: Score, patience: int | None) -> bool:
        """Take in an epoch. Returns whether it is the best so far."""
        if self.failure or self.over:
            return False
        if not math.isfinite(entry["loss"]):
            self.failure = f"the loss became {entry['loss']} in epoch {entry['epoch']}"
            return False
        self.history.append(entry)
        better = score.key is not None and score.key < self.key
        if score.key is not None and better:
            self.key, self.epoch = score.key, entry["epoch"]
        self.over = patience is not None and entry["epoch"] - self.epoch >= patience
        return better


class StackTrainer:
    """Trains the students of a stack; `run` returns an outcome, or what went wrong, for each.

    state: the file from which an unfinished training goes on, if it is there
    """

    def __init__(
        self,
        stack: Stacked,
        task: StackTask,
        recipes: Sequence[Recipe],
        state: StateFile,
        progress: Progress,
    ) -> None:
        self.stack, self.task, self.recipe = stack, task, recipes[0]
        self.state, self.progress = state, progress
        self.train_rows, self.held_rows = task.rows
        parts, count = steps(len(self.train_rows), self.recipe.batch_size, 1), recipes[0].accumulate
        self.steps = [parts[i : i + count] for i in range(0, len(parts), count)]
        total = self.recipe.epochs * len(self.steps)
        self.optimization = StackOptimization(stack, task.loss, recipes, total, task.spec)
        self.members = [Member() for _ in recipes]
        self.best = [values.detach().clone() for values in self.optimization.parameters]
        self.epoch, self.step, self.losses = 1, 0, list[Tensor]()
        self.interrupts = Interrupts()
        self.times = SaveTimes(task.judge.judge.ranks)

    @property
    def place(self) -> str:
        """How far it is: `epoch 3 of 20, step 40 of 85`."""
        epoch = f"epoch {self.epoch:,} of {self.recipe.epochs:,}"
        return f"{epoch}, step {self.step:,} of {len(self.steps):,}"

    @property
    def rows_done(self) -> int:
        """Rows of all epochs that the steps so far have taken, by all students."""
        in_epoch = self.steps[self.step - 1][-1][1] if self.step else 0
        return len(self.stack) * ((self.epoch - 1) * len(self.train_rows) + in_epoch)

    def run(self) -> list[Outcome | str]:
        if self.state.exists():
            self.go_on(self.state.read())
            self.progress.say(f"goes on after {self.place}")
        total = self.recipe.epochs * len(self.train_rows) * len(self.stack)
        bar = self.progress.bar(f"{len(self.stack)} students", total, "rows", self.rows_done)
        with self.interrupts, bar as advance:
            try:
                while not self._is_over():
                    for rows in self._train_epoch():
                        advance(rows * len(self.stack))
                    with self.interrupts.held():
                        self._judge()
                    advance(0, self._note())
                    if self.times.after_epoch():
                        self._save_state()
            except KeyboardInterrupt:
                if not self.interrupts.half_done and self.times.worth_it:
                    self._save_state()
                raise
        return [self._outcome(number) for number in range(len(self.members))]

    def _is_over(self) -> bool:
        out = all(one.failure or one.over for one in self.members)
        return out or self.epoch > self.recipe.epochs

    def _train_epoch(self) -> Iterator[int]:
        """What is left of the epoch: the rows of each step."""
        batches = self._batches(self.task.order(self.train_rows, self.epoch))
        for parts in self.steps[self.step :]:
            with self.interrupts.held():
                self.losses.append(self.optimization.step(islice(batches, len(parts))))
                self.step += 1
            yield parts[-1][1] - parts[0][0]
            if self.times.after_step() and self.step < len(self.steps):
                self._save_state()
        self.task.settle()

    def _batches(self, order: np.ndarray) -> Iterator[tuple[Batch, float]]:
        """Each batch to come, and its part in the loss of the step: its rows among the step's."""
        parts = [
            (order[start:stop], (stop - start) / (parts[-1][1] - parts[0][0]))
            for parts in self.steps[self.step :]
            for start, stop in parts
        ]
        epoch, device = self.epoch, self.stack.device

        def take(part: tuple[np.ndarray, float]) -> tuple[Batch, float]:
            return self.task.take(part[0], epoch, device), part[1]

        yield from taken(take, parts, self.task.ahead)

    def _judge(self) -> None:
        """End the epoch: losses, held-out scores, and for whom it is the best so far."""
        judged, epoch = self.optimization.judged, self.epoch
        scores = [Score((-epoch,))] * len(self.stack)
        if len(self.held_rows):
            scores = self.task.judge.scores(self.stack, judged, self.held_rows)
        losses = torch.stack(self.losses).mean(0).tolist()
        factor = self.optimization.factor(max(0, self.optimization.steps - 1))
        shown = {} if self.task.views_in is None else {"views": self.task.views_in(epoch)}
        better = []
        for number, member in enumerate(self.members):
            rate = float(self.optimization.rate_S[number]) * factor
            entry = {"epoch": epoch, "loss": losses[number], "learning_rate": rate, **shown}
            if (T_at := self.task.T_at[number]) is not None:
                entry["T"] = T_at(self.optimization.reached)
            if scores[number].measures is not None:
                entry["held_out"] = scores[number].measures
            if member.add(entry, scores[number], self.recipe.patience):
                better.append(number)
        for kept, values in zip(self.best, judged, strict=True):
            kept[better] = values.detach()[better]
        self.epoch, self.step, self.losses = epoch + 1, 0, []

    def _note(self) -> str:
        there = [one.history[-1]["loss"] for one in self.members if not one.failure]
        if not there:
            return "every student is out"
        return f"epoch {self.epoch - 1}, losses {measured(min(there))} to {measured(max(there))}"

    def _outcome(self, number: int) -> Outcome | str:
        member = self.members[number]
        if member.failure or not member.epoch:
            return member.failure or "no epoch has a held-out score"
        weights = self.stack.state_dict(number, self.best)
        rows = len(self.train_rows)
        return Outcome(weights, member.epoch, rows, member.history, complete=True)

    def _save_state(self) -> None:
        began = time.monotonic()
        try:
            self.state.write(self._state())
        except (OSError, RuntimeError) as error:  # RuntimeError: torch's, of a full disk
            reason = str(error).splitlines()[0]
            self.progress.say(f"warning: {self.state.path} can't be written: {reason}")
        self.times.note(began)

    def _state(self) -> dict[str, Any]:
        losses = torch.stack(self.losses).cpu() if self.losses else torch.empty(0)
        return {
            "epoch": self.epoch,
            "step": self.step,
            "losses": losses,
            "optimization": self.optimization.state(),
            "best": self.best,
            "members": json.dumps([vars(one) for one in self.members]),
            "random": [one.get_state() for one in self.stack.generators],
        }

    def go_on(self, state: dict[str, Any]) -> None:
        """Take up a training where this state was saved."""
        self.epoch, self.step = state["epoch"], state["step"]
        self.losses = list(state["losses"].to(self.stack.device))
        self.optimization.load_state(state["optimization"])
        for kept, saved in zip(self.best, state["best"], strict=True):
            kept.copy_(saved)
        self.members = [
            Member(**{**one, "key": tuple(one["key"])}) for one in json.loads(state["members"])
        ]
        for generator, saved in zip(self.stack.generators, state["random"], strict=True):
            generator.set_state(saved)
