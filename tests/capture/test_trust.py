"""A dump while things go wrong: kills at any moment, two dumps at once, changes in between."""

import json
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import softlabels
from softlabels.errors import (
    AlignmentError,
    DamagedDump,
    FolderInUse,
    PlanMismatch,
    SourceError,
    StoreError,
    UsageError,
)
from softlabels.store.claims import claimed
from softlabels.store.folder import Folder
from softlabels.store.ledger import read_plan
from softlabels.store.reader import DumpReader
from tests.capture import harm
from tests.conftest import Linear, make_vectors, png, save_script
from tests.processes import kill, start, wait_for


def commits(folder: Path) -> set[int]:
    return {int(path.stem) for path in folder.glob("commits/*.json")}


def wait_for_commits(folder: Path, count: int, process) -> None:
    """Until the folder has so many, or the process that commits them has ended."""
    wait_for(lambda: len(commits(folder)) >= count or not process.is_alive())


@pytest.mark.slow
def test_kills_at_random_moments_lose_nothing_and_change_nothing(teacher, tmp_path):
    """120 shards of 10 rows: killed over and over, now before the next shard, now some shards on,
    and each time somewhere within a shard. How fast the machine is plays no part."""
    words = {"teacher": teacher, "shard_rows": 10, "batch_size": 4}
    softlabels.dump(**words, out=str(tmp_path / "calm"))
    chance = random.Random(5)
    rough = tmp_path / "rough"
    kills = 0
    for _ in range(60):
        before = commits(rough)
        process = start(softlabels.dump, **words, out=str(rough), resume=True)
        wait_for_commits(rough, len(before) + chance.randrange(12), process)
        process.join(chance.uniform(0.001, 0.1))
        kills += kill(process)
        assert before <= commits(rough), "what was committed stays"
        for shard in commits(rough):
            name = f"data/train-{shard:05d}-of-00120.parquet"
            record = json.loads((rough / "commits" / f"{shard:05d}.json").read_text())
            assert (rough / name).stat().st_size == record["bytes"]
        if (rough / "softlabels.json").exists():
            break
    assert kills >= 5
    softlabels.dump(**words, out=str(rough), resume=True)
    assert harm.contents(rough) == harm.contents(tmp_path / "calm")
    assert softlabels.verify(dump=str(rough)).good
    assert not [name for name in Folder(rough).names() if name.startswith(".")]


def test_a_kill_during_a_redo_of_a_finished_dump(dump_folder, teacher, tmp_path):
    import shutil

    copy = Path(shutil.copytree(dump_folder, tmp_path / "copy"))
    before = harm.contents(copy)
    words = {"teacher": teacher, "out": str(copy), "batch_size": 100, "resume": True}
    for delay in (0.02, 0.05, 0.08, 0.12, 0.2):
        harm.flip_a_logit(copy)
        process = start(softlabels.dump, **words)
        process.join(delay)
        kill(process)
        softlabels.dump(**words)
        assert softlabels.verify(dump=str(copy)).good
        assert harm.contents(copy) == before


