"""The verbs `fit` and `train`: the same loop, with hard labels or with a teacher's stored logits.

N rows of a batch, C classes.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from softlabels.checkpoint import Checkpoint, library_versions
from softlabels.config import FitOptions, TrainingOptions, TrainOptions
from softlabels.devices import resolve_device
from softlabels.errors import SourceError, UsageError
from softlabels.inputs.examples import Examples
from softlabels.inputs.preprocessing import choose, introduce
from softlabels.inputs.sources import open_as_told
from softlabels.inputs.views import draw_shifts, shift
from softlabels.models import build_model
from softlabels.progress import SILENT, Progress
from softlabels.students.evaluation import compare, measure, predict
from softlabels.students.losses import hard_loss, kd_loss
from softlabels.students.trainer import Batch, Outcome, Score, Task, Trainer, seed_everything
from softlabels.targets import newest_dump
from softlabels.targets.loading import load
from softlabels.targets.orders import permutation
from softlabels.targets.soft_dataset import Dump
from softlabels.teachers.teacher import first_line


@dataclass(frozen=True)
class TrainResult:
    """The checkpoint that was written and where, and what its held-out rows said."""

    out: str
    checkpoint: Checkpoint

    @property
    def metrics(self) -> dict[str, Any]:
        return self.checkpoint.metrics


def fit(progress: Progress = SILENT, **options: Any) -> TrainResult:
    """Train a model from hard labels and write its checkpoint.

    Options are those of `softlabels fit` (see `config.FitOptions`): data, model, epochs, lr,
    dropout, max_norm, jitter, seed, out, … Raises UsageError, SourceError or TrainingError.
    """
    words = FitOptions(**options)
    source = open_as_told(words, words.data, words.out, {}, progress)
    if not source.labelled:
        raise SourceError(f"{words.data!r} has no column of labels; name one with --label-column")
    chosen = choose(source, words.preprocess)
    examples = Examples(source, chosen.preprocess)
    introduce(progress, examples, chosen.origin)
    labels = _all_labels(examples, words.data)
    if words.jitter and len(examples.input_shape) != 3:
        raise UsageError(f"--jitter shifts images; these inputs are {examples.input_shape}")

    def take(rows: np.ndarray, epoch: int, device: torch.device) -> Batch:
        inputs = examples.gather(rows)
        if words.jitter:
            inputs = shift(inputs, draw_shifts(words.jitter, words.seed, rows, epoch))
        label = labels[torch.from_numpy(rows)].to(device, non_blocking=True)
        return {"input": examples.finish(inputs.to(device, non_blocking=True)), "label": label}

    data = {
        "data": words.data,
        "split": words.split,
        "revision": words.revision,
        "input_column": words.input_column,
        "label_column": words.label_column,
        "id_column": words.id_column,
        "fingerprint": source.fingerprint,
        "rows": len(source),
    }
    job = _Job(
        spec=words.model,
        examples=examples,
        labels=labels,
        teacher=None,
        classes=len(source.class_names or range(int(labels.max()) + 1)),
        class_names=source.class_names,
        data=data,
        out=words.out,
        options=words,
    )

    def loss(logits_NC: Tensor, batch: Batch) -> Tensor:
        return hard_loss(logits_NC, batch["label"])

    return job.run(loss, take, lambda rows, epoch: mixed(rows, words.seed, epoch), progress)


def train(progress: Progress = SILENT, **options: Any) -> TrainResult:
    """Train a student from a stored dump and write its checkpoint; no teacher is loaded.

    Options are those of `softlabels train` (see `config.TrainOptions`): dump, T, alpha, student,
    epochs, out, … Raises UsageError, StoreError, SourceError, AlignmentError or TrainingError.
    """
    words = TrainOptions(**options)
    folder = words.dump or str(newest_dump())
    dataset = load(
        folder,
        words.T,
        source=words.source,
        preprocess=words.preprocess,
        keep=words.keep,
        device=words.device,
        cache=words.cache,
        streaming=words.streaming,
        shards=words.shards,
        progress=progress,
    )
    assert isinstance(dataset, Dump), "one folder was named"
    examples = dataset.examples
    assert examples is not None, "they were asked for"
    labels = _labels_for(dataset, words.alpha, folder)
    chosen = "" if words.dump else " (the newest complete dump)"
    progress.say(f"from {folder}{chosen} at T={words.T:g}, alpha={words.alpha:g}")
    introduce(progress, examples, "from the dump" if words.preprocess is None else "")

    def loss(logits_NC: Tensor, batch: Batch) -> Tensor:
        hard = batch["label"] if labels is not None else None
        return kd_loss(logits_NC, batch["logits"], hard, T=words.T, alpha=words.alpha)

    plan = dataset.reader.plan
    columns = plan.source["columns"]
    data = {
        "data": words.source or plan.source["data"],
        "split": plan.source["split"],
        "revision": None if words.source else plan.source["revision"],
        "input_column": ",".join(columns["inputs"]),
        "label_column": columns["label"],
        "id_column": columns["id"],
        "fingerprint": plan.source["fingerprint"],
        "rows": len(dataset),
        "dump": folder,
        "plan": plan.hash,
    }
    job = _Job(
        spec=words.student,
        examples=examples,
        labels=labels,
        teacher=dataset,
        classes=plan.classes,
        class_names=dataset.class_names,
        data=data,
        out=words.out,
        options=words,
    )

    def take(rows: np.ndarray, epoch: int, device: torch.device) -> Batch:
        return dataset.take(rows).to(device, non_blocking=True)

    def order(rows: np.ndarray, epoch: int) -> np.ndarray:
        found = dataset.order(words.shuffle, words.seed, epoch)
        if found.text == "full":
            return mixed(rows, words.seed, epoch)
        chosen = np.zeros(len(dataset), bool)
        chosen[rows] = True
        every = found.part(0, len(dataset))
        return every[chosen[every]]

    ahead = dataset.order(words.shuffle).text != "full" or not examples.kept
    return job.run(loss, take, order, progress, ahead)


@dataclass(frozen=True)
class _Job:
    """What `fit` and `train` share: the model, its hold-out score and its checkpoint."""

    spec: str
    examples: Examples
    labels: Tensor | None
    teacher: Dump | None
    classes: int
    class_names: list[str] | None
    data: dict[str, Any]
    out: str
    options: TrainingOptions

    def run(
        self, loss: Any, take: Any, order: Any, progress: Progress, ahead: bool = False
    ) -> TrainResult:
        options = self.options
        seed_everything(options.seed)
        shape = self.examples.input_shape
        model = build_model(self.spec, shape, self.classes, options.dropout, options.input_dropout)
        device = resolve_device(options.device)
        check_model(model.to(device), self.examples, device, self.classes, self.spec)
        task = Task(
            order=order,
            take=take,
            ahead=ahead,
            settle=lambda: None if self.teacher is None else self.teacher.settle(),
            loss=loss,
            score=self.score,
            labels=None if self.labels is None else self.labels.numpy(),
        )
        result: list[Checkpoint] = []

        def save(outcome: Outcome) -> None:
            result[:] = [self.checkpoint(outcome)]
            result[0].save(self.out)

        trainer = Trainer(model, task, len(self.examples), options, save)
        progress.say(
            f"{self.spec} on {trainer.device}: {len(trainer.train_rows):,} rows to train on, "
            f"{len(trainer.held_rows):,} held out"
        )
        outcome = trainer.run(progress)
        return TrainResult(self.out, result[0] if result else self.checkpoint(outcome))

    def measure(self, model: nn.Module, rows: np.ndarray) -> dict[str, Any]:
        """Held-out rows against their labels and, with a teacher, against its logits."""
        device = next(model.parameters()).device
        logits_NC = predict(model.eval(), self.examples, rows, device)
        chosen = torch.from_numpy(rows)
        found: dict[str, Any] = {"rows": len(rows)}
        if self.labels is not None:
            found |= measure(logits_NC, self.labels[chosen])
        if self.teacher is not None:
            found |= compare(logits_NC, self.teacher.logits.gather(rows).cpu())
        return found

    def score(self, model: nn.Module, rows: np.ndarray) -> Score:
        """Errors first, then the likelihood; without labels, disagreement and KL."""
        found = self.measure(model, rows)
        if self.labels is not None:
            words = f"{found['errors']} errors of {found['rows']}"
            return Score((float(found["errors"]), found["nll"]), words, found)
        words = f"agreement {found['agreement']:.4f}, KL {found['kl']:.4f}"
        return Score((1 - found["agreement"], found["kl"]), words, found)

    def checkpoint(self, outcome: Outcome) -> Checkpoint:
        last = outcome.history[outcome.epoch - 1]
        metrics = {
            "epoch": outcome.epoch,
            "loss": last["loss"],
            "held_out": last.get("held_out"),
            "trained_rows": outcome.rows,
        }
        return Checkpoint(
            model=self.spec,
            input_shape=self.examples.input_shape,
            num_classes=self.classes,
            preprocess=str(self.examples.preprocess),
            state_dict=outcome.state_dict,
            class_names=self.class_names,
            data=self.data,
            training=asdict(self.options) | {"complete": outcome.complete},
            metrics=metrics,
            versions=library_versions(),
        )


@torch.no_grad()
def check_model(
    model: nn.Module, examples: Examples, device: torch.device, classes: int, spec: str
) -> None:
    """Try the model on two rows. Raises UsageError unless it gives two rows of logits."""
    sample = examples.finish(examples.sample().to(device))
    try:
        output = model.eval()(sample)
    except (RuntimeError, ValueError, TypeError) as error:
        raise UsageError(
            f"model {spec} can't take inputs of shape {examples.input_shape}: {first_line(error)}"
        ) from error
    if not isinstance(output, Tensor) or output.shape != (len(sample), classes):
        shape = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise UsageError(
            f"model {spec} gave {shape} for {len(sample)} inputs; expected {[len(sample), classes]}"
        )


def mixed(rows: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    return rows[permutation(len(rows), seed, epoch)]


def _all_labels(examples: Examples, data: str) -> Tensor:
    labels = examples.labels
    missing = int((labels < 0).sum())
    if missing:
        raise SourceError(
            f"{missing} of {len(labels)} rows of {data!r} have no label; a model learns from hard "
            f"labels only where every row has one"
        )
    return labels


def _labels_for(dataset: Dump, alpha: float, folder: str) -> Tensor | None:
    stored = dataset.reader.labels
    if stored is not None and (stored >= 0).any():
        return torch.from_numpy(stored)
    if alpha < 1:
        raise UsageError(f"--alpha is {alpha:g}, but {folder} has no labels; use --alpha 1")
    return None
