"""Where a teacher's rows of tokens are padded: where a row's answer stays that of the row alone."""

from torch import Tensor

from softlabels.errors import TeacherError
from softlabels.models.keywords import keywords_of
from softlabels.models.limits import is_pretrained
from softlabels.models.padding import find_side
from softlabels.models.tokens import Tokens
from softlabels.teachers.probing import steady_limit
from softlabels.teachers.teacher import Teacher


def choose_side(
    teacher: Teacher, tokens: Tokens, side: str, precision: str, even: bool = False
) -> str:
    """Set the side on which the teacher's rows are padded, as `find_side` finds it. A remark where
    it is not the tokenizer's, or ''.

    A teacher that takes no mask gets no padded row. One of which no configuration says how it is
    padded gets none either, where padding changes its answers on both sides.

    Raises TeacherError where a model of transformers sees padding as text, on either side.
    """
    if not keywords_of(teacher.module).masked:
        return ""

    def logits(rows: Tokens, at: str) -> Tensor:
        teacher.side = at
        return teacher.logits(rows, precision)

    limit = steady_limit(teacher, precision)
    try:
        teacher.side, remark = find_side(
            logits, tokens, side, teacher.title, limit, teacher.link, even
        )
    except TeacherError:
        if is_pretrained(getattr(teacher.module, "held", teacher.module)):
            raise
        teacher.apart = True
        return (
            f"padding beside a row changes the answers of {teacher.title} on either side, so rows "
            f"of one length alone are answered together. If it has a token of its own for padding, "
            f"say so: --preprocess 'tokens(N)'"
        )
    return remark
