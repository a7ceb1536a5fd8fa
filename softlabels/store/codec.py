"""Logits ↔ Arrow columns. One codec so far: `dense`, all C values of a row as a fixed-size list.

A codec is named in the plan and the manifest by its text (`dense`); another is another class with
the same three methods, found by `parse_codec`. Shapes: N rows, C classes.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from softlabels.errors import DamagedDump, LogitsError, UsageError
from softlabels.store.codecs.rounding import cast_for_storage

DTYPES = {"float16": (torch.float16, pa.float16()), "float32": (torch.float32, pa.float32())}


@dataclass(frozen=True)
class DenseCodec:
    """Raw logits in float16 or float32."""

    classes: int
    dtype: str

    @property
    def arrow_type(self) -> pa.DataType:
        element = pa.field("element", DTYPES[self.dtype][1], nullable=False)
        return pa.list_(element, self.classes)

    @property
    def row_bytes(self) -> int:
        return self.classes * DTYPES[self.dtype][0].itemsize

    def encode(self, logits_NC: Tensor, ids: list) -> Tensor:
        """The values as stored, [N, C] on the CPU. Raises LogitsError naming the first bad row,
        or for another number of classes."""
        if logits_NC.shape[1] != self.classes:
            raise LogitsError(
                f"the teacher gave {logits_NC.shape[1]} logits for the row with id {ids[0]!r}; "
                f"before, it gave {self.classes}"
            )
        return cast_for_storage(logits_NC, DTYPES[self.dtype][0], ids).cpu().contiguous()

    def decode(self, column: pa.ChunkedArray, out: np.ndarray | None = None) -> np.ndarray:
        """The column → [N, C] in the stored dtype, in `out` where that is given. Raises DamagedDump
        for another type, or another number of rows than `out` has."""
        if column.type.field(0).type != DTYPES[self.dtype][1] or column.null_count:
            raise DamagedDump(f"logits are {column.type}, expected {self.arrow_type}")
        shape = (len(column), self.classes)
        if out is not None and out.shape != shape:
            raise DamagedDump(f"a row group has {shape[0]} rows, expected are {len(out)}")
        values = np.empty(shape, dtype=self.dtype) if out is None else out
        start = 0
        for chunk in column.chunks:
            rows = chunk.flatten().to_numpy().reshape(-1, self.classes)
            values[start : start + len(rows)] = rows
            start += len(rows)
        return values


def parse_codec(name: str, classes: int, dtype: str) -> DenseCodec:
    """Raises UsageError for a codec or dtype that this version does not know."""
    if name != "dense" or dtype not in DTYPES:
        raise UsageError(f"codec {name!r} with {dtype!r} is unknown here; update softlabels")
    return DenseCodec(classes, dtype)