class Slow(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        time.sleep(0.05)
        return self.layer(x.flatten(1))


def slow_words(tmp_path: Path, shard_rows: int = 60, batch_size: int = 30) -> dict:
    """The options of a dump of digits that takes 50 ms a batch, some seconds in all."""
    torch.manual_seed(0)
    torch.save(Slow().state_dict(), tmp_path / "w.pt")
    return {"teacher": str(tmp_path / "w.pt"), "model": "tests.capture.test_trust:Slow",
            "data": "digits", "shard_rows": shard_rows, "batch_size": batch_size}  # fmt: skip


@pytest.fixture
def slow(tmp_path) -> dict:
    return slow_words(tmp_path)


@pytest.mark.parametrize("both", [{}, {"resume": True}])
def test_of_two_dumps_into_one_folder_one_goes_on_and_the_other_is_told(slow, tmp_path, both):
    out = tmp_path / "d"
    first = start(softlabels.dump, **slow, out=str(out))
    wait_for(lambda: len(commits(out)) >= 2)
    with pytest.raises(FolderInUse, match=rf"another dump \(process {first.pid} on .*choose"):
        softlabels.dump(**slow, **both, out=str(out))
    first.join(60)
    assert first.exitcode == 0
    assert softlabels.verify(dump=str(out)).good
    assert not (out / ".claims").exists()


@pytest.mark.slow
def test_two_dumps_started_at_the_same_moment(slow, tmp_path):
    for attempt in range(3):
        out = tmp_path / f"d{attempt}"
        both = [start(softlabels.dump, **slow, out=str(out)) for _ in range(3)]
        for process in both:
            process.join(60)
        codes = sorted(process.exitcode for process in both)
        assert codes == [0, 3, 3]
        assert softlabels.verify(dump=str(out)).good


def test_the_command_line_tells_the_second_one(slow, tmp_path, cli):
    out = tmp_path / "d"
    with claimed(Folder(out), "somebody"):
        done = cli("dump", *(w for k, v in slow.items() for w in (f"--{k.replace('_', '-')}", v)),
                   "--out", out, cwd=Path(__file__).parents[2])  # fmt: skip
    assert done.code == 1
    assert "is being written by another dump (process" in done.err
    assert "Traceback" not in done.err


def test_a_killed_dump_blocks_nobody(slow, tmp_path):
    out = tmp_path / "d"
    first = start(softlabels.dump, **slow, out=str(out))
    wait_for(lambda: len(commits(out)) >= 2)
    assert kill(first)
    assert list((out / ".claims").glob("*.json"))
    softlabels.dump(**slow, out=str(out), resume=True)
    assert not (out / ".claims").exists()


def test_claims_of_one_run_welcome_each_other(tmp_path):
    with claimed(Folder(tmp_path), "run", 0), claimed(Folder(tmp_path), "run", 1):
        with pytest.raises(FolderInUse), claimed(Folder(tmp_path), "other"):
            raise AssertionError("let in")
        assert len(list((tmp_path / ".claims").glob("*.json"))) == 2
    with claimed(Folder(tmp_path), "other"):
        pass
    assert not (tmp_path / ".claims").exists()


def vectors_dump(tmp_path: Path, **words) -> dict:
    names = [f"r{i:03d}" for i in range(100)]
    data = make_vectors(tmp_path / "v.parquet", rows=100, name=names)
    script = save_script(Linear(), tmp_path / "s.pt")
    return {"teacher": script, "data": data, "out": str(tmp_path / "d"), "id_column": "name",
            "shard_rows": 25, "batch_size": 10} | words  # fmt: skip


def unfinished(words: dict) -> dict:
    """Made, and then without its last shard and its manifest."""
    softlabels.dump(**words)
    out = Path(words["out"])
    for path in (out / "softlabels.json", out / "commits" / "00003.json", harm.shards(out)[3]):
        path.unlink()
    return words | {"resume": True}


def rewrite(path: str, change) -> None:
    table = datasets.Dataset.from_parquet(path, cache_dir=path + "-cache", keep_in_memory=True)
    change(table).to_parquet(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.map(lambda r, i: {"x": [v + (i == 30) for v in r["x"]]}, with_indices=True,
                         keep_in_memory=True), "1 have changed, first those with id r030"),
        (lambda d: d.shuffle(seed=1, keep_in_memory=True), "the source's rows 0 to 24 differ"),
        (lambda d: d.select(range(99), keep_in_memory=True), "source.rows is 99 and was 100"),
        (lambda d: d.rename_column("x", "z"), r"source.columns.inputs is \['z'\] and was \['x'\]"),
    ],
)  # fmt: skip
def test_data_that_changed_before_a_resume_are_refused(tmp_path, change, message):
    words = unfinished(vectors_dump(tmp_path))
    before = harm.contents(tmp_path / "d")
    rewrite(words["data"], change)
    with pytest.raises(PlanMismatch, match=message):
        softlabels.dump(**words)
    assert harm.contents(tmp_path / "d") == before


def images(folder: Path, count: int = 100) -> str:
    """A folder of images, each of another grey."""
    for index in range(count):
        path = folder / "ab"[index % 2] / f"{index:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(np.full((8, 8), index)))
    return str(folder)


def image_dump(tmp_path: Path) -> dict:
    torch.save({"w": torch.randn(2, 64), "b": torch.zeros(2)}, tmp_path / "w.pt")
    return {"teacher": str(tmp_path / "w.pt"), "model": "linear", "out": str(tmp_path / "d"),
            "data": images(tmp_path / "i"), "shard_rows": 25, "batch_size": 10}  # fmt: skip


def test_an_input_that_changed_in_place_is_found_by_the_sample(tmp_path):
    """Its name and its label are as they were; no plan knows more of it."""
    words = unfinished(image_dump(tmp_path))
    path = tmp_path / "i" / "a" / "060.png"
    content = path.read_bytes()
    path.write_bytes(png(np.full((8, 8), 255)))
    with pytest.raises(PlanMismatch, match=r"1 have changed, first those with id a/060\.png"):
        softlabels.dump(**words)
    path.write_bytes(content)
    assert softlabels.dump(**words).rows_run == 25
    path.rename(path.with_name("x.png"))
    harm.truncate(tmp_path / "d")
    with pytest.raises(PlanMismatch, match=r"the source's rows 25 to 49 differ"):
        softlabels.dump(**words)


