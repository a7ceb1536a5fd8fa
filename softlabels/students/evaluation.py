"""How good a model is, and how close to its teacher. N rows, C classes."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from softlabels.errors import (
    LabelSpaceMismatch,
    SourceError,
    TeacherError,
    UntrustedPickle,
    UsageError,
)
from softlabels.inputs.examples import Examples
from softlabels.inputs.label_lists import LabelLists, known
from softlabels.inputs.label_numbers import has_two_classes
from softlabels.inputs.opening import DataChoice, LabelChoice, open_chosen
from softlabels.inputs.preprocess import Preprocess
from softlabels.inputs.preprocessing import introduce
from softlabels.inputs.sources import Source
from softlabels.inputs.tables.opening import is_one_split
from softlabels.inputs.token_inputs import TokenInputs
from softlabels.inputs.tokenizing import Tokenizing
from softlabels.label_spaces import LabelSpace, told_apart
from softlabels.models.model import Loading, Model
from softlabels.models.objects import hold_object
from softlabels.models.opening import open_model
from softlabels.models.outputs import describe_pair
from softlabels.options import EvalOptions, verb
from softlabels.places.siblings import named_dumps
from softlabels.reports.classes import ClassTable, LabelTable
from softlabels.students.against import against, opening
from softlabels.students.held_out import Held, held_out, held_rows, rows_to_fit
from softlabels.students.label_maps import BY_NUMBER, match_classes
from softlabels.students.measuring import open_rows, steps_of
from softlabels.students.reading import has_texts
from softlabels.students.scoring import Matched, Running, score
from softlabels.students.teaching import Teaching, mixture, one_dump
from softlabels.system.humanize import counted, html_table, measured
from softlabels.system.progress import Progress
from softlabels.targets.side_by_side import SideBySide
from softlabels.targets.weighting import Fitted, fit_weights

AT_ONCE, TOKENS_AT_ONCE = 1024, 256  # rows in a forward pass


class Evaluation(dict[str, Any]):
    """Measures by name; a notebook shows them as a table.

    table: the measures class by class, where these were asked for.
    """

    table: ClassTable | LabelTable | None = None

    @property
    def lines(self) -> list[str]:
        """The measures as people read them: against the labels, class by class and against a dump,
        as far as they were asked for."""
        lines = []
        if "nll" in self:
            where = f"{self['checkpoint']} on {self['data']}, split {self['split']}"
            where += ", the rows that training held out" * ("held_out" in self)
            lines.append(f"{where}: {self._of_labels if 'map' in self else self._of_label}")
        if beside := self.get("against"):
            lines.append(
                f"against {beside['dump']}: agreement {beside['agreement']:.4f}, "
                f"KL {measured(beside['kl'])} nats over {beside['rows']:,} rows"
            )
            lines += [
                f"  {name}, weight {one['weight']:.3g}: agreement {one['agreement']:.4f}, "
                f"KL {measured(one['kl'])} nats"
                for name, one in beside.get("teachers", {}).items()
            ]
        return lines + ([] if self.table is None else ["", *self.table.lines])

    @property
    def _of_label(self) -> str:
        top = f", top-5 {self['top5']:.4f}" if "top5" in self else ""
        return (
            f"{counted(self['errors'], 'error')} of {self['rows']:,}, accuracy "
            f"{self['accuracy']:.4f}{top}, NLL {measured(self['nll'])} nats, ECE {self['ece']:.4f}"
        )

    @property
    def _of_labels(self) -> str:
        precision = "unknown" if self["map"] is None else f"{self['map']:.4f}"
        return (
            f"mAP {precision} over {counted(self['labels'], 'label')} that some row has, NLL "
            f"{measured(self['nll'])} nats, summed over labels, ECE {self['ece']:.4f}, "
            f"{counted(self['rows'], 'row')}"
        )

    def __repr__(self) -> str:
        lines = self.lines[: self.lines.index("")] if "" in self.lines else self.lines
        return f"Evaluation({'; '.join(lines)})"

    def _repr_html_(self) -> str:
        against = {
            f"against, {name}": value
            for name, value in self.get("against", {}).items()
            if name != "teachers"
        }
        for teacher, one in self.get("against", {}).get("teachers", {}).items():
            shown = {name: one[name] for name in ("weight", "agreement", "kl")}
            against |= {f"against {teacher}, {name}": value for name, value in shown.items()}
        others = {name: self[name] for name in self if name not in ("against", "per_class")}
        return html_table(others | against)


@verb(EvalOptions)
def evaluate(options: EvalOptions, progress: Progress) -> Evaluation:
    """Measure a checkpoint on labelled data and, with `against`, on a dump's rows.

    Returns the measures, with those against the dump under `against`, and class by class under
    `per_class`. The classes of the data, and of the dump, are matched with the checkpoint's by
    name, those of the data otherwise with `map_labels`.

    Raises TeacherError, SourceError, UsageError, AlignmentError where the held-out rows are not
    what they were, or LabelSpaceMismatch for other classes.
    """
    given = options.checkpoint
    model = _open_file(given, options) if isinstance(given, str) else hold_object(given)
    if model.class_names is not None:  # as a dump has them
        model.class_names = told_apart(model.class_names)
    title = given if isinstance(given, str) else model.name
    task = _task_of(model, title, options)
    source = _open_data(model, title, task, options, progress)
    is_object = not isinstance(given, str)
    how = options.part(Tokenizing)
    chosen = steps_of(model, source, options.preprocess, how, is_object)
    held = Held()
    if options.holdout:
        held = held_out(title, model.data, source, _places(options), progress)
    examples = open_rows(source, chosen.preprocess, held, progress)
    introduce(progress, examples, chosen.origin)
    model.binary = task == "classification" and has_two_classes(
        source, source.class_names or model.class_names
    )
    device = model.device_for(options.device)
    is_tokens = isinstance(examples, TokenInputs)
    size = options.batch_size or (TOKENS_AT_ONCE if is_tokens else AT_ONCE)
    running = Running(title, model.to(device), device, size, progress)
    if isinstance(examples, TokenInputs):
        model.remarks += running.choose_side(examples)
    space = running.label_space(examples)
    pair = [describe_pair(model.title, source.class_names)] if model.is_pair else []
    for text in (*model.remarks, *model.feed.remarks, *pair):
        progress.say(text)
    evaluation = Evaluation(checkpoint=title, data=source.data, split=source.split)
    if options.holdout:
        evaluation["held_out"] = len(examples)
    if options.labels:
        labels = _labels_of(examples, space, options.map_labels, progress)
        if space.names is None and options.map_labels is None:  # the same numbers as the data's
            space = replace(space, names=source.class_names)
        measures, evaluation.table = score(running, examples, labels, space, options.per_class)
        evaluation.update(measures)
    if options.against:

        def fit(teachers: SideBySide) -> Fitted:
            return _fitted(teachers, options, model, title, task, source, progress)

        taught = _taught(options, title, chosen.preprocess, fit, progress)
        rows = np.arange(len(taught.dataset))
        if options.holdout:
            rows = held_rows(held, title, model.data, source, taught.dataset.base.reader)
        evaluation["against"] = against(taught, rows, running, space, task)
    return evaluation


def _places(options: EvalOptions) -> list[str]:
    """Of the dumps that `--against` names."""
    dumps: Any = options.against  # a tuple of texts, or a mapping
    return list(named_dumps(dumps).values()) if dumps else []


def _task_of(model: Model, title: str, options: EvalOptions) -> str:
    """What the model was trained for. Raises UsageError where its file says otherwise than
    --task."""
    trained_for = model.data.get("task")
    if options.task is not None and trained_for not in (None, options.task):
        raise UsageError(
            f"{title} was trained for {trained_for}, as its file says, and --task is "
            f"{options.task}; leave it out"
        )
    return options.task or trained_for or "classification"


def _open_data(
    model: Model, title: str, task: str, options: EvalOptions, progress: Progress
) -> Source:
    """The data that were chosen, else those that the model remembers."""
    remembered = model.remembered
    # what is named is measured on; what training remembers may be the very rows that it saw
    named = options.data is not None and is_one_split(options.data)
    usual = "train" if named else "test"
    split = options.split or (remembered.get("split") if options.holdout else None) or usual
    choice = DataChoice(
        options.data, split, options.revision, options.input_column, options.label_column,
        options.id_column,
    )  # fmt: skip
    labels = LabelChoice(options.labels, task=task)
    if options.map_labels is not None:  # texts are numbered as classes of the data's own
        remembered = remembered | {"class_names": None}
    texts = options.preprocess is None and (model.own_tokenizer or options.tokenizer) is not None
    return open_chosen(choice, title, remembered, progress, labels, texts)


def _fitted(
    teachers: SideBySide,
    options: EvalOptions,
    model: Model,
    title: str,
    task: str,
    measured_on: Source,
    progress: Progress,
) -> Fitted:
    """Weights by the rows that the model's training held out, whatever it is measured on."""

    def of_training() -> Source:
        if options.holdout or measured_on.fingerprint == model.data["fingerprint"]:
            return measured_on
        named = ("data", "revision", "input_column", "label_column", "id_column", "map_labels")
        own: dict[str, Any] = dict.fromkeys(named) | {"split": model.data["split"], "labels": True}
        return _open_data(model, title, task, replace(options, **own), progress)

    assert options.mix is not None, "weights are of a mixture"
    teachers.mix(options.mix)  # refuses teachers of other rows
    reader = teachers.base.reader
    rows = rows_to_fit(title, model.data, of_training, _places(options), reader, progress)
    return fit_weights(teachers, options.mix, rows)


