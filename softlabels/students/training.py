"""The verbs `fit` and `train`: the same loop, with hard labels or with a teacher's stored logits.

N rows of a batch, C classes.
"""

from collections import ChainMap
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
import torch
from torch import Tensor

from softlabels.errors import SourceError, UsageError
from softlabels.inputs.augmented import Augmented
from softlabels.inputs.examples import Examples
from softlabels.inputs.label_lists import LabelLists, Labels, as_tensor, hidden, known
from softlabels.inputs.opening import DataChoice, LabelChoice, open_chosen
from softlabels.inputs.preprocessing import choose, introduce
from softlabels.inputs.sources import Source
from softlabels.inputs.tables.opening import title_of
from softlabels.inputs.text_inputs import numbers_alone, open_inputs_of
from softlabels.inputs.token_inputs import open_tokens
from softlabels.inputs.tokenizing import Tokenizing
from softlabels.inputs.views.augment import parse_augment
from softlabels.inputs.views.mixing import PARTNER_LABEL, WEIGHT
from softlabels.models.named import NamedInputs
from softlabels.models.starting import ModelChoice, reads_texts
from softlabels.options import FitOptions, TrainOptions, verb
from softlabels.places.newest import newest_dump
from softlabels.soft_targets import check_temperature
from softlabels.store.inputs import source_place
from softlabels.store.records import Plan
from softlabels.students.augmenting import augmented_dump, take_augmented
from softlabels.students.job import Job, TrainResult
from softlabels.students.losses import hard_label_loss, hard_loss, kd_loss, mixed_loss
from softlabels.students.optimization import Batch
from softlabels.students.ranks import Ranks
from softlabels.students.reading import begin_on_columns, begin_reading, has_texts, is_by_name
from softlabels.students.recipe import Recipe
from softlabels.students.showing import mixed, showing
from softlabels.students.softness import remark_on_softness
from softlabels.students.trackers import check_trackers
from softlabels.system.humanize import counted
from softlabels.system.progress import Progress
from softlabels.targets.batch import for_each_position
from softlabels.targets.loading import load
from softlabels.targets.soft_dataset import Dump

MOST_CLASSES = 1_000_000
# Between them float32's gradient is right to four digits, and its loss to three unless the KL is
# far below 1 nat.
LOW_T, HIGH_T = 0.01, 1000.0


@verb(FitOptions)
def fit(options: FitOptions, progress: Progress) -> TrainResult:
    """Train a model from hard labels and write its checkpoint.

    Raises UsageError, SourceError or TrainingError.
    """
    ranks = _ranks(options)
    with ranks.together():
        return _fit(options, ranks, progress)


@verb(TrainOptions)
def train(options: TrainOptions, progress: Progress) -> TrainResult:
    """Train a student from a stored dump and write its checkpoint; no teacher is loaded.

    Raises UsageError, StoreError, SourceError, AlignmentError or TrainingError.
    """
    check_temperature(options.T)
    ranks = _ranks(options)
    with ranks.together():
        return _train(options, ranks, progress)


def _ranks(options: FitOptions | TrainOptions) -> Ranks:
    check_trackers(options.log_with)
    # a folder a run, since the curves of two runs in one are drawn as one
    logs = f"{options.out}.logs/{datetime.now():%Y-%m-%d-%H%M%S}"
    return Ranks(options.device, options.precision, options.log_with, logs)


