"""Many processes make one dump: ranks that torchrun starts, ranks that meet by themselves, Ray."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
import torch

import softlabels
from softlabels.capture.team import Team, join_team
from softlabels.errors import MissingExtra, SoftlabelsError, UsageError
from tests.capture import harm
from tests.capture.test_trust import Slow, commits, slow_words
from tests.conftest import Linear, make_vectors
from tests.processes import kill, start, wait_for

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def slow(tmp_path_factory) -> dict:
    """24 shards of 50 rows, 20 batches of which take a second."""
    return slow_words(tmp_path_factory.mktemp("slow"), shard_rows=50, batch_size=25)


@pytest.fixture(scope="module")
def finished(slow, tmp_path_factory) -> Path:
    """The dump as one process makes it. Not to be changed."""
    out = tmp_path_factory.mktemp("finished") / "d"
    softlabels.dump(**slow, out=str(out))
    return out


@pytest.fixture
def calm(finished) -> dict[str, bytes]:
    return harm.contents(finished)


def free_port() -> int:
    with closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def ranks(world: int, work=softlabels.dump, **words) -> list:
    """`work(**words)` as each of `world` ranks, in processes that meet over loopback."""
    meeting = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1",
               "MASTER_PORT": str(free_port())}  # fmt: skip
    places = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(world)]
    return [start(work, meeting | place, **words) for place in places]


def finish(processes: list) -> list[int]:
    for process in processes:
        process.join(60)
    return [process.exitcode for process in processes]


@pytest.mark.parametrize("world", [2, 3, 5])
def test_any_number_of_ranks_makes_the_same_dump(slow, calm, tmp_path, world):
    out = tmp_path / "d"
    assert finish(ranks(world, **slow, out=str(out))) == [0] * world
    assert harm.contents(out) == calm
    assert softlabels.verify(dump=str(out)).good
    assert not (out / ".claims").exists()


@pytest.mark.parametrize("lost", [0, 2])
def test_a_lost_ranks_shards_are_done_on_resume(slow, calm, tmp_path, lost):
    out = tmp_path / "d"
    processes = ranks(4, **slow, out=str(out))
    wait_for(lambda: len(commits(out)) >= 3)
    assert kill(processes[lost])
    codes = finish(processes)
    assert [code for rank, code in enumerate(codes) if rank != lost] == [0, 0, 0]
    missing = set(range(24)) - commits(out)
    assert missing
    assert {shard % 4 for shard in missing} == {lost}
    assert not (out / "softlabels.json").exists()
    result = softlabels.dump(**slow, out=str(out), resume=True)
    assert result.rows_run == 50 * len(missing)
    assert harm.contents(out) == calm


def test_four_ranks_killed_then_one_killed_then_three_leave_nothing_stale(slow, calm, tmp_path):
    out = tmp_path / "d"
    for world, enough in ((4, 6), (1, 9)):
        processes = ranks(world, **slow, out=str(out), resume=True)
        wait_for(lambda enough=enough: len(commits(out)) >= enough)
        living = [kill(process) for process in processes]
        assert any(living)
        assert not (out / "softlabels.json").exists()
    assert finish(ranks(3, **slow, out=str(out), resume=True)) == [0, 0, 0]
    assert harm.contents(out) == calm
    assert not [p for p in out.iterdir() if p.name.startswith(".")]
    assert softlabels.verify(dump=str(out)).good


def test_damage_is_looked_for_and_redone_by_all_ranks(slow, finished, calm, tmp_path):
    out = Path(shutil.copytree(finished, tmp_path / "d"))
    for shard in (1, 5, 6):
        file = harm.shards(out)[shard]
        harm.flip(file, file.stat().st_size // 2, 1)
    before = harm.places(out)
    assert finish(ranks(3, **slow, out=str(out), resume=True)) == [0, 0, 0]
    redone = {name for name, place in harm.places(out).items() if before[name] != place}
    assert redone == {f"train-{shard:05d}-of-00024.parquet" for shard in (1, 5, 6)}
    assert harm.contents(out) == calm


def test_ranks_that_see_other_data_stop_before_they_store_anything(slow, tmp_path):
    out = tmp_path / "d"
    said = tmp_path / "said"
    words = slow | {"out": str(out), "said": str(said)}
    assert finish(ranks(3, work=dump_otherwise, **words)) == [3, 3, 3]
    assert commits(out) == set()
    assert "rank 1 stopped: " in said.read_text()
    assert said.read_text().count("dtype is 'float32' and was 'float16'") == 3


def dump_otherwise(**words) -> None:
    """Rank 1 has other options: its plan is another."""
    if os.environ["RANK"] == "1":
        words["dtype"] = "float32"
    dump_aloud(**words)


def test_what_stops_the_first_rank_stops_the_others(slow, tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "thesis.tex").write_text("x")
    said = tmp_path / "said"
    words = slow | {"out": str(tmp_path / "d"), "said": str(said)}
    assert finish(ranks(3, work=dump_aloud, **words)) == [3, 3, 3]
    told = said.read_text()
    assert told.count("rank 0 stopped: ") == 2
    assert told.count("holds no dump (there is 'thesis.tex')") == 3


def dump_aloud(said: str, **words) -> None:
    try:
        softlabels.dump(**words)
    except SoftlabelsError as error:
        with open(said, "a") as file:
            file.write(f"{error}\n")
        raise


def test_a_rank_that_dies_before_the_dump_begins_stops_the_others(slow, finished, tmp_path):
    out = Path(shutil.copytree(finished, tmp_path / "d"))
    said = tmp_path / "said"
    words = slow | {"out": str(out), "resume": True, "said": str(said)}
    assert finish(ranks(3, work=die_looking, **words)) == [3, 3, -9]
    assert "rank 2 was lost before the dump began; start it again" in said.read_text()
    assert softlabels.verify(dump=str(out)).good


def die_looking(**words) -> None:
    """Rank 2 is killed while it looks at finished shards."""
    from softlabels.capture import running

    if os.environ["RANK"] == "2":
        assert running.look_at  # by this name
        running.look_at = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    dump_aloud(**words)


def test_a_rank_that_fails_before_it_comes_stops_the_others(slow, tmp_path):
    said = tmp_path / "said"
    words = slow | {"out": str(tmp_path / "d"), "said": str(said)}
    assert finish(ranks(3, work=dump_without_a_teacher, **words)) == [3, 3, 3]
    assert said.read_text().count("rank 1 stopped: none.pt does not exist") == 2
    assert commits(tmp_path / "d") == set()


def dump_without_a_teacher(**words) -> None:
    if os.environ["RANK"] == "1":
        words["teacher"] = "none.pt"
    dump_aloud(**words)


def test_a_rank_that_never_comes_is_not_waited_for_without_end(slow, tmp_path):
    said = tmp_path / "said"
    words = slow | {"out": str(tmp_path / "d"), "said": str(said)}
    assert finish(ranks(2, work=dump_or_die_young, **words)) == [3, -9]
    assert "rank 1 did not come in 0 minutes" in said.read_text()


def dump_or_die_young(**words) -> None:
    """Rank 1 is killed while it opens its teacher, when rank 0 does not know of it yet."""
    from softlabels.capture import dumping, team

    team.COMING, team.LEAVING = 4.0, 1.0
    if os.environ["RANK"] == "1":
        dumping.prepare = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    dump_aloud(**words)


def test_a_rank_that_is_slow_to_come_hears_the_last_word(slow, finished, tmp_path):
    out = Path(shutil.copytree(finished, tmp_path / "d"))
    assert finish(ranks(2, work=dump_late, **slow, out=str(out))) == [0, 0]


def dump_late(**words) -> None:
    from softlabels.capture import dumping

    real = dumping.prepare
    if os.environ["RANK"] == "1":
        dumping.prepare = lambda *given: (time.sleep(6), real(*given))[1]
    softlabels.dump(**words)


def test_half_an_environment_is_said(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UsageError, match="WORLD_SIZE is 4, but RANK and MASTER_ADDR and"):
        join_team()
    monkeypatch.setenv("WORLD_SIZE", "many")
    with pytest.raises(UsageError, match="WORLD_SIZE is 'many'"):
        join_team()
    monkeypatch.delenv("WORLD_SIZE")
    assert join_team() == Team(0, 1)


@pytest.mark.parametrize("text", ["two", "0", "-1", "²", ""])
def test_a_launcher_that_counts_no_ranks_is_refused_before_a_dump(monkeypatch, tmp_path, text):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", text)
    data = make_vectors(tmp_path / "d.parquet", 4)
    message = f"LOCAL_WORLD_SIZE is '{text}' in the environment; expected a whole number, 1 or more"
    with pytest.raises(UsageError, match=message):
        softlabels.dump(teacher=Linear(), data=data, out=str(tmp_path / "d"))
    assert not (tmp_path / "d").exists()


def torchrun(slow: dict, out: Path, *words: str, world: int = 2) -> subprocess.Popen:
    options = [w for k, v in slow.items() for w in (f"--{k.replace('_', '-')}", str(v))]
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone",
        f"--nproc-per-node={world}", *words, "-m", "softlabels", "dump", *options,
        "--out", str(out), "--json",
    ]  # fmt: skip
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True)  # fmt: skip


def pids(out: Path) -> dict[int, int]:
    """The processes that write to a dump, by rank."""
    found = {}
    for path in out.glob(".claims/*.json"):
        found[int(path.stem.split("-")[1])] = json.loads(path.read_text())["pid"]
    return found


def test_torchrun(slow, calm, tmp_path):
    out = tmp_path / "d"
    said, _ = torchrun(slow, out).communicate(timeout=120)
    values = [json.loads(line) for line in said.splitlines()]
    assert sorted(value["rows_run"] for value in values) == [600, 600]
    assert any(value["complete"] for value in values)
    assert harm.contents(out) == calm


def test_torchrun_starts_lost_ranks_again_and_goes_on(slow, calm, tmp_path):
    out = tmp_path / "d"
    process = torchrun(slow, out, "--max-restarts=2")
    wait_for(lambda: len(commits(out)) >= 3)
    os.kill(pids(out)[1], signal.SIGKILL)
    process.communicate(timeout=120)
    assert process.returncode == 0
    assert harm.contents(out) == calm
    assert softlabels.verify(dump=str(out)).good


def test_torchrun_with_one_rank_goes_on_too_but_only_with_what_it_began(slow, calm, tmp_path):
    out = tmp_path / "d"
    process = torchrun(slow, out, "--max-restarts=1", world=1)
    wait_for(lambda: len(commits(out)) >= 3)
    os.kill(pids(out)[0], signal.SIGKILL)
    process.communicate(timeout=120)
    assert process.returncode == 0
    assert harm.contents(out) == calm
    (out / "softlabels.json").unlink()
    (out / "commits" / "00003.json").unlink()
    refused = torchrun(slow, out, "--max-restarts=1", world=1)
    words = refused.communicate(timeout=120)[1]
    assert refused.returncode != 0
    assert words.count("Add --resume to go on") == 2, "the second attempt is no resume either"


def test_ray_makes_the_same_dump_though_a_worker_is_killed(slow, calm, tmp_path):
    out = tmp_path / "d"
    options = [w for k, v in slow.items() for w in (f"--{k.replace('_', '-')}", str(v))]
    process = subprocess.Popen(
        [sys.executable, "-m", "softlabels", "dump", *options, "--out", str(out), "--json",
         "--engine", "ray"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for(lambda: len(commits(out)) >= 3, 120)
    workers = {rank: pid for rank, pid in pids(out).items() if rank > 0}
    assert len(workers) >= 1
    victim = workers.popitem()[1]
    os.kill(victim, signal.SIGKILL)
    said, words = process.communicate(timeout=120)
    assert process.returncode == 0, words
    assert json.loads(said)["rows_run"] == 1200
    assert "Ray workers, each with a core" in words
    assert harm.contents(out) == calm
    assert softlabels.verify(dump=str(out)).good
    assert not (out / ".claims").exists()


def test_ray_says_a_workers_error_as_if_it_were_here(slow, tmp_path, cli):
    words = slow | {"batch_size": 50, "model": "tests.capture.test_engines:Bad"}
    options = [w for k, v in words.items() for w in (f"--{k.replace('_', '-')}", v)]
    done = cli("dump", *options, "--out", tmp_path / "d", "--engine", "ray", cwd=ROOT)
    assert done.code == 1
    assert "the teacher gave nan for the row with id 1100" in done.err
    assert "Traceback" not in done.err
    assert "ray" not in done.err.splitlines()[-1]
    assert not (tmp_path / "d" / "softlabels.json").exists()


class Bad(Slow):
    """NaN for one row of digits: the one numbered 1100."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        from softlabels.inputs.opening import open_source

        z = self.layer(x.flatten(1))
        row = open_source("digits").dataset[1100]["image"]
        wanted = torch.tensor(list(row.getdata())).float() / 255
        z[(x.flatten(1) - wanted).abs().sum(-1) < 1e-4] = float("nan")
        return z


