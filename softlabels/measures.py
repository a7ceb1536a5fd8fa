"""How good a model's answers are: every measure, once.

M scored positions, for a classifier as many as rows; C classes. Probabilities are those at T = 1;
NLL, entropy and KL are in nats.

A score holds sums over positions: `of` measures a block of them, and `+` joins the scores of two
disjoint blocks. So row groups, batches and ranks may be measured apart and added in any order:
counts are exact, other sums are float64.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from softlabels.logits import DenseLogits, Logits
from softlabels.soft_targets import Link, SoftLabels, SoftTargets

BINS = 15
TOP = 5  # classes
PARTS = 50  # of the range of entropies
ENOUGH = 20  # labelled inputs, before an accuracy is judged
DEVIATIONS = 3


def in_bins(shares_M: Tensor, bins: int) -> Tensor:
    """Which of `bins` equal bins of [0, 1] each share lies in, int64 [M].

    A bin has its upper edge: bin b, from 0, is (b/bins, (b+1)/bins]. What is 0 or less lies in the
    first one, what is above 1 in the last. Edges are rounded as the shares are, so that 1/3 is on
    the edge 5/15 in float32 too.
    """
    edges = torch.arange(1, bins, dtype=shares_M.dtype, device=shares_M.device) / bins
    return torch.bucketize(shares_M, edges)


def agrees(one: SoftTargets, other: SoftTargets) -> Tensor:
    """1 where both have the same top class, else 0, float64 [M]; of equal classes, the lower number
    is the top one. Of multi-label targets the share of the labels that both hold for more probable
    than not, or both don't."""
    return _share_equal(decided(one), decided(other))


def decided(targets: SoftTargets) -> Tensor:
    """The top class, int64 [M], or which of several labels are more probable than not, bool
    [M, C]."""
    if isinstance(targets, SoftLabels):
        return targets.probs() > 0.5
    return targets.top(1)[1][:, 0]


def _share_equal(one: Tensor, other: Tensor) -> Tensor:
    same = (one == other).double()
    return same if same.dim() == 1 else same.mean(-1)


@dataclass(frozen=True, eq=False)
class Calibration:
    """Confidence, the probability of the top class, beside how often that class is the label.

    Positions are in 15 equal bins by confidence, each with its upper edge, as in Guo et al. 2017,
    "On Calibration of Modern Neural Networks", section 2.

    counts: positions, int64 [15].
    confidence: their summed confidence, float64 [15].
    hits: how many have the label as top class, int64 [15].
    """

    counts: Tensor = field(default_factory=lambda: torch.zeros(BINS, dtype=torch.int64))
    confidence: Tensor = field(default_factory=lambda: torch.zeros(BINS, dtype=torch.float64))
    hits: Tensor = field(default_factory=lambda: torch.zeros(BINS, dtype=torch.int64))

    @classmethod
    def of(cls, logits: Logits, labels_M: Tensor) -> "Calibration":
        """Of a block of positions. labels: int64 [M]; positions with label −1 are left out."""
        confidence_M, top_M = (one[:, 0].cpu() for one in logits.temper(1).top(1))
        known_M = labels_M >= 0
        confidence_M, hit_M = confidence_M[known_M], (top_M == labels_M)[known_M]
        bin_M = in_bins(confidence_M, BINS)
        return cls(
            counts=bin_M.bincount(minlength=BINS),
            confidence=bin_M.bincount(confidence_M.double(), minlength=BINS),
            hits=bin_M[hit_M].bincount(minlength=BINS),
        )

    @classmethod
    def of_pairs(cls, logits: Logits, labels_MC: Tensor) -> "Calibration":
        """Of each pair of a position and a label, whose confidence is the label's probability, and
        a hit where the position has the label. labels: 0 and 1, [M, C]; −1 is left out."""
        known_MC = labels_MC >= 0
        p, there = logits.temper(1).probs().cpu()[known_MC], labels_MC[known_MC] > 0
        bins = in_bins(p, BINS)
        return cls(
            counts=bins.bincount(minlength=BINS),
            confidence=bins.bincount(p.double(), minlength=BINS),
            hits=bins[there].bincount(minlength=BINS),
        )

    def __add__(self, other: "Calibration") -> "Calibration":
        return Calibration(
            self.counts + other.counts,
            self.confidence + other.confidence,
            self.hits + other.hits,
        )

    @property
    def labelled(self) -> int:
        return int(self.counts.sum())

    @property
    def correct(self) -> int:
        return int(self.hits.sum())

    @property
    def error(self) -> float | None:
        """The expected calibration error, Guo et al. 2017, equation 3: Σ over bins of (share of the
        positions) · |accuracy − mean confidence|. None without labels."""
        if not self.labelled:
            return None
        return float((self.hits - self.confidence).abs().sum()) / self.labelled


