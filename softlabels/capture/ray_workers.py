"""Shards on a Ray cluster: a pool of actors, one a GPU where there are GPUs, else one a core.

Ray schedules, replaces lost workers and tries their shard again; the plan decides the rest.
"""

import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, redirect_stdout
from dataclasses import replace
from typing import Any

from softlabels.capture.part import Part
from softlabels.capture.pipeline import dump_shards
from softlabels.capture.planning import Setup, make_plan
from softlabels.capture.siblings import failing_midway
from softlabels.capture.timing import Timing
from softlabels.errors import StoreError
from softlabels.models.causes import first_line
from softlabels.store.claims import claimed
from softlabels.store.records import Plan
from softlabels.system.extras import need
from softlabels.system.progress import Progress

TRIES = 3  # of one shard, when its worker is lost


class ShardWorker:
    """The actor: opens teacher and data when it gets its first shard, and again if it was lost."""

    def __init__(
        self, reopen: Callable[[], Setup], plan: dict[str, Any], run: str, rank: int
    ) -> None:
        self.reopen, self.plan, self.run, self.rank = reopen, plan, run, rank
        self.stack = ExitStack()
        self.job: Any = None

    def dump(self, shard: int, folder: str) -> Timing:
        """Dump one shard and commit it."""
        if self.job is None:
            if os.path.isdir(folder):
                os.chdir(folder)  # where the driver's relative paths begin
            setup = self.reopen()
            plan = Plan.parse(self.plan, "the plan")
            make_plan(setup, plan).check_same(plan, setup.folder)
            self.stack.enter_context(claimed(setup.folder, self.run, self.rank))
            self.job = setup.job(plan)
        job = replace(self.job, timing=Timing())
        for _ in dump_shards(job, [shard]):
            pass
        return job.timing

    def pid(self) -> int:
        return os.getpid()

    def leave(self) -> None:
        self.stack.close()


def run_on_ray(parts: Sequence[Part], progress: Progress) -> Timing:
    """All these shards on the cluster that RAY_ADDRESS names, else on this machine: those of one
    dump after those of another."""
    timing = Timing()
    for part in parts:
        if part.shards:
            with failing_midway(part.setup.title):
                timing = timing.followed_by(_run_part(part, progress))
    return timing


def _run_part(part: Part, progress: Progress) -> Timing:
    ray = _import_ray()
    began_here = not ray.is_initialized()
    if began_here:
        ray.init(log_to_driver=False, include_dashboard=False, logging_level="error")
    try:
        with redirect_stdout(sys.stderr):  # where Ray tells of lost workers; results stand alone
            return _hand_out(ray, part, progress)
    except ray.exceptions.RayTaskError as error:
        raise (error.cause if isinstance(error.cause, Exception) else error) from None
    except ray.exceptions.RayActorError as error:
        raise StoreError(
            f"a worker was lost {TRIES} times with the same shard: {first_line(error)}. What is "
            f"committed is safe; run the same command with --resume"
        ) from error
    finally:
        if began_here:
            ray.shutdown()


def _hand_out(ray: Any, part: Part, progress: Progress) -> Timing:
    setup, plan, shards, run = part.setup, part.job.plan, part.shards, part.run
    assert setup.reopen is not None, "a dump by ranks or on Ray is opened by each process"
    resources = ray.cluster_resources()
    gpus = int(resources.get("GPU", 0))
    count = min(len(shards), gpus or int(resources.get("CPU", 1)))
    actor = ray.remote(
        num_cpus=1, num_gpus=1 if gpus else 0, max_restarts=-1, max_task_retries=TRIES
    )(ShardWorker)
    workers = [actor.remote(setup.reopen, plan.as_json, run, 1 + i) for i in range(count)]
    pool = ray.util.ActorPool(workers)
    progress.say(f"{len(shards)} shards on {count} Ray workers, each with a {_each(gpus)}")
    here, timing, began = os.getcwd(), Timing(), time.perf_counter()
    try:
        done = pool.map_unordered(lambda worker, shard: worker.dump.remote(shard, here), shards)
        with progress.bar("dump", plan.inputs_of(shards), plan.unit) as advance:
            for of_shard in done:
                timing = timing + of_shard
                advance(of_shard.rows, timing.note)
        ray.get([worker.leave.remote() for worker in workers])
        return replace(timing, elapsed=time.perf_counter() - began)
    finally:
        for worker in workers:
            ray.kill(worker)


def _each(gpus: int) -> str:
    return "GPU" if gpus else "core"


def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    need("ray.util", "ray", "--engine ray")
    return need("ray", "ray", "--engine ray")
