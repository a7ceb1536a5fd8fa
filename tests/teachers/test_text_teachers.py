"""Classifiers of texts as teachers: each row's logits are those of the text alone and unpadded."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import softlabels
from softlabels.errors import SourceError, TeacherError, UsageError
from softlabels.models.tokenizers import Tokenizer
from softlabels.store.folder import Folder
from softlabels.store.reader import DumpReader
from tests.conftest import Lines, every
from tests.inputs.test_texts import write
from tests.text_models import (
    CONFIGS,
    WORDS,
    Pooled,
    Unmasked,
    alone,
    make_pooled,
    make_tokenizer,
    save_classifier,
    sentences,
    transformers,
)

ROWS = 100


@pytest.fixture
def place(tmp_path: Path) -> Path:
    texts = sentences(ROWS)
    write(tmp_path / "d.csv", text=texts, other=sentences(ROWS, 7),
          label=[["good", "bad", "fair"][row % 3] for row in range(ROWS)])  # fmt: skip
    return tmp_path


def dumped(place: Path, **options) -> np.ndarray:
    """The logits of a dump, in the source's order."""
    words = {"teacher": f"hf:{place / 'net'}", "data": str(place / "d.csv"), "batch_size": 4,
             "input_column": "text", "dtype": "float32", "out": str(place / "dump")}  # fmt: skip
    words |= options
    softlabels.dump(**words)
    return every(DumpReader(Folder(words["out"])))


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("kind", CONFIGS)
def test_logits_are_those_of_each_text_alone(place, kind, side):
    model = save_classifier(place / "net", kind, side)
    expected = alone(place / "net", model, sentences(ROWS))
    assert np.ptp(expected, axis=0).min() > 0.05  # they say something
    np.testing.assert_allclose(dumped(place), expected, atol=2e-4, rtol=1e-4)


def test_pairs(place):
    model = save_classifier(place / "net", max_position_embeddings=64)
    expected = alone(place / "net", model, sentences(ROWS), sentences(ROWS, 7))
    stored = dumped(place, input_column="text,other")
    np.testing.assert_allclose(stored, expected, atol=2e-4, rtol=1e-4)


def test_a_dump_by_the_command_line_and_its_replay(place, cli):
    save_classifier(place / "net")
    done = cli("dump", "--teacher", "hf:net", "--data", "d.csv", "--input-column", "text",
               "--out", "d", "--shard-rows", 30)  # fmt: skip
    assert done.code == 0, done.err
    assert "tokenizer net (sha256:" in done.err
    plan = json.loads((place / "d" / "plan.json").read_text())
    assert plan["source"]["class_names"] == ["bad", "fair", "good"]
    assert plan["preprocess"].startswith("tokenizer(own, 'sha256:")
    assert str(place) not in (place / "d" / "plan.json").read_text()
    lengths = [[len(text.split()) + 2 for text in sentences(ROWS)[a : a + 30]]
               for a in range(0, ROWS, 30)]  # fmt: skip
    read, tokens = sum(max(some) * len(some) for some in lengths), sum(map(sum, lengths))
    share = f"{(read - tokens) / read:.1%} of {read:,} positions"
    assert f"; {share} were padding; " in done.out
    assert softlabels.info(place / "d")["facts"]["padding"] == share
    manifest = json.loads((place / "d" / "softlabels.json").read_text())
    assert manifest["statistics"]["tokens"] == tokens
    assert manifest["statistics"]["padding"] == read - tokens
    checked = cli("verify", "d", "--source", "--replay", 40, "--teacher", "hf:net")
    assert checked.code == 0, checked.err
    batch = next(iter(softlabels.load(place / "d").batches(8)))
    assert batch["input"] == sentences(ROWS)[:8]
    again = cli("dump", "--teacher", "hf:net", "--data", "d.csv", "--input-column", "text",
                "--out", "d", "--shard-rows", 30, "--resume")  # fmt: skip
    assert again.code == 0, again.err


