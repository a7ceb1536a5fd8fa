"""Where rows of tokens are padded: where a row's answer stays that of the row alone."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from softlabels.errors import TeacherError
from softlabels.models.tokens import IDS, Tokens
from softlabels.soft_targets import Link, total_variation

TRIED = 6  # rows of several lengths
ROUNDING, MANY = 1e-6, 4  # of a probability; times of what is on the other side


def find_side(
    logits: Callable[[Tokens, str], Tensor],
    tokens: Tokens,
    side: str,
    title: str,
    limit: float,
    link: Link = "softmax",
    even: bool = False,
) -> tuple[str, str]:
    """The side on which a model's rows are padded: that of its tokenizer, if rows of several
    lengths get the answers that each gets alone and unpadded, else the other; and a remark where it
    is the other, or ''.

    logits: (tokens, side) → [N, C]
    side: the tokenizer's
    title: what messages call the model
    limit: the largest difference of a probability that is rounding
    even: whether all rows of the data have one length, so that none is ever padded

    Raises TeacherError where padding changes answers on either side: the model sees it as text.
    """
    by_length = np.argsort(tokens.lengths, kind="stable")
    places = np.linspace(0, len(tokens) - 1, min(TRIED, len(tokens))).round().astype(int)
    rows = tokens[by_length[np.unique(places)]]
    if not even:
        rows = _of_several_lengths(rows)
    alone = [logits(rows[np.array([row])], side) for row in range(len(rows))]
    alone_NC = torch.cat(alone).cpu()
    sides = [side, "left" if side == "right" else "right"]
    moved_N = [total_variation(logits(rows, at).cpu(), alone_NC, link) for at in sides]
    own, other = (float(moved.nan_to_num(nan=1.0).max()) for moved in moved_N)
    # Positions that padding moves may change an answer by less than the limit.
    moves = own > limit or (own > ROUNDING and own > MANY * other)
    if (other if moves else own) <= limit:
        return sides[moves], (
            f"rows are padded on the {sides[1]}, though the tokenizer pads on the {side}: there a "
            f"probability would differ by up to {own:.2g} from that of the row alone"
        ) * moves
    raise TeacherError(
        f"{title} answers otherwise to a row with padding beside it, though it is given a "
        f"mask: a probability differs by {own:.2g} with padding on the {side} and by "
        f"{other:.2g} on the other side (rounding: {limit:g} at most). Does its forward use "
        f"attention_mask?"
    )


def _of_several_lengths(rows: Tokens) -> Tokens:
    """The rows; where all have one length, as the first rows of sorted data may, a shorter one
    beside them: else no row would be padded here, and those to come would be."""
    length = int(rows.lengths[0])
    if (rows.lengths != length).any():
        return rows
    first = rows[[0]]
    ids, every = first.columns[IDS], np.arange(length)
    # Some models count the token that ends a text, or each text of a pair: all of these stay.
    inner = every[1:-1][ids[1:-1] != ids[-1]]
    places = np.setdiff1d(every, inner[: length // 2])
    if len(places) == length:  # it has no other token
        places = every[1:] if length > 1 else np.zeros(2, np.int64)
    columns = {name: values[places] for name, values in first.columns.items()}
    return Tokens.joined([rows, replace(first, columns=columns, lengths=np.array([len(places)]))])