def test_errors_of_workers_can_travel():
    import pickle

    error = MissingExtra("s3fs", "s3", "s3://")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


class Waiting(torch.nn.Module):
    """Gives some pixels as logits; 25 batches of it take a second."""

    def __init__(self, first: int) -> None:
        super().__init__()
        self.first = first

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        time.sleep(0.04)
        return x.flatten(1)[:, self.first : self.first + 10] * 9


def one() -> Waiting:
    return Waiting(20)


def other() -> Waiting:
    return Waiting(30)


@pytest.fixture(scope="module")
def siblings() -> dict:
    """Two teachers: 24 shards of 50 rows."""
    names = "one", "other"
    return {"teacher": [f"tests.capture.test_engines:{name}" for name in names], "name": names,
            "data": "digits", "preprocess": "scale(255)", "outputs": "logits",
            "shard_rows": 50, "batch_size": 25}  # fmt: skip


@pytest.fixture(scope="module")
def both(siblings, tmp_path_factory) -> dict[str, bytes]:
    """What one process makes of them."""
    out = tmp_path_factory.mktemp("siblings")
    softlabels.dump(**siblings, out=str(out))
    return harm.contents(out)


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_make_the_same_siblings(siblings, both, tmp_path, world):
    out = tmp_path / "o"
    assert finish(ranks(world, **siblings, out=str(out))) == [0] * world
    assert harm.contents(out) == both
    assert not list(out.glob("*/.*"))


