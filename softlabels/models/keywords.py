"""Which inputs a model takes by name, and tokens given to it so. N rows, L positions."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from softlabels.errors import TeacherError
from softlabels.models.limits import is_pretrained
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
        """Whether `input_ids` goes to the first input, whatever it is called."""
        return self.first and IDS not in self.names and (bool(self.required) or not self.others)

    @property
    def masked(self) -> bool:
        """Whether it is told which tokens are padding."""
        return self.takes(MASK)

    def chosen(self, columns: Mapping[str, Tensor]) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """What is given by its place, and what by its name."""
        named = {name: values for name, values in columns.items() if self.takes(name)}
        if not self.by_place:
            return (), named
        named.pop(IDS, None)
        return (columns[IDS],), named

    def check(self, columns: list[str], title: str) -> None:
        """Raises TeacherError where a model needs an input that is none of these columns."""
        given = {*columns, MASK}
        needed = [name for name in self.required if name not in given]
        if self.by_place and self.names:
            needed = [name for name in needed if name != self.names[0]]
        if not needed and (self.by_place or self.takes(IDS)):
            return
        known = few(list(self.names), most=8) or "none"
        missing = f" needs {few(needed)} and" if needed else ""
        raise TeacherError(
            f"{title}{missing} takes the inputs {known}, and the data have the columns "
            f"{', '.join(columns)}, which are given by name: call the columns as the model calls "
            f"its inputs, or give a module or callable that takes {', '.join(columns)}"
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
