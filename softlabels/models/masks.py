"""A transformer that would see padding, since it is given no mask."""

import inspect

from torch import Tensor, nn

from softlabels.errors import TeacherError
from softlabels.models.limits import pad_token


def refuse_unmasked(module: nn.Module, inputs: Tensor, title: str) -> None:
    """Raises TeacherError where a module of transformers is given tokens with padding among them
    and no mask, since it is given one tensor: it would answer, and wrongly (0.72 in place of 0.99
    of a test's labels were right)."""
    if inputs.is_floating_point() or inputs.ndim != 2:
        return
    pad = pad_token(module)
    if pad is None or "attention_mask" not in inspect.signature(module.forward).parameters:
        return
    padded = int((inputs == pad).any(1).sum())
    if padded:
        raise TeacherError(
            f"{title} takes an attention mask and is given none, and {padded:,} of {len(inputs):,} "
            f"rows hold its padding, the token {pad}: it would see padding as words. Call the "
            f"column of tokens input_ids, and put a column attention_mask beside it, 1 for a token "
            f"and 0 for padding, or leave the padding out: rows need not be equally long"
        )
