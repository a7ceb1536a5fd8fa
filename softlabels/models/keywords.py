"""Which inputs a model takes by name, and tokens or columns of numbers given to it so."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from softlabels.errors import TeacherError
from softlabels.models.limits import is_pretrained
from softlabels.models.named import NumberColumns
from softlabels.models.tokens import IDS, MASK
from softlabels.system.humanize import few

KINDS = inspect.Parameter


@dataclass(frozen=True)
class Keywords:
    """names: of the inputs, in their order
    required: those that must be given
    others: whether any other name is taken too, as by **kwargs
    first: whether the first may be given by its place; the only one of some programs has no name
    length: of a row of tokens, if no other is taken
    """

    names: tuple[str, ...]
    required: tuple[str, ...] = ()
    others: bool = False
    first: bool = True
    length: int | None = None

    def takes(self, name: str) -> bool:
        return name in self.names or self.others

    @property
    def by_place(self) -> bool:
        """Whether `input_ids`, if it is given, goes to the first input, whatever it is called."""
        return self.first and IDS not in self.names and (bool(self.required) or not self.others)

    @property
    def masked(self) -> bool:
        """Whether it is told which tokens are padding."""
        return self.takes(MASK)

    def chosen(self, columns: Mapping[str, Tensor]) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """What is given by its place, and what by its name."""
        named = {name: values for name, values in columns.items() if self.takes(name)}
        if not self.by_place or IDS not in columns:
            return (), named
        named.pop(IDS, None)
        return (columns[IDS],), named

    def check(self, columns: Sequence[str], title: str) -> None:
        """Raises TeacherError where a model needs an input that is none of these columns."""
        tokens = IDS in columns
        given, placed = {*columns, *[MASK] * tokens}, tokens and self.by_place
        needed = [name for name in self.required if name not in given]
        if placed and self.names:
            needed = [name for name in needed if name != self.names[0]]
        if not needed and (placed or not tokens or self.takes(IDS)):
            return
        known = few(list(self.names), most=8) or "none"
        missing = f" needs {few(needed)} and" if needed else ""
        raise TeacherError(
            f"{title}{missing} takes the inputs {known}, and the data have the columns "
            f"{', '.join(columns)}, which are given by name: call the columns as the model calls "
            f"its inputs, or give a module or callable that takes {', '.join(columns)}"
        )

    @property
    def hint(self) -> str:
        """For the message where it failed on one tensor, which it may not be meant for."""
        if len(self.required) < 2 or IDS in self.required:
            return ""
        return (
            f". It needs the inputs {few(list(self.required))}: where these are columns of the "
            f"data, say {input_options(self.required)}"
        )

    def refuse(self, others: Sequence[str], columns: Sequence[str], title: str) -> None:
        """Raises TeacherError where there are others among the columns, which the model does not
        take."""
        if not others:
            return
        kept = [name for name in columns if name not in others]
        say = f": {input_options(kept)}" if kept else ""
        raise TeacherError(
            f"{title} takes no {few(list(others))}; its inputs are {few(list(self.names))}. Leave "
            f"the column out{say}"
        )


def input_options(names: Sequence[str]) -> str:
    """The options that name these columns: tokens joined, columns of numbers each by one."""
    if IDS in names:
        return f"--input-column {','.join(names)}"
    return " ".join(f"--input-column {name}" for name in names)


def whole_hint(columns: NumberColumns) -> str:
    """For the message where a model failed on columns of numbers, of which it may want some as
    floating numbers."""
    if not (whole := columns.whole):
        return ""
    return (
        f". Whole numbers are given as int64, as embeddings need them: --preprocess floats gives "
        f"{few(whole)} as float32, 'floats({whole[0]})' {whole[0]} alone"
    )


def keywords_of(module: nn.Module) -> Keywords:
    """From what a module says of itself, as programs do, or from its forward."""
    own = getattr(module, "keywords", None)
    if isinstance(own, Keywords):
        return own
    held = getattr(module, "held", module)
    if isinstance(held, torch.jit.ScriptModule):
        method: Any = held.forward
        arguments = method.schema.arguments[1:]
        required = tuple(one.name for one in arguments if not one.has_default_value())
        return Keywords(tuple(one.name for one in arguments), required)
    return _of_signature(held.forward if isinstance(held, nn.Module) else held, held)


def _of_signature(function: Callable[..., Any], held: Any) -> Keywords:
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # of a builtin
        return Keywords(())
    plain = [p for p in parameters if p.kind not in (KINDS.VAR_POSITIONAL, KINDS.VAR_KEYWORD)]
    # transformers' models take any word and hand it on: what they don't know is lost, or an error
    anything = any(p.kind == KINDS.VAR_KEYWORD for p in parameters) and not is_pretrained(held)
    return Keywords(
        names=tuple(p.name for p in plain),
        required=tuple(p.name for p in plain if p.default is KINDS.empty),
        others=anything,
        first=any(p.kind != KINDS.KEYWORD_ONLY for p in parameters if p.kind != KINDS.VAR_KEYWORD),
    )
