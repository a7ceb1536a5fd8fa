"""Stage one through its public doors: values, resuming, and every kind of harm."""

import json
import os
import shutil
import signal
import threading
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import softlabels
from softlabels.errors import (
    DiskFull,
    LabelSpaceMismatch,
    LogitsError,
    PlanMismatch,
    SourceError,
    StoreError,
    TeacherError,
    UnreadableInput,
    UsageError,
)
from softlabels.inputs.examples import Examples
from softlabels.inputs.opening import open_source
from softlabels.inputs.preprocess import Preprocess
from softlabels.store.folder import Folder
from softlabels.store.pages.shard_file import ShardFile
from softlabels.store.reader import DumpReader
from softlabels.store.writer import ShardWriter
from softlabels.teachers import resolve
from tests.conftest import Linear, every, make_vectors, png, save_script
from tests.processes import command, wait_for

TEMPERATURES = [0.5, 1, 2, 4, 8, 20, 100]

SLOW = """
import os, time, torch

class Slow(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(64, 10)

    def forward(self, x):
        time.sleep(float(os.environ.get("PAUSE", "0")))
        return self.layer(x.flatten(1))
"""


def read(folder) -> DumpReader:
    return DumpReader(Folder(folder))


def live_logits(teacher: str, data: str, split: str = "train") -> torch.Tensor:
    """The teacher's own answer in float64, without any of the pipeline."""
    found = resolve(teacher)
    source = open_source(data, split)
    examples = Examples(source, Preprocess.parse(found.preprocess or ""))
    inputs = examples.finish(examples.gather(np.arange(len(source)))).double()
    return found.module.double()(inputs).detach()


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 2e-3), ("float32", 1e-6)])
def test_stored_probabilities_are_the_teachers_at_any_temperature(
    teacher, tmp_path, dtype, tolerance
):
    out = str(tmp_path / "d")
    softlabels.dump(teacher=teacher, out=out, dtype=dtype, batch_size=77)
    expected = live_logits(teacher, "digits")
    for T in TEMPERATURES:
        dataset = softlabels.load(out, T=T)
        found = torch.cat([b["soft_target"] for b in dataset.batches(500)])
        assert found.dtype == torch.float32
        worst = (found.double() - torch.softmax(expected / T, -1)).abs().max()
        assert worst < tolerance, (T, worst)


def test_batch_size_workers_and_shards_do_not_matter(teacher, tmp_path):
    reference = None
    ways = {
        "a": {},
        "b": {"batch_size": 13, "workers": 1, "shard_rows": 101},
        "c": {"batch_size": 500, "workers": 4, "shard_rows": 1},
    }
    for name, words in ways.items():
        data = make_vectors(tmp_path / "v.parquet", rows=120)
        script = save_script(Linear(), tmp_path / "s.pt")
        softlabels.dump(teacher=script, data=data, out=str(tmp_path / name), **words)
        reader = read(tmp_path / name)
        found = (reader.ids.tolist(), reader.hashes.tolist(), reader.labels.tolist())
        reference = reference or (*found, every(reader))
        assert found == reference[:3]
        np.testing.assert_allclose(every(reader), reference[3], rtol=2e-3, atol=1e-3)


def test_a_second_dump_finds_everything_done(dump_folder, teacher, cli):
    before = {p: p.stat().st_mtime_ns for p in Path(dump_folder).rglob("*") if p.is_file()}
    done = cli("dump", "--teacher", teacher, "--out", dump_folder, "--json")
    assert done.code == 0
    assert "complete already" in done.err
    assert done.value["rows_run"] == 0
    assert before == {p: p.stat().st_mtime_ns for p in before}


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_a_dump_that_is_stopped_and_resumed_gives_the_same_bytes(tmp_path, cli, stop, monkeypatch):
    (tmp_path / "slow.py").write_text(SLOW)
    names: dict = {}
    exec(SLOW, names)
    torch.save(names["Slow"]().state_dict(), tmp_path / "w.pt")
    words = ["dump", "--teacher", "w.pt", "--data", "digits", "--model", "slow:Slow",
             "--batch-size", "20", "--shard-rows", "100"]  # fmt: skip
    assert cli(*words, "--out", "calm").code == 0
    again = [*words, "--out", "rough"]
    with monkeypatch.context() as slowly:
        slowly.setenv("PAUSE", "0.05")
        process = command(*again, cwd=tmp_path, out=tmp_path / "out", err=tmp_path / "err")
    wait_for(lambda: len(list(tmp_path.glob("rough/commits/*"))) >= 3)
    os.kill(process.pid, stop)
    process.join(60)
    said = (tmp_path / "err").read_text()
    committed = len(list(tmp_path.glob("rough/commits/*")))
    assert 3 <= committed < 12
    assert not (tmp_path / "rough" / "softlabels.json").exists()
    if stop == signal.SIGINT:
        assert process.exitcode == 130
        assert "of 12 shards are committed and safe. Go on with the same command and" in said
        assert "Traceback" not in said
    refused = cli(*again)
    assert refused.code == 1
    assert "Add --resume" in refused.err
    resumed = cli(*again, "--resume", "--json")
    assert resumed.code == 0
    assert resumed.value["rows_run"] == 1200 - 100 * committed
    for path in sorted(tmp_path.glob("calm/data/*")):
        assert path.read_bytes() == (tmp_path / "rough" / "data" / path.name).read_bytes()
    assert (every(read(tmp_path / "calm")) == every(read(tmp_path / "rough"))).all()
    assert not (tmp_path / "rough" / ".partial").exists()


