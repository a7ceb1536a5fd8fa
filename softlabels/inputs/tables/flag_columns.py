"""Several columns of 0 and 1, one a class, as one column that lists a row's labels. N rows, C
columns."""

from collections.abc import Sequence

import datasets
import numpy as np
import pyarrow as pa

from softlabels.errors import SourceError
from softlabels.inputs.label_lists import LabelLists
from softlabels.inputs.tables.identity import Files, Identity
from softlabels.inputs.tables.table import Table
from softlabels.system.humanize import short


class FlagColumns:
    """A table whose columns `names` are one, of lists of class numbers; the classes are called as
    the columns are. A row with empty cells in all of them has unknown labels."""

    def __init__(self, table: Table, names: Sequence[str]) -> None:
        self.table, self.names, self.name = table, list(names), ",".join(names)
        others = {name: f for name, f in table.features.items() if name not in names}
        classes = datasets.ClassLabel(names=self.names)
        self.features = others | {self.name: datasets.List(classes)}

    def __len__(self) -> int:
        return len(self.table)

    @property
    def identity(self) -> Identity | None:
        return self.table.identity

    @property
    def files(self) -> Files | None:
        return self.table.files

    def categories(self, name: str) -> list[str] | None:
        return None if name == self.name else self.table.categories(name)

    def read(self, names: Sequence[str], start: int, stop: int) -> pa.Table:
        return self._joined(self.table.read(self._parts(names), start, stop), names)

    def take(self, names: Sequence[str], positions: np.ndarray) -> pa.Table:
        return self._joined(self.table.take(self._parts(names), positions), names)

    def _parts(self, names: Sequence[str]) -> list[str]:
        listed = self.names if self.name in names else []
        return [*(name for name in names if name != self.name), *listed]

    def _joined(self, table: pa.Table, names: Sequence[str]) -> pa.Table:
        return pa.table({name: table[name] if name != self.name else self._lists(table)
                         for name in names})  # fmt: skip

    def _lists(self, table: pa.Table) -> pa.Array:
        columns = [_flags(table[name], name) for name in self.names]
        flags_NC = np.stack(columns, 1) if len(table) else np.empty((0, len(self.names)))
        empty_NC = flags_NC != flags_NC  # NaN
        unknown_N = empty_NC.all(-1)
        if len(partly := np.argwhere(empty_NC & ~unknown_N[:, None])):
            row, column = partly[0]
            given = int(np.flatnonzero(~empty_NC[row])[0])
            raise SourceError(
                f"--label-column: a row has an empty cell in {self.names[column]!r} and "
                f"{flags_NC[row, given]:g} in {self.names[given]!r}; labels are known of all "
                f"classes or of none. Write 0 or 1 there"
            )
        counts_N = np.where(unknown_N, -1, (flags_NC == 1).sum(-1))
        return LabelLists.of_numbers(counts_N, np.nonzero(flags_NC == 1)[1]).lists


def _flags(column: pa.ChunkedArray, name: str) -> np.ndarray:
    """0, 1 and NaN for an empty cell, float64 [N]. Raises SourceError for other values."""
    try:
        values = column.cast(pa.float64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        cells = map(str, column.drop_null().to_pylist())
        some = short(next((cell for cell in cells if cell not in ("0", "1")), ""))
        raise SourceError(
            f"--label-column: {name!r} holds {some!r}; of several label columns each says with 0 "
            f"and 1 whether a row has that label"
        ) from None
    flags_N: np.ndarray = values.to_numpy()
    if len(strange := flags_N[(flags_N != 0) & (flags_N != 1) & ~np.isnan(flags_N)]):
        raise SourceError(
            f"--label-column: {name!r} holds {strange[0]:g}; of several label columns each says "
            f"with 0 and 1 whether a row has that label. What stands for an unknown label can't be "
            f"stored: write 0 or 1, or leave out the row"
        )
    return flags_N
