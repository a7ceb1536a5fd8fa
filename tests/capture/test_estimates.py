"""What is said before a dump begins, and how a cluster's logs see it."""

import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from torch import Tensor

import softlabels
from softlabels.capture import bottleneck, estimating, job, reading
from softlabels.cli import terminal
from softlabels.errors import PlanMismatch
from softlabels.store.writer import ShardWriter
from softlabels.system.humanize import counted, size_words, time_words
from softlabels.system.progress import Advance
from tests.conftest import Linear, Lines, make_vectors, save_script


@pytest.mark.parametrize("words", [{}, {"store_inputs": "original"}, {"dtype": "float32"}])
def test_a_plan_is_near_what_the_dump_is(tmp_path, words):
    data = make_vectors(tmp_path / "v.parquet", rows=5000)
    script = save_script(Linear(), tmp_path / "s.pt")
    options = {"teacher": script, "data": data, "shard_rows": 1000, "out": str(tmp_path / "d")}
    found = softlabels.plan(**options, **words)
    assert not Path(found.out).exists()
    assert (found.rows, found.shards, found.shard_rows) == (5000, 5, 1000)
    assert found.free > 1e6
    assert found.warnings == []
    manifest = softlabels.dump(**options, **words).manifest
    assert manifest is not None
    assert manifest.bytes == pytest.approx(found.bytes, rel=0.25)
    assert found.seconds == pytest.approx(5000 / found.rows_per_second)


def test_a_plan_of_several_teachers_has_the_size_of_each_and_the_time_of_the_pass(
    tmp_path, cli, monkeypatch
):
    data = make_vectors(tmp_path / "v.parquet", rows=3000)
    for name, scale in (("a", 1.0), ("b", 2.0)):
        save_script(Linear(scale), tmp_path / f"{name}.pt")
    words = ["--teacher", "a.pt", "--teacher", "b.pt", "--data", data, "--out", "o",
             "--shard-rows", "1000"]  # fmt: skip
    found = cli("plan", *words, "--json").value
    assert found["out"] == "o"
    assert found["dumps"].keys() == {"a", "b"}
    assert not (tmp_path / "o").exists()
    each = found["dumps"].values()
    assert (found["rows"], found["shards"]) == (6000, 6)
    assert {(one["rows"], one["shards"], one["out"]) for one in each} == {
        (3000, 3, "o/a"), (3000, 3, "o/b"),
    }  # fmt: skip
    assert found["bytes"] == sum(one["bytes"] for one in each)
    assert {one["seconds"] for one in each} == {found["seconds"]}, "they share one pass"
    script = {name: str(tmp_path / f"{name}.pt") for name in "ab"}
    made = softlabels.dump(teacher=script, data=data, out=str(tmp_path / "o"), shard_rows=1000)
    for name, one in made.dumps.items():
        assert one.manifest is not None
        assert one.manifest.bytes == pytest.approx(found["dumps"][name]["bytes"], rel=0.25)
    (tmp_path / "o" / "b" / "commits" / "00002.json").unlink()
    tried, real = [], estimating.sample_of
    monkeypatch.setattr(
        estimating, "sample_of", lambda lefts, rows: tried.append(len(lefts)) or real(lefts, rows)
    )
    left = softlabels.plan(teacher=script, data=data, out=str(tmp_path / "o"), shard_rows=1000)
    assert set(tried) == {1}, "a complete one takes no time"
    assert (left.dumps["a"].seconds, left.dumps["a"].out) == (0, str(tmp_path / "o" / "a"))
    assert (left.rows, left.dumps["a"].rows, left.dumps["b"].rows) == (1000, 0, 1000)
    assert left.facts[f"{tmp_path / 'o'}/b"].startswith("1,000 rows, about ")
    assert "time" in left.facts
    assert left.seconds == pytest.approx(1000 / left.rows_per_second)


def test_the_command_and_the_first_lines_of_a_dump(teacher, cli):
    planned = cli("plan", "--teacher", teacher, "--shard-rows", 500)
    assert planned.code == 0
    assert "shards      3 of up to 500 source rows" in planned.out
    assert "free there" in planned.out
    found = cli("plan", "--teacher", teacher, "--json", "--batch-size", "auto")
    assert f"batches of {found.value['batch_size']:,} rows, " in found.err
    assert set(found.value) == {
        "out", "rows", "shards", "shard_rows", "bytes", "seconds", "rows_per_second", "free",
        "batch_size", "reading", "teacher", "writing", "bound", "advice",
    }  # fmt: skip
    assert re.search(r"alone       reading [0-9,]+, teacher [0-9,]+, writing [0-9,]+ rows/s\n"
                     r"bound by    (reading|the teacher|writing)", planned.out)  # fmt: skip
    dumped = cli("dump", "--teacher", teacher, "--shard-rows", 500, "--out", "d")
    assert re.search("1,200 rows, 3 shards, about [0-9.]+ kB, [0-9.]+ .B free\n", dumped.err)
    assert cli("plan", "--teacher", "none.pt").code == 1


