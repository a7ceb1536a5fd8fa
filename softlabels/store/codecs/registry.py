"""Codecs by their names in a plan: `dense`, or `name:argument`."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

from softlabels.errors import UsageError
from softlabels.soft_targets import Link
from softlabels.store.codecs.codec import Codec
from softlabels.store.codecs.dense import DTYPES, DenseCodec
from softlabels.store.codecs.int8 import Int8Codec
from softlabels.store.side_files import SideFiles

Maker = Callable[[str, int, str, SideFiles], Codec]
"""What is behind the colon, or ''; the number of classes; the plan's dtype; its side files."""


def _plain(kind: Callable[[int, str], Codec]) -> Maker:
    """The maker of a codec without an argument and side files."""

    def make(argument: str, classes: int, dtype: str, side_files: SideFiles) -> Codec:
        if argument:
            raise UsageError(f"the codec has the argument {argument!r}, and takes none")
        return kind(classes, dtype)

    return make


CODECS: dict[str, Maker] = {"dense": _plain(DenseCodec), "int8": _plain(Int8Codec)}


def parse_codec(
    text: str,
    classes: int,
    dtype: str,
    side_files: SideFiles | None = None,
    link: Link = "softmax",
) -> Codec:
    """Raises UsageError for a codec or dtype that this version does not know, and for a codec that
    can't store logits of this link."""
    name, _, argument = text.partition(":")
    if name not in CODECS or dtype not in DTYPES:
        raise UsageError(
            f"codec {text!r} with {dtype!r} is unknown here; it knows {', '.join(CODECS)}. Write "
            f"one of these, or update softlabels"
        )
    codec: Codec = CODECS[name](argument, classes, dtype, side_files or SideFiles())
    if link == codec.link:
        return codec
    if link not in codec.links:
        raise UsageError(
            f"the codec {text} stores logits of one class among several, and this teacher is "
            f"multi-label; use --codec dense or int8"
        )
    return cast(Codec, replace(cast(Any, codec), link=link))
