"""What rows of tokens span, seen once before a model reads them. N rows of a block."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from softlabels.models.tokens import IDS, Tokens


class Seen(NamedTuple):
    """A value, and the first row that has it: its id, and its number in the source."""

    value: int
    id: Any
    number: int = 0


@dataclass
class TokenSpan:
    """shortest, longest: how many tokens a row has
    largest: of `input_ids`
    firsts, lasts: the tokens that rows begin and end with: how many rows do
    runs: the same of rows that begin or end with two of a token, as padded ones do
    rows: how many there are
    """

    shortest: Seen = field(default=Seen(0, None))
    longest: Seen = field(default=Seen(0, None))
    largest: Seen = field(default=Seen(-1, None))
    firsts: dict[int, Seen] = field(default_factory=dict)
    lasts: dict[int, Seen] = field(default_factory=dict)
    runs: dict[int, Seen] = field(default_factory=dict)
    rows: int = 0

    def add(self, tokens: Tokens, ids: np.ndarray) -> None:
        """The next rows."""
        if not len(tokens):
            return
        lengths_N, values = tokens.lengths, tokens.columns[IDS]
        stops = np.cumsum(lengths_N)
        starts = stops - lengths_N
        long, short = int(lengths_N.argmax()), int(lengths_N.argmin())
        if lengths_N[long] > self.longest.value:
            self.longest = Seen(int(lengths_N[long]), ids[long], self.rows + long)
        if self.rows == 0 or lengths_N[short] < self.shortest.value:
            self.shortest = Seen(int(lengths_N[short]), ids[short], self.rows + short)
        place = int(values.argmax())
        if values[place] > self.largest.value:
            row = int(np.searchsorted(stops, place, side="right"))
            self.largest = Seen(int(values[place]), ids[row], self.rows + row)
        first_N, last_N = values[starts], values[stops - 1]
        begins_N = first_N == values[np.minimum(starts + 1, stops - 1)]
        ends_N = last_N == values[np.maximum(stops - 2, starts)]
        several_N = lengths_N > 1
        self._count(self.firsts, first_N, ids)
        self._count(self.lasts, last_N, ids)
        for edge_N, twice_N in ((first_N, begins_N & several_N), (last_N, ends_N & several_N)):
            self._count(self.runs, edge_N[twice_N], ids[twice_N])
        self.rows += len(tokens)

    @property
    def is_even(self) -> bool:
        """Whether all rows have the same length."""
        return self.shortest.value == self.longest.value

    def edges(self, token: int) -> Seen | None:
        """How many rows end with a token, or begin with it if those are more; None for none."""
        both = [side[token] for side in (self.lasts, self.firsts) if token in side]
        return max(both, default=None, key=lambda one: one.value)

    @staticmethod
    def _count(seen: dict[int, Seen], tokens_N: np.ndarray, ids: np.ndarray) -> None:
        values, first, counts = np.unique(tokens_N, return_index=True, return_counts=True)
        for value, place, count in zip(values.tolist(), first, counts.tolist(), strict=True):
            before = seen.get(value, Seen(0, ids[place]))
            seen[value] = before._replace(value=before.value + count)
