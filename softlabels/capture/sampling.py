"""At a resume, some rows of each finished shard are read again: are they the ones that it was made
from? What is certain of the source, such as its ids and labels, the plan was held against before.
"""

import numpy as np
import pyarrow as pa

from softlabels.capture.job import Job
from softlabels.errors import DamagedDump, PlanMismatch
from softlabels.inputs.cells import read_ids
from softlabels.store.footers import PARQUET_ERRORS, read_columns
from softlabels.store.records import Commit
from softlabels.system.progress import Progress

RUNS, RUN_ROWS = 8, 8  # rows that stand together lie in one row group, which is decoded as a whole


def check_sample(job: Job, shards: list[int], progress: Progress) -> list[int]:
    """Raises PlanMismatch where inputs are others than those of these finished shards. Those whose
    files can't be read, for which there is nothing to compare."""
    commits, unread = job.ledger.commits_of(shards), []
    with progress.bar("sample", len(commits), "shards") as advance:
        for shard, commit in commits.items():
            try:
                with job.folder.open(commit.file) as file:
                    table = read_columns(file, job.plan, shard, commit.rows, ["id", "input_hash"])
            except (DamagedDump, *PARQUET_ERRORS) as error:
                progress.say(f"{commit.file}: {error}; it is done again")
                unread.append(shard)
                continue
            _check_shard(job, commit, table)
            advance(1)
    return unread


def _check_shard(job: Job, commit: Commit, table: pa.Table) -> None:
    first = job.plan.view_rows(commit.rows)[0]
    chosen = _choose(commit, len(first))
    rows = job.source.take(_source_rows(job, commit)[chosen])
    stored = table.take(first[chosen])
    wrong = (rows.ids != read_ids(stored["id"], "id")) | (
        rows.hashes != stored["input_hash"].to_numpy()
    )
    if wrong.any():
        ids = ", ".join(map(str, rows.ids[wrong][:5]))
        raise PlanMismatch(
            f"{job.folder} holds a dump made of other inputs: of {len(chosen)} rows of shard "
            f"{commit.shard} that were read again, {int(wrong.sum())} have changed, first those "
            f"with id {ids}. Bring back the data, or choose another folder with --out"
        )


def _choose(commit: Commit, inputs: int) -> np.ndarray:
    """Runs of a shard's inputs, the same ones each time: all inputs of a small one."""
    if inputs <= RUNS * RUN_ROWS:
        return np.arange(inputs)
    chance = np.random.default_rng(commit.shard)
    starts = chance.choice(inputs // RUN_ROWS, RUNS, replace=False) * RUN_ROWS
    return np.sort((starts[:, None] + np.arange(RUN_ROWS)).ravel())


def _source_rows(job: Job, commit: Commit) -> np.ndarray:
    """The numbers in the source of a shard's stored inputs."""
    start, stop = job.plan.bounds(commit.shard)
    kept = np.ones(stop - start, bool)
    kept[[entry.row - start for entry in commit.skipped]] = False
    return start + np.flatnonzero(kept)
