"""How good a model is, and how close to its teacher. N rows, C classes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from softlabels.average_precision import average_precision, mean_of
from softlabels.errors import (
    LabelSpaceMismatch,
    SourceError,
    TeacherError,
    UntrustedPickle,
    UsageError,
)
from softlabels.inputs.examples import Examples
from softlabels.inputs.label_lists import LabelLists, Labels, as_tensor, known
from softlabels.inputs.label_numbers import has_two_classes
from softlabels.inputs.opening import DataChoice, LabelChoice, open_chosen
from softlabels.inputs.own_preprocessing import check_own_preprocessing
from softlabels.inputs.preprocessing import choose, introduce
from softlabels.label_spaces import LabelSpace, match_label_spaces, told_apart
from softlabels.logits import DenseLogits
from softlabels.measures import LabelScore, MultiLabelScore, TeacherScore
from softlabels.models.model import Loading, Model
from softlabels.models.objects import hold_object
from softlabels.models.opening import open_model
from softlabels.models.outputs import describe_pair
from softlabels.options import EvalOptions, verb
from softlabels.probabilities import looks_like
from softlabels.system.humanize import counted, html_table, measured
from softlabels.system.progress import Advance, Progress, ignore
from softlabels.targets.batch import for_each_position
from softlabels.targets.loading import load
from softlabels.targets.soft_dataset import Dump


@torch.inference_mode()
def predict(
    logits: Callable[[Tensor], Tensor],
    examples: Examples,
    rows: np.ndarray,
    device: torch.device,
    batch_size: int = 1024,
    advance: Advance = ignore,
) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Batches of these rows, each with the model's logits, float32 [N, C] on the CPU.

    logits: finished inputs → logits [N, C].
    """
    for start in range(0, len(rows), batch_size):
        part = rows[start : start + batch_size]
        logits_NC = logits(examples.finish(examples.gather(part).to(device)))
        yield part, logits_NC.to("cpu", torch.float32, copy=True)  # the model may reuse its own
        advance(len(part), "")


def hard_measures(logits_NC: Tensor, labels: Labels) -> dict[str, Any]:
    """Measures of logits against hard labels; of several labels a row, with `map`, the mean average
    precision over the labels that some row has (None where no row has any). Empty where no row has
    a label."""
    labels_N = as_tensor(labels, logits_NC.shape[1])
    if not isinstance(labels, LabelLists):
        return dict(LabelScore.of(DenseLogits(logits_NC), labels_N).measures)
    there = torch.from_numpy(known(labels))
    logits_NC, labels_NC = logits_NC[there], labels_N[there]
    measures = MultiLabelScore.of(DenseLogits(logits_NC, link="sigmoid"), labels_NC).measures
    return measures | {"map": mean_of(average_precision(logits_NC, labels_NC))}


def broken_rows(logits_NC: Tensor) -> int:
    """How many rows hold NaN or infinity. No measure of them means anything."""
    return int((~torch.isfinite(logits_NC).all(-1)).sum())


class Evaluation(dict[str, Any]):
    """Measures by name; a notebook shows them as a table."""

    @property
    def lines(self) -> list[str]:
        """The measures as people read them: against the labels and, if measured, a dump."""
        lines = []
        if "errors" in self:
            lines.append(self._by_labels)
        if against := self.get("against"):
            lines.append(
                f"against {against['dump']}: agreement {against['agreement']:.4f}, "
                f"KL {measured(against['kl'])} nats over {against['rows']:,} rows"
            )
        return lines

    @property
    def _by_labels(self) -> str:
        return (
            f"{self['checkpoint']} on {self['data']}, split {self['split']}: "
            f"{counted(self['errors'], 'error')} of {self['rows']:,}, accuracy "
            f"{self['accuracy']:.4f}, NLL {measured(self['nll'])} nats, ECE {self['ece']:.4f}"
        )

    def __repr__(self) -> str:
        return f"Evaluation({'; '.join(self.lines)})"

    def _repr_html_(self) -> str:
        against = {f"against, {name}": value for name, value in self.get("against", {}).items()}
        return html_table({name: self[name] for name in self if name != "against"} | against)


@verb(EvalOptions)
def evaluate(options: EvalOptions, progress: Progress) -> Evaluation:
    """Measure a checkpoint on labelled data and, with `against`, on a dump's rows.

    Returns the measures, with those against the dump under `against`. The classes of the data, and
    of the dump, are matched with the checkpoint's by name.

    Raises TeacherError, SourceError, UsageError, or LabelSpaceMismatch for other classes.
    """
    given = options.checkpoint
    model = _open_file(given, options) if isinstance(given, str) else hold_object(given)
    if model.class_names is not None:  # as a dump has them
        model.class_names = told_apart(model.class_names)
    title = given if isinstance(given, str) else model.name
    if model.data.get("task", "classification") != "classification":
        raise UsageError(
            f"{title} is {model.data['task']}, and eval measures one label a row. train's held-out "
            f"line has its KL and agreement with its teacher"
        )
    choice = options.part(DataChoice)
    labels = LabelChoice(options.labels)
    source = open_chosen(choice, title, model.remembered, progress, labels)
    unasked = "" if isinstance(given, str) else model.title
    known = model.preprocess
    if unasked and source.kind != "image":  # what a module says of itself is about pictures
        known = None
    elif options.preprocess is None:
        check_own_preprocessing(model)
    chosen = choose(source, options.preprocess, known, "the checkpoint", unasked)
    examples = Examples(source, chosen.preprocess)
    introduce(progress, examples, chosen.origin)
    model.binary = has_two_classes(source, source.class_names or model.class_names)
    device = model.device_for(options.device)
    running = Running(title, model.to(device), device, options.batch_size, progress)
    space = running.label_space(examples)
    pair = [describe_pair(model.title, source.class_names)] if model.is_pair else []
    for text in (*model.remarks, *model.feed.remarks, *pair):
        progress.say(text)
    evaluation = Evaluation(checkpoint=title, data=source.data, split=source.split)
    if options.labels:
        evaluation.update(_by_labels(running, examples, space).measures)
    if options.against is not None:
        inputs = _source_against(options)
        dataset = load(options.against, preprocess=chosen.preprocess, source=inputs)
        assert isinstance(dataset, Dump), "one folder was named"
        evaluation["against"] = _against(options.against, dataset, running, space)
    return evaluation


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


