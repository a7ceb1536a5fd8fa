"""Who runs which shard. The plan decides what a shard is; an engine only hands them out."""

from collections.abc import Callable, Sequence

from softlabels.capture.part import Part
from softlabels.capture.pipeline import Work, dump_together
from softlabels.capture.ray_workers import run_on_ray
from softlabels.capture.timing import Timing
from softlabels.system.progress import Progress

Engine = Callable[[Sequence[Part], Progress], Timing]


def run_here(parts: Sequence[Part], progress: Progress) -> Timing:
    """All these shards in this process, in order; a shard that several dumps miss is read once."""
    job = parts[0].job
    shards = sorted({shard for part in parts for shard in part.shards})
    works = [Work(part.job, part.shards, part.setup.title) for part in parts]
    with progress.bar(job.answers.verb, job.plan.inputs_of(shards), job.plan.unit) as advance:
        for rows in dump_together(works):
            advance(rows, job.timing.note)
    return job.timing


ENGINES: dict[str, Engine] = {"local": run_here, "ray": run_on_ray}
