"""How good a student is on held-out rows. N rows of a block, C classes.

They are run block by block, each rank its share of them, and only sums are kept: memory does not
grow with the rows. The sums of all ranks are joined.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from softlabels.inputs.examples import Examples
from softlabels.inputs.label_lists import LabelLists, Labels, known
from softlabels.inputs.token_inputs import TokenInputs
from softlabels.measures import TeacherScore
from softlabels.models.named import NamedInputs
from softlabels.students.label_sums import label_sums
from softlabels.students.prediction import broken_rows, predict
from softlabels.students.ranks import Ranks
from softlabels.students.student import Student, as_training_errors
from softlabels.students.task import Score
from softlabels.system.humanize import counted, measured
from softlabels.targets.batch import for_each_position
from softlabels.targets.holdout import labels_choose
from softlabels.targets.mixed import Trainable

SCORED = 1024  # rows in a forward pass


@dataclass(frozen=True)
class Judge:
    """Measures a student on held-out rows.

    labels: int64 [rows], −1 for none, or lists of them; None where no row has one.
    teacher: whose soft targets are compared; None for hard labels alone.
    batch_size: rows in a batch of training.
    """

    examples: Examples | TokenInputs
    labels: Labels | None
    teacher: Trainable | None
    ranks: Ranks
    batch_size: int

    def by_labels(self, rows: np.ndarray) -> bool:
        """Whether the labels of these rows choose the epoch, or the KL with the teacher does."""
        if self.teacher is None:
            return True
        return self.labels is not None and labels_choose(self.labels[rows])

    def score(self, student: Student, rows: np.ndarray) -> Score:
        """Errors first, or the mean average precision of several labels; then the likelihood. With
        few labels or none, the KL with the teacher. The same on every rank."""
        broken, measures = self.measure(student, rows)
        if broken:
            summary = f"logits of {broken:,} of {counted(len(rows), 'row')} are NaN or infinite"
            return Score(None, summary, {"rows": len(rows), "broken": broken})
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

    def measure(self, student: Student, rows: np.ndarray) -> tuple[int, dict[str, Any]]:
        """How many rows are NaN or infinite, and if none are the measures: against labels where
        some row has one, and against a teacher's logits where there is one."""
        ranks = self.ranks
        labels = None if self.labels is None or not known(self.labels[rows]).any() else self.labels
        hard = None if labels is None else label_sums(labels, student.classes)
        soft, broken = TeacherScore(), 0
        mine = np.array_split(rows, ranks.world)[ranks.rank]
        student.eval()

        def logits(inputs: Tensor | NamedInputs) -> Tensor:
            with as_training_errors(student.spec, len(inputs)):
                return student(inputs)

        # rows of tokens may be long: as many as a batch has are known to fit into memory
        size = self.batch_size if self.examples.preprocess.is_tokenizer else SCORED
        for part, logits_NC in predict(logits, self.examples, mine, ranks.device, size):
            if more := broken_rows(logits_NC):
                broken += more
                continue
            if hard is not None and labels is not None:
                hard.add(logits_NC, labels[part])
            if self.teacher is not None:
                columns = self.teacher.columns(part, inputs=False)
                logits_MC = for_each_position(logits_NC, columns)
                soft += TeacherScore.of(logits_MC, columns["targets"].to("cpu"))
        if broken := sum(ranks.all(broken)):
            return broken, {}
        measures: dict[str, Any] = {}
        if hard is not None:
            measures = hard.measures(ranks.all)
            measures["labelled"] = measures["rows"]
        if self.teacher is not None:
            measures |= sum(ranks.all(soft), TeacherScore()).measures
        return 0, measures | {"rows": len(rows)}
