"""Harm done to dumps many times over: tried, survived, rows lost, rows twice.

    python -m benchmarks.harms [--times 20] [--only WORD] [--json FILE]

Survived means: what was wrong was named (where there is something to name), and one resume later
the dump has the bytes of one that nothing happened to. Needs what the tests need (`.[dev,ray,s3]`).
Some minutes on two cores.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch

import softlabels
from softlabels.errors import DiskFull
from softlabels.store.folder import Folder
from softlabels.store.reader import DumpReader
from tests import s3
from tests.capture import harm
from tests.capture.test_engines import finish, pids, ranks, torchrun
from tests.capture.test_trust import Slow, commits
from tests.conftest import Linear, make_vectors, save_script
from tests.processes import kill, start, wait_for
from tests.store.test_remote import dump_quickly

ROWS = 1200


@dataclass
class Count:
    """Of one kind of harm. A trial survives if `named` and the bytes are the calm ones."""

    tried: int = 0
    survived: int = 0
    lost: int = 0
    twice: int = 0

    def add(self, folder: str, calm: list[dict], named: bool = True, rows: int = ROWS) -> None:
        reader = DumpReader(Folder(folder))
        ids = np.unique(reader.ids)
        self.tried += 1
        self.lost += rows - len(ids)
        self.twice += len(reader.ids) - len(ids)
        good = softlabels.verify(dump=folder).good
        self.survived += named and good and reader.manifest.shards == calm


class Bench:
    """A place with a teacher, a dump that nothing happened to, and what each trial starts from."""

    def __init__(self, place: Path, times: int) -> None:
        self.place, self.times, self.chance = place, times, random.Random(0)
        torch.manual_seed(0)
        teacher = str(place / "t.pt")
        softlabels.fit(data="digits", model="mlp:64", epochs=3, out=teacher)
        torch.save(Slow().state_dict(), place / "w.pt")
        self.fast = {"teacher": teacher, "shard_rows": 10, "batch_size": 4}
        self.slow = {"teacher": str(place / "w.pt"), "model": "tests.capture.test_trust:Slow",
                     "data": "digits", "shard_rows": 50, "batch_size": 25}  # fmt: skip
        self.calm_fast, self.seconds = self.calm("fast", self.fast)
        self.calm_slow, _ = self.calm("slow", self.slow)

    def calm(self, name: str, options: dict) -> tuple[list[dict], float]:
        began = time.monotonic()
        softlabels.dump(**options, out=str(self.place / name))
        shards = DumpReader(Folder(self.place / name)).manifest.shards
        return shards, time.monotonic() - began

    def fresh(self, name: str = "rough") -> Path:
        shutil.rmtree(self.place / name, ignore_errors=True)
        return self.place / name

    def kills(self) -> Count:
        """Each trial is one dump that is killed until it is done; the kills are counted."""
        count = Count()
        killed = 0
        while killed < 10 * self.times:
            out = self.fresh()
            for _ in range(40):
                before = commits(out)
                process = start(softlabels.dump, **self.fast, out=str(out), resume=True)
                process.join(self.chance.uniform(0.02, 0.4 * self.seconds))
                killed += kill(process)
                assert before <= commits(out)
            softlabels.dump(**self.fast, out=str(out), resume=True)
            count.add(str(out), self.calm_fast)
        print(f"  ({killed} kills over {count.tried} dumps)")
        return count

    def damage(self, do: Callable[[Path], list[str]]) -> Count:
        count = Count()
        for trial in range(self.times):
            out = self.fresh()
            shutil.copytree(self.place / "slow", out)
            named = set(do(out) if do is not harm.flip_anywhere else harm.flip_anywhere(out, trial))
            reported = {Path(f.file).name for f in softlabels.verify(dump=str(out)).findings}
            softlabels.dump(**self.slow, out=str(out), resume=True)
            count.add(str(out), self.calm_slow, named=reported == named)
        return count

    def flips(self) -> Count:
        """A bit anywhere in a shard: found by verify? (Not redone each time.)"""
        count = Count()
        out = self.fresh()
        shutil.copytree(self.place / "slow", out)
        for trial in range(50 * self.times):
            name = harm.flip_anywhere(out, trial)[0]
            reported = {Path(f.file).name for f in softlabels.verify(dump=str(out)).findings}
            count.tried += 1
            count.survived += reported == {name}
            harm.flip_anywhere(out, trial)  # and back
        return count

    def full_disk(self) -> Count:
        count = Count()
        data = make_vectors(self.place / "v.parquet", rows=20_000)
        script = save_script(Linear(), self.place / "s.pt")
        options = {"teacher": script, "data": data, "shard_rows": 1000}
        calm, _ = self.calm("vectors", options)
        for _ in range(max(3, self.times // 4)):
            with small_disk(self.place / "disk") as disk:
                filler = disk / "filler"
                filler.write_bytes(b"0" * self.chance.randrange(600_000, 950_000))
                try:
                    softlabels.dump(**options, out=str(disk / "d"))
                    stopped = False
                except DiskFull:
                    stopped = True
                filler.unlink()
                softlabels.dump(**options, out=str(disk / "d"), resume=True)
                count.add(str(disk / "d"), calm, named=stopped, rows=20_000)
        return count

    def two_at_once(self) -> Count:
        count = Count()
        for _ in range(self.times):
            out = self.fresh()
            codes = finish([start(softlabels.dump, **self.slow, out=str(out)) for _ in range(3)])
            count.add(str(out), self.calm_slow, named=sorted(codes) == [0, 3, 3])
        return count

    def ranks_lost(self) -> Count:
        """Four ranks killed, then one, then three to the end."""
        count = Count()
        for _ in range(max(3, self.times // 4)):
            out = self.fresh()
            for world in (4, 1):
                processes = ranks(world, **self.slow, out=str(out), resume=True)
                more = len(commits(out)) + self.chance.randrange(1, 6)
                wait_for(lambda n=more, o=out: len(commits(o)) >= min(n, 22))
                for process in processes:
                    kill(process)
            codes = finish(ranks(3, **self.slow, out=str(out), resume=True))
            count.add(str(out), self.calm_slow, named=codes == [0, 0, 0])
        return count

    def torchrun_restarts(self) -> Count:
        count = Count()
        for _ in range(max(3, self.times // 4)):
            out = self.fresh()
            process = torchrun(self.slow, out, "--max-restarts=2")
            wait_for(lambda o=out: len(commits(o)) >= 3, 120)
            os.kill(pids(out)[self.chance.randrange(2)], 9)
            process.communicate(timeout=200)
            count.add(str(out), self.calm_slow, named=process.returncode == 0)
        return count

    def ray_workers(self) -> Count:
        count = Count()
        for _ in range(max(3, self.times // 8)):
            out = self.fresh()
            process = start(softlabels.dump, **self.slow, out=str(out), engine="ray")
            wait_for(lambda o=out: len(commits(o)) >= 3, 120)
            os.kill(next(pid for rank, pid in pids(out).items() if rank > 0), 9)
            codes = finish([process])
            count.add(str(out), self.calm_slow, named=codes == [0])
        return count

    def store_that_fails(self) -> Count:
        """A third of all requests answered with 500 or 503."""
        count = Count()
        with bucket() as server:
            server.faults += [s3.sometimes(500, 5), s3.sometimes(503, 7)]
            for trial in range(max(3, self.times // 4)):
                out = f"s3://{s3.BUCKET}/fails{trial}"
                softlabels.dump(**self.slow, out=out)
                count.add(out, self.calm_slow)
        return count

    def killed_at_a_store(self) -> Count:
        count = Count()
        with bucket() as server:
            for trial in range(max(3, self.times // 4)):
                out = f"s3://{s3.BUCKET}/killed{trial}"
                for _ in range(3):
                    process = start(dump_quickly, server.environment, **self.slow, out=out,
                                    resume=True)  # fmt: skip
                    more = len(Folder(out).files("commits")) + 2
                    wait_for(lambda n=more, o=out: len(Folder(o).files("commits")) >= n)
                    time.sleep(self.chance.uniform(0, 0.2))
                    kill(process)
                finish([start(dump_quickly, server.environment, **self.slow, out=out,
                              resume=True)])  # fmt: skip
                count.add(out, self.calm_slow)
        return count


@contextmanager
def small_disk(place: Path) -> Iterator[Path]:
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@contextmanager
def bucket() -> Iterator[s3.S3]:
    import s3fs

    with s3.running() as server:
        os.environ.update(server.environment)
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().makedirs(s3.BUCKET, exist_ok=True)  # servers of one process share it
        yield server
        s3fs.S3FileSystem.clear_instance_cache()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--only", default="")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    counts: dict[str, Count] = {}
    with tempfile.TemporaryDirectory() as place:
        bench = Bench(Path(place), options.times)
        harms: dict[str, Callable[[], Count]] = {
            "kill -9 at random moments": bench.kills,
            "a bit flipped anywhere in a shard": bench.flips,
            **{do.__name__.replace("_", " "): lambda do=do: bench.damage(do) for do in harm.HARMS},
            "a full disk": bench.full_disk,
            "three dumps at once": bench.two_at_once,
            "4 ranks killed, 1 killed, 3": bench.ranks_lost,
            "torchrun, a rank killed": bench.torchrun_restarts,
            "Ray, a worker killed": bench.ray_workers,
            "S3, a third of requests fail": bench.store_that_fails,
            "S3, killed three times": bench.killed_at_a_store,
        }
        print("| harm | tried | survived | rows lost | rows twice |\n|---|---|---|---|---|")
        for name, run in harms.items():
            if options.only in name:
                c = counts[name] = run()
                row = f"| {name} | {c.tried} | {c.survived} | {c.lost} | {c.twice} |"
                print(row, flush=True)
    if options.json:
        options.json.write_text(
            json.dumps({k: asdict(v) for k, v in counts.items()}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
