"""What storing costs: CPU time of a dump's shards over the same loop whose logits are dropped.

    python -m benchmarks.dumping [--threads 1] [--repeats 5] [--only NAME] [--json FILE]

Both read, hash and forward the same batches of 256 by the same threads; the loop without a sink
brings each batch's logits to the CPU and forgets them. What is left is casting, checking,
describing, encoding, hashing and writing. CPU time of all threads of the process is what counts:
where every core is busy, a thread that writes beside the forward pass gains nothing. A dump's
writing thread alone, over all else in the same run, is the steadier figure: the pairs differ by
what the machine does meanwhile.
"""

import argparse
import json
import os
import shutil
import tempfile
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from pathlib import Path
from statistics import median
from unittest.mock import patch

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import datasets
import torch

from benchmarks.ratios import TEACHERS, compare, make_data
from softlabels.capture.job import Job
from softlabels.capture.pipeline import WRITES_IN_FLIGHT, dump_shards
from softlabels.capture.preparing import prepare
from softlabels.capture.reading import Batch, read_shards
from softlabels.capture.resuming import begin
from softlabels.capture.writing import Scribe
from softlabels.models.specs import build_model
from softlabels.options import DumpOptions
from softlabels.store.codecs.kinds import Dense
from softlabels.system.progress import SILENT


def main() -> None:
    datasets.disable_progress_bars()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", default="", help="teachers whose name holds this")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {options.threads} thread(s), cpu; CPU time")
    ratios = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, (spec, shape, classes, rows) in TEACHERS.items():
            if options.only in name:
                place = Path(folder) / name.replace(" ", "")
                ratios[name] = storing_ratio(
                    name, place, spec, shape, classes, rows, options.repeats
                )
    if options.json:
        options.json.write_text(json.dumps(ratios, indent=2) + "\n")


def storing_ratio(
    name: str, place: Path, spec: str, shape: list[int], classes: int, rows: int, repeats: int
) -> dict:
    place.mkdir()
    data, teacher = str(place / "data.parquet"), str(place / "t.pt")
    make_data(data, shape, rows)
    torch.manual_seed(0)
    torch.save(build_model(spec, shape, classes).state_dict(), teacher)
    numbers = count()

    def job() -> Job:
        out = str(place / f"dump-{next(numbers)}")
        made = prepare(DumpOptions(teacher=teacher, model=spec, data=data, out=out, device="cpu"))
        return made.job(begin(made, False, SILENT))

    def stored() -> float:
        made = job()
        started = time.process_time()
        for _ in dump_shards(made, range(made.plan.shards)):
            pass
        used = time.process_time() - started
        shutil.rmtree(str(made.folder))  # or each run would be charged for fresh page cache
        return used

    def writing() -> float:
        """Of one dump, the CPU time of the writing thread over that of all else."""
        made, used, write = job(), [0.0], Scribe.write

        def timed(scribe: Scribe, batch: Batch, answer: Dense | None) -> int:
            began = time.thread_time()
            try:
                return write(scribe, batch, answer)
            finally:
                used[0] += time.thread_time() - began

        with patch.object(Scribe, "write", timed):
            started = time.process_time()
            for _ in dump_shards(made, range(made.plan.shards)):
                pass
            total = time.process_time() - started
        shutil.rmtree(str(made.folder))
        return used[0] / (total - used[0])

    def dropped() -> float:
        made = job()
        started = time.process_time()
        drop_shards(made)
        return time.process_time() - started

    ratios = compare(f"{name}: stored over dropped", stored, dropped, repeats)
    shares = sorted(writing() for _ in range(repeats))
    print(
        f"{'  the writing thread over all else':<42} {median(shares):8.4f}   "
        f"({shares[0]:.4f} to {shares[-1]:.4f})",
        flush=True,
    )
    return ratios | {"writing": median(shares), "writing_all": shares}


def drop_shards(job: Job) -> None:
    """`dump_shards` of every shard, with nothing at its end."""
    pending: deque[Future[int]] = deque()
    with ThreadPoolExecutor(1) as sink:
        for batch in read_shards(job, range(job.plan.shards)):
            answer = job.answers.answer(batch.ready.rows, batch.ready.inputs)
            pending.append(sink.submit(lambda answer: len(answer.wait().logits_NC), answer))
            while len(pending) > WRITES_IN_FLIGHT or (pending and pending[0].done()):
                pending.popleft().result()
        while pending:
            pending.popleft().result()


if __name__ == "__main__":
    main()
