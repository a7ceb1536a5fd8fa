"""The steps from a stored input to the numbers that a model sees: `rgb|resize(256)|scale(255)`.

    upright                 turned as its EXIF orientation says; first     on the picture
    eight_bit               16 bits become 8, value // 256; first, or      on the picture
                            after upright. Other pictures stay
    grey, rgb               to one or three channels                       on the picture
    resize(H)               the shorter side is H, the aspect is kept      on the picture
    resize(H, W)            exactly so
    contain(H[, W])         the largest inside H×W, the aspect is kept     on the picture
    cover(H[, W])           the smallest around H×W, the aspect is kept    on the picture
    pad(H[, W][, (r, g, b)])  borders up to H×W, black or of this colour   on the picture
    center_crop(H[, W])     the middle; after `floor` as last argument,    on the picture
                            half a pixel is rounded down, as transformers
                            does, and else to even, as torchvision does
    crop_pct(share, H[, W]) timm's evaluation, of its mode center (the     on the picture
                            default), squash or border, which needs a
                            fill: stands for the words above, of which
                            the text then consists
    jpeg(q)                 through a JPEG of quality q, 4:4:4, as some    on the picture
                            dumps store pictures, see `stored_pictures`
    scale(d)                divide by d                                    on numbers
    normalize(mean, std)    (x − mean) / std; numbers, or one tuple        on numbers
                            entry a channel
    tokens[(pad)]           whole numbers stay whole: int64; of columns    on numbers, alone
                            of tokens, which one rows are padded with
    floats[(name, …)]       of columns that a model takes by name: whole     on numbers, alone
                            numbers as float32, all or those named
    opaque(name, hash)      a function of the user's, see `functions`      alone
    tokenizer(name, hash[, most][, truncate])                              alone
                            of texts: `own` for the model's tokenizer,
                            else its name; its hash, see
                            `models.tokenizers`; the most tokens that the
                            model takes, and whether longer texts are cut

resize, contain, cover and crop_pct take the name of a filter after the sizes, bilinear (the
default), bicubic, …, then that of a resizer: torch (the default for these two filters), or pillow,
which has all. The text of a `Preprocess` says both.

Steps on the picture come first. They give uint8 [C, H, W], one input at a time, and their result is
cached. Steps on numbers run on whole float32 batches, on the training device.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from softlabels.errors import UsageError
from softlabels.inputs.crop_percentage import crop_percentage
from softlabels.inputs.functions import Function
from softlabels.inputs.pictures import (
    FILE,
    LARGEST,
    OF_FILE,
    SCALING,
    SIZED,
    apply_words,
    by_kind,
    channels_first,
    in_full,
)
from softlabels.inputs.rendering import Picture
from softlabels.inputs.resizing import FILTERS, PILLOW, RESIZERS
from softlabels.models.named import NumberColumns
from softlabels.models.tokenizers import Tokenizer
from softlabels.spec import Call, parse_pipeline, short
from softlabels.system.reused_memory import Empty

ON_PICTURE = {
    "upright": (0, 0), "eight_bit": (0, 0), "grey": (0, 0), "rgb": (0, 0), "resize": (1, 4),
    "contain": (1, 4), "cover": (1, 4), "pad": (1, 3), "center_crop": (1, 3), "crop_pct": (2, 7),
    "jpeg": (1, 1),
}  # fmt: skip
ON_NUMBERS = {"scale": (1, 1), "normalize": (2, 2), "tokens": (0, 1), "floats": (0, 1000)}
ALONE = ("tokens", "floats")
OPAQUE = "opaque"
TOKENIZER, TRUNCATE, OWN = "tokenizer", "truncate", "own"
BLOCK_VALUES = 1 << 19  # 2 MiB in float32
DEFAULTS = {"image": "upright|scale(255)", "array": "", "text": "", "tokens": "tokens",
            "columns": ""}  # fmt: skip


@dataclass(frozen=True)
class Preprocess:
    """A parsed pipeline; `str()` gives the text back, with crop_pct as the steps it stands for, and
    with the filter and the resizer of each step that scales.

    function: what `opaque` stands for; None where it is not here
    tokenizer: the one of `tokenizer`, likewise
    done: how many steps the pictures that it is given have behind them, as stored ones may
    """

    picture: tuple[Call, ...]
    numbers: tuple[Call, ...]
    function: Function | None = None
    tokenizer: Tokenizer | None = field(default=None, compare=False)
    done: int = 0

    @classmethod
    def of(cls, given: "str | Preprocess | Callable[[Any], Any]") -> "Preprocess":
        """From what a user gives: text, or a function."""
        if isinstance(given, str):
            return cls.parse(given)
        if isinstance(given, Preprocess):
            return given
        function = Function(given)
        return cls((Call(OPAQUE, (function.name, function.hash)),), (), function)

    @classmethod
    def parse(cls, text: str) -> "Preprocess":
        """Raises UsageError for an unknown step, a wrong number of arguments or a wrong order."""
        picture: list[Call] = []
        numbers: list[Call] = []
        steps = parse_pipeline(text, "--preprocess")
        if [step.name for step in steps] in ([OPAQUE], [TOKENIZER]):
            return cls(tuple(steps), ())
        for call in steps:
            known = ON_PICTURE | ON_NUMBERS
            if call.name not in known:
                raise UsageError(
                    f"--preprocess: no word {short(call.name)!r}; use {', '.join(known)}"
                )
            least, most = known[call.name]
            if not least <= len(call.args) <= most:
                count = least if least == most else f"{least} to {most}"
                raise UsageError(f"--preprocess: {call} has not {count} arguments")
            if call.name in ON_PICTURE and numbers:
                raise UsageError(f"--preprocess: {call} must come before {numbers[0]}")
            calls = crop_percentage(call) if call.name == "crop_pct" else [call]
            for each in calls:
                _check_arguments(each)
                _check_place(each, picture)
                whole = _in_full(each) if each.name in SCALING else each
                (picture if each.name in ON_PICTURE else numbers).append(whole)
        alone = next((call.name for call in numbers if call.name in ALONE), None)
        if len(picture) + len(numbers) > 1 and alone is not None:
            raise UsageError(f"--preprocess: {alone} stands alone, not in {text!r}")
        return cls(tuple(picture), tuple(numbers))

    @staticmethod
    def check_record(text: str) -> None:
        """Raises UsageError for a step of a record that scales and leaves out its filter or its
        resizer: what they are by default is a user's choice of today, not what a teacher saw."""
        for call in parse_pipeline(text, "preprocess"):
            _, names, _ = by_kind(call)
            short_one = call.name in SCALING and len(names) < len(("filter", "resizer"))
            if short_one or call.name == "crop_pct":
                raise UsageError(
                    f"preprocess has the step {short(str(call))}, and a record says with which "
                    f"filter and resizer pictures were scaled, such as resize(256, bilinear, "
                    f"pillow). It is of an older softlabels, or by hand: dump again"
                )

    @property
    def keeps_tokens(self) -> bool:
        """Whether whole numbers stay whole."""
        return bool(self.numbers) and self.numbers[0].name == "tokens"

    @property
    def pad(self) -> int | None:
        """The token that rows of tokens are padded with, if it is said."""
        args = self.numbers[0].args if self.keeps_tokens else ()
        return next(iter(args), None)

    def check_columns(self, layout: np.dtype | None) -> None:
        """Raises UsageError for steps that make no sense of columns of numbers, of which this is
        the layout, and for `floats` of other inputs, where it is None."""
        if layout is None:
            if self._floats is not None:
                raise UsageError(
                    f"--preprocess is {str(self)!r}, which is for columns that a model takes by "
                    f"name, and these inputs are none: leave it out"
                )
            return
        columns = list(layout.names or ())
        if self._floats is None and str(self):
            raise UsageError(
                f"--preprocess is {str(self)!r}, and the inputs are the columns "
                f"{', '.join(columns)}, which have no step in common: leave it out, give 'floats', "
                f"which makes float32 of whole numbers, or in Python a function of a row"
            )
        for name in self._floats or ():
            if name not in columns or layout[name].base.kind != "i":
                kind = "no input" if name not in columns else layout[name].base.name
                raise UsageError(
                    f"--preprocess is {str(self)!r}, and {name!r} is {kind}; name columns of whole "
                    f"numbers"
                )

    @property
    def _floats(self) -> tuple[str, ...] | None:
        """What `floats` names; empty for all, None where it is not there."""
        there = bool(self.numbers) and self.numbers[0].name == "floats"
        return self.numbers[0].args if there else None

    @property
    def is_upright(self) -> bool:
        """Whether pictures are turned as their EXIF orientation says."""
        return bool(self.picture) and self.picture[0].name == "upright"

    @property
    def is_opaque(self) -> bool:
        """Whether it is a function of the user's."""
        return bool(self.picture) and self.picture[0].name == OPAQUE

    @classmethod
    def tokenize(
        cls, tokenizer: Tokenizer, most: int | None, truncates: bool, is_own: bool
    ) -> "Preprocess":
        """Of texts. most: tokens that the model takes; truncates: whether longer texts are cut;
        is_own: whether it is the tokenizer in the model's folder. Raises UsageError for another one
        of that name."""
        if tokenizer.name == OWN and not is_own:
            raise UsageError(
                f"the tokenizer is called {OWN!r}, which in the records of a dump stands for the "
                f"model's own: give its folder another name"
            )
        name = OWN if is_own else tokenizer.name
        args = [name, tokenizer.hash, *([] if most is None else [most])]
        call = Call(TOKENIZER, (*args, *[TRUNCATE] * truncates))
        return cls((call,), (), tokenizer=tokenizer)

    @property
    def is_tokenizer(self) -> bool:
        """Whether texts are tokenised."""
        return bool(self.picture) and self.picture[0].name == TOKENIZER

    @property
    def other_tokenizer(self) -> str | None:
        """The name of a tokenizer that is not the model's own."""
        name = self.picture[0].args[0] if self.is_tokenizer else OWN
        return None if name == OWN else str(name)

    @property
    def cut_at(self) -> int | None:
        """How many tokens longer texts are cut to; None where they are not."""
        args = self.picture[0].args if self.is_tokenizer else ()
        if TRUNCATE not in args[2:]:
            return None
        return next((arg for arg in args[2:] if isinstance(arg, int)), None)

    @property
    def most_tokens(self) -> int | None:
        """How many tokens the model takes; None where nothing says so."""
        args = self.picture[0].args if self.is_tokenizer else ()
        return next((arg for arg in args[2:] if isinstance(arg, int)), None)

    @property
    def tokenization(self) -> tuple[Tokenizer, int | None, bool]:
        """The tokenizer, how many tokens the model takes, and whether longer texts are cut."""
        assert self.tokenizer is not None, "it is here"
        return self.tokenizer, self.most_tokens, TRUNCATE in self.picture[0].args[2:]

    def __str__(self) -> str:
        return "|".join(map(str, self.picture + self.numbers))

    def check_here(self, of: str) -> "Preprocess":
        """Itself. Raises UsageError where it is a function that was not given again."""
        if self.is_opaque and self.function is None:
            raise UsageError(
                f"{of} was preprocessed by the function {self.picture[0].args[0]}, which no record "
                f"holds: give it again in Python, with preprocess=FUNCTION, or other steps with "
                f"--preprocess"
            )
        return self

    def on_picture(self, picture: Picture | Image.Image) -> np.ndarray:
        """A picture → uint8 [C, H, W]; C is 1 for greyscale, 3 for colour. Of a function what it
        gives."""
        picture = Picture(picture) if isinstance(picture, Image.Image) else picture
        if self.is_opaque:
            return self.on_cell(picture.image)
        return channels_first(apply_words(picture, self.left))

    @property
    def left(self) -> tuple[Call, ...]:
        """The steps that pictures do not have behind them."""
        return self.picture[self.done :]

    @property
    def without_files(self) -> "Preprocess":
        """The same for pictures that no dump stored: a file between two steps is how the teacher's
        were kept, and nothing that a model needs."""
        return replace(self, picture=without_files(self.picture), done=0)

    @property
    def by_pillow(self) -> "Preprocess":
        """The same with Pillow as the resizer of each step that scales."""
        return replace(
            self,
            picture=tuple(
                Call(call.name, (*call.args[:-1], PILLOW)) if call.name in SCALING else call
                for call in self.picture
            ),
        )

    def on_cell(self, cell: Any) -> np.ndarray:
        """What the user's function makes of a picture, or of a row's numbers."""
        function = self.check_here("this").function
        assert function is not None, "it is here"
        return function(cell)

    def on_numbers(self, batch: Any, empty: Empty | None = None) -> Any:
        """[N, …] of any dtype → float32 [N, …] on the same device; int64 with `tokens`, and where a
        function gave whole numbers. Columns stay columns. empty: makes the result of pictures,
        uint8, on a CPU.

        Raises UsageError for tokens that are not whole numbers, and for another number of channels
        than normalize has.
        """
        if isinstance(batch, NumberColumns):
            given = batch.layout.names if self._floats == () else self._floats
            return replace(batch, floats=frozenset(given or ()))
        if self.keeps_tokens:
            if batch.is_floating_point():
                raise UsageError(f"--preprocess tokens: the inputs are {batch.dtype}, not whole")
            return batch.long()
        if self.is_opaque and not batch.is_floating_point():
            return batch.long()
        if batch.dtype == torch.float32 and not self.numbers:
            return batch
        if empty is not None and batch.device.type == "cpu" and batch.dtype == torch.uint8:
            return self._numbers_of(batch, empty(batch.shape, torch.float32))
        x = batch.to(torch.float32, copy=True)
        for call in self.numbers:
            if call.name == "scale":
                x /= call.args[0]
            else:
                mean, std = (_per_channel(value, x, call) for value in call.args)
                x.sub_(mean).div_(std)
        return x

    def _numbers_of(self, batch: Tensor, x: Tensor) -> Tensor:
        """The same values, written into `x`: by numpy, since torch would start threads for it,
        which wait for each other busily while others decode."""
        steps: list[tuple[np.ufunc, np.ndarray | np.float32]] = []
        for call in self.numbers:
            if call.name == "scale":
                steps.append((np.divide, np.float32(call.args[0])))
            else:
                mean, std = (_per_channel(value, x, call).numpy() for value in call.args)
                steps += [(np.subtract, mean), (np.divide, std)]
        given, out = batch.numpy(), x.numpy()
        # a block goes through all steps while it is in a core's cache
        rows = max(1, BLOCK_VALUES // max(1, x[:1].numel()))
        for start in range(0, len(out), rows):
            part = out[start : start + rows]
            np.copyto(part, given[start : start + rows])
            for arithmetic, constant in steps:
                arithmetic(part, constant, out=part)
        return x


def _check_place(call: Call, before: list[Call]) -> None:
    if call.name == "upright" and before:
        raise UsageError("--preprocess: upright must come first, and once")
    if call.name == "eight_bit" and [each.name for each in before] not in ([], ["upright"]):
        raise UsageError("--preprocess: eight_bit must come first, or after upright, and once")


def without_files(steps: tuple[Call, ...]) -> tuple[Call, ...]:
    """Without the files that dumps store: any other `jpeg` is a step that the user chose."""
    return tuple(
        step
        for place, step in enumerate(steps)
        if step != OF_FILE or place == 0 or steps[place - 1].name != "resize"
    )


def _check_arguments(call: Call) -> None:
    if call.name == FILE:
        if not (type(call.args[0]) is int and 1 <= call.args[0] <= 100):
            raise UsageError(f"--preprocess: {call}: the quality is a whole number from 1 to 100")
        return
    (_check_sizes if call.name in SIZED else _check_numbers)(call)


def _in_full(call: Call) -> Call:
    try:
        return in_full(call)
    except ValueError as error:
        raise UsageError(f"--preprocess: {call}: {error}") from error


def _check_sizes(call: Call) -> None:
    sizes, names, fills = by_kind(call)
    for name in names:
        if name not in SIZED[call.name]:
            what = "filter" if call.name in SCALING else "word"
            known = ", ".join(SIZED[call.name]) or "none"
            raise UsageError(f"--preprocess: {call}: no {what} {name!r}; use {known}")
    if not 1 <= len(sizes) <= 2 or not all(type(n) is int and 0 < n <= LARGEST for n in sizes):
        raise UsageError(
            f"--preprocess: {call}: sizes must be one or two whole numbers from 1 to {LARGEST}"
        )
    if call.name in SCALING:
        filters, resizers = (
            [name for name in names if name in kind] for kind in (FILTERS, RESIZERS)
        )
        if [*call.args] != [*sizes, *filters[:1], *resizers[:1], *fills[:1]]:
            raise UsageError(
                f"--preprocess: {call}: sizes come first, then one filter, then torch or pillow"
            )
    elif [*call.args] != [*sizes, *names[:1], *fills[:1]]:
        raise UsageError(f"--preprocess: {call}: sizes come first, then one name or fill")
    if fills and call.name != "pad":
        raise UsageError(f"--preprocess: {call}: only pad takes a fill, such as {fills[0]}")
    if fills and not (len(fills[0]) in (1, 3) and all(map(_is_byte, fills[0]))):
        raise UsageError(
            f"--preprocess: {call}: a fill has one or three whole numbers from 0 to 255"
        )


def _is_byte(value: Any) -> bool:
    return type(value) is int and 0 <= value <= 255


def _check_numbers(call: Call) -> None:
    args = call.args
    if call.name == "floats":
        if not all(isinstance(name, str) for name in args):
            raise UsageError(f"--preprocess: {call}: write names of columns, such as floats(age)")
        return
    if call.name == "tokens":
        if args and not (type(args[0]) is int and args[0] >= 0):
            raise UsageError(f"--preprocess: {call}: the token of padding is a whole number from 0")
        return
    if not all(type(n) in (int, float) and _is_finite(n) for arg in args for n in _flat(arg)):
        raise UsageError(f"--preprocess: {call}: arguments must be finite numbers")
    if args and 0 in _flat(args[-1]):
        raise UsageError(f"--preprocess: {call} divides by 0")
    channels = {len(arg) for arg in args if isinstance(arg, tuple | list)}
    if channels and (call.name == "scale" or len(channels) > 1 or 0 in channels):
        raise UsageError(
            f"--preprocess: {call}: write one number, or for normalize one tuple entry a channel"
        )


def _is_finite(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # whole, and larger than a float can be
        return False


def _flat(arg: Any) -> list:
    return list(arg) if isinstance(arg, tuple | list) else [arg]


@lru_cache(maxsize=64)
def _constant(value: float | tuple[float, ...], device: torch.device) -> Tensor:
    """Copied to a device once: each copy would wait for what the device still computes."""
    with torch.inference_mode(False):  # it may serve a training, too
        return torch.tensor(value, dtype=torch.float32, device=device)


def _per_channel(value: float | tuple[float, ...], x: Tensor, call: Call) -> Tensor:
    tensor = _constant(tuple(value) if isinstance(value, list) else value, x.device)
    if tensor.ndim and (x.ndim < 2 or len(tensor) != x.shape[1]):
        raise UsageError(
            f"--preprocess: {call} is for {len(tensor)} channels; these inputs are "
            f"{list(x.shape[1:])}. Bring pictures to one or three with grey or rgb"
        )
    return tensor.reshape(-1, *[1] * (x.ndim - 2)) if tensor.ndim else tensor