def _open_file(checkpoint: str, options: EvalOptions) -> Model:
    try:
        model = open_model(checkpoint, Loading(spec=options.model, logits=options.logits))
    except UntrustedPickle as error:  # whose remedies, such as --trust-pickle, are for teachers
        raise UntrustedPickle(
            f"{checkpoint} is a pickle that could run code, so it was not loaded; eval takes a "
            f"checkpoint that softlabels fit or train wrote"
        ) from error
    if model.kind == "state_dict":
        raise TeacherError(
            f"{checkpoint} is a bare state dict, which says neither its model nor its "
            f"preprocessing; eval takes a checkpoint of softlabels fit or train, or a whole model"
        )
    return model


def _labels_of(
    examples: Examples | TokenInputs, model: LabelSpace, given: str | None, progress: Progress
) -> Matched:
    """The labels of all rows as the model numbers its classes. given: --map-labels.

    Raises LabelSpaceMismatch for other classes than the model's.
    """
    source = examples.source
    name, names = f"{source.data!r}, split {source.split!r},", source.class_names
    if not source.labelled:
        raise SourceError(f"{name} has no labels to measure against")
    labels = examples.labels
    if not known(labels).any():
        raise SourceError(f"{name} has no labels to measure against")
    numbers = labels.numbers if isinstance(labels, LabelLists) else labels
    last = int(numbers.max(initial=-1))
    count = len(names) if names else source.flags
    if given not in (None, BY_NUMBER) and count is None:
        count = last + 1
    order = match_classes(model, LabelSpace(name, count, names), given, progress)
    if order is None:
        if last >= (model.classes or 0):
            raise LabelSpaceMismatch(
                f"{name} has the label {last}; {model.who} has {model.classes} classes"
            )
        return Matched(labels)
    matched = order.unique()
    measured = matched[matched >= 0]
    if isinstance(labels, LabelLists):
        return Matched(labels.renumbered(order.numpy()), measured)
    mapped = np.where(labels < 0, -1, order.numpy()[labels])
    if not (mapped >= 0).any():
        raise SourceError(f"{name} has no labels to measure against: --map-labels leaves out all")
    return Matched(mapped, measured)


def _taught(
    options: EvalOptions,
    title: str,
    steps: Preprocess,
    fit: Callable[[SideBySide], Fitted],
    progress: Progress,
) -> Teaching:
    """What `--against` names, with inputs as the model takes them."""
    opened = opening(options.data, None if steps.is_tokenizer else steps, title)
    dumps: Any = options.against  # a tuple of texts, or a mapping
    if options.mix is None:
        taught = one_dump(dumps, opened)
    else:
        taught = mixture(dumps, options.mix, options.mix_weights, fit, opened, progress)
    if steps.is_tokenizer and has_texts(taught.dataset.base.examples):
        return replace(taught, dataset=taught.dataset.tokenized(steps))
    return taught
