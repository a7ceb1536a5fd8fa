"""Whether a model takes rows of so many tokens: its configuration may name fewer than it takes."""

import torch
from torch import nn

from softlabels.models.keywords import keywords_of
from softlabels.models.limits import limits_of, reader_in
from softlabels.models.tokens import IDS, MASK


def runs_on(module: nn.Module, length: int) -> bool:
    """Whether a model runs on a row of so many tokens, by trying it: a table of positions ends,
    while relative and rotary positions go on beyond the number that a configuration names. A model
    on another device than the CPU is not tried: an index beyond a table ends a process's CUDA."""
    tensors = list(module.parameters())
    if any(tensor.device.type != "cpu" for tensor in tensors):
        return False
    reader = reader_in(module)
    pad = limits_of(reader).pad
    row = torch.full((1, length), 1 if pad == 0 else 0)
    end = getattr(getattr(reader, "config", None), "eos_token_id", None)
    if type(end) is int:  # which some models want in each row
        row[0, -1] = end
    place, named = keywords_of(module).chosen({IDS: row, MASK: torch.ones_like(row)})
    was_training = module.training
    try:
        with torch.inference_mode():
            module.eval()(*place, **named)
    except Exception:  # of the model's own code
        return False
    finally:
        module.train(was_training)
    return True
