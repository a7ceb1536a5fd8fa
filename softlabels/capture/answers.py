"""What answers for rows of a source: a teacher that runs, or a file that another program wrote.
Both become a dump in the same way. N rows of a batch, C classes.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from softlabels.capture.batching import Batching
from softlabels.capture.transfers import Arriving, Lanes
from softlabels.errors import OutOfMemory
from softlabels.inputs.preprocess import Preprocess
from softlabels.inputs.rows import Rows
from softlabels.inputs.shown import Shown
from softlabels.inputs.token_inputs import TokenInputs
from softlabels.models.model import no_room
from softlabels.models.named import NamedInputs
from softlabels.models.tokens import Tokens, alike
from softlabels.store.codecs.kinds import Dense
from softlabels.store.folder import Folder
from softlabels.store.plan_parts import TeacherRecord
from softlabels.system.devices import device_words, moved
from softlabels.system.memory import is_out_of_memory
from softlabels.system.reused_memory import ReusedMemory
from softlabels.teachers import Teacher
from softlabels.teachers.probing import steady_limit

Given = Tensor | NamedInputs | Shown  # the inputs of a batch of rows


class Answers(Protocol):
    """What a plan says of its teacher, and the answers that a codec stores.

    verb: what making a dump of them is called, dump or import
    gives: the kind of answers, which the codec has to take
    needs_inputs: whether `answer` is given decoded inputs
    on_gpu: whether inputs go to a CUDA device, and so into memory that it reads directly
    hardware: what it runs on; None where nothing runs
    title: what messages call it
    teacher: the fields of the plan's `TeacherRecord`
    preprocess: from an input to what the teacher sees
    precision: of the teacher's run, or unknown
    channels_last: whether pictures are given in that memory format
    is_compiled: whether torch.compile made what runs
    classes: C
    batch_size: the rows in a batch, where the answers may depend on it
    rounding: by how much a probability may differ between two answers to the same row
    texts: what makes tokens of rows that are texts, or tokens; None for answers to other inputs
    pads: whether rows of tokens are padded
    """

    verb: ClassVar[str]
    gives: ClassVar[type[Dense]]
    needs_inputs: ClassVar[bool]

    @property
    def on_gpu(self) -> bool: ...
    @property
    def hardware(self) -> str | None: ...
    @property
    def title(self) -> str: ...
    @property
    def teacher(self) -> dict[str, str | None]: ...
    @property
    def preprocess(self) -> Preprocess: ...
    @property
    def precision(self) -> str: ...
    @property
    def channels_last(self) -> bool: ...
    @property
    def is_compiled(self) -> bool: ...
    @property
    def classes(self) -> int: ...
    @property
    def batch_size(self) -> int | None: ...
    @property
    def rounding(self) -> float: ...
    @property
    def texts(self) -> TokenInputs | None: ...
    @property
    def pads(self) -> bool: ...

    def left_out(self, rows: Rows) -> list[tuple[int, str]]:
        """The positions of the rows that have no answer, and why, in order."""
        ...

    def answer(self, rows: Rows, inputs: Given | None) -> Arriving:
        """The answers to these rows, of which `left_out` names none; or to the views of each that
        are shown, one view after the other. A device may still compute them: the writing thread
        waits for them."""
        ...

    def check_earlier(self, earlier: TeacherRecord, folder: Folder) -> None:
        """Raises PlanMismatch where a dump in the folder took the same file otherwise, if a message
        of its own is clearer than the comparison of the plans, field by field."""
        ...


@dataclass(frozen=True)
class RunningTeacher:
    """A teacher on a device. batch_size: of the plan; batching: how many rows are given at once;
    texts: their tokens; memory: of a batch of numbers, on a CPU; shares: whether other teachers are
    given the same inputs after it."""

    model: Teacher
    preprocess: Preprocess
    precision: str
    device: torch.device
    classes: int
    batch_size: int | None = None
    batching: Batching = field(default_factory=lambda: Batching(256))
    texts: TokenInputs | None = None
    memory: ReusedMemory = field(default_factory=ReusedMemory, repr=False, compare=False)
    shares: bool = False

    verb: ClassVar[str] = "dump"
    gives: ClassVar[Any] = Dense
    needs_inputs: ClassVar[bool] = True

    def __str__(self) -> str:
        model = self.model
        kind = f"{model.kind}, {model.spec}" if model.spec else model.kind
        return f"teacher {model.name} ({kind}, {self.classes:,} classes) on {self.device}"

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    @cached_property
    def hardware(self) -> str:
        return device_words(self.device)

    @cached_property
    def lanes(self) -> Lanes:
        return Lanes(self.device)

    @property
    def title(self) -> str:
        return self.model.title

    @property
    def teacher(self) -> dict[str, str | None]:
        return {
            "name": plain_text(self.model.name),
            "kind": self.model.kind,
            "fingerprint": self.model.fingerprint,
            "model": self.model.spec,
            "key": self.model.key,
            "logits": self.model.output,
            "outputs": "binary" if self.model.is_pair else None,
            "version": self.model.version,
        }

    @property
    def rounding(self) -> float:
        return steady_limit(self.model, self.precision)

    @property
    def channels_last(self) -> bool:
        return self.model.channels_last

    @property
    def is_compiled(self) -> bool:
        return self.model.compiled is not None

    @property
    def pads(self) -> bool:
        return self.model.pads

    def left_out(self, rows: Rows) -> list[tuple[int, str]]:
        return []

    def answer(self, rows: Rows, inputs: Given | None) -> Arriving:
        assert inputs is not None, "it needs them"
        while True:
            try:
                return self.answer_at_once(inputs, self.batching.rows)
            except OutOfMemory as error:
                if not (self.batching.adapts and self.batching.can_shrink(len(inputs))):
                    raise OutOfMemory(f"{error}. With --resume, what is committed stays") from error
            # not above: the error holds what the failed run took
            self.batching.shrink(self.device, len(inputs))

    def answer_at_once(self, inputs: Given, most: int) -> Arriving:
        """So many rows at once at most. Raises OutOfMemory where they are too many, and what the
        teacher raises."""
        try:
            if isinstance(inputs, Tokens):
                logits_NC = self._by_length(inputs.to(self.device), most)
            elif isinstance(inputs, Shown):
                logits_NC = self._by_view(inputs, most)
            else:
                logits_NC = self._in_parts(inputs, most)
            return self.lanes.to_host(logits_NC, most)
        except (RuntimeError, MemoryError) as error:  # of our own steps around the teacher
            if is_out_of_memory(error):
                raise OutOfMemory(no_room(min(most, len(inputs)), error)) from error
            raise

    def _in_parts(self, inputs: Any, most: int) -> Tensor:
        # what memory ran out for is answered again, and what others are given too is theirs: no
        # model changes it in place
        spare = self.device.type != "cpu" or not (self.batching.adapts or self.shares)
        parts = [
            self._logits(self.lanes.to_device(inputs[start : start + most]), spare)
            for start in range(0, len(inputs), most)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _by_view(self, shown: Shown, most: int) -> Tensor:
        """Views of few inputs go through the teacher together, as many as a batch holds."""
        of_views: list[list[Tensor]] = [[] for _ in shown.views]
        waiting: list[tuple[int, Tensor]] = []

        def answer() -> None:
            inputs = [of_view for _, of_view in waiting]
            logits_NC = self._logits(inputs[0] if len(inputs) == 1 else torch.cat(inputs))
            parts = logits_NC.split([len(of_view) for of_view in inputs])
            for (view, _), part in zip(waiting, parts, strict=True):
                of_views[view].append(part)
            waiting.clear()

        for start in range(0, shown.inputs, most):
            part = slice(start, start + most)
            for view, inputs in enumerate(shown.of(part, self.lanes.to_device)):
                if waiting and sum(len(one) for _, one in waiting) + len(inputs) > most:
                    answer()
                waiting.append((view, inputs))
        answer()
        return torch.cat([part for of_view in of_views for part in of_view])

    def _by_length(self, tokens: Tokens, most: int) -> Tensor:
        """Rows of like lengths are answered together, so that little is padded; in their order."""
        batches = alike(tokens.lengths, most)
        parts = [self.model.logits(tokens[rows], self.precision) for rows in batches]
        back = np.argsort(np.concatenate(batches))
        return torch.cat(parts)[moved(torch.from_numpy(back), self.device)]

    def _logits(self, inputs: Any, spare: bool = False) -> Tensor:
        numbers = self.preprocess.on_numbers(inputs, self.memory.empty)
        return self.model.logits(numbers, self.precision, spare or numbers is not inputs)

    def check_earlier(self, earlier: TeacherRecord, folder: Folder) -> None:
        """Another file is another fingerprint, which the plans' comparison names."""


def plain_text(name: str) -> str:
    """A name as UTF-8 can hold it: that of a file may be any bytes."""
    return name.encode("utf-8", "replace").decode()
