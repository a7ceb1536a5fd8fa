"""What stage one knows of a teacher, and what it refuses of one. C classes."""

import re
from dataclasses import dataclass

from softlabels.errors import LabelSpaceMismatch, TeacherError
from softlabels.label_spaces import WAYS_OUT, LabelSpace, match_label_spaces
from softlabels.models.model import Model
from softlabels.models.outputs import ONE_LOGIT
from softlabels.soft_targets import Link


@dataclass(kw_only=True, repr=False)
class Teacher(Model):
    """A model whose answers are stored.

    fingerprint: `sha256:` of its file
    link: what makes probabilities of its logits
    """

    fingerprint: str
    link: Link = "softmax"

    @property
    def title(self) -> str:
        return f"the teacher {self.name}"

    def check_classes(self, classes: int, class_names: list[str] | None) -> None:
        """Raises TeacherError for another number of classes than the data has, and for one."""
        if classes == 1 and self.link == "softmax":
            raise TeacherError(
                f"{self.title} gives one number a row, whose softmax is always 1, and a dump has a "
                f"logit for each class. {ONE_LOGIT}"
            )
        if class_names is not None and len(class_names) != classes:
            raise TeacherError(
                f"{self.title} has {classes} classes, "
                f"{LabelSpace('the data', len(class_names), class_names)}; use the data that it "
                f"was trained for. {WAYS_OUT}"
            )


# What files of teachers are called that say nothing of the teacher.
PLAIN_NAMES = re.compile(
    r"t|teacher|logits|probs|(pytorch_|best_|final_)?model(_best|_final)?|weights|state_dict"
    r"|checkpoint|ckpt|best|last|final",
    re.IGNORECASE,
)


def suggest_name(name: str, what: str = "file") -> list[str]:
    """A remark where a name taken from the file, or the class, says little, such as `model`; else
    nothing."""
    if not PLAIN_NAMES.fullmatch(name):
        return []
    return [
        f"the teacher's name in the records and on the card is {name!r}, after its {what}; give "
        f"another with --name, such as --name resnet50-a1"
    ]


def check_class_names(model: str, ours: list[str] | None, theirs: list[str] | None) -> None:
    """Raises LabelSpaceMismatch where a teacher and the data name other classes, or the same in
    another order: a dump has one."""
    if ours and theirs:
        teacher = LabelSpace(f"the teacher {model}", len(ours), ours)
        try:
            matched = match_label_spaces(teacher, LabelSpace("the data", len(theirs), theirs))
        except LabelSpaceMismatch as error:
            raise LabelSpaceMismatch(f"{error}. {WAYS_OUT}") from error
        if matched.order is not None:
            raise LabelSpaceMismatch(f"{matched.note}. A dump has one: bring the data into it")
