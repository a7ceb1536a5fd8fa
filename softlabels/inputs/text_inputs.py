"""Texts of chosen rows as they stand in the data: whoever trains on them tokenises them."""

from typing import Any

import numpy as np
import torch

from softlabels.errors import UsageError
from softlabels.inputs.chosen_rows import ChosenRows
from softlabels.inputs.examples import Examples
from softlabels.inputs.preprocess import Preprocess
from softlabels.inputs.sources import Source
from softlabels.inputs.texts import TextBatch, Texts
from softlabels.inputs.token_inputs import TokenInputs
from softlabels.models.named import NumberColumns


class TextInputs(ChosenRows):
    """The texts of chosen source rows: `gather` gives a list of str, of pairs a dict of two lists
    by the names of their columns. They are read when they are asked for, and not kept."""

    kept = False
    decoded_bytes = 0

    def gather(self, rows: np.ndarray) -> TextBatch:
        cells = self._block(rows).cells
        assert isinstance(cells, Texts), "the source's kind says so"
        return cells.batch

    gather_uncached = gather

    def sample(self, rows: int = 2) -> TextBatch:
        """The first texts."""
        return self.gather(np.arange(min(rows, len(self))))

    def prepare(self) -> None:
        """Refuse a wrong source now rather than with the first batch."""
        self.sample()

    def keep_on(self, device: torch.device) -> None:
        """Texts lie on no device."""


def open_inputs_of(
    source: Source,
    preprocess: Preprocess,
    positions: np.ndarray | None = None,
    hashes: np.ndarray | None = None,
) -> Examples | TextInputs | TokenInputs:
    """Chosen rows as numbers; of a source of texts as texts, unless a tokenizer that is here makes
    tokens of them; of tokens as tokens; a function makes numbers of any."""
    kinds: dict[str, type[TextInputs | TokenInputs]] = {"text": TextInputs, "tokens": TokenInputs}
    if preprocess.tokenizer is not None:
        kinds["text"] = TokenInputs
    kind = Examples if preprocess.is_opaque else kinds.get(source.kind, Examples)
    return kind(source, preprocess, positions, hashes)


def numbers_alone(inputs: Any, user: str) -> Examples:
    """The same inputs. Raises UsageError where they are texts, which `user` does not take."""
    numbers = torch.Tensor | NumberColumns
    if not isinstance(inputs, Examples) or not isinstance(inputs.sample(1), numbers):
        tokens = inputs.source.kind == "tokens"
        raise UsageError(
            f"the inputs are {'tokens' if tokens else 'texts'}, and {user} takes numbers"
            f"{': texts are not tokenised here yet' * (not tokens)}. In Python, softlabels.load "
            f"gives their rows to a loop of yours, and preprocess=FUNCTION makes numbers of each "
            f"{'row' if tokens else 'text'}"
        )
    return inputs