@dataclass(frozen=True, eq=False)
class LabelScore:
    """Logits against hard labels.

    nll: the summed −log p of the labels.
    in_top: how many labels are among the 5 classes of the largest logits; None where there are no
        more classes than that.
    """

    calibration: Calibration = field(default_factory=Calibration)
    nll: float = 0.0
    in_top: int | None = None

    @classmethod
    def of(cls, logits: Logits, labels_M: Tensor) -> "LabelScore":
        """Of a block of positions. labels: int64 [M]; positions with label −1 are left out."""
        known_M = labels_M >= 0
        logits, labels_M = logits.select(known_M.nonzero()[:, 0]), labels_M[known_M]
        log_p_MC = logits.temper(1).log_probs()
        log_p_M = log_p_MC.gather(-1, labels_M[:, None].to(log_p_MC.device))[:, 0]
        nll = -float(log_p_M.cpu().double().sum())
        in_top = None
        if logits.classes > TOP:
            values_MC = logits.dense() if logits.is_dense else log_p_MC
            in_top = int((_places(values_MC, labels_M.to(values_MC.device)) < TOP).sum())
        return cls(Calibration.of(logits, labels_M), nll, in_top)

    def __add__(self, other: "LabelScore") -> "LabelScore":
        counts = [one.in_top for one in (self, other) if one.in_top is not None]
        return LabelScore(
            self.calibration + other.calibration,
            self.nll + other.nll,
            sum(counts) if counts else None,
        )

    @property
    def labelled(self) -> int:
        return self.calibration.labelled

    @property
    def measures(self) -> dict[str, float]:
        """rows: those with a label; errors; accuracy; top5, the share of labels among the 5 classes
        of the largest logits, if there are more classes; nll: the mean; ece: the expected
        calibration error. Empty without labels."""
        rows, correct = self.labelled, self.calibration.correct
        if not rows:
            return {}
        return {
            "rows": rows,
            "errors": rows - correct,
            "accuracy": correct / rows,
            **({} if self.in_top is None else {"top5": self.in_top / rows}),
            "nll": self.nll / rows,
            "ece": self.calibration.error or 0.0,
        }


def _places(values_MC: Tensor, labels_M: Tensor) -> Tensor:
    """The place of each label in the order of falling values, from 0, int64 [M]; among equals the
    lower number comes first."""
    value_M1 = values_MC.gather(-1, labels_M[:, None])
    numbers = torch.arange(values_MC.shape[1], device=values_MC.device)
    equal_before_MC = (values_MC == value_M1) & (numbers < labels_M[:, None])
    return ((values_MC > value_M1) | equal_before_MC).sum(-1)


@dataclass(frozen=True)
class TeacherScore:
    """A student's logits against a teacher's.

    same: positions where both have the same top class (see `agrees`); kl: the summed
    KL(teacher ‖ student).
    """

    positions: int = 0
    same: float = 0
    kl: float = 0.0

    @classmethod
    def of(cls, student_MC: Tensor, teacher: Logits) -> "TeacherScore":
        """Of a block of positions. student: raw logits [M, C]."""
        targets = teacher.temper(1)
        same_M = agrees(targets, DenseLogits(student_MC, link=teacher.link).temper(1))
        return cls(len(teacher), float(same_M.sum()), float(targets.kl(student_MC).double().sum()))

    def __add__(self, other: "TeacherScore") -> "TeacherScore":
        return TeacherScore(
            self.positions + other.positions, self.same + other.same, self.kl + other.kl
        )

    @property
    def measures(self) -> dict[str, float]:
        """agreement: the share of the positions where the top classes are the same; kl: the mean.
        Empty without positions."""
        if not self.positions:
            return {}
        return {"agreement": self.same / self.positions, "kl": self.kl / self.positions}


