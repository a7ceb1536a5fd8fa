"""A block of rows of a source: ids, labels, hashes and inputs, not decoded.

Shapes: N rows of a block.
"""

from dataclasses import dataclass

import numpy as np

from softlabels.inputs.label_lists import Labels
from softlabels.inputs.texts import Texts
from softlabels.models.tokens import Tokens


@dataclass(frozen=True)
class Rows:
    """A block of source rows, not decoded.

    numbers: where each row stands in the source, int64 [N]
    ids: int64 or str [N]
    labels: int64 [N], −1 for none, or lists of them
    hashes: of the inputs, uint64 [N]
    cells: encoded images (a list of bytes), numbers [N, …], of several columns a structured array
    [N], texts, or tokens
    """

    numbers: np.ndarray
    ids: np.ndarray
    labels: Labels
    hashes: np.ndarray
    cells: list[bytes] | np.ndarray | Texts | Tokens

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, positions: np.ndarray) -> "Rows":
        """The rows at these positions of the block."""
        cells = self.cells
        chosen: list[bytes] | np.ndarray | Texts | Tokens
        if isinstance(cells, list):
            chosen = [cells[i] for i in positions]
        else:
            chosen = cells.select(positions) if isinstance(cells, Texts) else cells[positions]
        numbers, ids, hashes = (c[positions] for c in (self.numbers, self.ids, self.hashes))
        return Rows(numbers, ids, self.labels[positions], hashes, chosen)
