"""A foreign file beside its source: what must hold before a row of it is taken, and its answers.

Shapes: N rows of a batch, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from softlabels.capture.answers import Given
from softlabels.capture.naming import ClassNames
from softlabels.capture.transfers import Arriving
from softlabels.errors import AlignmentError, LogitsError, PlanMismatch, UsageError
from softlabels.exchange.foreign import Foreign, look_at_dtype
from softlabels.exchange.logarithms import (
    check_logits,
    logs,
    refuse_probabilities,
    refuse_strange_logits,
)
from softlabels.inputs.label_lists import LabelLists
from softlabels.inputs.label_numbers import check_labels
from softlabels.inputs.preprocess import Preprocess
from softlabels.inputs.rows import Rows
from softlabels.inputs.sources import Source
from softlabels.inputs.views.augmentations import Drawn
from softlabels.label_spaces import WAYS_OUT
from softlabels.store.codecs.kinds import Dense
from softlabels.store.folder import Folder
from softlabels.store.plan_parts import TeacherRecord
from softlabels.system.humanize import few
from softlabels.system.local_files import file_fingerprint

SAMPLE = 256  # rows that are looked at before anything is written


@dataclass(frozen=True)
class Probabilities:
    """What a file of probabilities becomes: T · log max(p, floor). T: at which they were made."""

    T: float
    floor: float | None

    def __str__(self) -> str:
        floor = "" if self.floor is None else f", floor {self.floor:g}"
        return f"log of probabilities made at T={self.T:g}{floor}"


@dataclass(frozen=True)
class FileAnswers:
    """The logits of a foreign file, as the answers to its source's rows.

    file: as the user wrote it, for messages
    places: where each source row stands in the file, int64; −1: nowhere
    probabilities: what is made of them, where the file holds no logits
    name, origin: what the plan calls the teacher, and how rows were taken from the file
    preprocess: for students; nothing is decoded here
    """

    file: str
    foreign: Foreign
    source: Source
    places: np.ndarray
    probabilities: Probabilities | None
    name: str
    origin: str
    preprocess: Preprocess

    verb: ClassVar[str] = "import"
    gives: ClassVar[Any] = Dense
    needs_inputs: ClassVar[bool] = False
    texts: ClassVar[None] = None
    pads: ClassVar[bool] = False
    on_gpu: ClassVar[bool] = False
    hardware: ClassVar[None] = None
    precision: ClassVar[str] = "unknown"
    channels_last: ClassVar[bool] = False
    is_compiled: ClassVar[bool] = False
    batch_size: ClassVar[int | None] = None
    rounding: ClassVar[float] = 0.0

    @property
    def title(self) -> str:
        return self.file

    @property
    def teacher(self) -> dict[str, str | None]:
        return {
            "name": self.name,
            "kind": "imported",
            "fingerprint": self.foreign.fingerprint,
            "model": self.origin,
        }

    @property
    def classes(self) -> int:
        return self.foreign.classes

    def left_out(self, rows: Rows) -> list[tuple[int, str]]:
        missing = np.flatnonzero(self.places[rows.numbers] < 0)
        reason = f"no logits for it in {Path(self.file).name}"
        return [(position, reason) for position in missing.tolist()]

    def answer(
        self, rows: Rows, inputs: Given | None = None, views: Sequence[Drawn] = ()
    ) -> Arriving:
        """Raises LogitsError or AlignmentError that names the row."""
        assert not views, "a file has the logits of the inputs as they are"
        places = self.places[rows.numbers]
        values_NC = self.foreign.read(places)
        self._check_columns(rows, places)
        if self.probabilities is None:
            check_logits(values_NC, rows.ids, self.file)
        else:
            made = self.probabilities
            values_NC = logs(values_NC, made.T, made.floor, rows.ids, self.file)
        return Arriving(torch.from_numpy(np.require(values_NC, requirements=["C", "W"])))

    def check_earlier(self, earlier: TeacherRecord, folder: Folder) -> None:
        """All ways of taking a file stand in one field of the plan; here those that differ are
        named."""
        ours, theirs = self.origin.split("; "), str(earlier.model).split("; ")
        if earlier.fingerprint != self.foreign.fingerprint or ours == theirs:
            return
        now = "; ".join(part for part in ours if part not in theirs) or "nothing more"
        then = "; ".join(part for part in theirs if part not in ours) or "nothing more"
        raise PlanMismatch(
            f"{folder} holds an import of the same file made otherwise. Now: {now}; then: "
            f"{then}. Give the options that it was made with, or choose another folder with --out"
        )

    def _check_columns(self, rows: Rows, places: np.ndarray) -> None:
        """The labels and input hashes that a file may hold are the source's, or it is other data
        or another order."""
        for what, stored, ours in (
            ("input hash", self.foreign.hashes, rows.hashes),
            ("label", self.foreign.labels, rows.labels),
        ):
            if stored is None:
                continue
            if isinstance(ours, LabelLists):  # a file has one label a row
                continue
            differs = stored[places] != ours
            if what == "label":
                # the source may have none, for all rows or for some, or those of other classes
                differs &= (ours >= 0) & (not self.source.own_labels)
            wrong = np.flatnonzero(differs)
            if len(wrong):
                row = wrong[0]
                raise AlignmentError(
                    f"{self.file} has the {what} {stored[places[row]]} for the row with id "
                    f"{rows.ids[row].item()!r}; in {self.source.data!r} it is {ours[row]}. These "
                    f"are not the rows that the logits are of"
                )


def check_match(
    answers: FileAnswers,
    names: ClassNames,
    *,
    dtype: str | None,
    classes: int | None,
    outputs: str,
    leaves_out: bool,
) -> None:
    """What can be known before anything is written.

    dtype, classes: as the user gave them
    outputs: logits, where strange numbers are known to be logits
    leaves_out: source rows without logits are left out, and not refused
    """
    file, foreign, source = answers.file, answers.foreign, answers.source
    is_logits = answers.probabilities is None
    if foreign.probabilities and is_logits:
        raise LogitsError(
            f"{file} holds probabilities, as all files of {foreign.kind} do, not logits. "
            f"--probabilities stores T times their logarithms, with --T as they were made"
        )
    look_at_dtype(foreign.dtype, dtype, file, not is_logits)
    if classes not in (None, foreign.classes):
        raise UsageError(f"--classes is {classes}; {file} has {foreign.classes}. Leave it out")
    if names.come_from == "data" and names.names and len(names.names) != foreign.classes:
        count = f"{foreign.classes} class{'es' * (foreign.classes > 1)}"
        raise LogitsError(
            f"{file} has {count}, {source.data!r} {len(names.names)} ({few(names.names)}); point "
            f"--data at what the logits are of. {WAYS_OUT}"
        )
    names.check_count(foreign.classes, file)
    check_labels(source, foreign.classes, file)
    missing = np.flatnonzero(answers.places < 0)
    if len(missing) and not leaves_out:
        shown = ", ".join(map(repr, source.ids[missing[:5]].tolist()))
        raise AlignmentError(
            f"{file} has no logits for {len(missing):,} of {len(source):,} rows of "
            f"{source.data!r}, split {source.split!r}: first the ids {shown}. "
            f"--on-missing skip leaves such rows out, and records them"
        )
    first = source.read(0, min(SAMPLE, len(source)))
    first = first.select(np.flatnonzero(answers.places[first.numbers] >= 0))
    values_NC = answers.answer(first).logits_NC.numpy()  # refuses a wrong file at once
    if is_logits:
        refuse_probabilities(values_NC, file)
        refuse_strange_logits(values_NC, file, outputs)


def describe_origin(
    foreign: Foreign,
    source: Source,
    order: str,
    ids: Path | None,
    probabilities: Probabilities | None,
) -> str:
    """How rows are taken from the file, for people and for the plan: nothing is done in silence.
    order: how they were matched with the source's."""
    if ids is not None:
        order += f" {file_fingerprint(ids)[:23]}"
    parts = [foreign.kind, order, foreign.details, foreign.unproven]
    unlike = source.columns.label is None or source.own_labels or source.spelling is not None
    if foreign.labels is not None and unlike:
        why = "labels are of other classes" if source.own_labels else "source has no label column"
        why = why if source.spelling is None else "source has several a row"
        parts.append(f"labels of the file unchecked, since the {why}")
    if probabilities is not None:
        parts.append(str(probabilities))
    return "; ".join(part for part in parts if part)