def test_a_lost_ranks_part_of_all_siblings_is_done_on_resume(siblings, both, tmp_path):
    out = tmp_path / "o"
    processes = ranks(3, **siblings, out=str(out))
    wait_for(lambda: len(commits(out / "other")) >= 3)
    assert kill(processes[1])
    assert [code for rank, code in enumerate(finish(processes)) if rank != 1] == [0, 0]
    assert not list(out.glob("*/softlabels.json"))
    missing = {name: set(range(24)) - commits(out / name) for name in ("one", "other")}
    assert {shard % 3 for lost in missing.values() for shard in lost} == {1}
    result = softlabels.dump(**siblings, out=str(out), resume=True)
    assert {name: one.rows_run for name, one in result.dumps.items()} == {
        name: 50 * len(lost) for name, lost in missing.items()
    }
    assert harm.contents(out) == both


def test_a_shard_that_several_lack_is_read_once_by_all_ranks(siblings, both, tmp_path):
    out = tmp_path / "o"
    softlabels.dump(**siblings, out=str(out))
    lost = {"one": [0, 1, 2, 3, 9], "other": [1, 2, 3, 8]}
    for name, shards in lost.items():
        for shard in shards:
            (out / name / "commits" / f"{shard:05d}.json").unlink()
    words = siblings | {"out": str(out), "resume": True, "said": str(tmp_path / "said")}
    assert finish(ranks(2, work=dump_and_say_what_is_read, **words)) == [0, 0]
    read = [json.loads(Path(f"{words['said']}{rank}").read_text()) for rank in range(2)]
    assert sorted(read[0] + read[1]) == [0, 1, 2, 3, 8, 9]
    assert len(read[0]) == len(read[1]) == 3
    assert harm.contents(out) == both


