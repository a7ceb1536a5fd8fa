"""Where a teacher's rows of tokens are padded: where a row's answer stays that of the row alone."""

from torch import Tensor

from softlabels.models.padding import find_side
from softlabels.models.tokens import Tokens
from softlabels.teachers.probing import steady_limit
from softlabels.teachers.teacher import Teacher


def choose_side(teacher: Teacher, tokens: Tokens, side: str, precision: str) -> str:
    """Set the side on which the teacher's rows are padded, as `find_side` finds it. A remark where
    it is not the tokenizer's, or ''. Raises TeacherError where padding changes its answers."""

    def logits(rows: Tokens, at: str) -> Tensor:
        teacher.side = at
        return teacher.logits(rows, precision)

    limit = steady_limit(teacher, precision)
    teacher.side, remark = find_side(logits, tokens, side, teacher.title, limit, teacher.link)
    return remark
