"""Chosen rows of a source, checked against stored hashes. `examples` makes inputs of models from
them, and `text_inputs` gives them as texts. N rows asked for."""

from functools import cached_property

import numpy as np

from softlabels.errors import AlignmentError
from softlabels.inputs.label_lists import Labels
from softlabels.inputs.preprocess import Preprocess
from softlabels.inputs.rows import Rows
from softlabels.inputs.sources import Source


class ChosenRows:
    """positions: the source rows, int64 [rows]; hashes: uint64 [rows]; an input with another hash
    is refused."""

    def __init__(
        self,
        source: Source,
        preprocess: Preprocess,
        positions: np.ndarray | None = None,
        hashes: np.ndarray | None = None,
    ) -> None:
        self.source = source
        self.preprocess = preprocess
        self.positions = np.arange(len(source)) if positions is None else positions
        self.hashes = hashes

    def __reduce__(self) -> tuple:
        return type(self), (self.source, self.preprocess, self.positions, self.hashes)

    def __len__(self) -> int:
        return len(self.positions)

    @cached_property
    def labels(self) -> Labels:
        """int64 [rows], −1 for none; or lists of them."""
        return self.source.labels[self.positions]

    def _block(self, rows: np.ndarray) -> Rows:
        block = self.source.take(self.positions[rows])
        if self.hashes is not None:
            check_hashes(block, self.hashes[rows], self.source.data)
        return block


def check_hashes(block: Rows, hashes: np.ndarray, data: str) -> None:
    """Raises AlignmentError where inputs have other hashes than these, uint64 [N]."""
    wrong = np.flatnonzero(block.hashes != hashes)
    if len(wrong):
        shown = ", ".join(str(block.ids[i]) for i in wrong[:5])
        raise AlignmentError(
            f"{len(wrong)} of {len(block)} inputs are not what the teacher saw, first the rows "
            f"with id {shown}. Point --source at the data that was dumped: {data!r} has changed "
            f"or is another dataset"
        )
