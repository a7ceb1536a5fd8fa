"""The choice of a preprocessing, and warnings about what looks wrong in it.

Shapes: N inputs of a sample.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from softlabels.errors import UsageError
from softlabels.inputs.examples import Examples
from softlabels.inputs.preprocess import DEFAULTS, Preprocess
from softlabels.inputs.sources import Source
from softlabels.inputs.text_inputs import TextInputs
from softlabels.inputs.token_inputs import TokenInputs, of_tokenizer
from softlabels.models.named import NumberColumns
from softlabels.system.progress import Progress

UNIT, PIXELS = 1.0, 255.0
MODES = {"L": "|grey|", "RGB": "|rgb|"}  # by the mode of a `datasets` Image feature, if it has one


@dataclass(frozen=True)
class Chosen:
    """A preprocessing and who chose it, such as "by default"."""

    preprocess: Preprocess
    origin: str = ""

    def __str__(self) -> str:
        text = str(self.preprocess)
        origin = f", {self.origin}" if self.origin else ""
        return (f"preprocessing {text}" if text else "no preprocessing") + origin


def choose(
    source: Source, given: Any, remembered: str | None = None, of: str = "", unasked: str = ""
) -> Chosen:
    """The preprocessing that the user gave, else the one that the file `of` remembers, else the
    default for such inputs. Raises UsageError for a text that can't be parsed, and for a function
    that is not here.

    given: text, or a function
    unasked: what messages call a model that is an object, and so says nothing of pictures: a
    default would be a guess, and Python shows no messages. Raises UsageError.
    """
    if given is not None:
        preprocess = Preprocess.of(given).check_here("that text stands for what")
        if source.kind == "text" and not preprocess.is_opaque and str(preprocess):
            raise UsageError(
                f"--preprocess is {str(preprocess)!r}, and the inputs of {source.data!r} are "
                f"texts: leave it out, or give a function in Python, from a text to its numbers"
            )
        return Chosen(_of_tokens(preprocess, source))
    if remembered is not None:
        return Chosen(_of_tokens(Preprocess.parse(remembered).check_here(of), source), f"from {of}")
    if unasked and source.kind == "image":
        raise UsageError(
            f"{unasked} is in memory and does not say how pictures become its inputs. Say it with "
            f"preprocess=: as text, such as 'rgb|resize(256)|center_crop(224)|scale(255)|"
            f"normalize(…)', or as a function, such as the transform of the model's library; "
            f"'upright|scale(255)' leaves pictures as they are, from 0 to 1"
        )
    feature = source.table.features[source.columns.inputs[0]]
    mode = MODES.get(getattr(feature, "mode", None) or "", "|")
    default = DEFAULTS[source.kind].replace("|", mode)
    return Chosen(Preprocess.parse(default), "by default" if source.kind != "columns" else "")


def _of_tokens(preprocess: Preprocess, source: Source) -> Preprocess:
    """Itself. Raises UsageError for steps that make no sense of columns of tokens."""
    if source.kind == "tokens" and not (preprocess.keeps_tokens or preprocess.is_opaque):
        raise UsageError(
            f"the preprocessing is {str(preprocess)!r}, and the inputs of {source.data!r} are "
            f"tokens, in {', '.join(source.columns.inputs)}: leave --preprocess out, or write "
            f"'tokens(N)', where N is the token that rows are padded with"
        )
    return preprocess


def differing(given: Any, remembered: str, of: str) -> list[str]:
    """A warning where the user's preprocessing is another than that of the model."""
    ours, theirs = str(Preprocess.of(given)), str(Preprocess.parse(remembered))
    if ours == theirs:
        return []
    return [f"warning: --preprocess is {ours}, and {of} says {theirs}: yours is used"]


def remarks(examples: Examples | TextInputs | TokenInputs, origin: str = "") -> list[str]:
    """The chosen preprocessing with what it makes of the first inputs, and warnings; nothing of
    texts, which stay as they are."""
    if isinstance(examples, TextInputs):
        return []
    if isinstance(examples, TokenInputs):
        return [examples.remark()]
    preprocess = examples.preprocess
    if preprocess.is_tokenizer:  # of a stream, whose longest text is not known yet
        return [of_tokenizer(preprocess)]
    raw_N: Any = examples.sample(2)
    if isinstance(raw_N, NumberColumns):
        return [f"{Chosen(preprocess, origin)}: inputs by name {preprocess.on_numbers(raw_N)}"]
    if raw_N.ndim != 4:  # numbers are cheap to read, and two rows of them say little
        raw_N = examples.sample(64)
    inputs_N = preprocess.on_numbers(raw_N)
    line = (
        f"{Chosen(preprocess, origin)}: inputs {list(inputs_N.shape[1:])} "
        f"from {float(inputs_N.min()):.3g} to {float(inputs_N.max()):.3g}"
    )
    return [line, *(f"warning: {doubt}" for doubt in doubts(preprocess, raw_N))]


def introduce(
    progress: Progress, examples: Examples | TextInputs | TokenInputs, origin: str = ""
) -> None:
    """Show these remarks to the user."""
    for remark in remarks(examples, origin):
        progress.say(remark)


def doubts(preprocess: Preprocess, raw_N: Tensor) -> Iterator[str]:
    """Warnings about the steps on numbers, for inputs [N, …] as stored."""
    low, high = _range(raw_N)
    for call in preprocess.numbers:
        values = f"{'pixels' if raw_N.ndim == 4 else 'numbers'} of {low:.3g} to {high:.3g}"
        if call.name == "scale":
            if high <= UNIT and call.args[0] >= 16:
                yield (
                    f"{values} are divided by {call.args[0]:g}, which leaves "
                    f"{high / call.args[0]:.2g} at most: take one {call} out of {preprocess}"
                )
            low, high = low / call.args[0], high / call.args[0]
        elif call.name == "normalize":
            means, stds = (_numbers(arg) for arg in call.args)
            largest = max(map(abs, means + stds))
            shown = f"{values} are normalized with mean {means[0]:g} and std {stds[0]:g}"
            if high >= 16 and low >= 0 and largest <= UNIT and stds != [UNIT]:
                yield f"{shown}, as if they were 0 to 1: add scale(255) before {call}"
            elif high <= UNIT and max(map(abs, means)) > 2:
                yield f"{shown}, as if they were 0 to 255: leave scale(255) out"
            return


def _range(raw_N: Tensor) -> tuple[float, float]:
    """The smallest and the largest value. For bytes, and whole numbers that could be bytes, the
    range of a byte."""
    if raw_N.dtype == torch.uint8:
        return 0.0, PIXELS
    low, high = float(raw_N.min()), float(raw_N.max())
    whole = not raw_N.is_floating_point() or bool((raw_N == raw_N.round()).all())
    return (0.0, PIXELS) if whole and low >= 0 and 16 < high <= PIXELS else (low, high)


def _numbers(arg: float | tuple[float, ...]) -> list[float]:
    return list(arg) if isinstance(arg, tuple | list) else [arg]
