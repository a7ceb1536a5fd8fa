"""What `fit` and `train` share: the model, its hold-out score and its checkpoint.

N rows of a batch, C classes.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from softlabels.inputs.examples import Examples
from softlabels.inputs.label_lists import LabelLists, Labels, known
from softlabels.inputs.token_inputs import TokenInputs
from softlabels.models.checkpoint import Checkpoint, library_versions
from softlabels.models.starting import Beginning, ModelChoice
from softlabels.models.transformers import configuration_of
from softlabels.students.building import Built, build, named_otherwise, prepared_otherwise
from softlabels.students.history import History
from softlabels.students.judging import Judge
from softlabels.students.ranks import Ranks
from softlabels.students.recipe import Recipe
from softlabels.students.result import TrainResult
from softlabels.students.resuming import beginning, check_out, elsewhere, facts_of
from softlabels.students.student import Student
from softlabels.students.task import (
    Outcome,
    Outputs,
    Task,
    seed_everything,
    smallest_share,
)
from softlabels.students.trackers import Trackers
from softlabels.students.trainer import Trainer
from softlabels.system.humanize import counted, few
from softlabels.system.progress import Progress
from softlabels.system.sole_writer import sole_writer
from softlabels.targets.holdout import FEW, choose_rows
from softlabels.targets.mixed import Trainable

SHOWN = 8  # names


@contextmanager
def held_place(out: str, ranks: Ranks, progress: Progress) -> Iterator[None]:
    """Keep other trainings from writing the checkpoint `out` within the block. Raises UsageError
    where another does, and where it can't be written."""
    check_out(out)
    with ranks.first_holds(sole_writer(out, "training", progress)):
        yield


