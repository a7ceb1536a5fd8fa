"""Dumps of texts and of tokens on the Hub: whoever loads one has them, with their ids."""

import re

import numpy as np
import pytest
from datasets import load_dataset

import softlabels
from tests.inputs.test_texts import write
from tests.publishing import work
from tests.text_models import save_classifier, sentences

ROWS = 40


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    save_classifier(folder / "net", max_position_embeddings=64)
    write(folder / "d.csv", uid=[f"r{row}" for row in range(ROWS)], a=sentences(ROWS),
          b=sentences(ROWS, 7), label=["good", "bad"] * 20)  # fmt: skip
    softlabels.dump(
        teacher=f"hf:{folder / 'net'}", data=str(folder / "d.csv"), input_column="a,b",
        id_column="uid", store_inputs="original", out=str(folder / "d"), shard_rows=16,
    )  # fmt: skip
    return folder / "d"


def test_texts_go_and_come(hub, owner, original, repo, tmp_path):
    owner(work.push, str(original), repo, include_inputs=True)
    card = hub.files(repo)["README.md"].decode()
    assert "text-classification" in card
    assert "| texts | pairs, in a, b |" in card
    head, _, first, *_ = re.findall(
        r"^\| .*$", card[card.index("Soft targets of some rows") :], re.M
    )
    assert head == "| id | a | b | label | T = 1 | T = 4 |"
    one, other = (sentences(ROWS, seed)[0] for seed in (0, 7))
    assert first_cells(first)[:3] == ["r0", *(shortened(text) for text in (one, other))]
    assert max(map(len, first_cells(first)[:3])) < 70
    pulled = tmp_path / "pulled"
    owner(work.pull, repo, out=str(pulled))
    assert softlabels.verify(dump=str(pulled), source=True).good
    ours, theirs = (softlabels.load(str(d)).take(range(ROWS)) for d in (original, pulled))
    assert theirs["id"] == ours["id"] == [f"r{row}" for row in range(ROWS)]
    assert theirs["input"] == {"a": sentences(ROWS), "b": sentences(ROWS, 7)}
    np.testing.assert_array_equal(theirs["logits"], ours["logits"])
    first = load_dataset(str(pulled), split="train")[0]
    assert first["input"] == {"a": sentences(ROWS)[0], "b": sentences(ROWS, 7)[0]}


def first_cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("| ").split(" | ")]


def shortened(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:59]}…"


def test_labels_alone_have_no_text_in_them(hub, owner, original, repo):
    owner(work.push, str(original), repo, labels_only=True)
    for name, content in hub.files(repo).items():
        assert b"garlic" not in content, name


def test_tokens_go_and_come(hub, owner, repo, tmp_path):
    ids = [[2, *range(5, 6 + row % 7), 3] for row in range(ROWS)]
    types = [[0] * len(row) for row in ids]
    data = write(tmp_path / "d.jsonl", input_ids=ids, token_type_ids=types, label=[0, 1] * 20)
    np.save(tmp_path / "l.npy", np.random.default_rng(0).normal(0, 3, (ROWS, 2)).astype("f4"))
    made = str(tmp_path / "d")
    softlabels.import_logits(
        file=str(tmp_path / "l.npy"), data=data, out=made, store_inputs="original", shard_rows=16
    )
    owner(work.push, made, repo, include_inputs=True)
    pulled = tmp_path / "pulled"
    owner(work.pull, repo, out=str(pulled))
    (tmp_path / "d.jsonl").unlink()
    assert softlabels.verify(dump=str(pulled), source=True).good
    batch = softlabels.load(str(pulled)).take(range(ROWS))
    rows = zip(batch["input_ids"], batch["attention_mask"], strict=True)
    assert [row[mask == 1].tolist() for row, mask in rows] == ids
    first = load_dataset(str(pulled), split="train")[3]
    assert first["input_ids"] == ids[3]
    assert first["token_type_ids"] == types[3]