@pytest.mark.parametrize(("options", "most"), [({"truncate": True}, 24), ({"max_length": 9}, 9)])
def test_long_texts_are_cut_only_if_asked_and_counted(place, cli, options, most):
    model = save_classifier(place / "net")
    texts = sentences(ROWS)
    texts[:40] = ["x" * 300] * 40  # of more characters, and three tokens
    texts[70] = " ".join(["garlic"] * 40)
    write(place / "d.csv", text=texts, label=["bad", "good"] * 50)
    with pytest.raises(SourceError, match="row with id 70 has 42 tokens, and the model takes 24"):
        dumped(place)
    assert not (place / "dump").exists()
    cut = [" ".join(text.split()[: most - 2]) for text in texts]
    lines = Lines()
    stored = dumped(place, progress=lines, **options)
    np.testing.assert_allclose(stored, alone(place / "net", model, cut), atol=2e-4, rtol=1e-4)
    longer = sum(len(text.split()) + 2 > most for text in texts)
    assert any(line.endswith(f"; {longer} of them are cut") for line in lines.lines)
    manifest = json.loads((place / "dump" / "softlabels.json").read_text())
    assert manifest["statistics"]["truncated"] == longer
    facts = cli("info", "dump", "--json").value["facts"]
    assert facts["texts cut"] == longer
    assert facts["tokenizer"].startswith("that of net, sha256:")
    assert facts["tokenizer"].endswith(f", at most {most} tokens, longer texts are cut")
    assert f"--max-length {most}" in (place / "dump" / "README.md").read_text()
    assert f"{most}, truncate)" in manifest["plan"]["preprocess"]


def test_more_tokens_than_the_configuration_says_where_the_model_takes_them(place):
    """Relative positions go on, where a table of them ends."""
    model = save_classifier(place / "net", "relative")
    texts = [*sentences(ROWS)[1:], " ".join(["garlic bread"] * 20)]
    write(place / "d.csv", text=texts, label=["bad", "good"] * 50)
    with pytest.raises(SourceError, match="row with id 99 has 42 tokens, and the model takes 24"):
        dumped(place)
    lines = Lines()
    stored = dumped(place, max_length=50, progress=lines)
    np.testing.assert_allclose(stored, alone(place / "net", model, texts), atol=2e-4, rtol=1e-4)
    assert any(line.startswith("warning: --max-length is 50, and the tea") for line in lines.lines)
    tokens = transformers.AutoTokenizer.from_pretrained(place / "net")(texts)["input_ids"]
    write(place / "t.jsonl", input_ids=tokens, label=["bad", "good"] * 50)
    again = dumped(place, data=str(place / "t.jsonl"), input_column=None, out=str(place / "e"),
                   progress=lines)  # fmt: skip
    np.testing.assert_allclose(again, stored, atol=2e-4, rtol=1e-4)
    assert any("has 42 tokens, and the teacher net says 24" in line for line in lines.lines)


def test_a_text_that_is_too_long_is_refused_at_once_where_there_is_no_cache(place):
    """Data in memory, whose longest text in tokens is one of the shorter ones in characters."""
    model = save_classifier(place / "net")
    texts = ["x" * 300] * 40 + sentences(60)
    texts[95] = " ".join("a" * 40)
    rows = [{"text": text, "label": 0} for text in texts]
    with pytest.raises(SourceError, match="row with id 95 has 42 tokens, and the model takes 24"):
        dumped(place, data=rows, shard_rows=16)
    with pytest.raises(UsageError, match=r"--augment is 'flip', .* pixels; these are texts"):
        dumped(place, views=1, augment="flip")
    assert not (place / "dump").exists()
    stored = dumped(place, data=rows, shard_rows=16, truncate=True)
    cut = [*texts[:95], " ".join("a" * 22), *texts[96:]]
    np.testing.assert_allclose(stored, alone(place / "net", model, cut), atol=2e-4, rtol=1e-4)


def test_another_tokenizer(place):
    model = save_classifier(place / "net")
    expected = alone(place / "net", model, sentences(ROWS))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (place / "tok").mkdir(exist_ok=True)
        shutil.move(place / "net" / name, place / "tok" / name)
    with pytest.raises(TeacherError, match="has no tokenizer that can be loaded"):
        dumped(place)
    stored = dumped(place, tokenizer=str(place / "tok"))
    assert "--tokenizer tok" in (place / "dump" / "README.md").read_text()
    np.testing.assert_allclose(stored, expected, atol=2e-4, rtol=1e-4)
    make_tokenizer(more=9).save_pretrained(place / "large")
    with pytest.raises(TeacherError, match="has 29 tokens, and the teacher net knows 24"):
        dumped(place, tokenizer=str(place / "large"), out=str(place / "e"))


