"""What one process does of a dump whose folder it holds."""

from dataclasses import dataclass

from softlabels.capture.job import Job
from softlabels.capture.planning import Setup


@dataclass(frozen=True)
class Part:
    """shards: of the job, to be made here; run: in whose name the folder is held"""

    setup: Setup
    job: Job
    shards: list[int]
    run: str
