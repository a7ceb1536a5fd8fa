"""The verbs `fit` and `train`: the same loop, with hard labels or with a teacher's stored logits.

N rows of a batch, C classes.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from softlabels.errors import SourceError, UsageError
from softlabels.inputs.examples import Examples
from softlabels.inputs.preprocessing import choose, introduce
from softlabels.inputs.sources import open_as_told
from softlabels.inputs.views import draw_shifts, shift
from softlabels.logits import check_temperature
from softlabels.options import FitOptions, TrainingOptions, TrainOptions
from softlabels.students.job import Job, TrainResult
from softlabels.students.losses import hard_loss, kd_loss
from softlabels.students.ranks import Ranks
from softlabels.students.trainer import Batch
from softlabels.system.humanize import counted
from softlabels.system.progress import SILENT, Progress
from softlabels.targets import newest_dump
from softlabels.targets.joining import source_place
from softlabels.targets.loading import load
from softlabels.targets.orders import permutation
from softlabels.targets.soft_dataset import Dump

MOST_CLASSES = 1_000_000
LOW_T, HIGH_T = 0.01, 1000.0  # between them float32's loss is right to three digits


def fit(progress: Progress = SILENT, **options: Any) -> TrainResult:
    """Train a model from hard labels and write its checkpoint.

    Options are those of `softlabels fit` (see `options.FitOptions`): data, model, epochs, lr,
    dropout, max_norm, jitter, seed, out, … Raises UsageError, SourceError or TrainingError.
    """
    words = FitOptions(**options)
    ranks = Ranks(words.device)
    with ranks.together():
        return _fit(words, ranks, progress)


def train(progress: Progress = SILENT, **options: Any) -> TrainResult:
    """Train a student from a stored dump and write its checkpoint; no teacher is loaded.

    Options are those of `softlabels train` (see `options.TrainOptions`): dump, T, alpha, student,
    epochs, out, … Raises UsageError, StoreError, SourceError, AlignmentError or TrainingError.
    """
    words = TrainOptions(**options)
    check_temperature(words.T)
    ranks = Ranks(words.device)
    with ranks.together():
        return _train(words, ranks, progress)


def _fit(words: FitOptions, ranks: Ranks, progress: Progress) -> TrainResult:
    source = open_as_told(words, words.data, words.out, {}, progress)
    if not source.labelled:
        raise SourceError(f"{words.data!r} has no column of labels; name one with --label-column")
    chosen = choose(source, words.preprocess)
    examples = Examples(source, chosen.preprocess)
    introduce(progress, examples, chosen.origin)
    labels = _all_labels(examples, words.data)
    if words.jitter and len(examples.input_shape) != 3:
        raise UsageError(f"--jitter shifts images; these inputs are {examples.input_shape}")
    if words.jitter and words.jitter >= min(examples.input_shape[1:]):
        height, width = examples.input_shape[1:]
        raise UsageError(
            f"--jitter is {words.jitter}, which can shift images of {height}×{width} pixels out of "
            f"sight; use less than {min(height, width)}"
        )

    def take(rows: np.ndarray, epoch: int, device: torch.device) -> Batch:
        inputs = examples.gather(rows)
        if words.jitter:
            inputs = shift(inputs, draw_shifts(words.jitter, words.seed, rows, epoch))
        label = labels[torch.from_numpy(rows)].to(device, non_blocking=True)
        return {"input": examples.finish(inputs.to(device, non_blocking=True)), "label": label}

    data = {
        "data": words.data,
        "split": source.split,
        "revision": words.revision,
        "input_column": words.input_column,
        "label_column": words.label_column,
        "id_column": words.id_column,
        "fingerprint": source.fingerprint,
        "rows": len(source),
    }
    job = Job(
        spec=words.model,
        examples=examples,
        labels=labels,
        teacher=None,
        classes=_count_classes(source.class_names, labels, words.data),
        class_names=source.class_names,
        data=data,
        identity=source.fingerprint,
        out=words.out,
        options=words,
        ranks=ranks,
    )

    def loss(logits_NC: Tensor, batch: Batch) -> Tensor:
        return hard_loss(logits_NC, batch["label"])

    def order(rows: np.ndarray, epoch: int) -> np.ndarray:
        return mixed(rows, words.seed, epoch)

    return job.run(loss, take, order, _slower(words), progress)


def _train(words: TrainOptions, ranks: Ranks, progress: Progress) -> TrainResult:
    folder = str(newest_dump()) if words.dump is None else words.dump
    dataset = load(
        folder,
        source=words.source,
        preprocess=words.preprocess,
        keep=words.keep,
        device=words.device if ranks.world == 1 else str(ranks.device),
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
    remedy = _slower(words)
    if not LOW_T <= words.T <= HIGH_T:
        remedy = f"T is {words.T:g}; outside of {LOW_T:g} to {HIGH_T:,.0f} float32 loses the loss"
        progress.say(f"warning: {remedy}")

    def loss(logits_NC: Tensor, batch: Batch) -> Tensor:
        hard = batch["label"] if labels is not None else None
        return kd_loss(logits_NC, batch["targets"], hard, T=words.T, alpha=words.alpha)

    plan = dataset.reader.plan
    columns = plan.source["columns"]
    data = {
        "data": words.source or source_place(plan),
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
    job = Job(
        spec=words.student,
        examples=examples,
        labels=labels,
        teacher=dataset,
        classes=plan.classes,
        class_names=dataset.class_names,
        data=data,
        identity=dataset.identity,
        out=words.out,
        options=words,
        ranks=ranks,
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
    return job.run(loss, take, order, remedy, progress, ahead)


def _slower(words: TrainingOptions) -> str:
    if words.lr * words.weight_decay >= 1:  # AdamW multiplies weights by 1 − lr · weight_decay
        return (
            f"--weight-decay {words.weight_decay:g} times --lr {words.lr:g} is to be well below 1"
        )
    return f"try a smaller --lr than {words.lr:g}, or a longer --warmup"


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


def _count_classes(names: list[str] | None, labels: Tensor, data: str) -> int:
    """Raises SourceError for one class, and for numbers so large that they number no classes."""
    last = int(labels.max())
    count = len(names) if names else last + 1
    if count == 1:
        raise SourceError(
            f"all {counted(len(labels), 'row')} of {data!r} are of one class; a model learns to "
            f"tell classes apart, so it needs two"
        )
    if not names and count > MOST_CLASSES:
        raise SourceError(
            f"the labels of {data!r} go up to {last:,}; they number classes from 0, and a model "
            f"has {MOST_CLASSES:,} at most. Number them anew, or name another column with "
            f"--label-column"
        )
    return count


def _labels_for(dataset: Dump, alpha: float, folder: str) -> Tensor | None:
    stored = dataset.reader.labels
    if stored is not None and (stored >= 0).any():
        return torch.from_numpy(stored)
    if alpha < 1:
        raise UsageError(f"--alpha is {alpha:g}, but {folder} has no labels; use --alpha 1")
    return None
