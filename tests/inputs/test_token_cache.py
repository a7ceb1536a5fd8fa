"""Tokens of texts are made once and kept: the cache never gives those of another text, and is done
without where it can't be."""

import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from softlabels.errors import SourceError
from softlabels.inputs import token_cache
from softlabels.inputs.opening import open_source
from softlabels.inputs.preprocess import Preprocess
from softlabels.inputs.token_inputs import TokenInputs, open_tokens
from softlabels.models.tokenizers import Tokenizer, open_tokenizer
from softlabels.system.cache import LocalCache
from softlabels.system.progress import SILENT
from tests.conftest import Lines
from tests.inputs.test_texts import write
from tests.text_models import make_tokenizer, sentences

ROWS = 90


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SOFTLABELS_CACHE", str(tmp_path / "kept"))
    write(tmp_path / "d.csv", text=sentences(ROWS), other=sentences(ROWS, 7), label=[0, 1, 2] * 30)
    return tmp_path


def opened(place: Path, columns: str = "text", most: int | None = None, **more) -> TokenInputs:
    """The texts of a file, cut at `most`. more: progress; data"""
    preprocess = Preprocess.tokenize(Tokenizer(make_tokenizer(), "t"), most, most is not None, True)
    source = open_source(str(place / more.get("data", "d.csv")), input_column=columns)
    return open_tokens(source, preprocess, more.get("progress", SILENT))


def assert_tokens(inputs: TokenInputs, rows: list[int], *columns: list[str], most=None) -> None:
    """Those that the tokenizer makes of each text by itself."""
    tokenizer = make_tokenizer()
    tokens = inputs.gather(np.array(rows))
    ends = np.cumsum(tokens.lengths)
    for place, row in enumerate(rows):
        texts = [column[row] for column in columns]
        alone = tokenizer(*texts, truncation=most is not None, max_length=most)
        span = slice(ends[place] - tokens.lengths[place], ends[place])
        for name, values in tokens.columns.items():
            assert values[span].tolist() == alone[name], (row, name)