def test_odd_names_of_a_tokenizers_folder(place):
    """A plan's text holds the name, and is read again by whatever opens the dump."""
    save_classifier(place / "net")
    tokenizer = make_tokenizer()
    for name in ("a|b", "class", "truncate"):
        tokenizer.save_pretrained(place / name)
        dumped(place, tokenizer=str(place / name), out=str(place / f"of-{name}"))
        facts = softlabels.info(place / f"of-{name}")["facts"]
        assert facts["tokenizer"].startswith(f"{name}, sha256:")
        assert "are cut" not in facts["tokenizer"]
    dumped(place, tokenizer=str(place / "a|b"), out=str(place / "of-a|b"), resume=True)
    done = softlabels.verify(dump=str(place / "of-a|b"), replay=9, teacher=f"hf:{place / 'net'}")
    assert done.good
    tokenizer.save_pretrained(place / "own")
    with pytest.raises(UsageError, match="is called 'own', which in the records"):
        dumped(place, tokenizer=str(place / "own"))


def test_the_token_of_padding_decides_no_answer(place):
    """So it is not in the tokenizer's hash: nothing is padded that a mask does not tell."""
    answers, hashes = [], set()
    for pad in ("[PAD]", "garlic"):
        module, tokenizer = make_pooled(), make_tokenizer()
        module.encoder.config.pad_token_id = None  # the tokenizer's is taken
        tokenizer.pad_token = pad
        stored = dumped(place, teacher=module, tokenizer=tokenizer, out=str(place / pad))
        answers.append(stored)
        hashes.add(Tokenizer(tokenizer, "t").hash)
    np.testing.assert_allclose(answers[0], answers[1], atol=2e-4)
    assert len(hashes) == 1


def test_code_beside_a_tokenizer_is_not_run(place, monkeypatch):
    model = save_classifier(place / "net")
    expected = alone(place / "net", model, sentences(ROWS))
    path = place / "net" / "tokenizer_config.json"
    own = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", "own.Own"]}}
    path.write_text(json.dumps(json.loads(path.read_text()) | own))
    (place / "net" / "own.py").write_text("raise SystemExit('it ran')")
    monkeypatch.setattr("builtins.input", lambda *asked: "y")
    stored = dumped(place, tokenizer=str(place / "net"))  # by the files alone
    np.testing.assert_allclose(stored, expected, atol=2e-4, rtol=1e-4)


def test_rows_of_like_lengths_are_answered_together(place):
    """A decoder whose tokenizer pads on the left has its rows padded on the right, and says so."""
    save_classifier(place / "net", "decoder", "left")
    lines = Lines()
    dumped(place, progress=lines)
    assert any("rows are padded on the right, though the tokenizer" in line for line in lines.lines)
    first = dumped(place, out=str(place / "other"), batch_size=64)
    np.testing.assert_allclose(first, dumped(place, resume=True), atol=2e-4)


def test_the_side_is_tried_where_the_first_texts_are_of_one_length(place):
    """As in data that are sorted by length: nothing among them is padded, and later texts are."""
    model = save_classifier(place / "net", "decoder", "left")
    texts = ["good garlic bread"] * 20 + sentences(40)
    write(place / "d.csv", text=texts, label=["bad", "good"] * 30)
    expected = alone(place / "net", model, texts)
    np.testing.assert_allclose(dumped(place, batch_size=16), expected, atol=2e-4, rtol=1e-4)


def test_a_decoder_without_a_pad_token(place):
    save_classifier(place / "net", "decoder", pad_token_id=None)
    with pytest.raises(TeacherError, match="names no pad token") as caught:
        dumped(place)
    assert "model.config.pad_token_id" in str(caught.value)
    assert not (place / "dump").exists()


def test_an_empty_text_is_read_where_the_tokenizer_has_special_tokens(place):
    from tokenizers import processors

    model = save_classifier(place / "net")
    texts = ["", *sentences(ROWS)[1:]]
    lines = [json.dumps({"text": text, "label": "bad"}) for text in texts]
    (place / "d.jsonl").write_text("\n".join(lines))
    stored = dumped(place, data=str(place / "d.jsonl"))
    np.testing.assert_allclose(stored, alone(place / "net", model, texts), atol=2e-4, rtol=1e-4)
    save_classifier(place / "bare", "decoder")
    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single="$A")
    tokenizer.save_pretrained(place / "bare")
    with pytest.raises(SourceError, match="row with id 0 is empty, and the tokenizer bare makes"):
        dumped(place, teacher=f"hf:{place / 'bare'}", data=str(place / "d.jsonl"))


