"""A temperature that changes as training goes on: `cosine(20, 2)`.

    linear(a, b)        (1 − x)·a + x·b
    cosine(a, b)        (1 − y)·a + y·b, y = (1 − cos πx)/2     slow at both ends
    exponential(a, b)   a·(b/a)^x                               the same factor in each step

x is how far training is, from 0 at its first step to 1 at its last; the half cosine is that of
Loshchilov, Hutter 2017, equation 5. Raw logits allow any of them: none needs another dump.
"""

import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass

from softlabels.errors import UsageError
from softlabels.spec import parse_pipeline, short


def _between(a: float, b: float, x: float) -> float:
    return (1 - x) * a + x * b


SHAPES: dict[str, Callable[[float, float, float], float]] = {
    "linear": _between,
    "cosine": lambda a, b, x: _between(a, b, (1 - math.cos(math.pi * x)) / 2),
    "exponential": lambda a, b, x: a * (b / a) ** x,
}
EXAMPLE = "cosine(20, 2)"


@dataclass(frozen=True)
class Schedule:
    """A temperature by how far training is. Raises UsageError for an unknown shape, and for
    temperatures that are not above 0.

    shape: linear, cosine or exponential
    first, last: the temperatures of the first and the last step
    """

    shape: str
    first: float
    last: float

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            near = difflib.get_close_matches(self.shape, SHAPES, 1)
            hint = f"did you mean {near[0]}? Use" if near else "use"
            raise UsageError(f"no schedule {short(self.shape)!r}; {hint} {', '.join(SHAPES)}")
        for T in (self.first, self.last):
            if type(T) not in (int, float) or not 0 < T < math.inf:
                raise UsageError(
                    f"{self} has {T!r} for a temperature, which must be a finite number above 0"
                )

    def __str__(self) -> str:
        return f"{self.shape}({self.first}, {self.last})"

    def __call__(self, progress: float) -> float:
        """T. progress: from 0 to 1. Raises UsageError for another number."""
        if not 0 <= progress <= 1:
            raise UsageError(f"progress is {progress}; it must be a number from 0 to 1")
        T = SHAPES[self.shape](self.first, self.last, progress)
        return min(max(T, min(self.first, self.last)), max(self.first, self.last))


def temperature_schedule(text: str) -> Schedule:
    """A temperature that changes as training goes on, such as `"cosine(20, 2)"`: call it with how
    far training is, from 0 to 1, for the T of that step. Its words are linear, cosine and
    exponential, each with the first and the last temperature.

    Raises UsageError for other text, and for what is none.
    """
    if not isinstance(text, str):
        raise UsageError(
            f"a schedule of a temperature is text such as {EXAMPLE!r}, and this is "
            f"{short(repr(text))}; a T that stays is given as a number in its place"
        )
    calls = parse_pipeline(text, "T")
    if len(calls) != 1 or (calls[0].name in SHAPES and len(calls[0].args) != 2):
        raise UsageError(
            f"{short(text)!r} is no schedule of a temperature; write one word with the first and "
            f"the last temperature, such as {EXAMPLE}"
        )
    args = calls[0].args
    return Schedule(calls[0].name, *(args if len(args) == 2 else (1, 1)))


def check_schedule(name: str, text: str) -> None:
    """Raises UsageError that names the option unless the text is a schedule."""
    if "(" not in text:
        raise UsageError(
            f"{name}: {short(text)!r} is not a valid number, nor a schedule such as {EXAMPLE!r}"
        )
    try:
        temperature_schedule(text)
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from None
