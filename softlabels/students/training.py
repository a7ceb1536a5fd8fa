"""The verb `train`: the training loop with a teacher's stored logits.

N rows of a batch, C classes.
"""

from collections import ChainMap
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from softlabels.errors import UsageError
from softlabels.inputs.label_lists import Labels, hidden, known
from softlabels.inputs.preprocessing import introduce
from softlabels.inputs.tokenizing import Tokenizing
from softlabels.inputs.views.augment import parse_augment
from softlabels.models.named import NamedInputs
from softlabels.models.starting import ModelChoice
from softlabels.options import TrainOptions, verb
from softlabels.places.newest import newest_dump
from softlabels.students.augmenting import augmented_dump, take_augmented
from softlabels.students.distilling import Distillation, distillation, said
from softlabels.students.job import Job, held_place
from softlabels.students.optimization import Batch
from softlabels.students.origins import place_of
from softlabels.students.prepared import Prepared
from softlabels.students.ranks import Ranks
from softlabels.students.reading import begin_on_columns, begin_reading, has_texts, is_by_name
from softlabels.students.recipe import Recipe
from softlabels.students.result import TrainResult
from softlabels.students.showing import showing
from softlabels.students.softness import some_logits
from softlabels.students.teaching import Teaching, mixture, one_dump
from softlabels.students.temperature import AUTO, candidates, with_best
from softlabels.students.trackers import joined_ranks
from softlabels.system.progress import Progress
from softlabels.targets.loading import load
from softlabels.targets.side_by_side import SideBySide
from softlabels.targets.soft_dataset import Dump
from softlabels.targets.weighting import Fitted


@verb(TrainOptions)
def train(options: TrainOptions, progress: Progress) -> TrainResult:
    """Train a student from a stored dump and write its checkpoint; no teacher is loaded. Several
    dumps are one teacher by `mix`: a list of them, or a mapping from names.

    Raises UsageError, StoreError, SourceError, AlignmentError or TrainingError.
    """
    if options.T == AUTO:
        learned = candidates(options.loss, options.alpha, options.holdout)
    else:
        learned = [distillation(options.loss, options.T, options.alpha)]
    ranks = joined_ranks(options.device, options.precision, options.log_with, options.out)
    with ranks.together():
        ready = prepare(options, learned, ranks, progress)
        with held_place(options.out, ranks, progress):  # before the trials, which may take long
            if options.T == AUTO:
                ready, learned = with_best(ready, learned, progress)
            return ready.run(learned[0], progress)


def prepare(
    options: TrainOptions, learned: Sequence[Distillation], ranks: Ranks, progress: Progress
) -> Prepared:
    """Open what a student learns from, or what several do, and say what there is to say of it.
    Raises the errors of `train`.

    learned: by the student, or by each of several, of one loss
    """
    augment = None if options.augment is None else parse_augment(options.augment)
    taught = _taught(options, ranks, progress)
    dataset = taught.dataset
    views = showing(dataset, options.views)
    student = ModelChoice(options.student, options.weights, options.dropout, options.input_dropout)
    labels = _labels_for(dataset.base, min(one.alpha for one in learned), taught.base_place)
    chosen = "" if options.dump else " (the newest complete dump)"
    progress.say(f"from {taught.title}{chosen} {said(learned)}")
    some = some_logits(dataset)
    learned[0].check(some, labels is not None)
    how, begun = options.part(Tokenizing), None
    plan = dataset.base.reader.plan
    if has_texts(dataset.base.examples):
        reading = begin_reading(student, plan.classes, how, options.seed, plan)
        begun, dataset = reading.begun, dataset.tokenized(reading.preprocess, progress)
    elif (inputs := dataset.base.examples) is not None and is_by_name(inputs):
        how.refuse_any(student.title, inputs.source.data)
        steps = inputs.preprocess
        reading = begin_on_columns(student, dataset.num_classes, inputs.source, steps, options.seed)
        begun = reading.begun
    else:
        how.refuse_any(f"--student {student.title}, over these inputs,")
    examples: Any = dataset.base.examples
    introduce(progress, examples, "from the dump" if options.preprocess is None else "")
    shown = None
    if augment is not None:
        shown = augmented_dump(dataset, augment, options.data_seed, progress)
    for remark in dict.fromkeys(remark for one in learned for remark in one.remarks(some)):
        progress.say(remark)
    for remark in views.remarks(options.epochs):
        progress.say(remark)
    scored = None if labels is None else hidden(labels, dataset.base.reader.mixed)
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
        **place_of(plan, options.source),
        "split": plan.source.split,
        "revision": plan.source.revision if options.source is None else None,
        "input_column": columns.inputs if plan.source.kind == "columns" else joined,
        "label_column": columns.label,
        "id_column": columns.id,
        "fingerprint": plan.source.fingerprint,
        "rows": len(views.inputs),
        **taught.remembered,
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
        identity=taught.identity,
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
    return Prepared(job, labels is not None, take, order, ahead)


def _taught(options: TrainOptions, ranks: Ranks, progress: Progress) -> Teaching:
    opened = partial(
        load,
        source=options.source,
        preprocess=options.preprocess,
        keep=options.keep,
        device=options.device if ranks.world == 1 else str(ranks.device),
        cache=options.cache,
        streaming=options.streaming,
        shards=options.shards,
        progress=progress,
    )
    dumps: Any = options.dump  # a tuple of texts, or a mapping
    space = options.mix
    if space is None:
        return one_dump(dumps or [str(newest_dump())], opened)

    def fit(teachers: SideBySide) -> Fitted:
        holdout, data_seed = options.holdout, options.data_seed
        return teachers.fit_weights(space, holdout=holdout, data_seed=data_seed)

    return mixture(dumps, space, options.mix_weights, fit, opened, progress, ranks.on_first)


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
