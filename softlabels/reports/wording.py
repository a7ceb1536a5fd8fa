"""What changed from one model to another, in sentences."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from softlabels.reports.contrast import At
from softlabels.reports.flips import Flips
from softlabels.system.humanize import counted, measured, short

CLASS = 24  # characters of a name
HALF = 0.5
MOST_CLASSES = 3  # that are named where they have half of the changes
ENOUGH = 20  # changes, before it is said where they are
SMALL = 0.001  # of a mean KL: what storing made of it is not worth mentioning
SIGNIFICANT = 0.05  # p below which a difference is called significant
DENSE = ("float16", "float32")  # codecs that store all logits as they are, but for rounding


def verdict(temperatures: Sequence[At], flips: Flips, several: bool) -> str:
    """Whether the two are one model, in a few words: the answer to "Is B still A?"."""
    if all(at.kl["max"] == 0 for at in temperatures):
        return "Yes: the soft targets are the same in all rows."
    if temperatures[0].is_of_storage:
        return (
            "No difference shown: the soft targets are no further apart than storing the logits "
            "explains."
        )
    decisions = "label decisions" if several else "top-1 predictions"
    if not flips.changed:
        return f"By its {decisions}, yes; its soft targets differ."
    if flips.changed == flips.within_rounding:
        return (
            f"By its {decisions}, yes, as far as rounded logits can tell; its soft targets differ."
        )
    return f"No: some of its {decisions} differ."


def of_distances(temperatures: Sequence[At], codecs: Sequence[str]) -> Iterator[str]:
    """How far soft targets are apart, and whether that is more than storing them made. codecs:
    those of both, a dtype where all logits are stored."""
    first = temperatures[0]
    if all(at.kl["max"] == 0 for at in temperatures):
        return
    kl = first.kl
    yield (
        f"At T = {first.T:g} the mean KL is {kl['mean']:.3g} nats; it is below {kl['p99']:.3g} in "
        f"99 % of the rows, and {kl['max']:.3g} at most."
    )
    if first.is_coarse:
        yield (
            f"The logits are rounded too coarsely for T = {first.T:g} to tell storage from a "
            f"difference of the models: compare at a higher T{_finer(codecs, ', or dump ')}."
        )
    elif first.is_of_storage:
        yield (
            f"Storing the logits accounts for about {first.storage:.2g}, so the models may be the "
            f"same{_finer(codecs, '; to see smaller differences, dump ')}."
        )
    elif first.storage is not None and first.storage > SMALL * kl["mean"]:
        yield f"Storing the logits accounts for about {first.storage:.2g} of it."


def _finer(codecs: Sequence[str], before: str) -> str:
    """The options that store logits more exactly; nothing where there are none."""
    if all(codec == "float32" for codec in codecs):
        return ""
    packed = "" if all(codec in DENSE for codec in codecs) else "--codec dense "
    return f"{before}both with {packed}--dtype float32"


def of_changes(flips: Flips, several: bool) -> Iterator[str]:
    """How many decisions differ, and in which classes."""
    decisions = "label decisions" if several else "top-1 predictions"
    if not flips.changed:
        yield f"B makes the same {decisions} as A in all rows."
        return
    count = f"({flips.changed:,} of {flips.decisions:,})"
    yield (
        f"{_percent(flips.share)} % of the {decisions} differ {count}{_where(flips, several)}"
        f"{_by_storage(flips)}."
    )


def _by_storage(flips: Flips) -> str:
    """How many of the changes may not be the model's."""
    if not flips.within_rounding:
        return ""
    every = flips.within_rounding == flips.changed
    many = "all of these" if every else f"{flips.within_rounding:,} of these"
    return f"; rounding in storage alone may explain {many}"


def _where(flips: Flips, several: bool) -> str:
    """The fewest classes that have at least half of the changes, if these are few of all."""
    of_class = {
        one["name"]: one["left"] + one["came"] if several else one["left"] for one in flips.classes
    }
    largest = sorted(of_class, key=lambda name: -of_class[name])
    for count in range(1, MOST_CLASSES + 1):
        named = largest[:count]
        changed = sum(of_class[name] for name in named)
        if changed < HALF * flips.changed:
            continue
        if flips.changed < ENOUGH or 2 * count > len(of_class) / 2:
            return ""
        names = " and ".join(repr(short(name, CLASS)) for name in named)
        part = "all" if changed == flips.changed else "half" if 2 * changed == flips.changed else (
            f"{_percent(changed / flips.changed)} %"
        )  # fmt: skip
        if several:
            return f"; {part} of these are of the {'label' if count == 1 else 'labels'} {names}"
        return f"; A predicts {names} in {part} of these"
    return ""


def of_labels(
    reference: Mapping[str, Any], other: Mapping[str, Any], flips: Flips, independent: bool
) -> Iterator[str]:
    """What became of the accuracy, or of the mean average precision. independent: whether each row
    is an input of its own, so that chance is known."""
    lost, won = flips.right_to_wrong, flips.wrong_to_right
    if lost is None or won is None:
        return
    for name, title in (("accuracy", "Accuracy"), ("map", "Mean average precision")):
        before, after = reference.get(name), other.get(name)
        if before is None or after is None:
            continue
        what = "row" if name == "accuracy" else "label decision"
        if not lost + won:
            yield f"{title} {measured(before)} → {measured(after)}."
            continue
        chance = ""
        if name == "accuracy" and independent:
            p = sign_test(lost, won)
            chance = f"; {'' if p < SIGNIFICANT else 'not '}statistically significant (p = {p:.2g})"
        yield (
            f"{title} {measured(before)} → {measured(after)}: {counted(lost, what)} became wrong, "
            f"{won:,} became right{chance}."
        )


def sign_test(lost: int, won: int) -> float:
    """The two-sided p of so uneven counts where either is as likely: the exact form of McNemar's
    test (McNemar 1947), 2 Σ_{k ≤ min} C(n, k) / 2ⁿ, 1 at most. In logarithms, so that n may be
    large."""
    n = torch.tensor(lost + won, dtype=torch.float64)
    k = torch.arange(min(lost, won) + 1, dtype=torch.float64)
    ways = torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)
    return min(1.0, 2 * float((ways - n * math.log(2)).exp().sum()))


def _percent(share: float) -> str:
    """`12`, `0.4`, `0.031`: two digits."""
    percent = 100 * share
    return f"{percent:.0f}" if percent >= 10 else f"{percent:.2g}"
