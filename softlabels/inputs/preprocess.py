"""From a stored input to the numbers that a model sees, by the steps of the language in `steps`."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from softlabels.errors import UsageError
from softlabels.inputs.functions import Function
from softlabels.inputs.pictures import (
    SCALING,
    apply_words,
    channels_first,
)
from softlabels.inputs.rendering import Picture
from softlabels.inputs.resizing import PILLOW
from softlabels.inputs.steps import OPAQUE, OWN, TOKENIZER, TRUNCATE, parse_steps, without_files
from softlabels.models.named import NumberColumns
from softlabels.models.tokenizers import Tokenizer
from softlabels.spec import Call
from softlabels.system.reused_memory import Empty

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
        return cls(*parse_steps(text))

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
