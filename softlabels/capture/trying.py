"""A teacher tried on the first rows of its data, before anything is written. N rows, C classes."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from softlabels.capture.naming import ClassNames
from softlabels.capture.planning import Storage
from softlabels.errors import LogitsError, OutOfMemory, TeacherError, UsageError
from softlabels.inputs.examples import Examples
from softlabels.inputs.label_numbers import check_labels, has_two_classes
from softlabels.inputs.sources import Source
from softlabels.inputs.token_inputs import TokenInputs
from softlabels.models.limits import is_pretrained
from softlabels.models.outputs import describe_pair
from softlabels.models.tokens import Tokens
from softlabels.probabilities import looks_like, scaled_probabilities
from softlabels.soft_targets import LINKS
from softlabels.store.codecs.kinds import Dense
from softlabels.store.codecs.registry import parse_codec
from softlabels.store.codecs.rounding import cast_for_storage
from softlabels.teachers import Teacher
from softlabels.teachers.padding import choose_side
from softlabels.teachers.probing import check_steady
from softlabels.teachers.teacher import check_class_names

LAST_LAYER = {
    "softmax": "probabilities (rows sum to 1), so it ends in a softmax. Raw logits are needed: a "
    "temperature can't be applied to probabilities. Save the model without its last softmax",
    "percent": "percent (rows sum to 100), so it ends in a softmax. Raw logits are needed: a "
    "temperature can't be applied to probabilities. Save the model without its last layers",
    "sigmoid": "nothing but numbers from 0 to 1, as a sigmoid does, or cosines without their "
    "scale. Raw logits are needed: save the model without its last sigmoid, or with its scale. If "
    "these are logits, say so with --outputs logits",
}


@dataclass(frozen=True)
class TeacherRun:
    """How a teacher is run: options of these names."""

    batch_size: int
    precision: str
    outputs: str
    allow_batch_dependence: bool
    task: str


def try_teacher(
    teacher: Teacher,
    examples: Examples | TokenInputs,
    names: ClassNames,
    run: TeacherRun,
    storage: Storage,
    device: torch.device,
) -> tuple[int, list[str]]:
    """As many rows as a batch of the run has; the number of classes, and remarks.

    Raises TeacherError for a teacher whose answers to a row depend on others, LogitsError for
    outputs that are no logits or that the stored dtype would change, LabelSpaceMismatch and
    SourceError for labels that are none of its classes, UsageError for another number of names.
    """
    check_class_names(teacher.name, teacher.class_names, names.names)
    teacher.classes = teacher.classes if names.names is None else len(names.names)
    known = teacher.data.get("task", run.task)
    if known != run.task:
        raise UsageError(
            f"{teacher.title} was trained for {known}, as its file says, and --task is {run.task}: "
            f"its soft targets are of the other kind. Say --task {known}"
        )
    teacher.link = LINKS[run.task]
    if isinstance(examples, TokenInputs):
        _refuse_regression(teacher, run)
    two = run.task != "multilabel" and has_two_classes(examples.source, names.names)
    teacher.binary = run.outputs == "binary" or two
    rows, inputs = examples.first_readable(run.batch_size)
    block = examples.source.take(rows)
    ids = block.ids.tolist()
    inputs = examples.finish(inputs.to(device))
    side = ""
    with _naming_rows(examples.source):
        if isinstance(inputs, Tokens):
            steps = examples.preprocess
            own = steps.tokenization[0].side if steps.is_tokenizer else "right"
            even = examples.source.is_even
            side = choose_side(teacher, inputs, own, run.precision, even)
        logits_NC = teacher.logits(inputs, run.precision)
    classes = logits_NC.shape[1]
    if run.outputs == "binary" and not teacher.is_pair:
        raise UsageError(
            f"--outputs binary is for one logit a row, and {teacher.title} gives {classes} numbers"
        )
    names.check_count(classes, teacher.title)
    teacher.check_classes(classes, names.names)
    check_labels(examples.source, classes, f"the teacher {teacher.name}")
    codec = parse_codec(storage.codec, classes, storage.dtype, link=teacher.link)
    codec.check_takes(Dense, storage.codec, teacher.title)
    if codec.fits:  # on a pilot, later
        cast_for_storage(logits_NC, torch.float32, ids)
    stored = {} if codec.fits else codec.encode(Dense(logits_NC), ids)
    allowed = run.allow_batch_dependence
    remark = check_steady(teacher, inputs, logits_NC, run.precision, ids, allowed)
    kind = looks_like(logits_NC)
    if kind is not None and not (kind == "sigmoid" and run.outputs == "logits"):
        raise LogitsError(f"the teacher {teacher.name} gives {LAST_LAYER[kind]}")
    total = scaled_probabilities(logits_NC) if run.outputs != "logits" else None
    if kind is None and total is not None:
        raise LogitsError(
            f"the teacher {teacher.name} gives probabilities times {total:.6g} (rows are 0 or more "
            f"and sum to it), such as votes. Raw logits are needed: save the model without its "
            f"last layers, or divide by {total:.6g} and store the logarithms with softlabels "
            f"import --probabilities. If these are logits, say so with --outputs logits"
        )
    if stored:
        kl = codec.lost(Dense(logits_NC), stored, ids)
        codec.check_lost(kl, len(ids), f"the first {len(ids):,} rows")
    same = _sameness(block.hashes, logits_NC)
    pair = describe_pair(teacher.title, names.names) if teacher.is_pair else ""
    return classes, [text for text in (*teacher.feed.remarks, side, pair, remark, same) if text]


def _refuse_regression(teacher: Teacher, run: TeacherRun) -> None:
    """Raises TeacherError for a model of transformers with one output, unless it is said to be a
    logit."""
    held: Any = getattr(teacher.module, "held", teacher.module)
    one = is_pretrained(held) and held.config.num_labels == 1
    if one and run.outputs != "binary" and run.task != "multilabel":
        raise TeacherError(
            f"{teacher.title} has one output, which transformers trains as a regression unless its "
            f"problem_type says otherwise, and a dump has logits of classes. If it is the logit of "
            f"the second of two classes, as a cross-encoder's may be, say --outputs binary"
        )


@contextmanager
def _naming_rows(source: Source) -> Iterator[None]:
    """Where a teacher fails over columns of tokens, its error with the rows that ask most of it,
    which it was tried on."""
    try:
        yield
    except OutOfMemory:
        raise
    except TeacherError as error:
        if source.kind != "tokens" or error.__cause__ is None:
            raise
        span = source.token_span
        raise TeacherError(
            f"{error}. It was tried on the row with id {span.largest.id!s}, which has the largest "
            f"token, {span.largest.value:,}, and on the one with id {span.longest.id!s}, which has "
            f"{span.longest.value:,} tokens: does it know such tokens, and so many?"
        ) from error


def _sameness(hashes_N: np.ndarray, logits_NC: Tensor) -> str:
    """A warning of rows that are all the same, or all get the same answers, or ''."""
    rows = len(hashes_N)
    if rows > 1 and len(set(hashes_N.tolist())) == 1:
        return (
            f"warning: the first {rows:,} rows are all the same; whether a row's answers depend on "
            f"the rows beside it could not be seen"
        )
    if rows > 1 and torch.allclose(logits_NC, logits_NC[:1], rtol=1e-5, atol=0):
        return (
            f"warning: the first {rows:,} rows all get the same answers, though they differ: are "
            f"these the weights, and the preprocessing that the teacher knows?"
        )
    return ""