def test_inputs_and_options_that_do_not_fit(place, tmp_path, vectors):
    save_classifier(place / "net")
    with pytest.raises(UsageError, match=r"reads texts, and the inputs of .* are numbers"):
        dumped(place, data=vectors, input_column=None)
    with pytest.raises(UsageError, match="--preprocess is 'tokens', and the teacher net reads"):
        dumped(place, preprocess="tokens")
    with pytest.raises(UsageError, match="--max-length is 99, and the teacher net takes 24"):
        dumped(place, max_length=99)
    with pytest.raises(UsageError, match=r"reads texts, and the inputs of .* are numbers, in x"):
        softlabels.fit(model=f"hf:{place / 'net'}", data=vectors, out=str(tmp_path / "s.pt"))


def test_texts_that_look_like_numbers(place, cli):
    """Postcodes: each keeps its zeros, from the dump to what a student of it is measured on."""
    save_classifier(place / "net")
    codes = [f"{row * 7:04}" for row in range(ROWS)]
    lines = [f"{code},{['good', 'bad'][row % 2]}" for row, code in enumerate(codes)]
    (place / "d.csv").write_text("\n".join(["zip,label", *lines]))
    with pytest.raises(UsageError, match="numbers, in zip: name a column of texts"):
        dumped(place, input_column=None)
    lines = Lines()
    dumped(place, input_column="zip", progress=lines)
    assert "'zip' is read as texts, as written, and not as numbers" in lines.lines
    assert next(iter(softlabels.load(place / "dump").batches(8)))["input"] == codes[:8]
    assert softlabels.verify(dump=str(place / "dump"), source=True).good
    assert softlabels.show(dump=str(place / "dump"), id=["3"]).rows[0].text == codes[3]
    dumped(place, input_column="zip", resume=True)
    options = {"data": str(place / "d.csv"), "input_column": "zip"}
    softlabels.fit(model=f"hf:{place / 'net'}", epochs=1, out=str(place / "t.pt"), **options)
    measured = softlabels.evaluate(checkpoint=str(place / "t.pt"), split="train")
    assert measured["rows"] == ROWS
    Path(place / "d.jsonl").write_text("\n".join(f'{{"zip": {row}}}' for row in range(9)))
    with pytest.raises(UsageError, match="other files hold texts as such, '007'"):
        dumped(place, data=str(place / "d.jsonl"), input_column="zip", out=str(place / "e"))


def test_another_class_order_than_the_labels_is_refused(place):
    save_classifier(place / "net", id2label={0: "good", 1: "bad", 2: "fair"})
    stored = dumped(place)  # texts of labels are numbered by the teacher's names
    labels = DumpReader(Folder(str(place / "dump"))).labels
    assert labels[:3].tolist() == [0, 1, 2]
    assert stored.shape == (ROWS, 3)


def test_several_labels_a_text(place):
    """A configuration says that a model was trained for several labels; so does --task."""
    model = save_classifier(place / "net", problem_type="multi_label_classification")
    some = [["good"], [], ["bad", "fair"]]
    lines = [{"text": text, "labels": some[row % 3]} for row, text in enumerate(sentences(ROWS))]
    data = str(place / "d.jsonl")
    Path(data).write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(UsageError, match="was trained for multilabel, as its file says"):
        dumped(place, data=data)
    stored = dumped(place, label_column="labels", data=data, task="multilabel")
    expected = alone(place / "net", model, sentences(ROWS))
    np.testing.assert_allclose(stored, expected, atol=2e-4, rtol=1e-4)
    batch = next(iter(softlabels.load(place / "dump", T=2.0).batches(3)))
    assert batch["label"].tolist() == [[0, 0, 1], [0, 0, 0], [1, 1, 0]]
    soft = 1 / (1 + np.exp(-expected[:3] / 2))
    np.testing.assert_allclose(batch["soft_target"], soft, atol=1e-3)
    other = [line | {"labels": ["great"]} for line in lines]
    Path(data).write_text("\n".join(map(json.dumps, other)))
    with pytest.raises(SourceError, match="'great'"):
        dumped(place, label_column="labels", data=data, task="multilabel", out=str(place / "e"))


