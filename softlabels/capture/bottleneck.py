"""What would make a dump faster, in words: only what is true of this dump."""

from softlabels.capture.job import Job
from softlabels.capture.timing import READING, TEACHER, THE, WRITING, Timing
from softlabels.system.humanize import counted

SAID_SECONDS = 2.0  # of a shorter dump nothing is to be made faster


def bottleneck(job: Job, timing: Timing) -> str | None:
    """A line about the time of a dump; None where there was little."""
    bound = timing.bound
    if bound is None or sum(timing.seconds.values()) < SAID_SECONDS:
        return None
    speed = f"{timing.rows_per_second:,.0f} {job.plan.unit}/s"
    share = f"{timing.shares[bound]:.0%} of the time"
    return "; ".join([f"{speed}, bound by {THE[bound]} ({share})", *advice(job, bound)])


def advice(job: Job, bound: str) -> list[str]:
    """What would help a dump that this part bounds; empty where no option does."""
    return {READING: _on_reading, TEACHER: _on_teacher, WRITING: _on_writing}[bound](job)


def _on_reading(job: Job) -> list[str]:
    pace = job.pace
    if job.source.kind != "image":
        return []
    cores = counted(pace.cores, "core")
    if pace.threads < pace.cores:
        return [f"{pace.threads} of {cores} decode pictures: more --workers would help"]
    return [f"decoding pictures has all of {cores}: only more or faster ones would help"]


def _on_teacher(job: Job) -> list[str]:
    if job.answers.on_gpu and job.plan.precision == "float32":
        return ["--precision tf32 or bf16, in another folder, computes faster and rounds more"]
    return []


def _on_writing(job: Job) -> list[str]:
    helps = []
    if not job.folder.is_local:
        helps.append(f"{job.folder} is remote: a dump into a local folder would not wait for it")
    if job.plan.dtype == "float32" and job.plan.codec == "dense":
        helps.append("--dtype float16, in another folder, writes half the bytes")
    if job.plan.with_inputs:
        helps.append("--store-inputs none, in another folder, writes no inputs")
    return helps
