"""Several teachers in one pass: each sibling is the dump that its teacher gives alone, whatever
stops it, and the rows are read once."""

import json
import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import softlabels
from softlabels.errors import (
    DiskFull,
    LogitsError,
    OutOfMemory,
    PlanMismatch,
    SoftlabelsError,
    StoreError,
    TeacherError,
    UnreadableInput,
    UsageError,
)
from softlabels.store.folder import Folder
from softlabels.store.reader import DumpReader
from softlabels.store.writer import ShardWriter
from softlabels.teachers import Teacher
from tests.capture import harm
from tests.conftest import Linear, Lines, every, make_vectors, png, save_script
from tests.processes import command, wait_for

MIXED = "random_resized_crop(8, 0.3, 1)|flip|mixup(0.3)"


class Pixels(torch.nn.Module):
    """A teacher of pictures: what it says is what it sees."""

    def __init__(self, first: int = 0) -> None:
        super().__init__()
        self.first = first

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, self.first : self.first + 3] * 10


class Twice(torch.nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2


class Four(torch.nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, :4]


class Never(torch.nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, :3] * float("nan")


class Bad(torch.nn.Module):
    """Gives nan from some row on."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x[:, :1] >= 57, torch.full_like(x, float("nan")), x)


class Rows(torch.utils.data.Dataset):
    """Vectors that count how often they are read."""

    def __init__(self, rows: int = 400) -> None:
        self.values = np.random.default_rng(3).normal(size=(rows, 6)).astype(np.float32)
        self.read = 0

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, row: int) -> tuple[np.ndarray, int]:
        self.read += 1
        return self.values[row], row % 3


@pytest.fixture(scope="module")
def linear(tmp_path_factory) -> Callable[[str, float], str]:
    """Teachers of vectors, by name."""
    place = tmp_path_factory.mktemp("teachers")

    def make(name: str, scale: float) -> str:
        path = place / f"{name}.pt"
        return str(path) if path.exists() else save_script(Linear(scale), path)

    return make


@pytest.fixture(scope="module")
def two(linear) -> list[str]:
    return [linear("a", 1.0), linear("b", 2.0)]


def make_pictures(path: Path, broken: bool) -> str:
    """Forty pictures of 12² pixels, of which one can't be read where it is `broken`."""
    chance = np.random.default_rng(0)
    cells = [png(chance.integers(0, 256, (12, 12, 3))) for _ in range(40)]
    cells[17] = b"broken" if broken else cells[17]
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["x", "y", "z"])}
    )
    content = {"image": [{"bytes": cell, "path": None} for cell in cells], "label": [0, 1] * 20}
    datasets.Dataset.from_dict(content, features=features).to_parquet(str(path))
    return str(path)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> str:
    return make_pictures(tmp_path_factory.mktemp("pictures") / "p.parquet", broken=True)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> dict[str, str]:
    """Teachers of pictures, which remember their preprocessing. Only numbers differ of `a` and
    `b`; `wide` sees other pictures."""
    place = tmp_path_factory.mktemp("checkpoints")
    data = make_pictures(place / "whole.parquet", broken=False)
    steps = "upright|rgb|resize(10)|center_crop(8)|scale(255)"
    ways = {
        "a": steps,
        "b": f"{steps}|normalize([0.5, 0.4, 0.3], [0.2, 0.2, 0.2])",
        "wide": "upright|rgb|resize(10)|scale(255)",
    }
    for name, preprocess in ways.items():
        softlabels.fit(data=data, model="linear", epochs=1, preprocess=preprocess,
                       out=str(place / f"{name}.pt"))  # fmt: skip
    return {name: str(place / f"{name}.pt") for name in ways}


def alone(teachers: dict[str, Any], where: Path, **words: Any) -> dict[str, bytes]:
    """What each teacher's own dump holds, as `harm.contents` of a folder of all."""
    for name, teacher in teachers.items():
        softlabels.dump(teacher=teacher, name=name, out=str(where / name), **words)
    return harm.contents(where)


