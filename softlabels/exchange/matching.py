"""A foreign file beside its source: what must hold before a row of it is taken, and its rows.

Shapes: N rows of a block, C classes.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from softlabels.errors import AlignmentError, LogitsError, UsageError
from softlabels.exchange.foreign import Foreign, look_at_dtype
from softlabels.exchange.logarithms import (
    check_logits,
    logs,
    refuse_probabilities,
    refuse_strange_logits,
)
from softlabels.inputs.label_numbers import check_labels
from softlabels.inputs.sources import Rows, Source
from softlabels.options import ImportOptions
from softlabels.system.local_files import file_fingerprint

SAMPLE = 256  # rows that are looked at before anything is written


@dataclass(frozen=True)
class Match:
    """A file, its source, and where each source row stands in the file (int64, −1: nowhere)."""

    options: ImportOptions
    foreign: Foreign
    source: Source
    places: np.ndarray

    def read(self, rows: Rows, start: int) -> tuple[np.ndarray, np.ndarray]:
        """Which of these source rows, which begin at `start`, have logits (positions [N]), and
        those, [N, C]. Raises LogitsError or AlignmentError that names the row."""
        there = self.places[start : start + len(rows)]
        kept = np.flatnonzero(there >= 0)
        found = self.foreign.read(there[kept]) if len(kept) else np.empty((0, self.foreign.classes))
        rows = rows.select(kept)
        self._check_columns(rows, there[kept])
        options, where = self.options, self.options.file
        if not options.probabilities:
            check_logits(found, rows.ids, where)
            return kept, found
        return kept, logs(found, options.T, options.floor, rows.ids, where)

    def _check_columns(self, rows: Rows, places: np.ndarray) -> None:
        """The labels and input hashes that a file may hold are the source's, or it is other data
        or another order."""
        for what, held, ours in (
            ("input hash", self.foreign.hashes, rows.hashes),
            ("label", self.foreign.labels, rows.labels),
        ):
            if held is None:
                continue
            differs = held[places] != ours
            if what == "label":
                differs &= ours >= 0  # the source may have none, for all rows or for some
            wrong = np.flatnonzero(differs)
            if len(wrong):
                row = wrong[0]
                raise AlignmentError(
                    f"{self.options.file} has the {what} {held[places[row]]} for the row with id "
                    f"{rows.ids[row].item()!r}; in {self.source.data!r} it is {ours[row]}. These "
                    f"are not the rows that the logits are of"
                )


def check_match(job: Match) -> None:
    """What can be known before anything is written."""
    words, foreign, source = job.options, job.foreign, job.source
    if foreign.probabilities and not words.probabilities:
        raise LogitsError(
            f"{words.file} holds probabilities, as all files of {foreign.kind} do, not logits. "
            f"--probabilities stores T times their logarithms, with --T as they were made"
        )
    look_at_dtype(foreign.dtype, words.dtype, words.file, words.probabilities)
    if words.classes not in (None, foreign.classes):
        raise UsageError(
            f"--classes is {words.classes}; {words.file} has {foreign.classes}. Leave it out"
        )
    names = source.class_names
    if names is not None and len(names) != foreign.classes:
        shown = ", ".join(names[:3]) + ", …" * (len(names) > 3)
        count = f"{foreign.classes} class{'es' * (foreign.classes > 1)}"
        raise LogitsError(
            f"{words.file} has {count}, {source.data!r} {len(names)} ({shown}); point --data at "
            f"what the logits are of"
        )
    check_labels(source, foreign.classes, words.file)
    missing = np.flatnonzero(job.places < 0)
    if len(missing) and words.on_missing == "stop":
        shown = ", ".join(map(repr, source.ids[missing[:5]].tolist()))
        raise AlignmentError(
            f"{words.file} has no logits for {len(missing):,} of {len(source):,} rows of "
            f"{source.data!r}, split {source.split!r}: first the ids {shown}. "
            f"--on-missing skip leaves such rows out, and records them"
        )
    first = source.read(0, min(SAMPLE, len(source)))
    found = job.read(first, 0)[1]  # refuse a wrong file at once
    if not words.probabilities:
        refuse_probabilities(found, words.file)
        refuse_strange_logits(found, words.file, words.outputs)


def tell(job: Match, how: str) -> str:
    """What was made of the file, for people and for the plan: nothing is taken in silence."""
    words, foreign, source = job.options, job.foreign, job.source
    parts = [foreign.kind]
    if words.ids:
        how += f" {file_fingerprint(Path(words.ids))[:23]}"
    parts += [how, foreign.words, foreign.unproven]
    if foreign.labels is not None and source.columns.label is None:
        parts.append("labels of the file unchecked, since the source has no label column")
    if words.probabilities:
        floor = "" if words.floor is None else f", floor {words.floor:g}"
        parts.append(f"log of probabilities made at T={words.T:g}{floor}")
    return "; ".join(part for part in parts if part)
