"""What is refused is refused before anything is written, and the next try goes through."""

import os
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch

import softlabels
from softlabels.errors import LogitsError, SourceError, UsageError
from softlabels.exchange import import_logits
from softlabels.store.codecs.dense import DenseCodec
from softlabels.store.codecs.registry import CODECS
from tests.conftest import Linear, Lines, save_script

X = np.random.default_rng(0).normal(size=(30, 6)).astype("f4")


class Burst(torch.nn.Module):
    """Gives what float16 can't hold for a row that begins with 1000."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :3] * (1 + 1e6 * (x[:, :1] == 1000))


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """t.pt, z.npy, and data of two splits of which one has a name that no file can have."""
    monkeypatch.chdir(tmp_path)
    rows = datasets.Dataset.from_dict({"x": X, "label": [0, 1, 2] * 10})
    datasets.DatasetDict({"train": rows, "my split": rows, "a" * 101: rows}).save_to_disk("data")
    save_script(Linear(), tmp_path / "t.pt")
    np.save("z.npy", X[:, :3])
    return tmp_path


def dump(**words) -> None:
    softlabels.dump(**{"teacher": "t.pt", "data": "data"} | words)


def bring(**words) -> None:
    import_logits(**{"file": "z.npy", "data": "data"} | words)


@pytest.mark.parametrize("verb", [dump, bring])
@pytest.mark.parametrize(
    ("words", "error", "said"),
    [
        ({"split": "my split"}, SourceError, "'my split'.* letters, digits and _"),
        ({"split": "a" * 101}, SourceError, "at most 100 characters"),
        ({"shard_rows": 10**30}, UsageError, "shard.rows is 1000000"),
    ],
)
def test_what_the_format_does_not_hold_is_refused_first(place, verb, words, error, said):
    with pytest.raises(error, match=said):
        verb(**words, out="new/d")
    assert not (place / "new").exists()
    verb(out="new/d")
    verb(out="new/d", resume=True)


def test_plan_refuses_what_a_dump_refuses(place):
    with pytest.raises(SourceError, match="my split"):
        softlabels.plan(teacher="t.pt", data="data", split="my split")


def test_class_names_that_come_twice_are_told_apart_or_refused(place):
    softlabels.fit(data="data", model="linear", epochs=1, out="fit.pt")
    content = torch.load("fit.pt", weights_only=True)
    torch.save(content | {"class_names": ["a", "b", "a"]}, "fit.pt")
    Path("names.txt").write_text("a\nb\na\n")
    with pytest.raises(UsageError, match="class 'a' comes twice"):
        dump(teacher="fit.pt", out="new/d", class_names="names.txt")
    assert not (place / "new").exists()
    lines = Lines()
    softlabels.dump(teacher="fit.pt", data="data", out="named", progress=lines)
    assert softlabels.load("named", inputs=False).class_names == ["a (0)", "b", "a (2)"]
    assert "the model has classes of one name, which get their numbers: a (0), a (2)" in str(lines)


def test_folders_that_a_refusal_made_are_taken_away(place):
    twice = datasets.Dataset.from_dict({"x": X, "label": [0] * 30, "id": ["a"] * 30})
    twice.to_parquet("twice.parquet")
    with pytest.raises(SourceError, match="comes 30 times"):
        dump(data="twice.parquet", id_column="id", out="new/d")
    assert not (place / "new").exists()
    (place / "mine").mkdir()
    with pytest.raises(SourceError, match="comes 30 times"):
        dump(data="twice.parquet", id_column="id", out="mine")
    assert list((place / "mine").iterdir()) == [], "a folder that was there stays"


def test_the_remedy_of_a_dump_that_stopped_goes_through(place):
    save_script(Burst(), place / "burst.pt")
    values = X.copy()
    values[7, 0] = 1000
    datasets.Dataset.from_dict({"x": values}).to_parquet("far.parquet")
    words = {"teacher": "burst.pt", "data": "far.parquet", "out": "new/d"}
    with pytest.raises(LogitsError, match="float16 ends at 65504"):
        dump(**words)
    assert not (place / "new").exists()
    dump(**words, dtype="float32")
    np.save("far.npy", values[:, :3] * 1e3)
    with pytest.raises(LogitsError, match="float16 ends at 65504"):
        bring(file="far.npy", dtype="float16", out="new/i")
    assert not (place / "new" / "i").exists()
    bring(file="far.npy", out="new/i")


def test_shards_that_are_committed_keep_their_plan(place):
    save_script(Burst(), place / "burst.pt")
    values = X.copy()
    values[29, 0] = 1000
    datasets.Dataset.from_dict({"x": values}).to_parquet("far.parquet")
    words = {"teacher": "burst.pt", "data": "far.parquet", "out": "d", "shard_rows": 16,
             "batch_size": 4}  # fmt: skip
    with pytest.raises(LogitsError, match="float16 ends at 65504"):
        dump(**words)
    assert {file.name for file in (place / "d").iterdir()} == {"plan.json", "commits", "data"}


def test_names_that_are_no_utf8_are_recorded_as_far_as_they_are(place):
    odd = os.fsdecode(b"caf\xe9.csv")
    rows = "".join(f"{i % 7},{i % 5},{i % 6},{i % 4},{i % 3},{i % 2}\n" for i in range(30))
    Path(odd).write_text("a,b,c,d,e,f\n" + rows)
    dump(data=odd, out="d")
    assert "caf?" in softlabels.info("d")["facts"]["source"]
    assert softlabels.verify(dump="d").good


class Hidden:
    text = "hidden states"


class HiddenCodec(DenseCodec):
    takes = (Hidden,)


def test_a_codec_that_takes_other_answers_is_refused(place, monkeypatch):
    maker = lambda argument, classes, dtype, side_files: HiddenCodec(classes, dtype)  # noqa: E731
    monkeypatch.setitem(CODECS, "hidden", maker)
    match = "codec hidden takes hidden states, and the teacher t gives dense logits; choose another"
    with pytest.raises(UsageError, match=match):
        dump(codec="hidden", out="d")
    assert not (place / "d").exists()
