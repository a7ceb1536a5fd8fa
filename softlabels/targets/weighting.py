"""Weights of teachers that are mixed: as they are given, or fitted on held-out rows.

K teachers, N rows, C classes.
"""

import math
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import reduce

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from softlabels.errors import UsageError
from softlabels.inputs.label_lists import as_tensor, hidden, known
from softlabels.logits import Logits
from softlabels.mixtures import Space
from softlabels.soft_targets import SoftLabels
from softlabels.system.humanize import counted, few
from softlabels.targets.holdout import FEW
from softlabels.targets.mixed import Teachers

Weights = Mapping[str, float] | Sequence[float] | str | None
FIT = "fit"
MOST_VALUES = 1 << 24  # logits that weights are fitted on: thousands of rows say K numbers well
STEPS = 100
LEAST = 1e-4  # of a weight


def is_fit(weights: Weights) -> bool:
    """Whether they are to be fitted."""
    return isinstance(weights, str) and weights == FIT


def checked_weights(weights: Weights, names: Sequence[str]) -> dict[str, float]:
    """The weight of each teacher, divided by their sum; None: all alike.

    weights: by name, or in the order of the names, also as text: `0.7,0.3`

    Raises UsageError for weights that are no numbers, below 0, not finite or all 0, and for others
    than one of each teacher.
    """
    if weights is None:
        return dict.fromkeys(names, 1 / len(names))
    what = f"weights are {weights!r}"
    given: Sequence[float | str] | Mapping[str, float] = (
        weights.split(",") if isinstance(weights, str) else weights
    )
    teachers = f"{counted(len(names), 'teacher')}, {few(list(names), most=8)}"
    if isinstance(given, Mapping):
        strange = [str(name) for name in given if name not in names]
        missing = [name for name in names if name not in given]
        if strange or missing:
            wrong = f"{strange[0]!r} is none" if strange else f"{missing[0]!r} has none"
            raise UsageError(f"{what}: {wrong} of {teachers}; give one of each, 0 leaves it out")
        given = [given[name] for name in names]
    try:
        if isinstance(given, Set):  # whose order is not that of the teachers
            raise TypeError
        numbers = [float(weight) for weight in given]
    except (TypeError, ValueError):
        raise UsageError(f"{what}; expected is a number of each of {teachers}, or fit") from None
    if len(numbers) != len(names):
        raise UsageError(
            f"{what}, which {'is' if len(numbers) == 1 else 'are'} "
            f"{counted(len(numbers), 'weight')}; there are {teachers}: give one of each"
        )
    if not all(math.isfinite(weight) and weight >= 0 for weight in numbers) or not any(numbers):
        raise UsageError(f"{what}; weights are finite numbers of 0 or more, and not all 0")
    parts = [weight / max(numbers) for weight in numbers]  # whose sum is a number, too
    return {name: part / math.fsum(parts) for name, part in zip(names, parts, strict=True)}


@dataclass(frozen=True)
class Fitted:
    """Weights that were fitted.

    weights: of each teacher by name, their sum 1
    rows: the labelled rows that they were fitted on
    nll: the mean −log q of the labels there at T = 1, in nats (summed over labels of a multi-label
        teacher), with these weights; equal: with equal ones; alone: of each teacher by itself
    """

    weights: dict[str, float]
    rows: int
    nll: float
    equal: float
    alone: dict[str, float]

    def __str__(self) -> str:
        shares = ", ".join(f"{name} {weight:.3f}" for name, weight in self.weights.items())
        best = min(self.alone, key=lambda name: self.alone[name])
        return (
            f"weights fitted on {counted(self.rows, 'held-out row')}: {shares}; NLL {self.nll:.4f} "
            f"nats, {self.equal:.4f} by equal weights, {self.alone[best]:.4f} of {best} alone"
        )


