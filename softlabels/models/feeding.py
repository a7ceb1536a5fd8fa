"""How a program takes its inputs: in which dtype, and how many rows at once.

Most take float32 and any number of rows. A program with float16 weights takes float16; one that was
traced for four rows takes four. Neither can be asked, so what fails is tried otherwise.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from softlabels.models.compiling import is_of_compiler
from softlabels.models.named import NamedInputs, NumberColumns
from softlabels.models.tokens import Tokens
from softlabels.system.devices import moved
from softlabels.system.memory import is_out_of_memory

FAILURES = (RuntimeError, ValueError, TypeError, IndexError, AssertionError)
MOST_ROWS = 8192  # of a batch that is tried
NUMBERS = 8  # of a message that are tried


@dataclass
class Feed:
    """dtype: of the inputs, None as they come; rows: exactly so many at once, None for any number;
    remarks: how it has to be fed, learned by trying."""

    dtype: torch.dtype | None = None
    rows: int | None = None
    remarks: list[str] = field(default_factory=list)
    worked: set[int] = field(default_factory=set)  # numbers of rows that went through at once

    def run(self, call: Callable[[Any], Tensor], inputs: Any, spare: bool = False) -> Tensor:
        """What `call` gives for these inputs, [N, …] or columns, row for row. Raises what it raises
        first, where no other way of feeding it works either.

        `call` may work in place: it gets a copy of the inputs, unless they are `spare` and no other
        way will be tried.
        """
        spare = spare and len(inputs) in self.worked
        try:
            output = in_batches(call, _own(inputs, self.dtype, spare), self.rows)
        except FAILURES as error:
            if is_out_of_memory(error) or is_of_compiler(error):
                raise
            for dtype, rows in self._other_ways(inputs, str(error)):
                try:
                    output = in_batches(call, _own(inputs, dtype), rows)
                except FAILURES as other:
                    if is_out_of_memory(other):
                        raise
                    continue
                self._remember(dtype, rows)
                return output
            raise
        if self.rows is None:
            self.worked.add(len(inputs))
        return output

    def _other_ways(
        self, inputs: Tensor | NumberColumns, message: str
    ) -> Iterator[tuple[torch.dtype | None, int | None]]:
        """In the order in which they are tried; none where a fixed number of rows went wrong."""
        if inputs.is_floating_point() and not self.worked:
            for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
                if dtype != (self.dtype or inputs.dtype):
                    yield dtype, self.rows
        # So many rows went through before: this failure is about something else, such as a network,
        # and calling again would hide it, or ask a service for the same rows ten times.
        if self.rows is None and len(inputs) not in self.worked:
            for rows in self._sizes(len(inputs), message):
                yield self.dtype, rows

    def _sizes(self, rows: int, message: str) -> list[int]:
        """The largest that worked before, what the message names, and powers of two downwards."""
        named = [int(digits) for digits in re.findall(r"\d+", message)[:NUMBERS]]
        halves = [1 << power for power in range(rows.bit_length() - 1, -1, -1)]
        sizes = dict.fromkeys([max(self.worked, default=0), *named, *halves])
        return [size for size in sizes if 0 < size <= MOST_ROWS and size != rows]

    def _remember(self, dtype: torch.dtype | None, rows: int | None) -> None:
        if dtype != self.dtype:
            self.remarks.append(f"inputs are given in {str(dtype).removeprefix('torch.')}")
        if rows != self.rows:
            self.remarks.append(f"it runs with {rows} rows at once and not with any other number")
        self.dtype, self.rows = dtype, rows


def weights_dtype(module: nn.Module) -> torch.dtype | None:
    """The floating dtype that most weights are of; None for float32, and where there are none."""
    counts: dict[torch.dtype, int] = {}
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            counts[tensor.dtype] = counts.get(tensor.dtype, 0) + tensor.numel()
    most = max(counts, key=lambda dtype: counts[dtype], default=torch.float32)
    return None if most == torch.float32 else most


def _own(inputs: Any, dtype: torch.dtype | None, spare: bool = False) -> Any:
    """The inputs in this dtype, in memory that a model may change."""
    cast = inputs if dtype is None or not inputs.is_floating_point() else inputs.to(dtype)
    if spare or cast is not inputs:
        return cast
    if isinstance(inputs, NamedInputs):  # what a model is given of them is new memory
        return inputs
    with torch.inference_mode(False):  # `Held` gives a module of the user's no inference tensors
        return inputs.clone()


def in_batches(
    call: Callable[[Any], Tensor], inputs: Tensor | NamedInputs, rows: int | None
) -> Tensor:
    """Exactly `rows` at once, the last ones filled up with copies of the first."""
    if rows is None:
        return call(inputs)
    whole = len(inputs) // rows * rows
    parts: list[Any] = [slice(start, start + rows) for start in range(0, whole, rows)]
    if whole < len(inputs):
        last = torch.zeros(rows, dtype=torch.long)
        last[: len(inputs) - whole] = torch.arange(whole, len(inputs))
        parts.append(moved(last, inputs.device) if isinstance(inputs, Tensor) else last.numpy())
    given = [inputs[part] for part in parts]  # before a call may change the first rows in place
    return torch.cat([call(part) for part in given])[: len(inputs)]


def apart(call: Callable[[Tokens], Tensor], tokens: Tokens) -> Tensor:
    """Rows of one length at once, so that none is padded; in their order."""
    order = np.argsort(tokens.lengths, kind="stable")
    ends = np.flatnonzero(np.diff(tokens.lengths[order])) + 1
    answers_NC = torch.cat([call(tokens[rows]) for rows in np.split(order, ends)])
    return answers_NC[moved(torch.from_numpy(np.argsort(order)), answers_NC.device)]
