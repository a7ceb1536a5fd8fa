"""What `fit` and `train` share: the model, its hold-out score and its checkpoint.

N rows of a batch, C classes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from softlabels.errors import TrainingError, UsageError
from softlabels.inputs.examples import Examples
from softlabels.inputs.label_lists import LabelLists, Labels, known
from softlabels.inputs.token_inputs import TokenInputs
from softlabels.measures import TeacherScore
from softlabels.models.causes import cause
from softlabels.models.checkpoint import Checkpoint, library_versions
from softlabels.models.named import NamedInputs
from softlabels.models.starting import Beginning, ModelChoice
from softlabels.models.transformers import configuration_of
from softlabels.students.building import Built, build, named_otherwise, prepared_otherwise
from softlabels.students.history import History
from softlabels.students.prediction import broken_rows, hard_measures, predict
from softlabels.students.ranks import Ranks
from softlabels.students.recipe import Recipe
from softlabels.students.state_file import StateFile, check_same
from softlabels.students.student import Student, as_training_errors
from softlabels.students.task import (
    Outcome,
    Outputs,
    Score,
    Task,
    seed_everything,
    smallest_share,
)
from softlabels.students.trackers import Trackers
from softlabels.students.trainer import Trainer
from softlabels.system.humanize import counted, few, measured
from softlabels.system.local_files import partial_path
from softlabels.system.progress import Progress
from softlabels.targets.batch import for_each_position
from softlabels.targets.holdout import FEW, choose_rows, labels_choose
from softlabels.targets.soft_dataset import Dump

# may differ between ranks; of a tokenizer the preprocessing has the hash
PLACES = ("dump", "data", "source", "out", "device", "keep", "cache", "tokenizer")
FREE = ("--resume", "--log-with")  # beside PLACES, what may differ when a training goes on
SHOWN = 8  # names
SCORED = 1024  # held-out rows in a forward pass


@dataclass(frozen=True)
class TrainResult:
    """What training wrote.

    out: the checkpoint's file.
    checkpoint: its content; `metrics` has the measures of the held-out rows.
    rank: this process's; rank 0 writes.
    """

    out: str
    checkpoint: Checkpoint
    rank: int = 0

    @property
    def metrics(self) -> dict[str, Any]:
        return self.checkpoint.metrics

    def __repr__(self) -> str:
        held, facts = self.metrics["held_out"] or {}, []
        if "errors" in held:
            rows = counted(held["labelled"], "held-out row")
            facts.append(f"{counted(held['errors'], 'error')} of {rows}")
        if held.get("map") is not None:
            facts.append(f"mAP {held['map']:.4f}")
        if "kl" in held:
            facts.append(f"KL {measured(held['kl'])} nats")
        what = f"epoch {self.metrics['epoch']}, loss {measured(self.metrics['loss'])}"
        return f"TrainResult({self.out}: {', '.join([what, *facts])})"


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
    begun: a model that reads texts, which was begun before they were tokenised
    options: all of them, for the checkpoint, and for ranks to compare.
    """

    model: ModelChoice
    examples: Examples | TokenInputs
    labels: Labels | None
    teacher: Dump | None
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

    def run(
        self, loss: Any, take: Any, order: Any, remedy: str, progress: Progress, ahead: bool = False
    ) -> TrainResult:
        recipe, ranks = self.recipe, self.ranks
        check_out(self.out)
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
        file, state = self.beginning(facts, built.code, progress)
        if isinstance(state, Checkpoint):
            built.leave(state.state_dict)
            return TrainResult(self.out, state, ranks.rank)
        task = Task(
            order=order,
            take=take,
            ahead=ahead,
            settle=lambda: None if self.teacher is None else self.teacher.settle(),
            loss=loss,
            score=self.score,
            remedy=remedy,
            views_in=self.views_in,
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
            progress.say(f"goes on after {trainer.place}{self.elsewhere(state)}")
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
            identity=self.identity,
            preprocess=str(self.examples.preprocess.without_files),
            state_dict=student.model.state_dict(),
        )

    def beginning(
        self, facts: dict[str, Any], code: dict[str, Any], progress: Progress
    ) -> tuple[StateFile, dict[str, Any] | Checkpoint | None]:
        """The file for the state, and what training begins with: a state, the checkpoint of a
        complete training, to which nothing is left to do, or nothing. code: what a state knows of a
        module beyond these facts.

        Raises UsageError for the state of another training, and for one that `--resume` does not
        ask for; TrainingError for a damaged one.
        """
        ranks = self.ranks
        fixed = {name: value for name, value in facts.items() if name not in FREE}
        file = StateFile(self.out, fixed | code | {"number of processes": ranks.world})

        def find() -> dict[str, Any] | Checkpoint | None:
            if not self.options["resume"]:
                if file.exists():
                    raise UsageError(
                        f"{file.path} is the state of an unfinished training. Add --resume to go "
                        f"on with it, choose another file with --out, or remove it"
                    )
                return None
            return file.read() if file.exists() else finished(self.out, fixed)

        begin: dict[str, Any] | Checkpoint | None = ranks.on_first(find)
        if isinstance(begin, Checkpoint):
            progress.say(f"{self.out} is complete; nothing is left to do")
        elif begin is None and self.options["resume"]:
            progress.say(f"no {file.path}, so training begins anew")
        return file, begin

    def elsewhere(self, state: dict[str, Any]) -> str:
        """Why the result may differ in rounding from that of an undisturbed training."""
        here = {"device": self.ranks.device.type, "torch": str(torch.__version__)}
        other = [f"{n} {state[n]}, now {here[n]}" for n in here if state[n] != here[n]]
        return f"; it began with {', '.join(other)}, which may round otherwise" if other else ""

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
        if not len(held) or self.by_labels(held):
            return ""
        count = 0 if self.labels is None else int(known(self.labels[held]).sum())
        have = f"{count:,} of them {'has' if count == 1 else 'have'}" if count else "none has"
        return f"; {have} a label, so epochs are chosen by the KL with the teacher"

    def by_labels(self, held: np.ndarray) -> bool:
        if self.teacher is None:
            return True
        return self.labels is not None and labels_choose(self.labels[held])

    def score(self, student: Student, rows: np.ndarray) -> Score:
        """Errors first, or the mean average precision of several labels; then the likelihood. With
        few labels or none, the KL with the teacher. Each rank runs its share of the rows."""
        ranks = self.ranks
        mine = rows[ranks.rank :: ranks.world]
        student.eval()

        def logits(inputs: Tensor | NamedInputs) -> Tensor:
            with as_training_errors(student.spec, len(inputs)):
                return student(inputs)

        # rows of tokens may be long: as many as a batch has are known to fit into memory
        size = self.recipe.batch_size if self.examples.preprocess.is_tokenizer else SCORED
        parts = [part for _, part in predict(logits, self.examples, mine, ranks.device, size)]
        part_NC = torch.cat(parts) if parts else torch.empty(0, 0)
        logits_NC = ranks.gather(part_NC)
        score: Score = ranks.share(None if logits_NC is None else self.judge(logits_NC, rows))
        return score

    def judge(self, logits_NC: Tensor, rows: np.ndarray) -> Score:
        if broken := broken_rows(logits_NC):
            summary = f"logits of {broken:,} of {counted(len(rows), 'row')} are NaN or infinite"
            return Score(None, summary, {"rows": len(rows), "broken": broken})
        measures = self.measure(logits_NC, rows)
        if self.by_labels(rows) and isinstance(self.labels, LabelLists):
            precision, nll = measures["map"], measures["nll"]
            summary = f"mAP {'unknown' if precision is None else f'{precision:.4f}'}"
            return Score((-(precision or 0.0), nll), f"{summary}, NLL {measured(nll)}", measures)
        if self.by_labels(rows):
            errors, nll = measures["errors"], measures["nll"]
            summary = f"{counted(errors, 'error')} of {measures['labelled']:,}"
            return Score((float(errors), nll), summary, measures)
        kl = measures["kl"]
        summary = f"KL {measured(kl)}, agreement {measures['agreement']:.4f}"
        return Score((kl,), summary, measures)

    def measure(self, logits_NC: Tensor, rows: np.ndarray) -> dict[str, Any]:
        """Measures of held-out rows: against labels where some have one, and against a teacher's
        logits where there is one."""
        measures: dict[str, Any] = {}
        labels = None if self.labels is None else self.labels[rows]
        if labels is not None and known(labels).any():
            measures |= hard_measures(logits_NC, labels)
            measures["labelled"] = measures["rows"]
        if self.teacher is not None:
            columns = self.teacher.rows.columns(rows)
            logits_MC = for_each_position(logits_NC, columns)
            measures |= TeacherScore.of(logits_MC, columns["targets"].to("cpu")).measures
        return measures | {"rows": len(rows)}

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


