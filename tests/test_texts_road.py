"""Texts from one end to the other: logits of another program and a file of texts make a dump, whose
batches have the texts, and whose records, checks and pages know them."""

import json
from pathlib import Path

import numpy as np
import pytest

import softlabels
from softlabels.errors import AlignmentError, UsageError
from tests.inputs.test_texts import write

ROWS = 60
WORDS = ["garlic", "bread", "Bär", "salt", "熊", "oil"]


def text_of(row: int) -> str:
    return f"{WORDS[row % 6]} and {WORDS[row // 6 % 6]}, {row}"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """60 texts in two classes, what they are compared with, and logits of them."""
    write(
        tmp_path / "d.csv",
        uid=[f"r{row}" for row in range(ROWS)],
        text=[text_of(row) for row in range(ROWS)],
        other=[text_of(row + 1) for row in range(ROWS)],
        label=[["bad", "good"][row % 2] for row in range(ROWS)],
    )
    logits = np.random.default_rng(0).normal(0, 4, (ROWS, 2)).astype(np.float32)
    np.save(tmp_path / "logits.npy", logits)
    return tmp_path


def make(place: Path, columns: str, **options) -> str:
    out = str(place / "dump")
    softlabels.import_logits(
        file=str(place / "logits.npy"), data=str(place / "d.csv"), input_column=columns,
        id_column="uid", out=out, shard_rows=16, **options,
    )  # fmt: skip
    return out


@pytest.mark.parametrize("stored", ["none", "original"])
@pytest.mark.parametrize("columns", ["text", "text,other"])
def test_a_dump_of_texts(place, columns, stored):
    out = make(place, columns, store_inputs=stored)
    logits = np.load(place / "logits.npy")
    if stored == "original":
        (place / "d.csv").unlink()  # the dump stands alone
    pair = columns != "text"
    for streaming in (False, True):
        seen: dict[str, object] = {}
        dataset = softlabels.load(out, streaming=streaming)
        for batch in dataset.batches(25, shuffle=True, seed=1):
            texts = batch["input"]["text"] if pair else batch["input"]
            for id, text, given in zip(batch["id"], texts, batch["logits"], strict=True):
                row = int(id[1:])
                assert text == text_of(row)
                np.testing.assert_allclose(given, logits[row], rtol=1e-3)
                seen[id] = text
            if pair:
                assert batch["other"] == batch["input"]["other"]
                assert batch["other"] == [text_of(int(id[1:]) + 1) for id in batch["id"]]
        assert len(seen) == ROWS
    assert softlabels.verify(dump=out, source=True).findings == []
    facts = json.loads((Path(out) / "plan.json").read_text())["source"]
    assert facts["kind"] == "text"
    assert "text-classification" in (Path(out) / "README.md").read_text()


def test_a_changed_text_is_noticed(place):
    out = make(place, "text")
    path = place / "d.csv"
    path.write_text(path.read_text().replace("garlic and bread", "garlic and Bread"))
    with pytest.raises(AlignmentError, match="are not what the teacher saw"):
        for _ in softlabels.load(out, source=str(path)).batches(16):
            pass
    assert softlabels.verify(dump=out, source=True, data=str(path)).findings


def test_show_prints_the_text_beside_its_classes(place, cli):
    make(place, "text,other")
    said = cli("show", "dump", "--rows", 2)
    assert said.code == 0
    assert f"text: {text_of(0)}" in said.out
    assert f"other: {text_of(1)}" in said.out
    assert "good" in said.out
    rows = cli("show", "dump", "--id", "r7", "--json").value["rows"]
    assert rows[0]["text"] == {"text": text_of(7), "other": text_of(8)}
    (place / "d.csv").rename(place / "elsewhere.csv")
    said = cli("show", "dump", "--rows", 2)
    assert said.code == 0
    assert "warning: the texts are not shown" in said.err
    info = cli("info", "dump")
    assert "pairs, in text, other" in info.out


def test_long_texts_are_shortened(place):
    write(place / "d.csv", uid=["a", "b"], text=["secret " * 100, "x y"], label=[0, 1])
    np.save(place / "logits.npy", np.float32([[3, -4], [-2, 7]]))
    out = make(place, "text", store_inputs="original")
    lines = str(softlabels.show(dump=out)).splitlines()
    assert max(map(len, lines)) < 110
    assert any(line.strip().startswith("secret secret") for line in lines)
    assert "secret" not in (Path(out) / "README.md").read_text()


def test_training_on_texts_says_that_it_takes_numbers(place, cli):
    make(place, "text")
    said = cli("train", "dump", "--T", 2)
    assert said.code == 2
    assert "the inputs are texts, and the model mlp:800x800 takes numbers" in said.err
    assert "preprocess=FUNCTION" in said.err


def letters(text: str) -> np.ndarray:
    return np.float32([text.count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"])


def test_a_student_learns_from_numbers_that_a_function_makes_of_texts(place):
    out = make(place, "text")
    trained = str(place / "s.pt")
    options = {"student": "linear", "preprocess": letters, "epochs": 2, "out": trained}
    softlabels.train(dump=out, T=2.0, **options)
    data = str(place / "d.csv")
    with pytest.raises(UsageError, match="give it again in Python"):
        softlabels.evaluate(checkpoint=trained, data=data, split="train", input_column="text")


def test_rows_are_joined_with_other_data_by_the_hash_of_the_text(place):
    out = make(place, "text")
    lines = (place / "d.csv").read_text().splitlines()
    (place / "shuffled.csv").write_text("\n".join([lines[0], *reversed(lines[1:])]))
    dataset = softlabels.load(out, source=str(place / "shuffled.csv"))
    assert dataset[7]["input"] == text_of(7)
