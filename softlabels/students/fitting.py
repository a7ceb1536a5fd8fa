"""The verb `fit`: the training loop with hard labels.

N rows of a batch, C classes.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from softlabels.errors import SourceError
from softlabels.inputs.augmented import Augmented
from softlabels.inputs.examples import Examples
from softlabels.inputs.label_lists import LabelLists, Labels, as_tensor, known
from softlabels.inputs.opening import DataChoice, LabelChoice, open_chosen
from softlabels.inputs.preprocessing import choose, introduce
from softlabels.inputs.sources import Source
from softlabels.inputs.text_inputs import numbers_alone, open_inputs_of
from softlabels.inputs.token_inputs import open_tokens
from softlabels.inputs.tokenizing import Tokenizing
from softlabels.inputs.views.augment import parse_augment
from softlabels.inputs.views.mixing import PARTNER_LABEL, WEIGHT
from softlabels.models.starting import ModelChoice, reads_texts
from softlabels.options import FitOptions, verb
from softlabels.students.job import Job, held_place
from softlabels.students.losses import hard_label_loss, hard_loss, mixed_loss
from softlabels.students.optimization import Batch
from softlabels.students.origins import place, remembered
from softlabels.students.ranks import Ranks
from softlabels.students.reading import begin_on_columns, begin_reading
from softlabels.students.recipe import Recipe
from softlabels.students.result import TrainResult
from softlabels.students.showing import mixed
from softlabels.students.trackers import joined_ranks
from softlabels.system.humanize import counted
from softlabels.system.progress import Progress

MOST_CLASSES = 1_000_000


@verb(FitOptions)
def fit(options: FitOptions, progress: Progress) -> TrainResult:
    """Train a model from hard labels and write its checkpoint.

    Raises UsageError, SourceError or TrainingError.
    """
    ranks = joined_ranks(options.device, options.precision, options.log_with, options.out)
    with ranks.together():
        return _fit(options, ranks, progress)


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
        **place(source.data, source.live),
        "split": source.split,
        "revision": options.revision,
        "input_column": remembered(options.input_column),
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

    def loss(logits_NC: Tensor, batch: Batch, progress: float) -> Tensor:
        hard = hard_loss if options.task == "classification" else hard_label_loss
        if WEIGHT not in batch:
            return hard(logits_NC, batch["label"])
        return mixed_loss(hard, logits_NC, batch["label"], batch[PARTNER_LABEL], batch[WEIGHT])

    if shown is not None:
        shown.mix_among(job.chosen[0])

    def order(rows: np.ndarray, epoch: int) -> np.ndarray:
        return mixed(rows, options.data_seed, epoch)

    ahead = (shown or examples).reads_ahead
    with held_place(options.out, ranks, progress):
        return job.run(loss, take, order, options.part(Recipe).remedy, progress, ahead)


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
