"""What changed from one model to another, in sentences."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from softlabels.reports.contrast import At
from softlabels.reports.flips import Flips
from softlabels.system.humanize import counted, measured, short

CLASS = 24  # characters of a name
HALF = 0.5
MOST_CLASSES = 3  # that are named where they have half of the changes
ENOUGH = 4  # changes, before it is said where they are
SMALL = 0.001  # of a mean KL: what storing made of it is not worth a word
DEVIATIONS = 2  # of a difference, before it is more than chance


def of_distances(temperatures: Sequence[At]) -> Iterator[str]:
    """How far soft targets are apart, and whether that is more than storing them made."""
    first = temperatures[0]
    if all(at.kl["max"] == 0 for at in temperatures):
        yield "The soft targets of A and B are the same in all rows."
        return
    kl = first.kl
    yield (
        f"At T = {first.T:g} the mean KL is {kl['mean']:.3g} nats; it is below {kl['p99']:.3g} in "
        f"99 % of the rows, and {kl['max']:.3g} at most."
    )
    if first.is_of_storage:
        yield (
            f"Storing the logits made about {first.storage:.2g} by itself, so the models may be "
            f"the same; dumps with --dtype float32 show smaller differences."
        )
    elif first.storage is not None and first.storage > SMALL * kl["mean"]:
        yield f"Storing the logits made about {first.storage:.2g} of it."


def of_changes(flips: Flips, several: bool) -> Iterator[str]:
    """How many decisions differ, and in which classes."""
    if not flips.changed:
        what = "decides every label of every row" if several else "has the first class of every row"
        yield f"B {what} as A does."
        return
    share = f"{_percent(flips.share)} % of the {'labels of rows' if several else 'rows'}"
    count = f"({flips.changed:,} of {flips.decisions:,})"
    verb = "decides otherwise about" if several else "gives another first class in"
    yield f"B {verb} {share} {count}{_where(flips, several)}."


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
        noun = "class" if count == 1 else "classes"
        return f"; {part} of those are rows to which A gives the {noun} {names}" * (not several) + (
            f"; {part} of those are of the {'label' if count == 1 else 'labels'} {names}" * several
        )
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
        what = "row" if name == "accuracy" else "label of a row"
        if not lost + won:
            yield f"{title} {measured(before)} → {measured(after)}."
            continue
        chance = ""
        # McNemar 1947: where both are equally good, lost − won has a variance of lost + won
        if name == "accuracy" and independent:
            is_chance = abs(lost - won) <= DEVIATIONS * math.sqrt(lost + won)
            chance = f", {'no ' * is_chance}more than chance makes"
        yield (
            f"{title} {measured(before)} → {measured(after)}: {counted(lost, what)} became wrong, "
            f"{won:,} right{chance}."
        )


def _percent(share: float) -> str:
    """`12`, `0.4`, `0.031`: two digits."""
    percent = 100 * share
    return f"{percent:.0f}" if percent >= 10 else f"{percent:.2g}"
