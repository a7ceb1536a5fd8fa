"""Label spaces: the classes that numbers stand for, and the comparison of two. C classes."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from softlabels.errors import LabelSpaceMismatch
from softlabels.system.humanize import short

SHOWN = 3  # names in a message
WAYS_OUT = (
    "Labels of other classes than the teacher's are kept apart, as label_source, by --own-labels, "
    "and left out by --no-labels"
)


@dataclass(frozen=True)
class LabelSpace:
    """Classes as a model, a dump or data number them.

    who: its name in messages
    classes: their number, None if it is unknown
    names: the names of class 0, 1, …; None if there are none
    """

    who: str
    classes: int | None
    names: list[str] | None

    def __str__(self) -> str:
        if self.names is None:
            return f"{self.who} has {self.classes:,} classes without names"
        shown = ", ".join(repr(short(name)) for name in self.names[:SHOWN])
        more = ", …" if len(self.names) > SHOWN else ""
        noun = "class" if len(self.names) == 1 else "classes"
        return f"{self.who} has {len(self.names):,} {noun} ({shown}{more})"


@dataclass(frozen=True)
class Match:
    """Two label spaces of the same classes.

    order: our number of each class of theirs; None if both number them alike
    note: a remark for the user, if there is one
    """

    order: list[int] | None = None
    note: str | None = None


def match_label_spaces(ours: LabelSpace, theirs: LabelSpace) -> Match:
    """Raises LabelSpaceMismatch if their classes, or the counts of their classes, differ."""
    if ours.names is None or theirs.names is None:
        if None not in (ours.classes, theirs.classes) and ours.classes != theirs.classes:
            raise LabelSpaceMismatch(f"{ours}, {theirs}: these are not the same classes")
        nameless = " and ".join(space.who for space in (ours, theirs) if space.names is None)
        return Match(note=f"class names of {nameless} unknown, numbers compared")
    if ours.names == theirs.names:
        return Match()
    if len(set(ours.names)) < len(ours.names) or sorted(ours.names) != sorted(theirs.names):
        raise LabelSpaceMismatch(
            f"{ours}, {theirs}: {_difference(ours, theirs)}. "
            f"Use data of the same classes, with the same names"
        )
    number = {name: i for i, name in enumerate(ours.names)}
    order = [number[name] for name in theirs.names]
    first = next(i for i, other in enumerate(order) if other != i)
    return Match(
        order,
        f"{theirs.who} has the classes of {ours.who} in another order: class {first} is "
        f"{theirs.names[first]!r} there and {ours.names[first]!r} here",
    )


def spelled_otherwise(name: str, names: Sequence[str]) -> str:
    """`is spelled 'cat' by the other: …` if a name differs only in case and blanks; else empty."""
    for other in names:
        if other != name and other.strip().casefold() == name.strip().casefold():
            return f"is spelled {other!r} by the other: bring the names into one spelling"
    return ""


def _difference(ours: LabelSpace, theirs: LabelSpace) -> str:
    mine, others = ours.names or [], theirs.names or []
    strange = [name for name in others if name not in mine]
    missing = [name for name in mine if name not in others]
    if not strange and not missing:
        return "a name that comes twice can't be matched in another order"
    for name in strange:
        if spelled_otherwise(name, mine):
            return f"{name!r} of {theirs.who} {spelled_otherwise(name, mine)}"
    if strange:
        return f"{strange[0]!r} of {theirs.who} is no class of {ours.who}"
    return f"{missing[0]!r} of {ours.who} is no class of {theirs.who}"


def told_apart(names: Sequence[str]) -> list[str]:
    """Class names of which none comes twice: twins get their numbers, as 'crane (134)'. ImageNet
    has two cranes, and a ClassLabel can't hold both."""
    counts = Counter(names)
    return [f"{name} ({i})" if counts[name] > 1 else name for i, name in enumerate(names)]