def _fit(options: FitOptions, ranks: Ranks, progress: Progress) -> TrainResult:
    augment = None if options.augment is None else parse_augment(options.augment)
    choice = LabelChoice(task=options.task)
    model, how, begun = options.part(ModelChoice), options.part(Tokenizing), None
    texts = options.preprocess is None and (how.tokenizer is not None or reads_texts(model))
    source = open_chosen(options.part(DataChoice), progress=progress, labels=choice, texts=texts)
    if not source.labelled:
        raise SourceError(f"{source.data!r} has no label column; name one with --label-column")
    chosen = choose(source, options.preprocess)
    labels = _all_labels(source)
    classes = _count_classes(source, labels)
    if source.kind == "text" and not chosen.preprocess.is_opaque:
        reading = begin_reading(model, classes, how, options.seed)
        begun = reading.begun
        examples: Any = open_tokens(source, reading.preprocess, progress)
    elif source.is_by_name and not chosen.preprocess.is_opaque:
        how.refuse_any(model.title, source.data)
        reading = begin_on_columns(model, classes, source, chosen.preprocess, options.seed)
        begun, examples = reading.begun, open_inputs_of(source, reading.preprocess)
    else:
        how.refuse_any(f"--model {model.title}, over these inputs,")
        examples = Examples(source, chosen.preprocess)
    introduce(progress, examples, chosen.origin)
    shown = None
    if augment is not None:
        numbers = numbers_alone(examples, "--augment")
        shown = Augmented(numbers, augment, options.data_seed, source.ids)
        for remark in shown.remarks:
            progress.say(remark)

    def take(rows: np.ndarray, epoch: int, device: torch.device) -> Batch:
        inputs = examples.gather(rows) if shown is None else shown.gather(rows, epoch)
        columns = {"label": as_tensor(labels[rows], classes)}
        if shown is not None and shown.augment.mixing is not None:
            partners, weights = shown.partners(rows, epoch)
            columns |= {PARTNER_LABEL: as_tensor(labels[partners], classes), WEIGHT: weights}
        there = {name: v.to(device, non_blocking=True) for name, v in columns.items()}
        return there | {"input": examples.finish(inputs.to(device, non_blocking=True))}

    is_array = isinstance(examples, Examples)
    fingerprint = examples.fingerprint if is_array else source.fingerprint
    data = {
        **_place(source.data, source.live),
        "split": source.split,
        "revision": options.revision,
        "input_column": _remembered(options.input_column),
        "label_column": options.label_column,
        "id_column": options.id_column,
        "fingerprint": fingerprint,
        "rows": len(source),
        **({} if options.task == "classification" else {"task": options.task}),
    }
    job = Job(
        model=model,
        begun=begun,
        examples=examples,
        labels=labels,
        teacher=None,
        classes=classes,
        class_names=source.class_names,
        data=data,
        identity=fingerprint,
        out=options.out,
        recipe=options.part(Recipe),
        options=options.plain,
        ranks=ranks,
        inputs=np.arange(len(source)),
        each=np.arange(len(source))[None],
    )

    def loss(logits_NC: Tensor, batch: Batch) -> Tensor:
        hard = hard_loss if options.task == "classification" else hard_label_loss
        if WEIGHT not in batch:
            return hard(logits_NC, batch["label"])
        return mixed_loss(hard, logits_NC, batch["label"], batch[PARTNER_LABEL], batch[WEIGHT])

    if shown is not None:
        shown.mix_among(job.chosen[0])

    def order(rows: np.ndarray, epoch: int) -> np.ndarray:
        return mixed(rows, options.data_seed, epoch)

    ahead = (shown or examples).reads_ahead
    return job.run(loss, take, order, _slower(options.lr, options.weight_decay), progress, ahead)


def _train(options: TrainOptions, ranks: Ranks, progress: Progress) -> TrainResult:
    augment = None if options.augment is None else parse_augment(options.augment)
    folder = str(newest_dump()) if options.dump is None else options.dump
    dataset = load(
        folder,
        source=options.source,
        preprocess=options.preprocess,
        keep=options.keep,
        device=options.device if ranks.world == 1 else str(ranks.device),
        cache=options.cache,
        streaming=options.streaming,
        shards=options.shards,
        progress=progress,
    )
    assert isinstance(dataset, Dump), "one folder was named"
    views = showing(dataset, options.views)
    student = ModelChoice(options.student, options.weights, options.dropout, options.input_dropout)
    labels = _labels_for(dataset, options.alpha, folder)
    chosen = "" if options.dump else " (the newest complete dump)"
    progress.say(f"from {folder}{chosen} at T={options.T:g}, alpha={options.alpha:g}")
    how, begun = options.part(Tokenizing), None
    if has_texts(dataset.examples):
        plan = dataset.reader.plan
        reading = begin_reading(student, plan.classes, how, options.seed, plan)
        begun, dataset = reading.begun, dataset.tokenized(reading.preprocess, progress)
    elif (inputs := dataset.examples) is not None and is_by_name(inputs):
        how.refuse_any(student.title, inputs.source.data)
        steps = inputs.preprocess
        reading = begin_on_columns(student, dataset.num_classes, inputs.source, steps, options.seed)
        begun = reading.begun
    else:
        how.refuse_any(f"--student {student.title}, over these inputs,")
    examples: Any = dataset.examples
    introduce(progress, examples, "from the dump" if options.preprocess is None else "")
    shown = None
    if augment is not None:
        shown = augmented_dump(dataset, augment, options.data_seed, progress)
    remedy = _slower(options.lr, options.weight_decay)
    if not LOW_T <= options.T <= HIGH_T:
        remedy = (
            f"T is {options.T:g}; float32 gives the loss to three digits for T from {LOW_T:g} to "
            f"{HIGH_T:,.0f} only"
        )
        progress.say(f"warning: {remedy}")
    elif options.alpha and (remark := remark_on_softness(dataset, options.T)):
        progress.say(remark)

    def loss(logits_NC: Tensor, batch: Batch) -> Tensor:
        hard = None if labels is None else for_each_position(batch["label"], batch)
        logits_MC = for_each_position(logits_NC, batch)
        mixed_with: dict[str, Tensor] = {}
        if hard is not None and plan.mixing is not None:
            mixed_with["partner_labels"] = for_each_position(batch[PARTNER_LABEL], batch)
            mixed_with["mix_weight"] = for_each_position(batch[WEIGHT], batch)
        return kd_loss(
            logits_MC, batch["targets"], hard, T=options.T, alpha=options.alpha, **mixed_with
        )

    plan = dataset.reader.plan
    for remark in views.remarks(options.epochs):
        progress.say(remark)
    scored = None if labels is None else hidden(labels, dataset.reader.mixed)
    if plan.mixing is not None and options.holdout:
        progress.say(
            f"warning: {plan.mixing} mixes inputs with any others of the data, so about "
            f"{options.holdout:.0%} of the mixed rows show something of an input that is held out: "
            f"held-out scores are a little too good. Measure on data of their own, with "
            f"softlabels eval --data"
        )
    columns = plan.source.columns
    joined = ",".join(columns.inputs)
    data = {
        **_source_place(plan, options.source),
        "split": plan.source.split,
        "revision": plan.source.revision if options.source is None else None,
        "input_column": columns.inputs if plan.source.kind == "columns" else joined,
        "label_column": columns.label,
        "id_column": columns.id,
        "fingerprint": plan.source.fingerprint,
        "rows": len(views.inputs),
        "dump": folder,
        **(
            {"views": list(views.choice.numbers), "augment": plan.augment} if plan.has_views else {}
        ),
        "shards": options.shards,
        "task": plan.task,
        "plan": plan.hash,
    }
    job = Job(
        model=student,
        begun=begun,
        examples=examples,
        labels=scored,
        teacher=dataset,
        classes=plan.classes,
        class_names=dataset.class_names,
        data=data,
        identity=dataset.identity,
        out=options.out,
        recipe=options.part(Recipe),
        options=options.plain,
        ranks=ranks,
        inputs=views.inputs,
        each=views.each,
        views_in=views.in_epoch if plan.has_views else None,
    )

    def take(rows: np.ndarray, epoch: int, device: torch.device) -> Batch:
        batch = dataset.take(rows) if shown is None else take_augmented(dataset, shown, rows, epoch)
        batch = batch.to(device, non_blocking=True)
        inputs = batch.columns["input"]
        if isinstance(inputs, NamedInputs):  # given by the student, which knows how rows are padded
            return ChainMap({"input": examples.finish(inputs)}, batch)  # type: ignore[arg-type]
        return batch

    def order(rows: np.ndarray, epoch: int) -> np.ndarray:
        return views.order(rows, options.shuffle, options.data_seed, epoch)

    # A live source's code may draw from the generators that the training step draws from.
    in_blocks = dataset.order(options.shuffle).text != "full" and not examples.source.runs_code
    ahead = in_blocks or (shown or examples).reads_ahead
    return job.run(loss, take, order, remedy, progress, ahead)