def test_each_input_is_read_once_and_none_before_the_first_forward(tmp_path, monkeypatch):
    from softlabels.inputs.sources import Source

    words, reads = image_dump(tmp_path), Counter()
    real = Source._parsed

    def counting(self, table, positions):
        reads.update(positions.tolist())
        return real(self, table, positions)

    monkeypatch.setattr(Source, "_parsed", counting)
    softlabels.dump(**words)
    assert {reads[row] for row in range(10, 100)} == {1}, "the first batch is tried before"


def test_whatever_else_changed_before_a_resume_is_named(tmp_path):
    words = unfinished(vectors_dump(tmp_path))
    before = harm.contents(tmp_path / "d")
    torch.manual_seed(9)
    other = save_script(Linear(scale=2.0), tmp_path / "other.pt")
    for change, message in (
        ({"teacher": other}, "teacher.fingerprint is 'sha256:.*' and was 'sha256:"),
        ({"dtype": "float32"}, "dtype is 'float32' and was 'float16'"),
        ({"precision": "bf16"}, "precision is 'bf16' and was 'float32'"),
        ({"preprocess": "scale(2)"}, r"preprocess is 'scale\(2\)' and was ''"),
        ({"store_inputs": "original"}, "store_inputs is 'original' and was 'none'"),
        ({"shard_rows": 20}, "shard_inputs is 20 and was 25"),
        ({"id_column": None}, "source.columns.id is None and was 'name'"),
    ):
        with pytest.raises(PlanMismatch, match=message):
            softlabels.dump(**(words | change))
        assert harm.contents(tmp_path / "d") == before
    plan = tmp_path / "d" / "plan.json"
    frozen = plan.read_text()
    for change, message in (
        ({"codec": "topk:64"}, "codec is 'dense' and was 'topk:64'"),
        (
            {"views": [0, 1], "augment": "jitter(1)", "data_seed": 0, "view_shape": [1, 2, 3]},
            r"views is \[0\] and was \[0, 1\]; augment is None and was 'jitter\(1\)'",
        ),
    ):
        plan.write_text(json.dumps(json.loads(frozen) | change))
        with pytest.raises(PlanMismatch, match=message):
            softlabels.dump(**words)
    plan.write_text(frozen)
    assert softlabels.dump(**words).rows_run == 25


def test_the_same_data_and_teacher_in_another_place_go_on(tmp_path):
    """Where a file lies and what it is called decides nothing: the fingerprints do."""
    words = unfinished(vectors_dump(tmp_path))
    for name in ("data", "teacher"):
        path = Path(words[name])
        words[name] = str(path.rename(path.with_name("moved-" + path.name)))
    assert softlabels.dump(**words).rows_run == 25
    assert softlabels.verify(dump=words["out"], source=True, data=words["data"]).good


@pytest.mark.parametrize("kind", ["a broken link", "a file", "a folder of the system"])
def test_a_folder_that_can_not_be_is_said_at_once(vectors, tmp_path, kind):
    out = tmp_path / "d"
    if kind == "a broken link":
        out.symlink_to("nowhere")
    elif kind == "a file":
        out.write_text("x")
    else:
        out = Path("/proc/d")
    script = save_script(Linear(), tmp_path / "s.pt")
    with pytest.raises(StoreError, match=r"can't write in .*choose another folder with --out"):
        softlabels.dump(teacher=script, data=vectors, out=str(out))