def _source_against(options: EvalOptions) -> Any:
    """The inputs of a dump whose source was a data set in memory: the one that is measured on."""
    dataset = load(str(options.against), inputs=False)
    assert isinstance(dataset, Dump), "one folder was named"
    plan = dataset.reader.plan
    needed = plan.source.origin == "live" and not plan.with_inputs
    return options.data if needed and not isinstance(options.data, str) else None


@dataclass(frozen=True)
class Running:
    """A checkpoint's model on a device. checkpoint: its file, for messages."""

    checkpoint: str
    model: Model
    device: torch.device
    batch_size: int
    progress: Progress

    def label_space(self, examples: Examples) -> LabelSpace:
        """Its classes, counted in its logits of a few inputs."""
        sample = examples.finish(examples.sample().to(self.device))
        logits_NC = self.model.logits(sample)
        if looks_like(logits_NC) in ("softmax", "percent"):
            raise TeacherError(
                f"{self.checkpoint} gives probabilities (rows sum to one number), so it ends in a "
                f"softmax, and eval measures raw logits: save the model without its last softmax"
            )
        return LabelSpace(self.checkpoint, logits_NC.shape[1], self.model.class_names)

    def predict(self, examples: Examples, what: str) -> Iterator[tuple[np.ndarray, Tensor]]:
        """`predict` of all rows. Raises TeacherError at the end if some logits are not finite.

        what: the bar's name.
        """
        rows, model, broken = np.arange(len(examples)), self.model, 0
        with self.progress.bar(what, len(rows), "rows") as advance:
            for part, logits_NC in predict(
                model.logits, examples, rows, self.device, self.batch_size, advance
            ):
                broken += broken_rows(logits_NC)
                yield part, logits_NC
        if broken:
            raise TeacherError(
                f"{self.checkpoint} gives NaN or infinity for {broken:,} of {len(rows):,} rows of "
                f"{examples.source.data!r}; nothing can be measured. Check the checkpoint and "
                f"--preprocess"
            )


def _by_labels(running: Running, examples: Examples, space: LabelSpace) -> LabelScore:
    labels_N, score = _labels_of(examples, space, running.progress), LabelScore()
    for rows, logits_NC in running.predict(examples, "eval"):
        score += LabelScore.of(DenseLogits(logits_NC), labels_N[torch.from_numpy(rows)])
    return score


def _labels_of(examples: Examples, model: LabelSpace, progress: Progress) -> Tensor:
    """The labels of all rows as the model numbers its classes, int64 [N], −1 for none.

    Raises LabelSpaceMismatch for other classes than the model's.
    """
    source = examples.source
    name, names = f"{source.data!r}, split {source.split!r},", source.class_names
    if not source.labelled:
        raise SourceError(f"{name} has no labels to measure against")
    order = _match(model, LabelSpace(name, len(names) if names else None, names), progress)
    assert isinstance(examples.labels, np.ndarray), "one label a row was asked for"
    labels_N = torch.from_numpy(examples.labels)
    if not bool((labels_N >= 0).any()):
        raise SourceError(f"{name} has no labels to measure against")
    if int(labels_N.max()) >= (model.classes or 0):
        raise LabelSpaceMismatch(
            f"{name} has the label {int(labels_N.max())}; {model.who} has {model.classes} classes"
        )
    return labels_N if order is None else torch.where(labels_N < 0, -1, order[labels_N])


def _against(name: str, dataset: Dump, running: Running, space: LabelSpace) -> dict[str, Any]:
    """The model beside a dump's teacher, whose classes may be in another order."""
    assert dataset.examples is not None, "they were asked for"
    theirs = LabelSpace(name, dataset.reader.plan.classes, dataset.class_names)
    order = _match(space, theirs, running.progress)
    score = TeacherScore()
    for rows, student_NC in running.predict(dataset.examples, "against"):
        if order is not None:  # the student's classes in the teacher's order
            student_NC = student_NC[:, order]
        columns = dataset.rows.columns(rows)
        score += TeacherScore.of(for_each_position(student_NC, columns), columns["targets"])
    dataset.settle()
    return {"dump": name, "rows": len(dataset)} | score.measures


def _match(ours: LabelSpace, theirs: LabelSpace, progress: Progress) -> Tensor | None:
    """Of each class of theirs its number in ours, int64 [C]; None where they are the same."""
    matched = match_label_spaces(ours, theirs)
    if matched.note:
        progress.say(matched.note + "; they are matched by name" * (matched.order is not None))
    return None if matched.order is None else torch.tensor(matched.order)