def facts_of(
    options: dict[str, Any], *, identity: str, preprocess: str, state_dict: dict[str, Tensor]
) -> dict[str, Any]:
    """What decides the weights, by the names that messages give."""
    given = {
        f"--{name.replace('_', '-')}": value
        for name, value in options.items()
        if name not in PLACES
    }
    shapes = [[name, list(value.shape)] for name, value in state_dict.items()]
    return given | {"set of rows": identity, "preprocessing": preprocess, "model": shapes}


def finished(out: str, facts: dict[str, Any]) -> Checkpoint | None:
    """The checkpoint that a complete training has written to `out`; None where there is none.
    Raises UsageError for that of another training."""
    try:
        content = torch.load(out, map_location="cpu", weights_only=True)
        checkpoint = Checkpoint.from_content(content, out)
    except FileNotFoundError:
        return None
    except Exception as error:  # --resume asks for what is there: it is not overwritten unread
        raise TrainingError(f"{out} can't be read: {cause(error)}. Move it away") from error
    options = dict(checkpoint.training)
    options.pop("started_from", None)
    if not options.pop("complete", False):
        return None
    theirs = facts_of(
        options,
        identity=checkpoint.data.get("identity", ""),
        preprocess=checkpoint.preprocess,
        state_dict=checkpoint.state_dict,
    )
    theirs = {name: value for name, value in theirs.items() if name not in FREE}
    check_same(facts, theirs, f"{out} is complete, and was made otherwise")
    return checkpoint


def check_out(out: str) -> None:
    """Raises UsageError where the checkpoint could not be written at the end."""
    path = Path(out)
    try:
        if path.is_dir():
            example = path / "s.pt"
            raise UsageError(f"--out is {out}, which is a folder; name a file, such as {example}")
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(partial_path(path))
        partial.touch()
        partial.unlink()
    except OSError as error:
        raise UsageError(
            f"--out is {out}; no file can be written there: {error.strerror}"
        ) from error