def test_regressions_are_refused(place):
    save_classifier(place / "net", problem_type="regression")
    with pytest.raises(TeacherError, match="was trained for regression"):
        dumped(place)
    write(place / "d.csv", text=sentences(ROWS), label=[0, 1] * 50)
    save_classifier(place / "one", num_labels=1)
    with pytest.raises(TeacherError, match="one output, which transformers trains as a regression"):
        dumped(place, teacher=f"hf:{place / 'one'}")
    stored = dumped(place, teacher=f"hf:{place / 'one'}", outputs="binary")
    assert stored.shape == (ROWS, 2)


def test_an_encoder_without_a_head_is_refused_with_the_road_to_one(place):
    config = CONFIGS["absolute"]()
    transformers.BertModel(config).save_pretrained(place / "net")
    make_tokenizer().save_pretrained(place / "net")
    with pytest.raises(TeacherError, match="is BertModel, an encoder of texts") as caught:
        dumped(place)
    assert "AutoModelForSequenceClassification.from_pretrained" in str(caught.value)
    assert "sentence-transformers" not in str(caught.value)
    (place / "net" / "modules.json").write_text("[]")
    with pytest.raises(TeacherError, match="saved by sentence-transformers, whose answers are vec"):
        dumped(place)


STRANGE = ["\0 garlic", "bread " * 3000, "x" * 1_000_000, "\ufeffsalt\u200b", " \n\t "]


def test_strange_texts_are_read_as_they_are(place):
    model = save_classifier(place / "net")
    texts = [*STRANGE, *sentences(ROWS)[5:]]
    write(place / "d.parquet", text=texts, label=["bad", "good"] * 50)
    stored = dumped(place, data=str(place / "d.parquet"), truncate=True)
    cut = [" ".join(text.split()[:22]) if len(text) > 1000 else text for text in texts]
    np.testing.assert_allclose(stored, alone(place / "net", model, cut), atol=2e-4, rtol=1e-4)


def test_lone_surrogates_are_refused(place):
    save_classifier(place / "net")
    lines = [r'{"text": "garlic \ud800 bread", "label": "bad"}', '{"text": "a", "label": "good"}']
    (place / "d.jsonl").write_text("\n".join(lines))
    with pytest.raises(SourceError, match=r"line 1: the column 'text' holds '\\ud800', half a"):
        dumped(place, data=str(place / "d.jsonl"))
    rows = [{"text": "garlic \ud800 bread", "label": 0}, {"text": "a", "label": 1}]
    with pytest.raises(SourceError, match=r"row 0 of list: the column 'text' holds '\\ud800', ha"):
        dumped(place, data=rows)
    rows = [{"x": [1.0], "label": ["a", "b\udc80"[: 1 + row]]} for row in range(2)]
    with pytest.raises(SourceError, match=r"row 1 of list: the column 'label' holds '\\udc80', ha"):
        softlabels.examples(rows, task="multilabel")


def test_tokenizers_of_python_and_with_tokens_of_their_own(place, monkeypatch):
    """One that is written in Python, and one to which a token was added after training."""
    model = save_classifier(place / "net")
    tokenizer = transformers.AutoTokenizer.from_pretrained(place / "net")
    tokenizer.add_tokens(["olive oil"])
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(place / "net")
    tokenizer.save_pretrained(place / "net")
    texts = [f"{text} olive oil" for text in sentences(ROWS)]
    write(place / "d.csv", text=texts, label=["bad", "good"] * 50)
    stored = dumped(place, max_length=24)
    expected = alone(place / "net", model, texts)
    short = [row for row, text in enumerate(texts) if len(text.split()) + 1 <= 24]
    np.testing.assert_allclose(stored[short], expected[short], atol=2e-4, rtol=1e-4)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (place / "vocab.txt").write_text("\n".join(vocabulary))
    hashes = []
    for lower in (True, False):
        slow = transformers.BertJapaneseTokenizer(
            str(place / "vocab.txt"), word_tokenizer_type="basic", do_lower_case=lower
        )
        hashes.append(Tokenizer(slow, "slow").hash)
    assert hashes[0] != hashes[1]