def fit_weights(teachers: Teachers, space: Space, rows: np.ndarray) -> Fitted:
    """The weights by which the mixture's NLL on the labels of these rows is smallest, at T = 1.

    In both spaces it is convex in the weights (−log of their linear function, or log Σ exp of one),
    so it has one minimum. Weights below 1/10,000 become 0.

    rows: int64 [N], of which those with a label count. Of so many that memory would be filled,
    some are taken at even distances.

    Raises UsageError where fewer than 30 have a label.
    """
    reader = teachers.base.reader
    labels, names = reader.labels, list(teachers.dumps)
    where = reader.folder
    if labels is not None:
        labels = hidden(labels, reader.mixed)[rows]
        rows, labels = rows[known(labels)], labels[known(labels)]
    if labels is None or len(rows) < FEW:
        raise UsageError(
            f"weights are fitted on held-out rows with labels, and of those of {where} "
            f"{len(rows) if labels is not None else 'none'} have one; {FEW} are needed: give "
            f"weights, or leave them out for equal ones"
        )
    most = max(FEW, MOST_VALUES // (len(names) * teachers.num_classes))
    if len(rows) > most:
        chosen = np.linspace(0, len(rows) - 1, most).astype(np.int64)
        rows, labels = rows[chosen], labels[chosen]
    targets = teachers.columns(rows, inputs=False)["targets"]
    members = [targets[name].to("cpu") for name in names]
    label = as_tensor(labels, teachers.num_classes)
    nll = _of_logits(members, label) if space == "logit" else _of_probs(members, label)

    def at(weights: Sequence[float]) -> float:
        return float(nll(torch.tensor(weights, dtype=torch.float64)))

    count = len(names)
    found = _minimised(nll, count)
    return Fitted(
        dict(zip(names, found, strict=True)),
        len(rows),
        at(found),
        at([1 / count] * count),
        {name: at([float(name == other) for other in names]) for name in names},
    )


Objective = Callable[[Tensor], Tensor]  # from weights, float64 [K], to the mean NLL of the rows


def _of_probs(members: Sequence[Logits], labels: Tensor) -> Objective:
    """Of the mean of what members say: −log Σ_k w_k·p_k, p_k the probability that a member gives a
    label, or of several labels a row that it gives each one's presence or absence."""
    said = []
    for member in members:
        soft = member.temper(1)
        if isinstance(soft, SoftLabels):
            said_MC = torch.where(labels > 0, soft.log_probs(), soft.log_absent())
            said.append(said_MC.flatten().double())
        else:
            said.append(soft.log_probs().gather(-1, labels[:, None])[:, 0].double())

    def nll(weights: Tensor) -> Tensor:
        terms = [log_w + said_P for log_w, said_P in zip(weights.log(), said, strict=True)]
        return -reduce(torch.logaddexp, terms).sum() / len(labels)

    return nll


def _of_logits(members: Sequence[Logits], labels: Tensor) -> Objective:
    """Of Σ_k w_k·z_k."""
    z_KMC = torch.stack([member.dense().double() for member in members])
    several = members[0].link == "sigmoid"

    def nll(weights: Tensor) -> Tensor:
        z_MC = torch.einsum("k,kmc->mc", weights, z_KMC)
        if several:
            total = binary_cross_entropy_with_logits(z_MC, labels.double(), reduction="sum")
        else:
            total = cross_entropy(z_MC, labels, reduction="sum")
        return total / len(labels)

    return nll


def _minimised(nll: Objective, count: int) -> list[float]:
    """The weights, [K], where it is smallest: as squares, which are 0 or more, and divided by their
    sum they may be anything that L-BFGS tries."""
    root_K = torch.ones(count, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [root_K], max_iter=STEPS, tolerance_grad=1e-9, tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure() -> float:
        optimizer.zero_grad()
        loss = nll(root_K**2 / (root_K**2).sum())
        loss.backward()
        return float(loss.detach())

    with torch.enable_grad():
        optimizer.step(closure)
    weights_K = root_K.detach() ** 2
    weights_K /= weights_K.sum()
    weights_K[weights_K < LEAST] = 0
    weights: list[float] = (weights_K / weights_K.sum()).tolist()
    return weights