@dataclass(frozen=True)
class Job:
    """A model to be trained, what it is trained on, and where its checkpoint goes.

    model: what the user says of it.
    labels: int64 [rows], −1 for none, or lists of them; None where no row has one, and then there
        is a teacher.
    data: what the checkpoint remembers of its data.
    identity: a hash of the rows, the same on every rank.
    inputs: for each input, the row that stands for it when it is held out, with all its views.
    each: for each input, the rows that it has in an epoch, int64 [rows, inputs].
    views_in: the views that an epoch shows, of inputs that have several
    T_at: the temperature by how far training is, of one that changes
    begun: a model that reads texts, which was begun before they were tokenised
    options: all of them, for the checkpoint, and for ranks to compare.
    """

    model: ModelChoice
    examples: Examples | TokenInputs
    labels: Labels | None
    teacher: Trainable | None
    classes: int
    class_names: list[str] | None
    data: dict[str, Any]
    identity: str
    out: str
    recipe: Recipe
    options: dict[str, Any]
    ranks: Ranks
    inputs: np.ndarray
    each: np.ndarray
    begun: Beginning | None = None
    views_in: Callable[[int], list[int]] | None = None
    T_at: Callable[[float], float] | None = None

    def run(
        self, loss: Any, take: Any, order: Any, remedy: str, progress: Progress, ahead: bool = False
    ) -> TrainResult:
        check_out(self.out)
        recipe, ranks = self.recipe, self.ranks
        kept, held = self.chosen
        rows = np.sort(self.each[:, kept].ravel()), self.inputs[held]
        if self.teacher is not None and isinstance(self.examples, Examples):
            self.examples.only(np.concatenate(rows))
        share = smallest_share(len(rows[0]), recipe.batch_size, ranks.world, recipe.accumulate)
        seed_everything(recipe.seed)
        built = build(
            self.model, self.begun, self.examples, self.classes, recipe.precision, share, ranks
        )
        student, begun = built.student, built.begun
        facts = self.facts(student)
        ranks.check_same(facts | built.facts(ranks.world))
        resume = self.options["resume"]
        file, state = beginning(self.out, resume, facts, built.code, ranks, progress)
        if isinstance(state, Checkpoint):
            built.leave(state.state_dict)
            return TrainResult(self.out, state, ranks.rank)
        task = Task(
            order=order,
            take=take,
            ahead=ahead,
            settle=lambda: None if self.teacher is None else self.teacher.settle(),
            loss=loss,
            score=self.judge.score,
            remedy=remedy,
            views_in=self.views_in,
            T_at=self.T_at,
        )
        result: list[Checkpoint] = []

        def save(outcome: Outcome) -> None:
            result[:] = [self.checkpoint(student, begun, outcome)]
            result[0].save(self.out)

        history, trackers = History(self.out), Trackers(ranks, progress)
        outputs = Outputs(self.out, save, file, history, trackers, self.options)
        differs = built.use.differs
        trainer = Trainer(student, task, rows, recipe, outputs, ranks, progress, differs)
        self.say(rows, built, progress)
        for remark in trainer.remarks:
            progress.say(remark)
        if state is not None:
            trainer.go_on(state)
            progress.say(f"goes on after {trainer.place}{elsewhere(state, ranks)}")
        try:
            outcome = trainer.run()
        finally:
            built.leave(trainer.outcome.state_dict)
        return TrainResult(
            self.out,
            result[0] if result else self.checkpoint(student, begun, outcome),
            self.ranks.rank,
        )

    @cached_property
    def judge(self) -> Judge:
        return Judge(self.examples, self.labels, self.teacher, self.ranks, self.recipe.batch_size)

    @cached_property
    def chosen(self) -> tuple[np.ndarray, np.ndarray]:
        """The numbers of the inputs that are trained on, and of those that are held out."""
        return choose_rows(
            len(self.inputs),
            None if self.labels is None else self.labels[self.inputs],
            holdout=self.recipe.holdout,
            rows=self.recipe.rows,
            data_seed=self.recipe.data_seed,
        )

    def facts(self, student: Student) -> dict[str, Any]:
        """What must be the same for all ranks, and for a training that goes on."""
        return facts_of(
            self.options,
            data=self.data,
            identity=self.identity,
            preprocess=str(self.examples.preprocess.without_files),
            state_dict=student.model.state_dict(),
        )

    def say(self, rows: tuple[np.ndarray, np.ndarray], built: Built, progress: Progress) -> None:
        """Say what is trained on what, with warnings about weights, hold-out, classes and
        parameters."""
        (kept, held), begun = rows, built.begun
        progress.say(
            f"{begun.spec}, from {begun.weights}, on {self.ranks.place}: "
            f"{counted(len(kept), 'row')} to train on, {len(held):,} held out{self.chooser(held)}"
        )
        otherwise = prepared_otherwise(begun, self.examples)
        for remark in (*begun.remarks, *otherwise, *named_otherwise(begun, self.class_names)):
            progress.say(remark)
        if built.use.unused:
            progress.say(
                f"warning: the logits of {begun.spec} do not use "
                f"{few(built.use.unused, most=SHOWN)}, which stay as they are"
            )
        if self.teacher is None and 0 < len(held) < FEW:
            progress.say(
                f"warning: {counted(len(held), 'row')} held out choose the epoch, and one error "
                f"among them is {100 / len(held):.0f} points of accuracy; hold out more "
                f"(--holdout), or none (--holdout 0) to keep the last epoch"
            )
        if self.teacher is None and self.labels is not None:
            labels = self.labels[kept]
            there = labels.numbers if isinstance(labels, LabelLists) else labels
            missing = sorted(set(range(self.classes)) - set(there.tolist()))
            if missing:
                names = [self.class_names[i] if self.class_names else str(i) for i in missing]
                progress.say(
                    f"warning: {len(missing)} of {self.classes:,} classes "
                    f"{'has' if len(missing) == 1 else 'have'} no row to train on: "
                    f"{few(names, most=SHOWN)}"
                )

    def chooser(self, held: np.ndarray) -> str:
        if not len(held) or self.judge.by_labels(held):
            return ""
        count = 0 if self.labels is None else int(known(self.labels[held]).sum())
        have = f"{count:,} of them {'has' if count == 1 else 'have'}" if count else "none has"
        return f"; {have} a label, so epochs are chosen by the KL with the teacher"

    @property
    def held_out(self) -> dict[str, Any]:
        """By what `choose_rows` draws the held-out inputs again."""
        return {"holdout": self.recipe.holdout, "data_seed": self.recipe.data_seed}

    def checkpoint(self, student: Student, begun: Beginning, outcome: Outcome) -> Checkpoint:
        last = outcome.history[outcome.epoch - 1]
        metrics = {
            "epoch": outcome.epoch,
            "loss": last["loss"],
            "held_out": last.get("held_out"),
            "trained_rows": outcome.rows,
        }
        return Checkpoint(
            model=student.spec,
            input_shape=self.examples.input_shape,
            num_classes=self.classes,
            preprocess=str(self.examples.preprocess.without_files),
            state_dict=outcome.state_dict,
            class_names=self.class_names,
            data=self.data | {"identity": self.identity, "held_out": self.held_out} | self.cut,
            training=self.options | {"started_from": begun.weights, "complete": outcome.complete},
            metrics=metrics,
            versions=library_versions(),
            configuration=configuration_of(student.model),
            tokenizer=self.tokenizer,
        )

    @cached_property
    def cut(self) -> dict[str, Any]:
        """How many texts the model saw the beginning of alone, if texts are cut at all."""
        if self.examples.preprocess.cut_at is None:
            return {}
        return {"truncated": getattr(self.examples, "count_cut", None)}  # of a stream unknown

    @cached_property
    def tokenizer(self) -> dict[str, Any] | None:
        """What a checkpoint holds of the tokenizer of a model that reads texts."""
        if not self.examples.preprocess.is_tokenizer:
            return None
        tokenizer, _, _ = self.examples.preprocess.tokenization
        return {"name": tokenizer.name, "hash": tokenizer.hash, "files": tokenizer.files}
