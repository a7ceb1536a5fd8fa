"""Nothing of a machine is in a record: a path stays here, where `train` finds it again."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import softlabels
from softlabels.errors import SourceError
from softlabels.exchange import import_logits
from softlabels.inputs.whereabouts import public_name
from tests.conftest import Linear, png, save_script

SECRET = "a.person"
TRAIN = {"student": "linear", "epochs": 1, "holdout": 0, "device": "cpu"}


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """A home folder with data and a teacher, from where one works in another one."""
    monkeypatch.setenv("SOFTLABELS_CACHE", str(tmp_path / "cache"))
    found = tmp_path / SECRET / "secret project"
    found.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(found))
    rows = "".join(f"{i % 7},{i % 5},{i % 6},{i % 4},{i % 3},{i % 2},{i % 3}\n" for i in range(30))
    (found / "d.csv").write_text("a,b,c,d,e,f,label\n" + rows)
    save_script(Linear(), found / "t.pt")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return found


def published(dump: str) -> str:
    """All that a push sends, as text."""
    return "".join(
        path.read_bytes().decode("latin-1") for path in Path(dump).rglob("*") if path.is_file()
    )


def names_of(home: Path) -> list[str]:
    return [
        str(home / "d.csv"), "~/d.csv", f"../{SECRET}/secret project/d.csv",
        f"{home}/../secret project/./d.csv",
    ]  # fmt: skip


@pytest.mark.parametrize("which", range(4))
def test_of_a_path_the_name_is_recorded_and_train_finds_it(home, which):
    data = names_of(home)[which]
    softlabels.dump(teacher=str(home / "t.pt"), data=data, out="d")
    assert SECRET not in published("d")
    assert softlabels.info("d")["facts"]["source"] == "d.csv, split train"
    softlabels.train(dump="d", **TRAIN)
    shutil.move("d", home / "moved")
    softlabels.train(dump=str(home / "moved"), **TRAIN)
    assert softlabels.verify(dump=str(home / "moved"), source=True).good
    softlabels.evaluate(checkpoint="s.pt", split="train")


def test_an_import_records_no_path_either(home):
    np.save(home / "z.npy", np.random.default_rng(0).normal(size=(30, 3)).astype("f4"))
    np.save(home / "ids.npy", np.arange(30))
    import_logits(file=str(home / "z.npy"), data=str(home / "d.csv"), ids=str(home / "ids.npy"),
                  out="d", input_column="a,b,c,d,e,f")  # fmt: skip
    assert SECRET not in published("d")
    softlabels.train(dump="d", **TRAIN)


def test_reasons_of_rows_that_are_left_out_hold_no_path(home):
    photos = home / "photos"
    for name in ("cat", "dog"):
        (photos / name).mkdir(parents=True)
        for i in range(3):
            (photos / name / f"{i}.png").write_bytes(png(np.full((6, 1), 40 * i)))
    (photos / "dog" / "2.png").write_bytes(b"no image at all")

    class Flat(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1)[:, :2] * 3 - x.flatten(1)[:, 2:4]

    teacher = save_script(Flat(), home / "flat.pt")
    softlabels.dump(teacher=teacher, data=str(photos), out="d", on_error="skip",
                    preprocess="rgb", shard_rows=16, store_inputs="original")  # fmt: skip
    (left_out,) = softlabels.info("d")["manifest"]["skipped"]
    assert left_out["reason"]
    assert SECRET not in published("d")
    assert "0x" not in json.dumps(left_out), "an address in memory"


def test_a_source_that_is_nowhere_is_asked_for(home, monkeypatch):
    softlabels.dump(teacher=str(home / "t.pt"), data=str(home / "d.csv"), out="d")
    os.rename(home / "d.csv", home / "e.csv")
    for act in (
        lambda: softlabels.load("d", T=1),
        lambda: softlabels.load("d", T=1, streaming=True),
        lambda: softlabels.train(dump="d", **TRAIN),
        lambda: softlabels.verify(dump="d", source=True),
    ):
        with pytest.raises(SourceError, match=r"'d\.csv'.*is not here.*--source PATH"):
            act()
    softlabels.train(dump="d", source=str(home / "e.csv"), **TRAIN)
    assert len(softlabels.load("d", T=1, inputs=False)) == 30
    shutil.copy(home / "e.csv", "d.csv")
    softlabels.train(dump="d", **TRAIN)  # by its name, where one stands


def test_without_a_place_to_note_it_that_is_said(home, monkeypatch, cli, tmp_path):
    (tmp_path / "cache").write_text("a file where a folder belongs")
    done = cli("dump", "--teacher", home / "t.pt", "--data", home / "d.csv", "--out", "d")
    assert done.code == 0, done.err
    assert "warning: can't note where d.csv lies" in done.err
    assert "--source" in done.err


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("digits", "digits"), ("me/data", "me/data"), (".", "work"), ("./sub/..", "work"),
        ("sub", "sub"), ("sub/", "sub"), ("sub/C:\\Users\\anna\\x.csv", "x.csv"), ("/", "data"),
    ],
)  # fmt: skip
def test_names(home, data, name):
    Path("sub").mkdir()
    Path("sub/C:\\Users\\anna\\x.csv").touch()
    assert public_name(data) == name