@dataclass(frozen=True, eq=False)
class Diversity:
    """How the answers of K teachers to the same positions differ, pair by pair, at T = 1.

    same: positions where both have the same top class (see `agrees`), float64 [K, K]; kl: the
        summed KL(row ‖ column), float64 [K, K].
    """

    positions: int
    same: Tensor
    kl: Tensor

    @classmethod
    def none(cls, teachers: int) -> "Diversity":
        zeros = torch.zeros(teachers, teachers, dtype=torch.float64)
        return cls(0, zeros, zeros)

    @classmethod
    def of(cls, teachers: Sequence[Logits]) -> "Diversity":
        """Of a block of positions. teachers: of any codecs, over the same classes."""
        soft = [logits.temper(1) for logits in teachers]
        top = [decided(targets) for targets in soft]
        logs = [targets.log_outcomes() for targets in soft]
        p = [log.exp() for log in logs]
        found = cls.none(len(soft))
        same, kl = found.same.clone(), found.kl.clone()
        for i in range(len(soft)):
            for j in range(i):
                same[i, j] = same[j, i] = _share_equal(top[i], top[j]).sum()
                difference = logs[i] - logs[j]
                # what has no probability counts as 0, though its logarithm is −inf
                kl[i, j] = (p[i] * difference).nansum(-1).double().sum()
                kl[j, i] = (p[j] * -difference).nansum(-1).double().sum()
        same.fill_diagonal_(len(teachers[0]))
        return cls(len(teachers[0]), same, kl)

    def __add__(self, other: "Diversity") -> "Diversity":
        return Diversity(
            self.positions + other.positions, self.same + other.same, self.kl + other.kl
        )

    @property
    def measures(self) -> dict[str, float]:
        """agreement: the mean over all pairs of teachers of the share of the positions where their
        top classes are the same; kl: that of their mean KL, over both directions. Empty without
        positions, and for one teacher."""
        pairs = self.pairs
        if not pairs:
            return {}
        means = [(pair["agreement"], (pair["kl"] + pair["kl_back"]) / 2) for pair in pairs]
        agreement, kl = (math.fsum(values) / len(pairs) for values in zip(*means, strict=True))
        return {"agreement": agreement, "kl": kl}

    @property
    def pairs(self) -> list[dict[str, float]]:
        """Of each pair of teachers: first and second, their numbers; agreement; kl, the mean
        KL(first ‖ second); kl_back, the mean KL(second ‖ first)."""
        if not self.positions:
            return []
        same, kl = ((sums / self.positions).tolist() for sums in (self.same, self.kl))
        return [
            {"first": i, "second": j, "agreement": same[i][j], "kl": kl[i][j], "kl_back": kl[j][i]}
            for i in range(len(same))
            for j in range(i + 1, len(same))
        ]


@dataclass(frozen=True)
class Uncertainty:
    """The summed entropy of soft targets, in nats."""

    positions: int = 0
    entropy: float = 0.0

    @classmethod
    def of(cls, targets: SoftTargets) -> "Uncertainty":
        """Of a block of positions."""
        entropy_M = targets.entropy()
        return cls(len(entropy_M), float(entropy_M.double().sum()))

    def __add__(self, other: "Uncertainty") -> "Uncertainty":
        return Uncertainty(self.positions + other.positions, self.entropy + other.entropy)

    @property
    def measures(self) -> dict[str, float]:
        """entropy: the mean. Empty without positions."""
        return {"entropy": self.entropy / self.positions} if self.positions else {}


@dataclass(frozen=True, eq=False)
class Softness:
    """Entropies of soft targets: how many lie in each of 50 equal parts from 0 to the most, log C
    nats, or C·log 2 of multi-label targets, each part with its upper edge. counts: int64 [50]."""

    counts: Tensor = field(default_factory=lambda: torch.zeros(PARTS, dtype=torch.int64))

    @classmethod
    def of(cls, targets: SoftTargets, classes: int) -> "Softness":
        """Of a block of positions."""
        most = max(most_entropy(classes, targets.link), 1e-9)  # that of a single class is always 0
        part_M = in_bins(targets.entropy().cpu() / most, PARTS)
        return cls(part_M.bincount(minlength=PARTS))

    def __add__(self, other: "Softness") -> "Softness":
        return Softness(self.counts + other.counts)


def most_entropy(classes: int, link: Link) -> float:
    """The largest entropy of soft targets, in nats: log C, or of C labels C·log 2."""
    return math.log(classes) if link == "softmax" else classes * math.log(2)


def is_like_guessing(
    correct: int, labelled: int, classes: int, each: float = 1, positives: int | None = None
) -> bool:
    """Whether an accuracy is one that guessing would give.

    Guessing is right in 1/C of the cases, or where rows have several labels in the mean number of
    them over C, and by three standard deviations at most so far above.
    The views of an input and the positions of a row share a label, and a teacher may answer all of
    them alike: so there are only as many cases as inputs. False for fewer than 20 inputs, and for a
    single class.

    correct, labelled: positions whose top class is their label, and that have one.
    each: how many positions an input has in all of its views, on average.
    positives: how many labels the positions have in all, where they may have several.
    """
    inputs = labelled / each
    if inputs < ENOUGH or classes < 2:
        return False
    chance = (labelled if positives is None else positives) / (labelled * classes)
    deviation = math.sqrt(chance * (1 - chance) / inputs)
    return correct / labelled <= chance + DEVIATIONS * deviation
