"""Who runs which shard. The plan decides what a shard is; an engine only hands them out."""

from softlabels.capture.pipeline import Job, dump_shards
from softlabels.progress import Progress


def run_here(job: Job, missing: list[int], progress: Progress) -> None:
    """All missing shards in this process, in order."""
    bounds = [job.plan.bounds(shard) for shard in missing]
    with progress.bar("dump", sum(stop - start for start, stop in bounds), "rows") as advance:
        for rows in dump_shards(job, missing):
            advance(rows, "")