def test_a_lost_shard_is_redone_alone(dump_folder, teacher, tmp_path):
    copy = shutil.copytree(dump_folder, tmp_path / "copy")
    kept = {p.name: p.read_bytes() for p in (copy / "data").iterdir()}
    next((copy / "data").glob("train-00001*")).unlink()
    words = {"teacher": teacher, "out": str(copy), "shard_rows": 500, "batch_size": 100}
    with pytest.raises(StoreError, match="Add --resume"):
        softlabels.dump(**words)
    assert softlabels.dump(**words, resume=True).rows_run == 500
    assert kept == {p.name: p.read_bytes() for p in (copy / "data").iterdir()}


def test_another_dump_in_the_folder_is_left_alone(dump_folder, teacher, tmp_path):
    before = {p: p.read_bytes() for p in Path(dump_folder).rglob("*") if p.is_file()}
    other = str(tmp_path / "other.pt")
    softlabels.fit(data="digits", model="linear", epochs=1, out=other)
    for words, message in (
        ({"teacher": other}, "teacher.fingerprint is 'sha256:"),
        ({"dtype": "float32"}, "dtype is 'float32' and was 'float16'"),
        ({"split": "test"}, "split is 'test' and was 'train'"),
        ({"shard_rows": 400}, "shard_inputs is 400 and was 500"),
    ):
        with pytest.raises(PlanMismatch, match=message):
            softlabels.dump(**({"teacher": teacher, "out": dump_folder, "resume": True} | words))
    assert before == {p: p.read_bytes() for p in before}


