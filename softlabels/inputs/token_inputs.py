"""Texts of chosen rows as the tokens that a model reads, or columns of tokens as they are.

N rows asked for.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pyarrow.compute as pc
import torch

from softlabels.errors import SourceError
from softlabels.inputs.chosen_rows import ChosenRows
from softlabels.inputs.preprocess import Preprocess
from softlabels.inputs.rows import Rows
from softlabels.inputs.sources import Source
from softlabels.inputs.texts import Texts
from softlabels.inputs.token_cache import TokenCache, encode, open_cache
from softlabels.models.tokens import Tokens
from softlabels.system.humanize import counted
from softlabels.system.progress import Progress

BLOCK_ROWS = 65_536
LONGEST = 32  # texts with most characters, whose tokens are counted for the user
PART_ROWS = 4096  # that are tokenised at once where only their lengths are asked for
BESIDE_TEXT = 8  # tokens that a text may have beside one a byte: special ones


class TokenInputs(ChosenRows):
    """The texts of chosen source rows as tokens, or their columns of tokens, of several lengths: a
    model pads a batch. They are read when they are asked for, and not kept.

    cache: the tokens of all rows of the source; None where texts are tokenised as they are read
    """

    kept = False
    decoded_bytes = 0

    def __init__(
        self,
        source: Source,
        preprocess: Preprocess,
        positions: np.ndarray | None = None,
        hashes: np.ndarray | None = None,
        cache: TokenCache | None = None,
    ) -> None:
        super().__init__(source, preprocess, positions, hashes)
        self.cache = cache

    def __reduce__(self) -> tuple:
        known = self.source, self.preprocess, self.positions, self.hashes, self.cache
        return type(self), known

    @property
    def input_shape(self) -> list[int]:
        """None that all rows share."""
        return []

    def gather(self, rows: np.ndarray) -> Tokens:
        positions = self.positions[rows]
        if self.hashes is not None and self._keeps(positions, self.hashes[rows]):
            assert self.cache is not None, "it keeps them"
            return self.cache.tokens(positions)  # of the very texts, which need no reading
        return self.tokens_of(self._block(rows))[0]

    gather_uncached = gather

    def tokens_of(self, block: Rows) -> tuple[Tokens, int]:
        """The tokens of rows of the source that were read, and how many of them were cut. Those of
        the cache serve for a text with the same hash. Raises SourceError for a text that has no
        tokens, or more than the model takes, unless it is to be cut."""
        if isinstance(block.cells, Tokens):
            return block.cells, 0
        assert isinstance(block.cells, Texts), "the source's kind says so"
        if self._keeps(block.numbers, block.hashes):
            assert self.cache is not None, "it keeps them"
            tokens, whole = self.cache.tokens(block.numbers), self.cache.whole(block.numbers)
        else:
            tokens, whole = encode(block.cells, self.preprocess)
        self._check(whole, block.ids.__getitem__)
        return tokens, self._cut(whole)

    def finish(self, batch: Any) -> Any:
        return batch

    @property
    def reads_ahead(self) -> bool:
        """Whether a batch is worth making while another one is trained on."""
        return self.cache is None and not self.source.runs_code

    def prepare(self) -> None:
        """Refuse a wrong source now rather than with the first batch."""
        self.sample()

    def keep_on(self, device: torch.device) -> None:
        """Rows of several lengths are not kept on a device."""

    def sample(self, rows: int = 2) -> Tokens:
        return self.gather(np.arange(min(rows, len(self))))

    def first_readable(self, count: int) -> tuple[np.ndarray, Tokens]:
        """The first source rows, and their tokens; of columns of tokens also the longest row and
        the one with the largest token, so that a model is tried on them."""
        rows = np.arange(min(count, len(self)))
        if self.source.kind == "tokens" and len(rows) < len(self):
            span = self.source.token_span
            rows = np.unique([*rows[: max(1, count - 2)], span.longest.number, span.largest.number])
        return self.positions[rows], self.gather(rows)

    def check_lengths(self) -> str:
        """How many tokens the texts have, and how many texts are cut, in words. Without a cache
        only the longest texts are looked at, by their characters.

        Raises SourceError for a text that has no tokens, or more than the model takes, unless it is
        to be cut.
        """
        if self.cache is None:
            first = self.sample(64).lengths
            longest = int(self.gather(longest_rows(self.source, self.positions)).lengths.max())
            return (
                f"the first texts have {first.min():,} to {first.max():,} tokens, the longest "
                f"about {longest:,}"
            )
        least, most, total, cut = 1 << 62, 0, 0, 0
        for start in range(0, len(self), BLOCK_ROWS):
            positions = self.positions[start : start + BLOCK_ROWS]
            whole = self.cache.whole(positions)
            self._check(whole, partial(self._id_of, positions))
            least, most = min(least, int(whole.min())), max(most, int(whole.max()))
            total, cut = total + int(whole.sum()), cut + self._cut(whole)
        spread = f"{least:,} to {most:,} tokens, {total / len(self):,.1f} on average"
        text = f"{counted(len(self), 'text')} of {spread}"
        return text + (f"; {cut:,} of them are cut" if cut else "")

    def refuse_long(self, progress: Progress) -> None:
        """Raises SourceError, before anything is made of the texts, for one that the model can't
        take whole. Without a cache, whose lengths `check_lengths` looks at, those with more bytes
        than the model takes tokens are tokenised for it.

        Where a tokenizer makes more tokens than bytes of a text, its own batch is refused.
        """
        _, most, cuts = self.preprocess.tokenization
        if self.cache is not None or most is None or cuts:
            return
        chosen, start = np.zeros(len(self.source), bool), 0
        chosen[self.positions] = True
        with progress.bar("measure", len(self.source), "texts") as advance:
            for columns in self.source.text_blocks():
                sizes = sum(
                    pc.fill_null(pc.binary_length(c), 0).to_numpy() for c in columns.values()
                )
                long = np.flatnonzero(
                    (sizes + BESIDE_TEXT > most) & chosen[start : start + len(sizes)]
                )
                for first in range(0, len(long), PART_ROWS):
                    rows = long[first : first + PART_ROWS]
                    parts = {name: column.take(rows) for name, column in columns.items()}
                    texts = {name: pc.fill_null(c, "").to_pylist() for name, c in parts.items()}
                    self._check(
                        encode(Texts(texts), self.preprocess)[1], partial(self._id_of, start + rows)
                    )
                start += len(sizes)
                advance(len(sizes))

    def remark(self) -> str:
        """The tokenizer, and what it makes of the texts; or which token pads rows of tokens."""
        if self.source.kind == "tokens":
            pad = self.preprocess.pad
            return "rows of tokens" + ("" if pad is None else f", padded with the token {pad}")
        return f"{of_tokenizer(self.preprocess)}: {self.check_lengths()}"

    @property
    def count_cut(self) -> int | None:
        """How many texts are cut; None where not all have been tokenised."""
        if self.cache is None:
            return None
        starts = range(0, len(self), BLOCK_ROWS)
        parts = (self.positions[start : start + BLOCK_ROWS] for start in starts)
        return sum(self._cut(self.cache.whole(part)) for part in parts)

    def _id_of(self, positions: np.ndarray, row: int) -> Any:
        return self.source.take(positions[[row]]).ids[0]

    def _keeps(self, rows: np.ndarray, hashes: np.ndarray) -> bool:
        """Whether the cache has the tokens of these source rows, whose texts have these hashes."""
        if self.cache is None or not len(rows):
            return False
        return bool((self.cache.hashes(rows) == hashes).all())

    def _cut(self, whole: np.ndarray) -> int:
        _, most, _ = self.preprocess.tokenization
        return 0 if most is None else int((whole > most).sum())

    def _check(self, whole: np.ndarray, ids: Callable[[int], Any]) -> None:
        """whole: how many tokens rows have, of which `ids` gives the id"""
        tokenizer, most, cuts = self.preprocess.tokenization
        if not whole.all():
            row = int(np.flatnonzero(whole == 0)[0])
            raise SourceError(
                f"the text of the row with id {ids(row)!s} is empty, and the tokenizer "
                f"{tokenizer.name} makes no token of it, so there is nothing that the model could "
                f"read: write a text, or leave out the row"
            )
        if most is not None and not cuts and (whole > most).any():
            row = int(np.flatnonzero(whole > most)[0])
            raise SourceError(
                f"the text of the row with id {ids(row)!s} has {whole[row]:,} tokens, and the "
                f"model takes {most:,}: --truncate cuts such texts to that, --max-length N to N, "
                f"and their number is recorded"
            )


def of_tokenizer(preprocess: Preprocess) -> str:
    """The tokenizer, and how many tokens a text may have, in words."""
    tokenizer, most, cuts = preprocess.tokenization
    limit = "" if most is None else f", {'cut at' if cuts else 'at most'} {most:,}"
    return f"tokenizer {tokenizer.name} ({tokenizer.hash}){limit}"


def open_tokens(
    source: Source,
    preprocess: Preprocess,
    progress: Progress,
    positions: np.ndarray | None = None,
    hashes: np.ndarray | None = None,
) -> TokenInputs:
    """With the tokens of the cache, which are made now where it has none. Raises SourceError for a
    text that has more tokens than the model takes, if there can be no cache."""
    cache = open_cache(source, preprocess, progress)
    inputs = TokenInputs(source, preprocess, positions, hashes, cache)
    inputs.refuse_long(progress)
    return inputs


def longest_rows(source: Source, positions: np.ndarray) -> np.ndarray:
    """Which of these rows of the source have most characters, ascending."""
    counts: list[Any] = []
    for columns in source.text_blocks():
        lengths = [pc.fill_null(pc.utf8_length(c), 0).to_numpy() for c in columns.values()]
        counts.append(np.sum(lengths, axis=0))
    every = np.concatenate(counts)[positions]
    return np.sort(np.argsort(-every, kind="stable")[:LONGEST])
