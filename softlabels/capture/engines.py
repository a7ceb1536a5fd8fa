"""Who runs which shard. The plan decides what a shard is; an engine only hands them out."""

from collections.abc import Callable

from softlabels.capture.pipeline import dump_shards
from softlabels.capture.planning import Setup
from softlabels.capture.ray_workers import run_on_ray
from softlabels.capture.timing import Timing
from softlabels.store.records import Plan
from softlabels.system.progress import Progress

Engine = Callable[[Setup, Plan, list[int], str, Progress], Timing]


def run_here(setup: Setup, plan: Plan, shards: list[int], run: str, progress: Progress) -> Timing:
    """All these shards in this process, in order."""
    job = setup.job(plan)
    with progress.bar(setup.answers.verb, plan.inputs_of(shards), plan.unit) as advance:
        for rows in dump_shards(job, shards):
            advance(rows, job.timing.note)
    return job.timing


ENGINES: dict[str, Engine] = {"local": run_here, "ray": run_on_ray}