@pytest.mark.slow
def test_sigterm_says_what_is_safe_and_leaves_no_claim(slow, tmp_path):
    out = tmp_path / "d"
    options = [w for k, v in slow.items() for w in (f"--{k.replace('_', '-')}", str(v))]
    with subprocess.Popen(
        [sys.executable, "-m", "softlabels", "dump", *options, "--out", str(out)],
        cwd=Path(__file__).parents[2], stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        wait_for(lambda: len(commits(out)) >= 2)
        process.terminate()
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 143
    assert "shards are committed and safe. Go on with the same command and --resume" in said
    assert "Traceback" not in said
    assert not [name for name in Folder(out).names() if name.startswith(".")]


def test_data_that_change_while_the_dump_runs_are_refused(tmp_path, monkeypatch):
    """A label of the third shard is another when it is read than when the plan was made."""
    from softlabels.inputs.sources import Source

    words = vectors_dump(tmp_path)
    real = Source.read
    folder = Folder(words["out"])

    def changing(self, start, stop):
        rows = real(self, start, stop)
        if start == 50 and read_plan(folder) is not None:
            rows.labels[3] += 1
        return rows

    monkeypatch.setattr(Source, "read", changing)
    with pytest.raises(AlignmentError, match=r"rows 50 to 74 of .* are not those of the plan"):
        softlabels.dump(**words)
    monkeypatch.undo()
    assert commits(tmp_path / "d") == {0, 1}
    softlabels.dump(**words, resume=True)
    assert softlabels.verify(dump=words["out"]).good


def test_an_id_that_comes_twice_is_refused_before_anything_is_dumped(tmp_path):
    for names in (["a", "b", "b", "c"], ["c", "a", "b", "c"]):
        data = make_vectors(tmp_path / "v.parquet", rows=4, name=names)
        script = save_script(Linear(), tmp_path / "s.pt")
        with pytest.raises(SourceError, match="comes 2 times"):
            softlabels.dump(teacher=script, data=data, out=str(tmp_path / "d"), id_column="name")
    assert not (tmp_path / "d" / "plan.json").exists()


def test_a_record_of_another_plan_does_not_count(tmp_path):
    words = unfinished(vectors_dump(tmp_path))
    record = tmp_path / "d" / "commits" / "00001.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"plan": "sha256:0"}))
    assert softlabels.dump(**words).rows_run == 50
    assert softlabels.verify(dump=words["out"]).good


def test_a_damaged_plan_is_not_guessed_at(tmp_path):
    words = unfinished(vectors_dump(tmp_path))
    harm.cut_the_plan(tmp_path / "d")
    with pytest.raises(DamagedDump, match=r"plan\.json is not JSON"):
        softlabels.dump(**(words | {"resume": False}))
    assert softlabels.dump(**words).rows_run == 25  # the same options give the same plan
    harm.cut_the_plan(tmp_path / "d")
    (tmp_path / "d" / "softlabels.json").unlink()
    with pytest.raises(StoreError, match="holds no dump"):
        softlabels.dump(**(words | {"shard_rows": 20}))


@pytest.mark.parametrize("name", ["commits", "data", ".partial", ".claims"])
def test_a_link_that_leads_out_of_the_folder_is_not_followed(tmp_path, name):
    words = unfinished(vectors_dump(tmp_path))
    harm.truncate(tmp_path / "d")
    outside = tmp_path / "outside"
    place = tmp_path / "d" / name
    place.rename(outside) if place.exists() else outside.mkdir()
    place.symlink_to(outside)
    (outside / "0123456789ab").mkdir()
    (outside / "report-2024-final.json").write_text("{}")
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with pytest.raises(DamagedDump, match=r"is a link to outside of .*nothing is written"):
        softlabels.dump(**words)
    found = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert {p for p in found if p.is_file()} == {p for p in kept if p.is_file()}
    assert sorted(outside.iterdir()) == sorted(p for p in kept if p.parent == outside)


def test_only_what_a_writer_left_is_swept(tmp_path):
    words = vectors_dump(tmp_path)
    partial = tmp_path / "d" / ".partial"
    for name in ("0123456789ab", "thesis"):
        (partial / name).mkdir(parents=True)
        (partial / name / "file").write_text("x")
    softlabels.dump(**words)
    assert [path.name for path in partial.iterdir()] == ["thesis"]


def test_an_unfinished_dump_that_lost_its_plan_goes_on(tmp_path):
    words = unfinished(vectors_dump(tmp_path))
    harm.lose_the_plan(tmp_path / "d")
    assert softlabels.dump(**words).rows_run == 25
    assert softlabels.verify(dump=words["out"]).good


def test_too_many_shards_are_refused_before(tmp_path, monkeypatch):
    from softlabels.capture import planning

    monkeypatch.setattr(planning, "MAX_SHARDS", 3)
    with pytest.raises(UsageError, match="more than 3 shards: use 34 or more"):
        softlabels.dump(**vectors_dump(tmp_path))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(tmp_path):
    """Anonymous memory at its peak, with ten times the rows in ten times the shards."""
    code = """
import json, sys, threading, time
import softlabels

def anonymous():
    with open("/proc/self/status") as file:
        return next(int(l.split()[1]) for l in file if l.startswith("RssAnon"))

peak = [0]
def watch():
    while True:
        peak[0] = max(peak[0], anonymous())
        time.sleep(0.002)

words = json.loads(sys.argv[1])
softlabels.dump(**(words | {"data": words["data"].replace("large", "small"), "out": "warm"}))
threading.Thread(target=watch, daemon=True).start()
softlabels.dump(**words)
print(peak[0])
"""
    script = save_script(Linear(), tmp_path / "s.pt")
    peaks = {}
    for name, rows in (("small", 6_000), ("large", 60_000)):
        data = make_vectors(tmp_path / f"{name}.parquet", rows=rows)
        words = {"teacher": script, "data": data, "out": name, "shard_rows": 1000}
        done = subprocess.run([sys.executable, "-c", code, json.dumps(words)], cwd=tmp_path,
                              capture_output=True, text=True, check=True)  # fmt: skip
        peaks[name] = int(done.stdout)
    assert len(DumpReader(Folder(tmp_path / "large"))) == 60_000
    assert pq.ParquetFile(harm.shards(tmp_path / "large")[0]).metadata.num_rows == 1000
    assert peaks["large"] < peaks["small"] * 1.1 + 4096, peaks
