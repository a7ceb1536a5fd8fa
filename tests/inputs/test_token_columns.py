"""Columns of token ids as inputs: found by name, as long as their mask says, hashed without it."""

import hashlib
import json
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import softlabels
from softlabels.errors import SourceError, UsageError
from softlabels.inputs.opening import open_source
from tests.conftest import Lines

IDS = [[2, 7, 9, 3], [2, 3], [2, 11, 3]]
LABELS = [0, 1, 0]


def write(path: Path, **columns) -> str:
    table = pa.table({"label": LABELS[: len(next(iter(columns.values())))], **columns})
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    else:
        path.write_text("\n".join(json.dumps(row) for row in table.to_pylist()))
    return str(path)


def padded(rows: list[list[int]], side: str = "right", pad: int = 0, to: int = 6) -> dict:
    """The same rows at one length, with their mask."""
    made: dict[str, list] = {"input_ids": [], "attention_mask": []}
    for row in rows:
        more = to - len(row)
        for name, own, filling in (("input_ids", row, pad), ("attention_mask", [1] * len(row), 0)):
            made[name].append(own + more * [filling] if side == "right" else more * [filling] + own)
    return made


def first8(content: bytes) -> int:
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "little")


def numbers(row: list[int]) -> bytes:
    return b"int64[%d]" % len(row) + np.array(row, "<i8").tobytes()


def rows_of(source) -> list[dict]:
    cells = source.read(0, len(source)).cells
    return [{name: values.tolist() for name, values in row.items()} for row in cells]


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_ragged_and_padded_rows_are_the_same_rows(tmp_path, ending):
    plain = open_source(write(tmp_path / f"a.{ending}", input_ids=IDS))
    assert plain.kind == "tokens"
    assert rows_of(plain) == [{"input_ids": row} for row in IDS]
    assert plain.read(0, 3).hashes.tolist() == [first8(numbers(row)) for row in IDS]
    for side, pad in (("right", 0), ("left", 5)):
        filled = open_source(write(tmp_path / f"b.{ending}", **padded(IDS, side, pad)))
        assert filled.columns.inputs == ("input_ids",)
        assert rows_of(filled) == rows_of(plain)
        assert filled.fingerprint == plain.fingerprint
        assert filled.take(np.array([2])).hashes.tolist() == [first8(numbers(IDS[2]))]


def test_other_types_and_sets_in_memory_hold_the_same_tokens(tmp_path):
    expected = open_source(write(tmp_path / "a.jsonl", input_ids=IDS)).fingerprint
    whole = padded(IDS)
    kinds = {
        "fixed": pa.array(whole["input_ids"], pa.list_(pa.int32(), 6)),
        "large": pa.array(whole["input_ids"], pa.large_list(pa.uint16())),
    }
    for name, column in kinds.items():
        mask = pa.array(np.array(whole["attention_mask"], bool).tolist(), pa.list_(pa.bool_()))
        path = write(tmp_path / f"{name}.parquet", input_ids=column, attention_mask=mask)
        assert open_source(path).fingerprint == expected
    saved = datasets.Dataset.from_dict({"label": LABELS, **whole})
    tensors = [{name: torch.tensor(value) for name, value in row.items()} for row in saved]
    ragged = [{"input_ids": torch.tensor(row), "label": 0} for row in IDS]
    for row, label in zip(ragged, LABELS, strict=True):
        row["label"] = label
    for data in (saved, tensors, ragged):
        assert open_source(data).fingerprint == expected


def test_what_stands_beside_the_tokens_is_told_and_hashed(tmp_path):
    types = [[0] * len(row) for row in IDS]
    columns = {"input_ids": IDS, "token_type_ids": types, "special_tokens_mask": types,
               "text": ["a", "b", "c"]}  # fmt: skip
    said = Lines()
    source = open_source(write(tmp_path / "d.jsonl", **columns), progress=said)
    assert source.columns.inputs == ("input_ids", "token_type_ids")
    assert (
        "inputs: input_ids with token_type_ids, by name; left out: special_tokens_mask, text"
        in said.lines
    )
    assert "2 to 4 tokens a row" in str(said)
    expected = [first8(numbers(row) + b" token_type_ids:" + numbers([0] * len(row))) for row in IDS]
    assert source.read(0, 3).hashes.tolist() == expected
    named = open_source(str(tmp_path / "d.jsonl"), input_column="special_tokens_mask,input_ids")
    assert named.columns.inputs == ("input_ids", "special_tokens_mask")
    alone = open_source(str(tmp_path / "d.jsonl"), input_column="text")
    assert alone.kind == "text"


def test_a_mask_comes_along_where_the_tokens_alone_are_named(tmp_path):
    path, said = write(tmp_path / "d.jsonl", **padded(IDS)), Lines()
    source = open_source(path, input_column="input_ids", progress=said)
    assert rows_of(source) == [{"input_ids": row} for row in IDS]
    assert "attention_mask says how long rows are" in said.lines


