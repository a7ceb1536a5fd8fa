"""Where a teacher's rows of tokens are padded: where a row's answer stays that of the row alone."""

import numpy as np
import torch

from softlabels.errors import TeacherError
from softlabels.models.tokens import Tokens
from softlabels.teachers.probing import difference, steady_limit
from softlabels.teachers.teacher import Teacher

TRIED = 6  # rows of several lengths
ROUNDING, MANY = 1e-6, 4  # of a probability; times of what is on the other side


def choose_side(teacher: Teacher, tokens: Tokens, side: str, precision: str) -> str:
    """Set the side on which the teacher's rows are padded: that of its tokenizer, if rows of
    several lengths get the answers that each gets alone and unpadded, else the other. A remark
    where it is the other, or ''.

    Raises TeacherError where padding changes answers on either side: the teacher sees it as text.
    """
    by_length = np.argsort(tokens.lengths, kind="stable")
    places = np.linspace(0, len(tokens) - 1, min(TRIED, len(tokens))).round().astype(int)
    rows = tokens[by_length[np.unique(places)]]
    alone = [teacher.logits(rows[np.array([row])], precision) for row in range(len(rows))]
    alone_NC = torch.cat(alone).cpu()
    sides = [side, "left" if side == "right" else "right"]
    sizes = []
    for teacher.side in sides:
        padded_NC = teacher.logits(rows, precision).cpu()
        sizes.append(difference("padded", padded_NC, alone_NC, teacher.link).size)
    limit, (own, other) = steady_limit(teacher, precision), sizes
    # Positions that padding moves may change an answer by less than the limit.
    moved = own > limit or (own > ROUNDING and own > MANY * other)
    teacher.side = sides[moved]
    if sizes[moved] <= limit:
        return (
            f"rows are padded on the {sides[1]}, though the tokenizer pads on the {side}: there a "
            f"probability would differ by up to {own:.2g} from that of the row alone"
        ) * moved
    raise TeacherError(
        f"{teacher.title} answers otherwise to a row with padding beside it, though it is given a "
        f"mask: a probability differs by {own:.2g} with padding on the {side} and by "
        f"{other:.2g} on the other side (rounding: {limit:g} at most). Does its forward use "
        f"attention_mask?"
    )