@pytest.mark.slow
def test_siblings_are_the_dumps_of_each_teacher_alone(two, vectors, tmp_path, cli):
    words = ["--data", vectors, "--shard-rows", "70", "--batch-size", "32", "--dtype", "float32"]
    teachers = ["--teacher", two[0], "--teacher", two[1]]
    done = cli("dump", *teachers, *words, "--out", "both", "--json", "--log-json")
    assert done.code == 0, done.err
    expected = alone(dict(zip("ab", two, strict=True)), tmp_path / "apart", data=vectors,
                     shard_rows=70, batch_size=32, dtype="float32")  # fmt: skip
    assert harm.contents(tmp_path / "both") == expected
    assert done.value.keys() == {"out", "dumps"}
    assert {name: one["out"] for name, one in done.value["dumps"].items()} == {
        "a": "both/a", "b": "both/b",
    }  # fmt: skip
    assert {one["rows_run"] for one in done.value["dumps"].values()} == {300}
    bars = [json.loads(line) for line in done.err.splitlines() if '"progress"' in line]
    assert [(bar["done"], bar["total"]) for bar in bars] == [(300, 300)]
    for name in "ab":
        assert softlabels.verify(dump=str(tmp_path / "both" / name)).good
    (tmp_path / "both.yaml").write_text(f"teacher: {{a: {two[0]}, b: {two[1]}}}\n")
    told = cli("dump", "--config", "both.yaml", *words, "--out", "both")
    assert told.out.splitlines()[0].startswith("both/a: 300 rows")
    assert told.out.splitlines()[1].startswith("both/b: 300 rows")
    assert told.err.count("is complete already") == 2


def test_a_teacher_that_comes_later_gets_a_sibling_and_nothing_is_rewritten(
    two, linear, vectors, tmp_path
):
    words = {"data": vectors, "out": str(tmp_path / "o"), "batch_size": 32}
    softlabels.dump(teacher=two, **words)
    files = [path for path in (tmp_path / "o").rglob("*") if path.is_file()]
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in files}
    more = [*two, linear("c", 3.0)]
    result = softlabels.dump(teacher=more, **words)
    assert [one.rows_run for one in result.dumps.values()] == [0, 0, 300]
    assert result.rows_run == 300
    assert before == {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in files}
    own = {"data": vectors, "batch_size": 32}
    softlabels.dump(teacher=linear("d", 4.0), out=str(tmp_path / "o" / "d"), **own)
    again = softlabels.dump(teacher=[*more, linear("d", 4.0)], **words)
    assert list(again.dumps) == ["a", "b", "c", "d"]
    assert again.rows_run == 0
    assert "4 dumps" in repr(again)


def test_rows_are_read_once_for_all_teachers_and_none_spoils_them_for_another(tmp_path):
    class InPlace(Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.mul_(0.5))

    def dump(data: Rows, teacher: Any, out: str) -> int:
        softlabels.dump(teacher=teacher, data=data, out=str(tmp_path / out), batch_size=20,
                        shard_rows=150)  # fmt: skip
        return data.read

    tried = dump(Rows(), {"x": InPlace(), "y": Linear(), "z": InPlace(3.0)}, "o")
    alone_ = dump(Rows(), {"x": InPlace()}, "p")
    assert alone_ >= 400
    assert tried < alone_ + 300, "what is beside one pass are rows to try and to know them by"
    for name, teacher in (("y", Linear()), ("z", InPlace(3.0))):
        dump(Rows(), {name: teacher}, "p")
    assert harm.contents(tmp_path / "o") == harm.contents(tmp_path / "p")