BAD = {
    "a missing row": (
        {"input_ids": [[1], None, [2]]}, "row with id 1 has an empty cell in the column"),
    "a missing number": (
        {"input_ids": [[1], [3, None], [2]]}, "row with id 1 has an empty number in 'input_ids'"),
    "an empty row": ({"input_ids": [[1], [2], []]}, "row with id 2 has no token"),
    "a negative token": (
        {"input_ids": [[1], [2, -100], [3]]}, r"row with id 1 has -100 in .*attention_mask"),
    "a huge token": ({"input_ids": [[1], [2], [2**31]]}, "row with id 2 has 2147483648 .* 32 bits"),
    "no token by the mask": (
        {"input_ids": [[1], [2], [3]], "attention_mask": [[1], [0], [1]]},
        "row with id 1 is all padding"),
    "a mask of other length": (
        {"input_ids": [[1], [2], [3, 4]], "attention_mask": [[1], [1], [1]]},
        "row with id 2 has 2 numbers in 'input_ids' and 1 in 'attention_mask'"),
    "a mask with a hole": (
        {"input_ids": [[1], [2, 5, 6], [3]], "attention_mask": [[1], [1, 0, 1], [1]]},
        "row with id 1 has a hole in 'attention_mask'"),
    "a mask of weights": (
        {"input_ids": [[1], [2], [3]], "attention_mask": [[1], [2], [1]]},
        "row with id 1 has 2 in 'attention_mask'; a mask is 1 for a token"),
    "another column of other length": (
        {"input_ids": [[1], [2], [3]], "token_type_ids": [[0], [0], [0, 0]]},
        "row with id 2 has 1 numbers in 'input_ids' and 2 in 'token_type_ids'"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_rows_that_are_no_tokens_are_refused_before_anything_is_written(tmp_path, name):
    columns, message = BAD[name]
    path = write(tmp_path / "d.jsonl", **columns)
    with pytest.raises(SourceError, match=message):
        open_source(path).read(0, 3)
    np.save(tmp_path / "l.npy", np.float32([[4, -3], [-2, 5], [1, -1]]))
    with pytest.raises(SourceError, match=message):
        softlabels.import_logits(
            file=str(tmp_path / "l.npy"), data=path, out=str(tmp_path / "d"), progress=Lines()
        )
    assert not (tmp_path / "d").exists()


def test_columns_of_other_types_are_refused(tmp_path):
    (tmp_path / "d.csv").write_text('input_ids,label\n"[2, 7, 3]",0\n"[2, 3]",1\n')
    for column in (None, "input_ids"):
        with pytest.raises(SourceError, match=r"holds string.*write tokens as lists in JSONL"):
            open_source(str(tmp_path / "d.csv"), input_column=column)
    path = write(tmp_path / "e.jsonl", input_ids=[[1.5], [2.0], [3.0]], attention_mask=["a"] * 3)
    with pytest.raises(SourceError, match="'input_ids' holds lists of float64"):
        open_source(path, input_column="input_ids")
    path = write(tmp_path / "f.jsonl", input_ids=IDS, attention_mask=["a"] * 3)
    with pytest.raises(SourceError, match="'attention_mask' holds string; beside 'input_ids'"):
        open_source(path)
    with pytest.raises(SourceError, match="'label' holds int64"):
        open_source(path, input_column="input_ids,label")
    path = write(tmp_path / "g.jsonl", input_ids=IDS, logits=IDS)
    with pytest.raises(SourceError, match="rows of a dump have a column 'logits' of their own"):
        open_source(path, input_column="input_ids,logits")


def test_examples_are_padded_and_a_row_is_not(tmp_path):
    path = write(tmp_path / "d.jsonl", input_ids=IDS, token_type_ids=[[1] * len(r) for r in IDS])
    rows = softlabels.examples(path)
    batch = rows[:2]
    assert batch["input"]["input_ids"].tolist() == [[2, 7, 9, 3], [2, 3, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch["token_type_ids"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert {values.dtype for values in batch["input"].values()} == {torch.int64}
    assert {name: values.tolist() for name, values in rows[1]["input"].items()} == {
        "input_ids": [2, 3], "token_type_ids": [1, 1], "attention_mask": [1, 1]}  # fmt: skip
    assert rows[1]["input_ids"].tolist() == [2, 3]
    assert softlabels.examples(path, preprocess="tokens(9)")[:2]["input_ids"][1].tolist() == [
        2,
        3,
        9,
        9,
    ]
    counted = softlabels.examples(path, preprocess=lambda row: np.float32([len(row["input_ids"])]))
    assert counted[:]["input"].tolist() == [[4], [2], [3]]
    with pytest.raises(UsageError, match=r"is 'scale\(255\)', and the inputs of .* are tokens"):
        softlabels.examples(path, preprocess="scale(255)")