@pytest.mark.parametrize(
    "words",
    [{}, {"store_inputs": "original"}, {"dtype": "float32"}, {"id_column": "name"}],
    ids=str,
)
@pytest.mark.parametrize("shard_rows", [20, 5000])
def test_a_dump_says_its_size_without_a_forward_pass(tmp_path, words, shard_rows, monkeypatch):
    data = make_vectors(tmp_path / "v.parquet", 5000, name=[f"{i:06d}.png" for i in range(5000)])
    monkeypatch.setattr(estimating, "size_words", lambda size: f"{size:.0f} bytes")
    monkeypatch.setattr(estimating, "sample_of", None)
    progress = Lines()
    manifest = softlabels.dump(
        progress=progress, teacher=save_script(Linear(), tmp_path / "s.pt"), data=data,
        out=str(tmp_path / "d"), shard_rows=shard_rows, **words,
    ).manifest  # fmt: skip
    [line] = [line for line in progress.lines if line.startswith("5,000 rows, ")]
    told = int(re.search(r"about (\d+) bytes", line)[1])
    assert told == pytest.approx(manifest.bytes, rel=0.4)


def test_a_disk_that_is_too_small_is_said_before(teacher, tmp_path, monkeypatch):
    import shutil

    real = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda path: real(path)._replace(free=1000))
    found = softlabels.plan(teacher=teacher, out=str(tmp_path / "d"))
    assert found.free == 1000
    assert "are needed and 1 kB are free; a dump that fills the disk stops" in found.warnings[0]
    progress = Lines()
    softlabels.dump(progress=progress, teacher=teacher, out=str(tmp_path / "d"))
    assert [line for line in progress.lines if "are needed and 1 kB are free; a dump" in line]
    room = int(1.5 * found.bytes)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: real(path)._replace(free=room))
    both, progress = {"a": teacher, "b": teacher}, Lines()
    softlabels.dump(progress=progress, teacher=both, out=str(tmp_path / "both"))
    [line] = [line for line in progress.lines if " are needed and " in line]
    assert line.startswith("warning: about "), "each alone would fit"


def test_logs_that_a_cluster_keeps(teacher, cli, tmp_path):
    done = cli("dump", "--teacher", teacher, "--out", "d", "--log-json", "--json")
    events = [json.loads(line) for line in done.err.splitlines()]
    assert done.value["rows"] == 1200
    assert {event["event"] for event in events} == {"say", "progress"}
    assert events[-1] | {"time": ""} == {
        "time": "", "event": "progress", "what": "dump", "unit": "rows", "done": 1200,
        "total": 1200,
    }  # fmt: skip
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "y").write_text("")
    failed = cli("dump", "--teacher", teacher, "--out", "x", "--log-json")
    last = json.loads(failed.err.splitlines()[-1])
    assert (failed.code, last["event"], last["kind"]) == (1, "error", "StoreError")
    assert "holds no dump" in last["text"]


def test_progress_without_a_terminal_is_a_line_now_and_then(monkeypatch, capsys):
    monkeypatch.setattr(terminal, "LINE_SECONDS", 0.0)
    monkeypatch.setattr(terminal, "JSON_SECONDS", 0.0)
    with terminal.TerminalProgress().bar("dump", 1000, "rows") as advance:
        advance(250)
    said = capsys.readouterr().err
    assert said.startswith("dump: 250 of 1,000 rows, ")
    assert said.rstrip().endswith(" s left")
    monkeypatch.setitem(os.environ, "RANK", "3")
    with terminal.LogProgress().bar("dump", 1000, "rows") as advance:
        advance(250, "loss 2")
    first, last = map(json.loads, capsys.readouterr().err.splitlines())
    assert (first["done"], first["total"], first["rank"], first["note"]) == (250, 1000, 3, "loss 2")
    assert {"per_second", "seconds_left", "time"} <= set(first)
    assert last["done"] == 1000


def test_a_plan_looks_at_what_is_there(teacher, dump_folder, tmp_path):
    import shutil

    copy = Path(shutil.copytree(dump_folder, tmp_path / "copy"))
    assert softlabels.plan(teacher=teacher, out=str(copy)).rows == 0
    (copy / "commits" / "00001.json").unlink()
    found = softlabels.plan(teacher=teacher, out=str(copy))
    assert (found.rows, found.shards, found.shard_rows) == (500, 1, 500)
    with pytest.raises(PlanMismatch, match=r"shard_inputs is 400 and was 500.*Give the options"):
        softlabels.plan(teacher=teacher, out=str(copy), shard_rows=400)


