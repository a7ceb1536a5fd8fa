"""Codecs by the name that a plan has: `dense`, or `name:argument`."""

from collections.abc import Callable

from softlabels.errors import UsageError
from softlabels.store.codecs.codec import Codec
from softlabels.store.codecs.dense import DTYPES, DenseCodec

Maker = Callable[[str, int, str], Codec]
"""What is behind the colon, or ''; the number of classes; the plan's dtype → a codec."""


def make_dense(argument: str, classes: int, dtype: str) -> Codec:
    if argument:
        raise UsageError(f"--codec is dense:{argument}; dense has no argument")
    return DenseCodec(classes, dtype)


CODECS: dict[str, Maker] = {"dense": make_dense}


def parse_codec(text: str, classes: int, dtype: str) -> Codec:
    """Raises UsageError for a codec or dtype that this version does not know."""
    name, _, argument = text.partition(":")
    if name not in CODECS or dtype not in DTYPES:
        raise UsageError(f"codec {text!r} with {dtype!r} is unknown here; update softlabels")
    return CODECS[name](argument, classes, dtype)