def test_a_folder_with_other_files_is_refused(teacher, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(StoreError, match=r"holds no dump \(there is 'thesis.tex'\)"):
        softlabels.dump(teacher=teacher, out=str(tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_inputs_can_travel_with_the_dump(teacher, tmp_path):
    out = tmp_path / "d"
    softlabels.dump(teacher=teacher, out=str(out), store_inputs="original", shard_rows=700)
    manifest = json.loads((out / "softlabels.json").read_text())
    assert manifest["plan"]["store_inputs"] == "original"
    plain = softlabels.load(out, T=1)
    assert plain.examples.source.data == str(out)
    live = Examples(open_source("digits"), Preprocess.parse("scale(255)"))
    assert torch.equal(plain.examples.gather(np.arange(1200)), live.gather(np.arange(1200)))
    loaded = datasets.load_dataset(str(out), cache_dir=str(tmp_path / "cache"))["train"]
    assert loaded.features["input"] == datasets.Image()
    assert loaded[3]["input"].size == (8, 8)


def test_vectors_with_inputs_and_text_ids(tmp_path):
    names = [f"row-{i:03d}" for i in range(50)]
    data = make_vectors(tmp_path / "v.parquet", rows=50, name=names)
    script = save_script(Linear(), tmp_path / "s.pt")
    out = str(tmp_path / "d")
    softlabels.dump(teacher=script, data=data, out=out, id_column="name", store_inputs="original")
    dataset = softlabels.load(out, T=2)
    assert dataset[7]["id"] == "row-007"
    torch.testing.assert_close(
        dataset[7]["logits"].float(), Linear()(dataset[7]["input"][None])[0], atol=2e-3, rtol=2e-3
    )


def test_rows_without_labels(tmp_path):
    path = tmp_path / "v.parquet"
    features = datasets.Features({"x": datasets.List(datasets.Value("float32"), length=6)})
    content = {"x": np.random.default_rng(0).normal(size=(20, 6)).tolist()}
    datasets.Dataset.from_dict(content, features=features).to_parquet(str(path))
    script = save_script(Linear(), tmp_path / "s.pt")
    result = softlabels.dump(teacher=script, data=str(path), out=str(tmp_path / "d"))
    assert result.manifest.accuracy is None
    assert pq.read_schema(next((tmp_path / "d" / "data").iterdir())).names == [
        "id", "view", "input_hash", "logits",
    ]  # fmt: skip
    dataset = softlabels.load(tmp_path / "d", T=1)
    assert dataset[0]["label"] == -1
    with pytest.raises(UsageError, match="has no labels; use --alpha 1"):
        softlabels.train(dump=str(tmp_path / "d"), out=str(tmp_path / "s.pt"))
    softlabels.train(dump=str(tmp_path / "d"), alpha=1, epochs=1, out=str(tmp_path / "s.pt"))


def test_unreadable_images_stop_or_are_recorded(cli, tmp_path):
    cells = [{"bytes": png(np.full((8, 8), i)), "path": None} for i in range(30)]
    cells[17] = {"bytes": b"broken", "path": None}
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=list("0123456789"))}
    )
    data = str(tmp_path / "i.parquet")
    datasets.Dataset.from_dict({"image": cells, "label": [0] * 30}, features=features).to_parquet(
        data
    )
    out = str(tmp_path / "d")
    torch.save({"w": torch.randn(10, 64), "b": torch.zeros(10)}, tmp_path / "w.pt")
    words = {"teacher": str(tmp_path / "w.pt"), "model": "linear", "data": data, "out": out,
             "shard_rows": 10, "batch_size": 4}  # fmt: skip
    with pytest.raises(UnreadableInput, match=r"row with id 17 .*\w\. Leave .* --on-error skip"):
        softlabels.dump(**words)
    assert not Path(out, "softlabels.json").exists()
    result = softlabels.dump(**words, resume=True, on_error="skip")
    assert result.manifest.rows == 29
    assert [entry.id for entry in result.manifest.skipped] == [17]
    assert "can't be read" in result.manifest.skipped[0].reason
    assert read(out).ids.tolist() == [i for i in range(30) if i != 17]
    assert len(softlabels.load(out, T=1)) == 29
    assert "left out: id 17, the image of the row with id 17 can't be read" in cli("info", out).out


@pytest.mark.parametrize(
    ("value", "message"), [(float("nan"), "gave nan"), (float("inf"), "gave inf"),
                           (1e9, "--dtype float32")],
)  # fmt: skip
def test_bad_logits_never_land(tmp_path, value, message):
    class Bad(torch.nn.Module):
        def __init__(self, value: float) -> None:
            super().__init__()
            self.value = value

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            wrong = (x[:, :1] > 999).float()
            return torch.where(wrong > 0, torch.full_like(x, self.value), x)

    data = tmp_path / "rows.csv"
    data.write_text("a,b\n" + "\n".join(f"{1000 if i == 57 else i % 50},1" for i in range(100)))
    script = save_script(Bad(value), tmp_path / "s.pt")
    words = {"teacher": script, "data": str(data), "shard_rows": 25, "batch_size": 10}
    with pytest.raises(LogitsError, match=f"(?s){message}") as caught:
        softlabels.dump(**words, out=str(tmp_path / "d"))
    assert "id 57" in str(caught.value)
    files = sorted(p.name for p in (tmp_path / "d" / "data").iterdir())
    assert files == ["train-00000-of-00004.parquet", "train-00001-of-00004.parquet"]
    if value == 1e9:
        softlabels.dump(**words, out=str(tmp_path / "e"), dtype="float32")
        assert every(read(tmp_path / "e"))[57, 0] == np.float32(1e9)