def dump_and_say_what_is_read(said: str, **words) -> None:
    from softlabels.capture import pipeline

    real, read = pipeline.read_shards, []

    def read_shards(job, shards):
        read.extend(shards)
        return real(job, shards)

    pipeline.read_shards = read_shards
    softlabels.dump(**words)
    Path(said + os.environ["RANK"]).write_text(json.dumps(read))


def test_a_rank_that_dies_between_two_siblings_stops_the_others(siblings, both, tmp_path):
    out, said = tmp_path / "o", tmp_path / "said"
    words = siblings | {"out": str(out), "said": str(said)}
    assert finish(ranks(3, work=die_at_the_second, **words)) == [3, 3, -9]
    assert "rank 2 was lost before the dump began; start it again" in said.read_text()
    softlabels.dump(**siblings, out=str(out), resume=True)
    assert harm.contents(out) == both


def die_at_the_second(**words) -> None:
    """Rank 2 is killed when it enters the second folder."""
    from softlabels.capture import dumping

    real, entered = dumping.enter, []

    def enter(*given):
        entered.append(0)
        if len(entered) == 2 and os.environ["RANK"] == "2":
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*given)

    dumping.enter = enter
    dump_aloud(**words)


def test_ray_makes_siblings_one_after_the_other(siblings, both, tmp_path, cli):
    options = [
        word for name, value in siblings.items()
        for each in ([value] if isinstance(value, str | int) else value)
        for word in (f"--{name.replace('_', '-')}", str(each))
    ]  # fmt: skip
    more = ["--out", tmp_path / "o", "--engine", "ray", "--json"]
    done = cli("dump", *options, *more, cwd=ROOT, timeout=300)
    assert done.code == 0, done.err
    assert "--engine ray makes one, other one after the other" in done.err
    assert {one["rows_run"] for one in done.value["dumps"].values()} == {1200}
    assert harm.contents(tmp_path / "o") == both


def test_ray_where_there_is_none(slow, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=r"pip install 'softlabels\[ray\]'"):
        softlabels.dump(**slow, out=str(tmp_path / "d"), engine="ray")
    assert commits(tmp_path / "d") == set()
