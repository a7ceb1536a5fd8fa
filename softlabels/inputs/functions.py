"""A preprocessing that is a function of the user's: from a picture, numbers or a text to numbers.

It can't be written down, so records hold its name and a hash of its source, and whoever uses the
inputs again gives it again.
"""

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image

from softlabels.errors import SourceError
from softlabels.models.causes import cause
from softlabels.system.source_code import describe_callable

HASH_DIGITS = 16
TRIED = 8  # inputs that it is given twice, since one that draws by chance can't be stored


# A picture, the numbers of a row, its text, or both texts of a pair by the names of their columns.
Cell = Image.Image | np.ndarray | str | dict[str, str]


class Function:
    """name: of its module and itself; hash: `sha256:` and 16 hex digits, of its source."""

    def __init__(self, call: Callable[[Any], Any]) -> None:
        self.call, self.left = call, TRIED
        self.name, text = describe_callable(call)
        self.hash = f"sha256:{hashlib.sha256(text.encode()).hexdigest()[:HASH_DIGITS]}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Function) and (self.name, self.hash) == (other.name, other.hash)

    def __hash__(self) -> int:
        return hash((self.name, self.hash))

    def __call__(self, cell: Cell) -> np.ndarray:
        """What it makes of a picture, of a row's numbers or its text: float32 or whole numbers.

        Raises SourceError where it fails, gives no finite numbers, or others each time.
        """
        values = self._values(cell)
        if self.left > 0:
            self.left -= 1
            if not np.array_equal(values, self._values(cell)):
                raise SourceError(
                    f"the preprocessing function {self.name} gives something else each time: does "
                    f"it augment at random? Give one without chance"
                )
        return values

    def _values(self, cell: Cell) -> np.ndarray:
        try:
            own = cell if isinstance(cell, str) else cell.copy()  # it may work in place
            output = self.call(own)
        except Exception as error:  # of code that is not ours
            raise SourceError(
                f"the preprocessing function {self.name} failed: {cause(error)}"
            ) from error
        if isinstance(output, torch.Tensor):
            output = output.detach().cpu()
            output = (output.float() if output.is_floating_point() else output).numpy()
        if not isinstance(output, np.ndarray) or not output.ndim or output.dtype.kind not in "fiu":
            raise SourceError(
                f"the preprocessing function {self.name} gives {_shown(output)}; expected a tensor "
                f"or an array of numbers, with the shape that the model takes"
            )
        if output.dtype.kind == "f":
            output = output.astype(np.float32)
            if not np.isfinite(output).all():
                raise SourceError(f"the preprocessing function {self.name} gives NaN or infinity")
        return output


def _shown(output: Any) -> str:
    if isinstance(output, np.ndarray):
        return f"an array of {output.dtype} {list(output.shape)}"
    return f"a {type(output).__name__}"