def _remembered(named: Sequence[str]) -> str | list[str] | None:
    """--input-column for a checkpoint: what was said once as text."""
    return (named[0] if len(named) == 1 else list(named)) if named else None


def _place(data: str, live: bool) -> dict[str, Any]:
    """What a checkpoint remembers of where its data is."""
    return {"data": data} | ({"live": True} if live else {})


def _source_place(plan: Plan, source: Any) -> dict[str, Any]:
    if source is None:
        return _place(source_place(plan), plan.source.origin == "live")
    return _place(title_of(source), not isinstance(source, str))


def _slower(lr: float, weight_decay: float) -> str:
    if lr * weight_decay >= 1:  # AdamW multiplies weights by 1 − lr · weight_decay
        return f"--weight-decay {weight_decay:g} times --lr {lr:g} must be well below 1"
    return f"try a smaller --lr than {lr:g}, or a longer --warmup"


def _all_labels(source: Source) -> Labels:
    labels, data = source.labels, source.data
    missing = int((~known(labels)).sum())
    if missing:
        raise SourceError(
            f"{missing:,} of {counted(len(labels), 'row')} of {data!r} have no label; hard labels "
            f"are learned only where every row has one"
        )
    return labels


def _count_classes(source: Source, labels: Labels) -> int:
    """Raises SourceError for a single class, and for numbers too large to be those of classes."""
    names, data = source.class_names, source.data
    last = int((labels.numbers if isinstance(labels, LabelLists) else labels).max(initial=-1))
    count = len(names) if names else source.flags or last + 1
    if count < 1:
        raise SourceError(f"no row of {data!r} has a label; there is nothing to learn")
    if count == 1 and not isinstance(labels, LabelLists):
        raise SourceError(
            f"all {counted(len(labels), 'row')} of {data!r} have the same label; a classifier "
            f"needs two classes"
        )
    if not names and count > MOST_CLASSES:
        raise SourceError(
            f"the labels of {data!r} go up to {last:,}; labels number classes from 0, and a model "
            f"has at most {MOST_CLASSES:,} classes. Renumber them, or name another column with "
            f"--label-column"
        )
    return count


def _labels_for(dataset: Dump, alpha: float, folder: str) -> Labels | None:
    stored = dataset.reader.labels
    if stored is not None and known(stored).any():
        return stored
    if alpha < 1 and dataset.reader.plan.label_column == "label_source":
        raise UsageError(
            f"--alpha is {alpha:g}, but {folder} has no labels of the teacher's classes, which the "
            f"student learns: its label_source is of others. Use --alpha 1"
        )
    if alpha < 1:
        raise UsageError(f"--alpha is {alpha:g}, but {folder} has no labels; use --alpha 1")
    return None