def test_many_small_shards_cost_more(teacher, tmp_path):
    options = {"teacher": teacher, "shard_rows": 10, "out": str(tmp_path / "d")}
    found = softlabels.plan(**options)
    manifest = softlabels.dump(**options).manifest
    assert manifest is not None
    assert manifest.bytes == pytest.approx(found.bytes, rel=0.1)


def test_words_for_sizes_and_times():
    assert [counted(n, "shard") for n in (0, 1, 1200)] == ["0 shards", "1 shard", "1,200 shards"]
    assert [size_words(n) for n in (0, 12, 62_300, 1.5e9, 2e12, 3e15)] == [
        "0 bytes", "12 bytes", "62.3 kB", "1.5 GB", "2.0 TB", "3,000.0 TB",
    ]  # fmt: skip
    assert [time_words(s) for s in (0.2, 30, 600, 7200 * 3, 86400 * 6)] == [
        "a second or less", "about 30 s", "about 10 min", "about 6 h", "about 6.0 days",
    ]  # fmt: skip


class Slow(Linear):
    """A teacher that takes its time."""

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(0.02)
        return super().forward(x)


class Bars(Lines):
    """Keeps the notes of bars, too."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []
        self.units: list[tuple[str, int]] = []

    @contextmanager
    def bar(self, what: str, total: int, unit: str, done: int = 0) -> Iterator[Advance]:
        self.units.append((unit, total))
        yield lambda n, note="": self.notes.append(note)


@pytest.mark.parametrize("slow", ["reading", "teacher", "writing"])
def test_what_bounds_a_dump_is_said_and_foretold(tmp_path, vectors, slow, monkeypatch):
    monkeypatch.setattr(bottleneck, "SAID_SECONDS", 0.1)
    if slow == "writing":
        add = ShardWriter.add
        monkeypatch.setattr(
            ShardWriter, "add", lambda *args, **named: (time.sleep(0.02), add(*args, **named))
        )
    elif slow == "reading":
        read = reading.read
        monkeypatch.setattr(reading, "read", lambda *args: (time.sleep(0.1), read(*args))[1])
    words = {
        "teacher": Slow() if slow == "teacher" else Linear(), "data": vectors, "name": "t",
        "out": str(tmp_path / "d"), "batch_size": 10, "dtype": "float32",
    }  # fmt: skip
    progress = Bars()
    foretold = softlabels.plan(**words)
    done = softlabels.dump(progress=progress, **words)
    assert foretold.bound == done.bound == slow
    assert foretold.facts["bound by"].startswith("the teacher" if slow == "teacher" else slow)
    assert min(("reading", "teacher", "writing"), key=lambda part: getattr(foretold, part)) == slow
    assert sum(done.shares.values()) == pytest.approx(1)
    assert done.shares[slow] > 0.5
    assert 0 < done.rows_per_second < 2000
    [line] = [line for line in progress.lines if "bound by" in line]
    part = "the teacher" if slow == "teacher" else slow
    assert re.fullmatch(rf"[0-9,]+ rows/s, bound by {part} \(\d+% of the time\)(; .*)?", line)
    assert ("--dtype float16, in another folder" in line) == (slow == "writing")
    assert progress.notes[-1].startswith(f"bound by {slow} ")


def test_inputs_with_several_views_are_not_counted_as_rows(teacher, tmp_path, monkeypatch):
    monkeypatch.setattr(bottleneck, "SAID_SECONDS", 0.0)
    progress = Bars()
    done = softlabels.dump(
        teacher=teacher, data="digits", out=str(tmp_path / "d"), batch_size=100, views=1,
        augment="jitter(1)", progress=progress,
    )  # fmt: skip
    assert (progress.units, done.rows_run, done.manifest.rows) == ([("inputs", 1200)], 1200, 2400)
    assert [line for line in progress.lines if re.match(r"[0-9,]+ inputs/s, bound by ", line)]


@pytest.mark.parametrize(
    ("workers", "advice"), [(1, "1 of 2 cores decode pictures: more --workers would help"),
                            (2, "decoding pictures has all of 2 cores: only more or faster")],
)  # fmt: skip
def test_more_workers_are_advised_where_there_are_cores_for_them(
    teacher, workers, advice, monkeypatch
):
    monkeypatch.setattr(job, "cores", lambda: 2)
    read = reading.read
    monkeypatch.setattr(reading, "read", lambda *args: (time.sleep(0.05), read(*args))[1])
    assert advice in softlabels.plan(teacher=teacher, workers=workers).facts["bound by"]
