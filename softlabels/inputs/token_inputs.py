"""Texts of chosen rows as the tokens that a model reads. N rows asked for."""

from typing import Any

import numpy as np
import pyarrow.compute as pc

from softlabels.errors import SourceError
from softlabels.inputs.chosen_rows import ChosenRows
from softlabels.inputs.preprocess import Preprocess
from softlabels.inputs.sources import Source
from softlabels.inputs.texts import Texts
from softlabels.models.tokens import Tokens

LONGEST = 32  # texts with most characters, which are tokenised before anything is written


def tokens_of(texts: Texts, ids: np.ndarray, preprocess: Preprocess) -> tuple[Tokens, int]:
    """The tokens of these rows, and how many rows were cut. Raises SourceError for a text that is
    longer than the model takes, unless it is to be cut."""
    tokenizer, most, cuts = preprocess.tokenization
    columns = list(texts.columns.values())
    tokens: Tokens = tokenizer.encode(columns)
    if not tokens.lengths.all():
        row = int(np.flatnonzero(tokens.lengths == 0)[0])
        raise SourceError(
            f"the text of the row with id {ids[row]!s} is empty, and the tokenizer "
            f"{tokenizer.name} makes no token of it, so there is nothing that the model could "
            f"read: write a text, or leave out the row"
        )
    if most is None:
        return tokens, 0
    longer = np.flatnonzero(tokens.lengths > most)
    if len(longer) and not cuts:
        row = int(longer[0])
        raise SourceError(
            f"the text of the row with id {ids[row]!s} has {tokens.lengths[row]:,} tokens, and the "
            f"model takes {most:,}: --truncate cuts such texts to that, --max-length N to N, and "
            f"the dump says how many"
        )
    return (tokenizer.encode(columns, most) if len(longer) else tokens), len(longer)


class TokenInputs(ChosenRows):
    """The texts of chosen source rows as tokens, of several lengths: a model pads a batch."""

    @property
    def input_shape(self) -> list[int]:
        """None that all rows share."""
        return []

    def gather(self, rows: np.ndarray) -> Tokens:
        block = self._block(rows)
        assert isinstance(block.cells, Texts), "the source's kind says so"
        return tokens_of(block.cells, block.ids, self.preprocess)[0]

    gather_uncached = gather

    def finish(self, batch: Tokens) -> Tokens:
        return batch

    def sample(self, rows: int = 2) -> Tokens:
        return self.gather(np.arange(min(rows, len(self))))

    def first_readable(self, count: int) -> tuple[np.ndarray, Tokens]:
        """The first source rows, and their tokens."""
        rows = np.arange(min(count, len(self)))
        return self.positions[rows], self.gather(rows)

    def remark(self) -> str:
        """The tokenizer, and what it makes of the first and of the longest texts."""
        tokenizer, most, cuts = self.preprocess.tokenization
        first = self.sample(64).lengths
        longest = int(self.gather(longest_rows(self.source)).lengths.max())
        limit = "" if most is None else f", {'cut' if cuts else 'at most'} at {most:,}"
        limit = limit.replace("at most at", "at most")
        return (
            f"tokenizer {tokenizer.name} ({tokenizer.hash}){limit}: the first texts have "
            f"{first.min():,} to {first.max():,} tokens, the longest about {longest:,}"
        )


def longest_rows(source: Source) -> np.ndarray:
    """The rows with most characters, ascending: one that is too long for a model is found before
    anything is written."""
    counts: list[Any] = []
    for columns in source.text_blocks():
        lengths = [pc.fill_null(pc.utf8_length(c), 0).to_numpy() for c in columns.values()]
        counts.append(np.sum(lengths, axis=0))
    every = np.concatenate(counts)
    return np.sort(np.argsort(-every, kind="stable")[:LONGEST])