def forbid(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise AssertionError("a text was tokenised")

    monkeypatch.setattr(Tokenizer, "encode", fail)


@pytest.mark.parametrize("most", [None, 9])
@pytest.mark.parametrize("columns", ["text", "text,other"])
def test_tokens_are_those_of_each_text_and_are_made_once(place, monkeypatch, columns, most):
    monkeypatch.setattr("softlabels.inputs.sources.BLOCK_ROWS", 8)
    monkeypatch.setattr(token_cache, "BATCH_ROWS", 32)
    texts = [sentences(ROWS), sentences(ROWS, 7)][: len(columns.split(","))]
    for inputs in (opened(place, columns, most), opened(place, columns, most)):
        assert inputs.cache is not None
        assert len(inputs.cache) == ROWS
        for copy in (inputs, pickle.loads(pickle.dumps(inputs))):
            assert_tokens(copy, [89, 0, 31, 32, 32, 5], *texts, most=most)
            assert_tokens(copy, list(range(ROWS)), *texts, most=most)
        forbid(monkeypatch)
    assert len(list((place / "kept" / "tokens").glob("*/tokens.arrow"))) == 1


def test_another_tokenizer_cut_or_column_has_tokens_of_its_own(place):
    opened(place)
    opened(place, most=9)
    opened(place, "other")
    other = Preprocess.tokenize(Tokenizer(make_tokenizer(more=2), "t"), None, False, True)
    open_tokens(open_source(str(place / "d.csv"), input_column="text"), other, SILENT)
    assert len(list((place / "kept" / "tokens").glob("*/tokens.arrow"))) == 4


@pytest.mark.parametrize(
    "said", [{"model_input_names": ["input_ids", "token_type_ids"]}, {"split_special_tokens": True}]
)
def test_what_a_tokenizer_makes_beside_its_rules_counts_too(place, said):
    """Whether it says which text of a pair a token is of, and whether `[SEP]` in a text is one."""
    write(place / "d.csv", text=["good [SEP] oil", "salt"], other=["bread", "a pan"])
    make_tokenizer().save_pretrained(place / "tok")
    expected = []
    for more in ({}, said):
        path = place / "tok" / "tokenizer_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | more))
        tokenizer = open_tokenizer(str(place / "tok"))
        preprocess = Preprocess.tokenize(tokenizer, None, False, True)
        source = open_source(str(place / "d.csv"), input_column="text,other")
        tokens = open_tokens(source, preprocess, SILENT).gather(np.arange(2))
        row = tokenizer.tokenizer("good [SEP] oil", "bread")
        made = {
            name: values[: tokens.lengths[0]].tolist() for name, values in tokens.columns.items()
        }
        assert made == {name: row[name] for name in row if name != "attention_mask"}
        expected.append(made)
    assert expected[0] != expected[1]


def test_a_file_that_seems_the_same_gives_its_own_tokens(place):
    """Two Parquet files of the same size and the same footer, in which words changed places."""
    plain = {"compression": "none", "use_dictionary": False, "write_statistics": False}

    def save(name: str, texts: list[str]) -> None:
        pq.write_table(pa.table({"text": texts}), place / name, **plain)

    texts = ["salt and oil", "good bread", "bad pan"]
    changed = ["salt and pan", "good bread", "bad oil"]
    save("d.parquet", texts)
    save("e.parquet", changed)
    first = opened(place, data="d.parquet")
    second = opened(place, data="e.parquet")
    assert second.cache.path == first.cache.path  # nothing but the rows tells them apart
    assert_tokens(first, [0, 1, 2], texts)
    assert_tokens(second, [0, 1, 2], changed)


def test_a_damaged_or_unfinished_file_is_made_again(place):
    path = opened(place).cache.path
    whole = path.read_bytes()
    for damage in (whole[: len(whole) // 2], b"", None):
        path.unlink() if damage is None else path.write_bytes(damage)
        lines = Lines()
        assert_tokens(opened(place, progress=lines), [0, 89], sentences(ROWS))
        told = ["the tokens of d in the cache are damaged: they are made again"]
        assert lines.lines == (told if damage is not None else [])
    other = path.with_name(".tokens.arrow.99999999.partial")
    other.write_bytes(b"of a process that was killed")
    path.unlink()
    opened(place)
    assert not other.exists()


def test_a_flipped_byte_is_noticed_wherever_it_is(place):
    """Most of them leave a file that Arrow reads, and hashes of texts that are right."""
    path = opened(place).cache.path
    whole, noticed = path.read_bytes(), 0
    for offset in range(8, len(whole), 331):
        changed = bytearray(whole)
        changed[offset] ^= 4
        path.unlink()  # an earlier one may be mapped
        path.write_bytes(changed)
        lines = Lines()
        assert_tokens(opened(place, progress=lines), [0, 41, 89], sentences(ROWS))
        noticed += len(lines.lines)
        assert path.read_bytes() == (whole if lines.lines else changed)
    assert noticed > 8


@pytest.mark.parametrize("case", ["no room", "no folder", "in memory"])
def test_without_a_cache_texts_are_tokenised_as_they_are_read(place, monkeypatch, case):
    lines = Lines()
    if case == "no room":
        monkeypatch.setenv("SOFTLABELS_CACHE_GB", "0")
    if case == "no folder":
        (place / "kept").write_text("a file")
    if case == "in memory":
        rows = [{"text": text} for text in sentences(ROWS)]
        preprocess = Preprocess.tokenize(Tokenizer(make_tokenizer(), "t"), 24, False, True)
        inputs = open_tokens(open_source(rows), preprocess, lines)
    else:
        inputs = opened(place, progress=lines)
        (warning,) = lines.lines
        assert warning.startswith("warning: texts are tokenised again whenever they are read")
        assert ("SOFTLABELS_CACHE_GB" in warning) == (case == "no room")
    assert inputs.cache is None
    assert_tokens(inputs, [0, 89], sentences(ROWS))
    assert not list(place.glob("kept/tokens/*/tokens.arrow"))


def test_rows_whose_hashes_are_known_need_no_reading(place, monkeypatch):
    """As those of a dump, which a student learns from."""
    inputs = opened(place)
    hashes = inputs.source.read(0, ROWS).hashes
    known = TokenInputs(inputs.source, inputs.preprocess, None, hashes, inputs.cache)
    expected = inputs.gather(np.array([3, 1]))

    def fail(*args: object) -> None:
        raise AssertionError("a row was read")

    monkeypatch.setattr(type(inputs.source), "take", fail)
    tokens = known.gather(np.array([3, 1]))
    assert tokens.columns["input_ids"].tolist() == expected.columns["input_ids"].tolist()


def test_the_cache_is_listed_and_cleared(place):
    inputs = opened(place)
    (entry,) = LocalCache().entries()
    assert entry.bytes > inputs.cache.path.stat().st_size
    assert LocalCache().clear() == 0  # in use
    assert entry.description == "tokens of d, by t"
    del inputs
    assert LocalCache().clear() == entry.bytes
    assert not list(place.glob("kept/tokens/*/"))


def test_room_is_made_by_what_was_used_last(place, monkeypatch):
    first = opened(place).cache.path
    size = LocalCache().bytes
    monkeypatch.setenv("SOFTLABELS_CACHE_GB", str(1.5 * size / 1e9))
    second = opened(place, "other").cache.path
    assert second.exists()
    assert not first.exists()


def test_lengths_are_known_before_anything_is_written(place):
    """A text of few characters and many tokens, among many that are longer."""
    texts = ["x" * 200] * 60 + sentences(30)
    texts[70] = " ".join("a" * 40)
    write(place / "d.csv", text=texts, label=[0, 1, 2] * 30)
    inputs = opened(place, most=24)
    assert inputs.check_lengths().startswith("90 texts of 3 to 42 tokens, ")
    assert inputs.check_lengths().endswith(" on average; 1 of them are cut")
    whole = Preprocess.tokenize(Tokenizer(make_tokenizer(), "t"), 24, False, True)
    with pytest.raises(SourceError, match="row with id 70 has 42 tokens, and the model takes 24"):
        open_tokens(inputs.source, whole, SILENT).check_lengths()