@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    shard_rows=st.integers(15, 60),
    batch=st.integers(3, 50),
    lost=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 4)), max_size=8),
)
def test_whatever_each_sibling_misses_a_resume_makes_that_and_no_more(
    linear, shard_rows, batch, lost
):
    teachers = {name: linear(name, 1.0 + "abc".index(name)) for name in "abc"}
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "o"
        data = make_vectors(Path(place) / "v.parquet", rows=60)
        words = {"data": data, "shard_rows": shard_rows, "batch_size": batch}
        softlabels.dump(teacher=teachers, out=str(out), **words)
        calm = harm.contents(out)
        assert calm == alone(teachers, Path(place) / "apart", **words)
        shards = -(-60 // shard_rows)
        gone = {(name, shard) for name, shard in lost if shard < shards}
        for name, shard in gone:
            (out / name / "commits" / f"{shard:05d}.json").unlink()
        before = {name: harm.places(out / name) for name in "abc"}
        result = softlabels.dump(teacher=teachers, out=str(out), resume=True, **words)
        assert harm.contents(out) == calm
        for name, one in result.dumps.items():
            redone = {shard for who, shard in gone if who == name}
            sizes = [min(shard_rows, 60 - shard * shard_rows) for shard in redone]
            assert one.rows_run == sum(sizes)
            after = harm.places(out / name)
            changed = {file for file, place in after.items() if before[name][file] != place}
            assert {int(file.split("-")[1]) for file in changed} == redone


@pytest.mark.parametrize(
    "words",
    [
        {"views": 2, "augment": MIXED, "data_seed": 4, "store_inputs": "original"},
        {"store_inputs": "resized(10, png)", "codec": "int8", "shard_rows": 11},
        {"views": 1, "augment": "jitter(2)", "clean": False, "dtype": "float32"},
    ],
)
def test_pictures_are_decoded_and_drawn_once_where_only_numbers_differ(
    pictures, checkpoints, tmp_path, monkeypatch, words
):
    from softlabels.inputs import decoding

    teachers = {name: checkpoints[name] for name in "ab"}
    words = {"data": pictures, "batch_size": 8, "on_error": "skip"} | words
    decoded, real = [], decoding.decode_image
    monkeypatch.setattr(decoding, "decode_image", lambda *given: decoded.append(0) or real(*given))
    lines = Lines()
    softlabels.dump(teacher=teachers, out=str(tmp_path / "o"), progress=lines, **words)
    both = len(decoded)
    alone({"a": teachers["a"]}, tmp_path / "p", **words)
    saved = 2 * (len(decoded) - both) - both
    assert saved >= 30, "each alone tries its teacher, and reads forty pictures"
    expected = alone({"b": teachers["b"]}, tmp_path / "p", **words)
    assert harm.contents(tmp_path / "o") == expected
    assert "pass of its own" not in str(lines)
    for name in "ab":
        manifest = json.loads((tmp_path / "o" / name / "softlabels.json").read_text())
        assert [one["id"] for one in manifest["skipped"]] == [17]


def test_teachers_that_see_other_pictures_have_a_pass_of_their_own_and_it_is_said(
    pictures, checkpoints, tmp_path
):
    class Bars(Lines):
        def bar(self, what: str, *given: Any):
            self.lines.append(f"bar {what}")
            return super().bar(what, *given)

    lines = Bars()
    words = {"data": pictures, "on_error": "skip", "shard_rows": 15, "dtype": "float32"}
    teachers = {name: checkpoints[name] for name in ("a", "wide", "b")}
    softlabels.dump(teacher=teachers, out=str(tmp_path / "o"), progress=lines, **words)
    [line] = [line for line in lines.lines if "pass of its own" in line]
    assert line.startswith("wide has a pass of its own, after that of a: steps before the numbers:")
    assert "center_crop(8" in line
    assert any(line.startswith(f"{tmp_path}/o/wide: 40 rows, 3 shards") for line in lines.lines)
    bars = [line for line in lines.lines if line.startswith("bar ")]
    assert bars == ["bar dump", f"bar {tmp_path}/o/wide: dump"]
    assert harm.contents(tmp_path / "o") == alone(teachers, tmp_path / "p", **words)


def test_labels_that_teachers_number_otherwise_are_read_for_each(tmp_path):
    lines = "\n".join(f"{row % 7},{row % 3},{'cat' if row % 2 else 'dog'}" for row in range(40))
    (tmp_path / "t.csv").write_text(f"x,y,label\n{lines}\n")
    data = str(tmp_path / "t.csv")
    softlabels.fit(data=data, model="linear", epochs=1, out=str(tmp_path / "a.pt"))
    kept = torch.load(tmp_path / "a.pt", weights_only=True)
    assert kept["class_names"] == ["cat", "dog"]
    torch.save(kept | {"class_names": ["dog", "cat"]}, tmp_path / "b.pt")
    teachers, said = {name: str(tmp_path / f"{name}.pt") for name in "ab"}, Lines()
    words = {"data": data, "shard_rows": 25}
    softlabels.dump(teacher=teachers, out=str(tmp_path / "o"), progress=said, **words)
    assert "b has a pass of its own, after that of a: classes of the labels: dog, cat, and " in str(
        said
    )
    assert harm.contents(tmp_path / "o") == alone(teachers, tmp_path / "p", **words)


@pytest.mark.slow
def test_texts_are_read_once_where_the_tokens_are_the_same(tmp_path):
    pytest.importorskip("transformers")
    from tests.text_models import make_tokenizer, save_classifier, sentences

    for name, kind, side in (("a", "absolute", "right"), ("b", "relative", "left"),
                             ("other", "absolute", "right")):  # fmt: skip
        save_classifier(tmp_path / name, kind, side)
    make_tokenizer(more=4).save_pretrained(tmp_path / "other")
    lines = "\n".join(f'"{text}",{row % 3}' for row, text in enumerate(sentences(60)))
    (tmp_path / "t.csv").write_text(f"text,label\n{lines}\n")
    words = {"data": str(tmp_path / "t.csv"), "shard_rows": 25, "batch_size": 8}
    teachers = {name: f"hf:{tmp_path / name}" for name in ("a", "b", "other")}
    said = Lines()
    softlabels.dump(teacher=teachers, out=str(tmp_path / "o"), progress=said, **words)
    [line] = [line for line in said.lines if "pass of its own" in line]
    assert line.startswith("other has a pass of its own, after that of a: steps before the")
    assert harm.contents(tmp_path / "o") == alone(teachers, tmp_path / "p", **words)


def test_siblings_without_shard_rows_get_common_ones_and_an_earlier_one_keeps_its_own(
    linear, tmp_path, monkeypatch
):
    from softlabels.capture import planning

    class Wide(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.repeat(1, 400)

    monkeypatch.setattr(planning, "SHARD_BYTES", 1 << 19)
    monkeypatch.setattr(planning, "MIN_SHARD_ROWS", 16)
    data = make_vectors(tmp_path / "v.parquet")
    words = {"data": data, "labels": False, "out": str(tmp_path / "o")}
    wide = save_script(Wide(), tmp_path / "wide.pt")

    def shards(name: str) -> int:
        return json.loads((tmp_path / "o" / name / "plan.json").read_text())["shard_inputs"]

    lines = Lines()
    softlabels.dump(teacher=[linear("a", 1.0), wide], progress=lines, **words)
    assert shards("a") == shards("wide") == 256
    assert "pass of its own" not in str(lines)
    again = {"data": data, "labels": False, "shard_rows": shards("wide")}
    teachers = {"a": linear("a", 1.0), "wide": wide}
    assert harm.contents(tmp_path / "o") == alone(teachers, tmp_path / "apart", **again)
    shutil.rmtree(tmp_path / "o" / "wide")
    shutil.rmtree(tmp_path / "o" / "a")
    softlabels.dump(teacher=linear("a", 1.0), out=str(tmp_path / "o" / "a"),
                    data=data, labels=False)  # fmt: skip
    assert shards("a") > 256
    (tmp_path / "o" / "a" / "commits" / "00000.json").unlink()
    softlabels.dump(teacher=[linear("a", 1.0), wide], progress=lines, resume=True, **words)
    assert "wide has a pass of its own, after that of a: rows of a shard: " in str(lines)
    assert softlabels.verify(dump=str(tmp_path / "o" / "wide")).good
    lines = Lines()
    softlabels.dump(teacher=[linear("a", 1.0), linear("b", 2.0)], progress=lines, **words)
    assert shards("b") == shards("a"), "a new one takes those of one that is there"


@pytest.mark.parametrize("place", ["read", "forward", "add", "close", "commit"])
def test_whatever_fails_in_one_stops_all_and_commits_nothing_wrong(
    two, tmp_path, monkeypatch, place
):
    """The failure comes in the second of six shards, while siblings are under way."""
    import pyarrow.parquet as pq

    from softlabels.inputs.sources import Source

    calls = {"n": 0}

    def fails_at(count: int, real):
        def wrapped(*args, **words):
            calls["n"] += 1
            if calls["n"] == count:
                raise OSError("injected")
            return real(*args, **words)

        return wrapped

    data, out = make_vectors(tmp_path / "v.parquet"), tmp_path / "o"
    words = {"teacher": two, "data": data, "shard_rows": 50, "batch_size": 10}
    softlabels.dump(**words, out=str(tmp_path / "calm"))
    owner, name, count = {
        "read": (Source, "read", 9), "forward": (Teacher, "logits", 18),
        "add": (ShardWriter, "add", 15), "close": (pq.ParquetWriter, "close", 3),
        "commit": (Folder, "write_json", 5),
    }[place]  # fmt: skip
    monkeypatch.setattr(owner, name, fails_at(count, getattr(owner, name)))
    with pytest.raises((OSError, SoftlabelsError), match="injected"):
        softlabels.dump(**words, out=str(out))
    monkeypatch.undo()
    assert not list(out.glob("*/softlabels.json"))
    for commit in out.glob("*/commits/*.json"):
        assert json.loads(commit.read_text())["rows"] == 50
    softlabels.dump(**words, out=str(out), resume=True)
    assert harm.contents(out) == harm.contents(tmp_path / "calm")
    assert not list(out.glob("*/.*"))


@pytest.mark.parametrize("one_pass", [True, False])
def test_a_teacher_that_fails_midway_is_named_and_the_others_keep_what_is_committed(
    tmp_path, monkeypatch, one_pass
):
    from softlabels.capture import dumping, estimating, ray_workers

    if not one_pass:
        for module in (dumping, estimating):
            monkeypatch.setattr(module, "passes", lambda todo, *_: [[name] for name in todo])
    data = tmp_path / "rows.csv"
    data.write_text("a,b\n" + "\n".join(f"{i - i % 3},1" for i in range(100)))
    good, bad = (save_script(m, tmp_path / n) for m, n in ((Twice(), "good.pt"), (Bad(), "b.pt")))
    words = {"data": str(data), "shard_rows": 25, "batch_size": 10, "out": str(tmp_path / "o")}
    message = r"o/b: the teacher gave nan for the row with id 57; .* leave it out, .* --resume"
    with pytest.raises(LogitsError, match=message):
        softlabels.dump(teacher=[good, bad], **words)
    for name in ("good", "b"):
        done = sorted(path.name for path in (tmp_path / "o" / name / "commits").iterdir())
        assert done[:2] == ["00000.json", "00001.json"]
        assert len(done) < 4 or (name == "good" and not one_pass)
    result = softlabels.dump(teacher=[good], **(words | {"out": str(tmp_path / "o" / "good")}),
                             resume=True)  # fmt: skip
    assert result.manifest.rows == 100
    with pytest.raises(LogitsError, match="o/c: "):
        softlabels.dump(teacher=[good, bad], name=["d", "c"], shard_rows=100, data=str(data),
                        out=str(tmp_path / "o"), batch_size=10)  # fmt: skip
    assert not (tmp_path / "o" / "c").exists(), "a plan of which nothing is committed is taken back"
    with pytest.raises(LogitsError, match=r"o/f: the teacher gave nan"):
        softlabels.plan(teacher=[good, bad], name=["e", "f"], **words)

    def fail(part: Any, progress: Any) -> None:
        raise LogitsError("the teacher gave nan")

    monkeypatch.setattr(ray_workers, "_run_part", fail)
    with pytest.raises(LogitsError, match=r"o/e: the teacher gave nan\. .* leave it out"):
        softlabels.dump(teacher=[good, bad], name=["e", "f"], engine="ray", **words)


def test_an_input_that_can_t_be_read_stops_all_and_memory_that_runs_out_only_shrinks(
    pictures, tmp_path
):
    teachers = {"a": save_script(Pixels(), tmp_path / "a.pt"),
                "b": save_script(Pixels(9), tmp_path / "b.pt")}  # fmt: skip
    words = {"data": pictures, "preprocess": "rgb|scale(255)", "shard_rows": 10, "batch_size": 4}
    with pytest.raises(UnreadableInput, match=r"id 17 .*--on-error skip"):
        softlabels.dump(teacher=teachers, out=str(tmp_path / "o"), **words)
    words |= {"on_error": "skip"}
    softlabels.dump(teacher=teachers, out=str(tmp_path / "o"), resume=True, **words)
    assert harm.contents(tmp_path / "o") == alone(teachers, tmp_path / "p", **words)

    class Full(Pixels):
        left = 40

        def forward(self, x: Tensor) -> Tensor:
            self.left -= 1
            if self.left < 0 and len(x) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(x)

    class Filling(Lines):
        def bar(self, *given: Any):
            full.left = 0
            return super().bar(*given)

    full, lines = Full(), Filling()
    auto = words | {"batch_size": "auto", "out": str(tmp_path / "q"), "progress": lines}
    softlabels.dump(teacher={"full": full, "b": Pixels(9)}, **auto)
    assert "full: out of memory with" in str(lines)
    for name, other in (("full", "a"), ("b", "b")):
        found, expected = (
            every(DumpReader(Folder(tmp_path / o / n))) for o, n in (("q", name), ("p", other))
        )
        np.testing.assert_array_equal(found, expected)
    full.left = 40
    given = words | {"out": str(tmp_path / "r"), "progress": Filling()}
    with pytest.raises(OutOfMemory, match=r"r/full: out of memory .*--batch-size"):
        softlabels.dump(teacher={"b": Pixels(9), "full": full}, **given)


def test_a_full_disk_loses_nothing_of_either(small_disk, two, tmp_path):
    data = make_vectors(tmp_path / "v.parquet", rows=12_000)
    words = {"teacher": two, "data": data, "out": str(small_disk / "o"), "shard_rows": 2000}
    filler = small_disk / "filler"
    filler.write_bytes(b"0" * 700_000)
    states = r"o/a: \d of 6 shards are committed and safe; .*o/b: \d of 6 shards .* Make room"
    with pytest.raises(DiskFull, match=states):
        softlabels.dump(**words)
    committed = {n: len(list((small_disk / "o" / n / "commits").iterdir())) for n in "ab"}
    assert 0 < sum(committed.values()) < 12
    filler.unlink()
    result = softlabels.dump(**words, resume=True)
    assert {name: one.rows_run for name, one in result.dumps.items()} == {
        name: 12_000 - 2000 * count for name, count in committed.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_siblings_that_are_stopped_and_resumed_are_the_same_bytes(tmp_path, cli, stop, monkeypatch):
    code = (
        "import os, time, torch\n"
        "class Slow(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        time.sleep(float(os.environ.get('PAUSE', '0')))\n"
        "        return x.flatten(1)[:, {0}:{1}]\n"
        "def make():\n    return Slow()\n"
    )
    (tmp_path / "one.py").write_text(code.format(20, 30))
    (tmp_path / "other.py").write_text(code.format(30, 40))
    words = ["dump", "--teacher", "one:make", "--teacher", "other:make", "--name", "one", "--name",
             "other", "--data", "digits", "--preprocess", "scale(255)", "--outputs", "logits",
             "--batch-size", "20", "--shard-rows", "100"]  # fmt: skip
    calm = cli(*words, "--out", "calm")
    assert calm.code == 0, calm.err
    monkeypatch.setenv("PAUSE", "0.05")
    rough = tmp_path / "rough"
    process = command(
        *words, "--out", "rough", cwd=tmp_path, out=tmp_path / "o", err=tmp_path / "e"
    )
    wait_for(lambda: len(list(rough.glob("*/commits/*.json"))) >= 5)
    os.kill(process.pid, stop)
    process.join(60)
    if stop is signal.SIGINT:
        assert "rough/one: " in (tmp_path / "e").read_text()
    monkeypatch.setenv("PAUSE", "0")
    assert len(list(rough.glob("*/commits/*.json"))) < 24
    assert cli(*words, "--out", "rough").code == 1, "it asks for --resume"
    assert cli(*words, "--out", "rough", "--resume").code == 0
    assert harm.contents(rough) == harm.contents(tmp_path / "calm")


def test_what_does_not_go_together_is_said_before_anything_is_written(
    two, checkpoints, vectors, pictures, teacher, tmp_path
):
    a, b = two
    kept = torch.load(checkpoints["b"], weights_only=True)
    several = str(tmp_path / "several.pt")
    torch.save(kept | {"data": kept["data"] | {"task": "multilabel"}}, several)
    four = save_script(Four(), tmp_path / "four.pt")
    never = save_script(Never(), tmp_path / "never.pt")
    (tmp_path / "names.txt").write_text("a\nb\nc\n")
    softlabels.dump(teacher=a, data=vectors, out=str(tmp_path / "done" / "a"), dtype="float32")
    twin = shutil.copy(b, tmp_path / "a.pt")
    cases: list[tuple[dict, type, str]] = [
        ({"teacher": [a, twin]}, UsageError,
         rf"{a} and {twin} are both called 'a', .* one folder: .* --name"),
        ({"teacher": two, "name": ["x", "X"]}, UsageError, "both called 'X'"),
        ({"teacher": two, "name": ["x/y", "x-y"]}, UsageError, "both called 'x-y'"),
        ({"teacher": two, "name": ["..", "b"]}, UsageError, r"is called '\.\.', .* can't lie"),
        ({"teacher": ["none.pt", b], "name": ["x", "DATA"]}, UsageError,
         r"b.pt is called 'DATA', .* can't lie in a folder of that name, which is that of a part"),
        ({"teacher": {"plan.json": a, "x": b}}, UsageError, r"is called 'plan.json', .* --name"),
        ({"teacher": {"ä" * 128: a}}, UsageError, "that name, which has 256 bytes of up to 255"),
        ({"teacher": {"x": a, "nan": never}}, LogitsError, "nan: the teacher gave nan for the row"),
        ({"teacher": a, "out": str(tmp_path / "done")}, StoreError,
         r"done is no dump and holds dumps \(a\); .* --out .*done/a$"),
        ({"teacher": two, "name": "x"}, UsageError, "--name is given 1 times, for 2 teachers: "),
        ({"teacher": a, "name": ["x", "y"]}, UsageError, "2 times, for 1 teacher: name each"),
        ({"teacher": two, "name": ["x", "a\nb"]}, UsageError, "write a name that can be read"),
        ({"teacher": {"x": a}, "name": "y"}, UsageError, "the keys of teacher= are the names"),
        ({"teacher": {3: a, "x": b}}, UsageError, "--name is 3; it must be text"),
        ({"teacher": []}, UsageError, "--teacher is empty; give one"),
        ({"teacher": [a, ""]}, UsageError, "--teacher is empty"),
        ({"teacher": [a, 7]}, UsageError, "--teacher is 7; it must be text"),
        ({"teacher": two, "model": "linear"}, UsageError,
         "--model is 'linear', which is about one teacher, and 2 are given: .* --out OUT/NAME"),
        ({"teacher": two, "key": "ema"}, UsageError, "--key is 'ema', .* one teacher"),
        ({"teacher": two, "version": "2"}, UsageError, "--version is '2', .* one teacher"),
        ({"teacher": two, "out": str(tmp_path / "done" / "a")}, UsageError,
         "done/a is a dump itself, .* side by side in a folder that is none: .* --out"),
        ({"teacher": [b, a], "out": str(tmp_path / "done")}, PlanMismatch,
         "done/a holds a dump made otherwise: dtype is 'float16' and was 'float32'"),
        ({"teacher": [a, four], "class_names": str(tmp_path / "names.txt")}, UsageError,
         "names.txt has 3 names, and the teacher four gives 4 logits"),
        ({"teacher": [a, four]}, TeacherError, "the teacher four has 4 classes, the data has 3"),
        ({"teacher": {"a": checkpoints["a"], "m": several}, "data": pictures}, UsageError,
         "the teacher m was trained for multilabel, as its file says, and --task is classi"),
        ({"teacher": [teacher, checkpoints["a"]], "data": None}, UsageError,
         "the teacher t remembers the data digits, and the teacher a .*whole.parquet; .*--data"),
        ({"teacher": [b, Linear()], "engine": "ray"}, UsageError, "takes no object in memory"),
        ({"teacher": [teacher, a], "data": None}, UsageError, "a.pt does not remember its data"),
    ]  # fmt: skip
    for words, error, message in cases:
        with pytest.raises(error, match=f"(?s){message}"):
            softlabels.dump(**{"data": vectors, "out": str(tmp_path / "new")} | words)
        assert not (tmp_path / "new").exists(), words
        assert sorted(path.name for path in (tmp_path / "done").iterdir()) == ["a"], words
