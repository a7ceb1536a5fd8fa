"""A checkpoint's model run over data, and measured against hard labels. N rows, C classes."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from softlabels.errors import TeacherError
from softlabels.inputs.examples import Examples
from softlabels.inputs.label_lists import LabelLists, Labels, as_tensor, known
from softlabels.inputs.token_inputs import TokenInputs
from softlabels.label_spaces import LabelSpace
from softlabels.logits import DenseLogits
from softlabels.measures import Calibration, LabelScore
from softlabels.models.model import Model
from softlabels.models.padding import find_side
from softlabels.models.tokens import Tokens
from softlabels.multilabel import AveragePrecision, MultiLabelScore
from softlabels.probabilities import looks_like
from softlabels.reports.classes import ClassTable, LabelTable
from softlabels.students.building import ROUNDING, SAMPLED
from softlabels.students.label_sums import Blocks
from softlabels.students.prediction import broken_rows, predict
from softlabels.system.progress import Progress


@dataclass(frozen=True)
class Running:
    """A checkpoint's model on a device. checkpoint: its file, for messages."""

    checkpoint: str
    model: Model
    device: torch.device
    batch_size: int
    progress: Progress

    def label_space(self, examples: Examples | TokenInputs) -> LabelSpace:
        """Its classes, counted in its logits of a few inputs."""
        sample: Any = examples.finish(examples.sample().to(self.device))
        logits_NC = self.model.logits(sample)
        if looks_like(logits_NC) in ("softmax", "percent"):
            raise TeacherError(
                f"{self.checkpoint} gives probabilities (rows sum to one number), so it ends in a "
                f"softmax, and eval measures raw logits: save the model without its last softmax"
            )
        return LabelSpace(self.checkpoint, logits_NC.shape[1], self.model.class_names)

    def choose_side(self, examples: TokenInputs) -> list[str]:
        """Set the side on which rows of tokens are padded. A remark where it is not the
        tokenizer's. Raises TeacherError where padding changes answers."""

        def logits(rows: Tokens, side: str) -> Tensor:
            self.model.side = side
            return self.model.logits(rows)

        steps, tokens = examples.preprocess, examples.sample(SAMPLED).to(self.device)
        own = steps.tokenization[0].side if steps.is_tokenizer else "right"
        even = examples.source.is_even
        self.model.side, remark = find_side(
            logits, tokens, own, self.model.title, ROUNDING, even=even
        )
        return [remark] if remark else []

    def predict(
        self, examples: Examples | TokenInputs, what: str, rows: np.ndarray | None = None
    ) -> Iterator[tuple[np.ndarray, Tensor]]:
        """`predict` of these rows, or of all. Raises TeacherError at the end if some logits are not
        finite.

        what: the bar's name.
        """
        rows = np.arange(len(examples)) if rows is None else rows
        model, broken = self.model, 0
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


@dataclass(frozen=True)
class Matched:
    """labels: of all rows, as the model numbers its classes. measured: those of the model's classes
    that the labels can be, int64; None for all."""

    labels: Labels
    measured: Tensor | None = None


def score(
    running: Running,
    examples: Examples | TokenInputs,
    matched: Matched,
    space: LabelSpace,
    per_class: bool,
) -> tuple[dict[str, Any], ClassTable | LabelTable | None]:
    """The measures, and class by class a table, where that is asked for. space: the model's
    classes, whose names the table has."""
    of_kind = _score_labels if isinstance(matched.labels, LabelLists) else _score_label
    return of_kind(running, examples, matched, _names(space), per_class)


def _score_label(
    running: Running,
    examples: Examples | TokenInputs,
    matched: Matched,
    names: list[str],
    per_class: bool,
) -> tuple[dict[str, Any], ClassTable | None]:
    """Of one label a row."""
    labels_N, score = as_tensor(matched.labels, 0), LabelScore()
    tops = [np.empty(0, np.int64)]
    for rows, logits_NC in running.predict(examples, "eval"):
        score += LabelScore.of(DenseLogits(logits_NC), labels_N[torch.from_numpy(rows)])
        tops.append(logits_NC.argmax(-1).numpy())
    if not per_class:
        return score.measures, None
    there = labels_N.numpy() >= 0
    table = ClassTable.of(labels_N.numpy()[there], np.concatenate(tops)[there], names)
    return score.measures | {"per_class": table.values}, table


def _score_labels(
    running: Running,
    examples: Examples | TokenInputs,
    matched: Matched,
    names: list[str],
    per_class: bool,
) -> tuple[dict[str, Any], LabelTable | None]:
    """Of several labels a row. Average precision needs the order of all logits: they are read
    twice."""
    labels = matched.labels
    chosen = torch.arange(len(names)) if matched.measured is None else matched.measured
    score, ranked = MultiLabelScore.none(len(chosen)), AveragePrecision(len(chosen))
    pairs, blocks = Calibration(), Blocks(len(chosen))
    for rows, logits_NC in running.predict(examples, "eval"):
        there = rows[known(labels[rows])]
        logits_NC = logits_NC[torch.from_numpy(known(labels[rows]))][:, chosen]
        labels_NC = as_tensor(labels[there], len(names))[:, chosen]
        logits = DenseLogits(logits_NC, link="sigmoid")
        score += MultiLabelScore.of(logits, labels_NC)
        pairs += Calibration.of_pairs(logits, labels_NC)
        ranked.collect(logits_NC, labels_NC)
        blocks.add(logits_NC)
    for logits_NC in blocks:
        ranked.count(logits_NC)
    table = LabelTable.of(score, ranked.of_each, [names[number] for number in chosen.tolist()])
    counts = {"labels": sum(label["ap"] is not None for label in table.labels)}
    measures = table.measures | counts | {"ece": pairs.error}
    if not per_class:
        return measures, None
    return measures | {"per_class": table.values}, table


def _names(space: LabelSpace) -> list[str]:
    numbers = list(map(str, range(space.classes or 0)))
    return space.names if space.names and len(space.names) == len(numbers) else numbers