@pytest.mark.parametrize("kind", ["dropout", "alpha", "sampling", "code"])
def test_a_tokenizer_that_draws_at_random_is_refused(place, kind):
    from tokenizers import models

    save_classifier(place / "net")
    tokenizer = make_tokenizer()
    vocabulary = {name: n for n, name in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "o", "oo"])}
    remedy = rf"model\.{kind} = None, and save it again"
    if kind == "dropout":
        bpe = models.BPE(vocabulary, [("o", "o")], unk_token="[UNK]", dropout=0.5)
        tokenizer.backend_tokenizer.model = bpe
        tokenizer.save_pretrained(place / "tok")
        with pytest.raises(TeacherError, match=remedy):
            dumped(place, tokenizer=str(place / "tok"))
        bpe.dropout = None
        tokenizer.backend_tokenizer.model = bpe
        assert Tokenizer(tokenizer, "t").hash
        bpe.dropout = 0.5
        tokenizer.backend_tokenizer.model = bpe
    if kind == "alpha":  # in memory alone: no file of it says so
        unigram = models.Unigram([(name, -1.0) for name in vocabulary], 1)
        unigram.alpha = 0.5
        tokenizer.backend_tokenizer.model = unigram
    if kind == "sampling":
        tokenizer.sp_model_kwargs, remedy = {"enable_sampling": True}, "sp_model_kwargs = {}"
    if kind == "code":
        draws = np.random.default_rng(0)

        class Drawn(type(tokenizer)):
            def __call__(self, *texts, **words):
                made = super().__call__(*texts, **words)
                made.data["input_ids"] = draws.permutation(made["input_ids"]).tolist()
                return made

        tokenizer.__class__, remedy = Drawn, "asked again: make it deterministic"
    with pytest.raises(TeacherError, match=remedy):
        dumped(place, tokenizer=tokenizer)
    assert not (place / "dump").exists()


@pytest.mark.parametrize("kind", [Pooled, Unmasked])
def test_a_sentence_encoder_with_a_head(place, kind):
    """A module in memory, or what a factory makes, with the tokenizer that is named."""
    module = make_pooled(kind)
    make_tokenizer().save_pretrained(place / "tok")
    tokenizer = transformers.AutoTokenizer.from_pretrained(place / "tok")
    texts = sentences(ROWS)
    with torch.inference_mode():
        rows = [torch.tensor([tokenizer(text)["input_ids"]]) for text in texts]
        ones = [{"attention_mask": torch.ones_like(row)} for row in rows]
        expected = torch.cat(
            [Pooled.forward(module, row, **one) for row, one in zip(rows, ones, strict=True)]
        ).numpy()
    lines = Lines()
    stored = dumped(place, teacher=module, tokenizer=str(place / "tok"), progress=lines)
    np.testing.assert_allclose(stored, expected, atol=2e-4, rtol=1e-4)
    statistics = softlabels.info(place / "dump")["manifest"]["statistics"]
    assert statistics["tokens"] == sum(row.shape[1] for row in rows)
    assert ("padding" in statistics) == (kind is Pooled)
    checked = softlabels.verify(dump=str(place / "dump"), replay=20, teacher=module)
    assert checked.good
    if kind is Pooled:
        options = {"teacher": "tests.text_models:make_pooled", "out": str(place / "e")}
        again = dumped(place, tokenizer=tokenizer, **options)
        np.testing.assert_array_equal(again, stored)
        with pytest.raises(
            UsageError,
            match="numbers are needed here: a model that reads tokens needs --tokenizer FOLDER",
        ):
            dumped(place, teacher=module, out=str(place / "f"))
        write(place / "d.csv", text=[*texts[:-1], "a " * 40], label=[0, 1] * 50)
        with pytest.raises(SourceError, match="has 42 tokens, and the model takes 24"):
            dumped(place, teacher=module, tokenizer=tokenizer, out=str(place / "f"))


def test_a_model_in_memory_reads_with_the_tokenizer_of_its_folder(place):
    model = save_classifier(place / "net")
    expected = alone(place / "net", model, sentences(ROWS))
    loaded = transformers.AutoModelForSequenceClassification.from_pretrained(place / "net")
    stored = dumped(place, teacher=loaded)
    np.testing.assert_allclose(stored, expected, atol=2e-4, rtol=1e-4)
    assert softlabels.verify(dump=str(place / "dump"), replay=20, teacher=loaded).good
