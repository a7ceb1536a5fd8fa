"""A plan and what carries it out; how a dump is run."""

from dataclasses import dataclass, field
from functools import cached_property

from softlabels.capture.answers import Answers
from softlabels.capture.timing import Timing
from softlabels.capture.viewing import Viewing
from softlabels.inputs.sources import Source
from softlabels.store.folder import Folder
from softlabels.store.ledger import Ledger
from softlabels.store.records import Plan
from softlabels.system.background import cores
from softlabels.system.environment import number_in_environment

READERS = 4


@dataclass(frozen=True)
class Pace:
    """How a dump is run, which does not change what it holds.

    batch_size: rows in a forward pass
    workers: threads that decode pictures; None for as many as there are cores for this process
    on_error: stop, or skip: an input that can't be read is left out
    allow_codec_error: store a shard though its codec errs far more than on the pilot
    """

    batch_size: int = 256
    workers: int | None = None
    on_error: str = "stop"
    allow_codec_error: bool = False

    def __post_init__(self) -> None:
        _ = self.cores  # a wrong environment is refused before anything is written

    @property
    def threads(self) -> int:
        """Threads that decode pictures."""
        return self.cores if self.workers is None else self.workers

    @property
    def cores(self) -> int:
        """Those of this process. Ranks of one machine share its cores."""
        ranks = number_in_environment("LOCAL_WORLD_SIZE", 1, least=1)
        return max(1, cores() // ranks)

    @property
    def readers(self) -> int:
        """Batches that are read at once, by threads that wait for those that decode. Few are
        enough, and what waits in memory must not grow with the cores."""
        return min(READERS, self.threads)


@dataclass(frozen=True)
class Job:
    """A plan and the objects that carry it out. timing: of what was done of it so far"""

    plan: Plan
    source: Source
    answers: Answers
    ledger: Ledger
    pace: Pace
    timing: Timing = field(default_factory=Timing)

    @property
    def folder(self) -> Folder:
        return self.ledger.folder

    @cached_property
    def viewing(self) -> Viewing:
        """How inputs are shown to the teacher."""
        return Viewing(self.plan, self.answers.preprocess, self.plan.views)

    @property
    def readers(self) -> int:
        """Threads that read. Rows that are only hashed come in large blocks: one thread keeps one
        block of inputs in memory."""
        if self.source.runs_code:  # of which reading may be the most expensive part
            return self.pace.threads
        return self.pace.readers if self.answers.needs_inputs else 1