@pytest.mark.parametrize("place", ["read", "forward", "add", "close", "commit"])
def test_whatever_fails_stops_the_dump_and_commits_nothing_wrong(
    teacher, tmp_path, monkeypatch, place
):
    """The failure comes in the second of six shards, with more batches queued behind it."""
    calls = {"n": 0}

    def fails_at(count: int, real):
        def wrapped(*args, **words):
            calls["n"] += 1
            if calls["n"] == count:
                raise OSError("injected")
            return real(*args, **words)

        return wrapped

    out = tmp_path / "d"
    if place == "read":
        from softlabels.inputs import decoding

        monkeypatch.setattr(decoding, "decode_image", fails_at(250, decoding.decode_image))
    elif place == "forward":
        from softlabels.teachers import Teacher

        monkeypatch.setattr(Teacher, "logits", fails_at(9, Teacher.logits))
    elif place == "add":
        monkeypatch.setattr(ShardWriter, "add", fails_at(5, ShardWriter.add))
    elif place == "close":
        monkeypatch.setattr(pq.ParquetWriter, "close", fails_at(2, pq.ParquetWriter.close))
    else:
        monkeypatch.setattr(Folder, "write_json", fails_at(3, Folder.write_json))
    words = {"teacher": teacher, "out": str(out), "shard_rows": 200, "batch_size": 50}
    with pytest.raises(OSError, match="injected"):
        softlabels.dump(**words)
    monkeypatch.undo()
    assert not (out / "softlabels.json").exists()
    for commit in (out / "commits").glob("*.json"):
        assert json.loads(commit.read_text())["rows"] == 200
    softlabels.dump(**words, resume=True)
    reader = read(out)
    assert reader.ids.tolist() == list(range(1200))
    expected = live_logits(teacher, "digits").numpy()
    np.testing.assert_allclose(every(reader), expected, rtol=2e-3, atol=1e-2)


def test_a_shard_is_flushed_to_the_disk_while_the_next_one_is_written(
    teacher, tmp_path, monkeypatch
):
    next_began, add, close = threading.Event(), ShardWriter.add, ShardFile.close

    def added(shard, *args, **words):
        if shard.shard == 1:
            next_began.set()
        return add(shard, *args, **words)

    def closed(file):
        assert next_began.wait(30), "it waits for the shard before it"
        return close(file)

    monkeypatch.setattr(ShardWriter, "add", added)
    monkeypatch.setattr(ShardFile, "close", closed)
    softlabels.dump(teacher=teacher, out=str(tmp_path / "d"), shard_rows=600)
    assert read(tmp_path / "d").ids.tolist() == list(range(1200))


def test_a_full_disk_loses_nothing(small_disk, tmp_path):
    data = make_vectors(tmp_path / "v.parquet", rows=20_000)
    script = save_script(Linear(), tmp_path / "s.pt")
    words = {"teacher": script, "data": data, "out": str(small_disk / "d"), "shard_rows": 4000}
    filler = small_disk / "filler"
    filler.write_bytes(b"0" * 700_000)
    with pytest.raises(DiskFull, match=r"\d of 5 shards are committed and safe. Make room"):
        softlabels.dump(**words)
    committed = len(list((small_disk / "d" / "commits").iterdir()))
    assert 1 <= committed < 5
    filler.unlink()
    assert softlabels.dump(**words, resume=True).rows_run == 20_000 - 4000 * committed
    assert len(every(read(small_disk / "d"))) == 20_000


def test_what_does_not_fit_together_is_said_before_anything_is_written(teacher, vectors, tmp_path):
    out = tmp_path / "d"
    with pytest.raises(
        LabelSpaceMismatch, match=r"has 10 classes \('0', '1', '2', …\), the data has 3"
    ):
        softlabels.dump(teacher=teacher, data=vectors, out=str(out))
    bare = str(tmp_path / "bare.parquet")
    datasets.Dataset.from_dict({"x": [[0.0] * 6]}).to_parquet(bare)
    with pytest.raises(TeacherError, match=r"can't take inputs of shape \[1, 6\]"):
        softlabels.dump(teacher=teacher, data=bare, out=str(out))
    with pytest.raises(TeacherError, match=r"has 3 classes, the data has 10 classes .'0', '1'"):
        softlabels.dump(
            teacher=save_script(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)),
                                tmp_path / "s.pt"),
            data="digits", out=str(out),
        )  # fmt: skip
    with pytest.raises(UsageError, match="does not remember its data"):
        softlabels.dump(teacher=str(tmp_path / "s.pt"), out=str(out))
    with pytest.raises(SourceError, match="no column 'wrong'"):
        softlabels.dump(teacher=teacher, data="digits", input_column="wrong", out=str(out))
    with pytest.raises(UsageError, match="this machine has only cpu"):
        softlabels.dump(teacher=teacher, out=str(out), device="xpu")
    assert not out.exists()


def test_bf16_is_close_and_recorded(teacher, tmp_path):
    result = softlabels.dump(teacher=teacher, out=str(tmp_path / "d"), precision="bf16")
    assert result.manifest.plan.precision == "bf16"
    difference = every(read(tmp_path / "d")) - live_logits(teacher, "digits").numpy()
    assert 1e-4 < abs(difference).max() < 1


def test_a_remote_folder(teacher):
    softlabels.dump(teacher=teacher, out="memory://dumps/digits", shard_rows=600)
    dataset = softlabels.load("memory://dumps/digits", T=4)
    assert len(dataset) == 1200
