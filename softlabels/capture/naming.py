"""What a dump calls the teacher's classes, and who says so. C classes."""

from dataclasses import dataclass, replace
from typing import Literal

from softlabels.errors import UsageError
from softlabels.inputs.class_names import read_class_names
from softlabels.inputs.sources import Source
from softlabels.label_spaces import told_apart
from softlabels.system.humanize import few


@dataclass(frozen=True)
class ClassNames:
    """The names of class 0, 1, …; None where they are unknown.

    come_from: whose names these are, as the plan has it
    file: the file that they stand in, for messages
    """

    names: list[str] | None = None
    come_from: Literal["data", "model", "file"] = "data"
    file: str = ""

    def check_count(self, classes: int, teacher: str) -> None:
        """Raises UsageError where a file, or the model itself, names another number of classes than
        there are. What the data name is compared elsewhere."""
        if self.names is None or self.come_from == "data" or len(self.names) == classes:
            return
        counts = f"{len(self.names):,} names, and {teacher} gives {classes:,} logits a row"
        remedy = "name each class once, in the order of the logits"
        if self.come_from == "file":
            raise UsageError(f"--class-names {self.file} has {counts}; {remedy}")
        raise UsageError(f"its own list has {counts}; {remedy}, in a file for --class-names")


def names_of_teacher(file: str | None, own: list[str] | None) -> tuple[ClassNames, list[str]]:
    """The teacher's names, of a file before its own; and remarks."""
    if file is not None:
        names = read_class_names(file)
        instead = f", in place of the model's own, {few(own)}" if own and own != names else ""
        remark = f"class names from {file}{instead}: {few(names)}"
        return ClassNames(names, "file", file), [remark]
    if own is None:
        return ClassNames(), []
    apart = told_apart(own)
    twins = [told for name, told in zip(own, apart, strict=True) if name != told]
    remark = f"the model has classes of one name, which get their numbers: {few(twins)}"
    return ClassNames(apart, "model"), [remark] * bool(twins)


def names_of_dump(source: Source, teacher: ClassNames) -> ClassNames:
    """Those of the data where their labels are the teacher's classes, else the teacher's."""
    if source.class_names is None or source.own_labels:
        return teacher
    if source.class_names == teacher.names:
        return replace(teacher, come_from="data") if teacher.come_from == "model" else teacher
    return ClassNames(source.class_names)


def taken_as_numbered(source: Source, names: list[str] | None) -> list[str]:
    """What is taken for granted where labels are numbers and the teacher has names for them."""
    if not names or not source.labelled or source.own_labels or source.class_names is not None:
        return []
    shown = ", ".join(f"{i} is {name!r}" for i, name in enumerate(names[:3]))
    return [f"labels of {source.name} are numbers, taken as the teacher's: {shown}"]
