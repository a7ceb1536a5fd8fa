"""What tokens a model of transformers takes: how many there are, how many in a row, and which one
is padding."""

import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from torch import nn

from softlabels.errors import TeacherError


@dataclass(frozen=True)
class Limits:
    """vocabulary: tokens that it knows; longest: in a row; pad: the token of padding. None for what
    the model does not say."""

    vocabulary: int | None = None
    longest: int | None = None
    pad: int | None = None


def limits_of(module: Any) -> Limits:
    """Those of a model of transformers; nothing of any other module."""
    held: Any = getattr(module, "held", module)
    if not is_pretrained(held):
        return Limits()
    inputs = None
    with suppress(NotImplementedError):  # of models without such a table, as CANINE
        inputs = held.get_input_embeddings()
    known = getattr(inputs, "num_embeddings", getattr(held.config, "vocab_size", None))
    return Limits(known, _positions(held), pad_token(held))


def reader_in(module: Any) -> Any:
    """The model of transformers that reads tokens: the module itself, or one inside it, such as an
    encoder under a head. None where there is none."""
    held = getattr(module, "held", module)
    parts = held.modules() if isinstance(held, nn.Module) else ()
    return next(filter(is_pretrained, parts), None)


def is_pretrained(module: Any) -> bool:
    transformers = sys.modules.get("transformers")  # whoever has made one has imported it
    return transformers is not None and isinstance(module, transformers.PreTrainedModel)


def pad_token(module: Any) -> int | None:
    """The token that the module's configuration calls padding."""
    pad = getattr(getattr(module, "config", None), "pad_token_id", None)
    return pad if type(pad) is int else None


def refuse_without_pad(module: Any, title: str) -> int:
    """The token that a model of transformers calls padding. Raises TeacherError where there is
    none."""
    pad = pad_token(getattr(module, "held", module))
    if pad is None:
        raise TeacherError(
            f"the configuration of {title} names no pad token (pad_token_id), so it could not "
            f"tell a row's last token from padding. Set model.config.pad_token_id, such as to "
            f"tokenizer.pad_token_id or tokenizer.eos_token_id, and save it again"
        )
    return pad


def _positions(module: nn.Module) -> int | None:
    """How many places its table of positions has for tokens: RoBERTa's begin behind its
    padding's."""
    most = getattr(module.config, "max_position_embeddings", None)
    if type(most) is not int or most <= 0:
        return None
    for name, part in module.named_modules():
        padding = getattr(part, "padding_idx", None)
        if name.endswith("position_embeddings") and type(padding) is int:
            return most - (padding + 1)
    return most
