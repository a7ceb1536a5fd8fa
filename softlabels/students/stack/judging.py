"""How good each student of a stack is on held-out rows: one pass scores all.

S students, N rows of a block, C classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from softlabels.inputs.label_lists import LabelLists, as_tensor
from softlabels.logits import DenseLogits
from softlabels.students.judging import SCORED, Judge
from softlabels.students.prediction import predict
from softlabels.students.stack.layers import Stacked
from softlabels.students.task import Score
from softlabels.system.humanize import counted, measured


@dataclass(frozen=True)
class StackJudge:
    """Scores students by the rule of `Judge`: errors, then the likelihood; with few labels or none
    the KL with the teacher. Labels are one a row."""

    judge: Judge

    def __post_init__(self) -> None:
        assert not isinstance(self.judge.labels, LabelLists), "mAP is of one student"

    def scores(self, stack: Stacked, parameters: Sequence[Tensor], rows: np.ndarray) -> list[Score]:
        """One for each student."""
        by_labels, judge = self.judge.by_labels(rows), self.judge
        broken_S = torch.zeros(len(stack), dtype=torch.int64)
        sums = torch.zeros(2, len(stack), dtype=torch.float64)
        total = 0

        def logits(inputs: Tensor) -> Tensor:
            return stack.predicted(inputs, parameters)

        for part, logits_SNC in predict(logits, judge.examples, rows, judge.ranks.device, SCORED):
            broken_S += (~torch.isfinite(logits_SNC).all(-1)).sum(-1)
            if by_labels:
                assert judge.labels is not None, "labels choose"
                labels_N = as_tensor(judge.labels[part], logits_SNC.shape[-1])
                there = labels_N >= 0
                total += int(there.sum())
                sums += against_labels(logits_SNC[:, there], labels_N[there])
            else:
                assert judge.teacher is not None, "without labels there is a teacher"
                targets = judge.teacher.columns(part, inputs=False)["targets"].to("cpu")
                total += len(targets)
                sums[0] += targets.temper(1).kl(logits_SNC).double().sum(-1)
        named: Callable[..., Score] = _by_labels if by_labels else _by_kl
        return [
            _score(broken, len(rows), named(*both, total))
            for broken, both in zip(broken_S.tolist(), sums.T.tolist(), strict=True)
        ]


def against_labels(logits_SNC: Tensor, labels_N: Tensor) -> Tensor:
    """Errors, and the summed −log p of the labels: float64 [2, S]."""
    students, rows = logits_SNC.shape[:2]
    log_p = DenseLogits(logits_SNC.flatten(0, 1)).temper(1).log_probs()
    log_p_SN = log_p.gather(-1, labels_N.repeat(students)[:, None]).view(students, rows)
    wrong_S = (logits_SNC.argmax(-1) != labels_N).sum(-1)
    return torch.stack([wrong_S.double(), -log_p_SN.double().sum(-1)])


def _by_labels(errors: float, nll: float, labelled: int) -> Score:
    measures: dict[str, Any] = {"errors": int(errors), "nll": nll / labelled, "labelled": labelled}
    return Score(
        (errors, nll / labelled), f"{counted(int(errors), 'error')} of {labelled:,}", measures
    )


def _by_kl(kl: float, _: float, positions: int) -> Score:
    mean = kl / positions
    return Score((mean,), f"KL {measured(mean)}", {"kl": mean})


def _score(broken: int, rows: int, score: Score) -> Score:
    if not broken:
        return score
    summary = f"logits of {broken:,} of {counted(rows, 'row')} are NaN or infinite"
    return Score(None, summary, {"rows": rows, "broken": broken})
