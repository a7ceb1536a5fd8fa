"""Students of texts: a row's logits are those of its text alone; a checkpoint opens anywhere."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import softlabels
from softlabels.errors import ExportError, SourceError, TeacherError, UsageError
from softlabels.models.checkpoint import Checkpoint
from softlabels.store.folder import Folder
from softlabels.store.reader import DumpReader
from tests.conftest import Lines, every
from tests.inputs.test_texts import write
from tests.students.test_ranks import free_port
from tests.text_models import (
    CONFIGS,
    Plain,
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
FAST = {"epochs": 2, "batch_size": 16, "lr": 1e-2, "T": 2.0}


def labels_of(texts: list[str]) -> list[str]:
    """Of a text the name of a class that its words decide."""
    return [
        "good" if "good" in t.split() else "bad" if "bad" in t.split() else "fair" for t in texts
    ]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """d.csv, a teacher `net` of two layers, and its dump; `small`, a configuration of one layer."""
    place = tmp_path_factory.mktemp("texts")
    texts = sentences(ROWS)
    write(place / "d.csv", uid=[f"r{row}" for row in range(ROWS)], text=texts,
          label=labels_of(texts))  # fmt: skip
    save_classifier(place / "net")
    config = CONFIGS["absolute"]()
    config.num_hidden_layers = 1
    config.architectures = ["BertForSequenceClassification"]
    config.save_pretrained(place / "small")
    softlabels.dump(teacher=f"hf:{place / 'net'}", data=str(place / "d.csv"), dtype="float32",
                    input_column="text", id_column="uid", out=str(place / "dump"))  # fmt: skip
    return place


@pytest.fixture(scope="module")
def trained(made) -> SimpleNamespace:
    """s.pt, a student of the dump, whose tokenizer is the teacher's."""
    lines = Lines()
    result = softlabels.train(dump=str(made / "dump"), student=f"hf:{made / 'small'}",
                              out=str(made / "s.pt"), progress=lines, **FAST)  # fmt: skip
    return SimpleNamespace(result=result, said=str(lines), place=made)


def rebuilt(checkpoint) -> torch.nn.Module:
    """The student as transformers alone makes it from what a checkpoint holds."""
    config = transformers.BertConfig.from_dict(checkpoint.configuration)
    config.num_labels = checkpoint.num_classes
    module = transformers.BertForSequenceClassification(config)
    module.load_state_dict(checkpoint.state_dict)
    return module.eval()


def test_a_student_without_a_tokenizer_reads_with_the_teachers(trained):
    assert "no tokenizer of its own: it reads with that of the teacher net" in trained.said
    assert "BertForSequenceClassification, from random weights, on cpu: 90 rows" in trained.said
    checkpoint = trained.result.checkpoint
    assert checkpoint.configuration["num_hidden_layers"] == 1
    assert checkpoint.tokenizer["name"] == "net"
    assert checkpoint.class_names == ["bad", "fair", "good"]
    # the measures are those of the texts one by one, by hand
    module, held = rebuilt(checkpoint), trained.result.metrics["held_out"]
    rows = np.random.default_rng([0, 0xDA7A]).permutation(ROWS)[:10]
    texts = [sentences(ROWS)[row] for row in rows]
    logits = alone(trained.place / "net", module, texts)
    names = ["bad", "fair", "good"]
    right = [names[best] == label for best, label in
             zip(logits.argmax(1), labels_of(texts), strict=True)]  # fmt: skip
    assert held["errors"] == 10 - sum(right) if "errors" in held else held["kl"] >= 0
    theirs = torch.from_numpy(every(DumpReader(Folder(str(trained.place / "dump"))))[rows])
    kl = torch.nn.functional.kl_div(torch.from_numpy(logits).log_softmax(1), theirs.softmax(1),
                                    reduction="batchmean")  # fmt: skip
    assert held["kl"] == pytest.approx(float(kl), rel=1e-3)


def test_its_checkpoint_is_measured_and_is_a_teacher_on_another_machine(trained, tmp_path, cli,
                                                                       monkeypatch):  # fmt: skip
    shutil.copy(trained.place / "s.pt", tmp_path)
    shutil.copy(trained.place / "d.csv", tmp_path)
    monkeypatch.setenv("SOFTLABELS_CACHE", str(tmp_path / "cache"))
    module, names = rebuilt(trained.result.checkpoint), ["bad", "fair", "good"]
    texts = sentences(ROWS)
    expected = alone(trained.place / "net", module, texts)
    labels = [names.index(label) for label in labels_of(texts)]
    nll = torch.nn.functional.cross_entropy(torch.from_numpy(expected), torch.tensor(labels))
    done = cli("eval", "s.pt", "--data", "d.csv", "--split", "train", "--input-column", "text",
               "--per-class", "--json")  # fmt: skip
    assert done.code == 0, done.err
    assert done.value["nll"] == pytest.approx(float(nll), rel=1e-4)
    assert done.value["errors"] == int((expected.argmax(1) != np.array(labels)).sum())
    assert [row["class"] for row in done.value["per_class"]] != []
    done = cli("dump", "--teacher", "s.pt", "--data", "d.csv", "--input-column", "text",
               "--id-column", "uid", "--dtype", "float32", "--out", "again")  # fmt: skip
    assert done.code == 0, done.err
    stored = every(DumpReader(Folder(str(tmp_path / "again"))))
    np.testing.assert_allclose(stored, expected, atol=2e-5, rtol=1e-4)


def test_teachers_of_texts_are_mixed(trained, tmp_path):
    """One of them twice: its student, and the measures against it."""
    folder = str(trained.place / "dump")
    twice = {"one": folder, "two": folder}
    result = softlabels.train(dump=twice, mix="prob", student=f"hf:{trained.place / 'small'}",
                              out=str(tmp_path / "s.pt"), **FAST)  # fmt: skip
    assert result.metrics["held_out"] == pytest.approx(trained.result.metrics["held_out"], rel=1e-3)
    found = softlabels.evaluate(checkpoint=str(tmp_path / "s.pt"), holdout=True, against=twice,
                                mix="prob")["against"]  # fmt: skip
    for one in (found, *found["teachers"].values()):
        assert one["kl"] == pytest.approx(result.metrics["held_out"]["kl"], rel=1e-4)


def test_the_rows_that_training_held_out_and_those_of_a_dump(trained):
    measured = softlabels.evaluate(checkpoint=str(trained.place / "s.pt"), holdout=True,
                                   against=str(trained.place / "dump"))  # fmt: skip
    held = trained.result.metrics["held_out"]
    assert measured["rows"] == 10
    assert measured["against"]["kl"] == pytest.approx(held["kl"], rel=1e-4)
    whole = softlabels.evaluate(checkpoint=str(trained.place / "s.pt"), labels=False, split="train",
                                against=str(trained.place / "dump"))  # fmt: skip
    assert whole["against"]["rows"] == ROWS


def test_rows_that_are_streamed(trained, tmp_path):
    result = softlabels.train(
        dump=str(trained.place / "dump"), student=f"hf:{trained.place / 'small'}", streaming=True,
        out=str(tmp_path / "s.pt"), **FAST,
    )  # fmt: skip
    measured = softlabels.evaluate(checkpoint=str(tmp_path / "s.pt"), holdout=True,
                                   against=str(trained.place / "dump"))  # fmt: skip
    assert measured["against"]["kl"] == pytest.approx(result.metrics["held_out"]["kl"], rel=1e-4)


@pytest.mark.parametrize("kind", ["offset", "relative", "decoder"])
def test_hard_labels_precision_and_the_averages_of_other_models(made, tmp_path, kind):
    save_classifier(tmp_path / "net", kind)
    result = softlabels.fit(model=f"hf:{tmp_path / 'net'}", data=str(made / "d.csv"), epochs=1,
                            input_column="text", precision="bf16", ema=0.5, accumulate=2,
                            batch_size=16, out=str(tmp_path / "t.pt"))  # fmt: skip
    measured = softlabels.evaluate(checkpoint=str(tmp_path / "t.pt"), holdout=True)
    held = result.metrics["held_out"]
    assert measured["nll"] == pytest.approx(held["nll"], rel=1e-4)
    assert measured["errors"] == held["errors"]


def test_the_side_of_a_student_whose_first_texts_are_of_one_length(tmp_path):
    model = save_classifier(tmp_path / "net", "decoder", "left")
    texts = ["good garlic bread"] * 70 + sentences(30)
    write(tmp_path / "d.csv", text=texts, label=[0, 1, 2, 0] * 25)
    softlabels.fit(model=f"hf:{tmp_path / 'net'}", weights="pretrained", lr=1e-12, epochs=1,
                   data=str(tmp_path / "d.csv"), out=str(tmp_path / "t.pt"))  # fmt: skip
    measured = softlabels.evaluate(checkpoint=str(tmp_path / "t.pt"), split="train")
    expected = torch.from_numpy(alone(tmp_path / "net", model, texts))
    nll = torch.nn.functional.cross_entropy(expected, torch.tensor([0, 1, 2, 0] * 25))
    assert measured["nll"] == pytest.approx(float(nll), rel=1e-4)


def test_it_is_exported_as_transformers_saves_it(trained, tmp_path, cli):
    shutil.copy(trained.place / "s.pt", tmp_path)
    done = cli("export", "s.pt", "--to", "hf", "--json")
    assert done.code == 0, done.err
    module, texts = rebuilt(trained.result.checkpoint), sentences(20, 3)
    expected = alone(trained.place / "net", module, texts)
    saved = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "s-hf")
    np.testing.assert_allclose(alone(tmp_path / "s-hf", saved.eval(), texts), expected, atol=1e-6)
    pipe = transformers.pipeline("text-classification", model=str(tmp_path / "s-hf"), top_k=None)
    probabilities = torch.from_numpy(expected).softmax(1)
    for row, answers in enumerate(pipe(texts)):
        given = {answer["label"]: answer["score"] for answer in answers}
        names = ["bad", "fair", "good"]
        assert given == pytest.approx(dict(zip(names, probabilities[row].tolist(), strict=True)),
                                      abs=1e-5)  # fmt: skip
    write(tmp_path / "new.csv", text=texts, label=labels_of(texts))
    softlabels.dump(teacher=f"hf:{tmp_path / 's-hf'}", data=str(tmp_path / "new.csv"),
                    dtype="float32", out=str(tmp_path / "d"))  # fmt: skip
    stored = every(DumpReader(Folder(str(tmp_path / "d"))))
    np.testing.assert_allclose(stored, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("to", [pytest.param("onnx", marks=pytest.mark.slow), "pt2"])
def test_it_is_exported_as_a_program_of_tokens_and_their_mask(trained, tmp_path, to):
    pytest.importorskip(to if to == "onnx" else "torch")
    done = softlabels.export(checkpoint=str(trained.place / "s.pt"), to=to,
                             out=str(tmp_path / "s"))  # fmt: skip
    assert (
        "input_ids, attention_mask, int64 [N, L] with L up to 24, after tokenizer(own"
        in done.inputs
    )
    texts = sentences(5, 3)
    tokenizer = transformers.AutoTokenizer.from_pretrained(trained.place / "net")
    given = tokenizer(texts, padding=True, return_tensors="pt")
    names = ("input_ids", "attention_mask")
    if to == "onnx":
        runtime = pytest.importorskip("onnxruntime")
        session = runtime.InferenceSession(str(tmp_path / "s"))
        logits = session.run(["logits"], {name: given[name].numpy() for name in names})[0]
    else:
        program = torch.export.load(tmp_path / "s").module()
        logits = program(*(given[name] for name in names)).detach().numpy()
    expected = alone(trained.place / "net", rebuilt(trained.result.checkpoint), texts)
    np.testing.assert_allclose(logits, expected, atol=1e-5, rtol=1e-4)


def test_modules_and_tokenizers_in_memory(made, tmp_path):
    texts, tokenizer = sentences(ROWS), make_tokenizer()
    teacher = transformers.AutoModelForSequenceClassification.from_pretrained(made / "net")
    options = {"data": str(made / "d.csv"), "input_column": "text", "id_column": "uid"}
    softlabels.dump(teacher=teacher, tokenizer=tokenizer, dtype="float32",
                    out=str(tmp_path / "dump"), **options)  # fmt: skip
    stored = every(DumpReader(Folder(str(tmp_path / "dump"))))
    np.testing.assert_allclose(stored, alone(made / "net", teacher.eval(), texts), atol=2e-4,
                               rtol=1e-4)  # fmt: skip
    student = transformers.BertForSequenceClassification(CONFIGS["absolute"]())
    softlabels.train(dump=str(tmp_path / "dump"), student=student, tokenizer=tokenizer,
                     out=str(tmp_path / "s.pt"), **FAST)  # fmt: skip
    by_file = softlabels.evaluate(checkpoint=str(tmp_path / "s.pt"), split="train")
    live = softlabels.evaluate(checkpoint=student, tokenizer=tokenizer, split="train", **options)
    assert live["nll"] == pytest.approx(by_file["nll"], rel=1e-5)
    logits = torch.from_numpy(alone(made / "net", student, texts))
    labels = torch.tensor([["bad", "fair", "good"].index(label) for label in labels_of(texts)])
    expected = torch.nn.functional.cross_entropy(logits, labels)
    assert live["nll"] == pytest.approx(float(expected), rel=1e-4)


def test_columns_of_tokens_train_the_same_student_as_their_texts(made, tmp_path):
    texts = sentences(ROWS)
    encoded = transformers.AutoTokenizer.from_pretrained(made / "net")(texts)
    write(tmp_path / "tokens.parquet", input_ids=encoded["input_ids"],
          label=labels_of(texts))  # fmt: skip
    options = {"model": f"hf:{made / 'net'}", "weights": "pretrained", "epochs": 1,
               "batch_size": 16, "lr": 1e-2}  # fmt: skip
    first = softlabels.fit(data=str(made / "d.csv"), input_column="text",
                           out=str(tmp_path / "a.pt"), **options).checkpoint  # fmt: skip
    second = softlabels.fit(data=str(tmp_path / "tokens.parquet"), out=str(tmp_path / "b.pt"),
                            **options).checkpoint  # fmt: skip
    assert second.tokenizer is None
    for name, weights in first.state_dict.items():
        assert torch.equal(weights, second.state_dict[name]), name
    softlabels.dump(teacher=str(tmp_path / "b.pt"), out=str(tmp_path / "dump"))
    learned = softlabels.train(dump=str(tmp_path / "dump"), student=f"hf:{made / 'small'}",
                               out=str(tmp_path / "s.pt"), **FAST)  # fmt: skip
    measured = softlabels.evaluate(checkpoint=str(tmp_path / "s.pt"), holdout=True)
    assert measured["nll"] == pytest.approx(learned.metrics["held_out"]["nll"], rel=1e-4)
    further = softlabels.fit(data=str(tmp_path / "tokens.parquet"), out=str(tmp_path / "c.pt"),
                             **options | {"weights": str(tmp_path / "a.pt")})  # fmt: skip
    assert further.checkpoint.tokenizer is None
    saved = softlabels.export(checkpoint=str(tmp_path / "b.pt"), to="hf", out=str(tmp_path / "hf"))
    assert saved.inputs == "input_ids, attention_mask, int64 [N, L]"
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "hf").eval()
    expected = alone(made / "net", rebuilt(second), texts[:9])
    np.testing.assert_allclose(alone(made / "net", model, texts[:9]), expected, atol=1e-6)


def test_pairs_whose_tokens_are_of_one_kind_are_exported_so(tmp_path):
    """As those of RoBERTa, whose model knows one kind and whose tokenizer says none."""
    save_classifier(tmp_path / "net", "offset", type_vocab_size=1, max_position_embeddings=64)
    write(tmp_path / "d.csv", text=sentences(40), other=sentences(40, 7),
          label=labels_of(sentences(40)))  # fmt: skip
    softlabels.fit(model=f"hf:{tmp_path / 'net'}", data=str(tmp_path / "d.csv"), epochs=1,
                   input_column="text,other", out=str(tmp_path / "t.pt"))  # fmt: skip
    done = softlabels.export(checkpoint=str(tmp_path / "t.pt"), to="pt2")
    assert done.inputs.startswith("input_ids, attention_mask, int64 [N, L]")


def test_a_model_that_reads_the_end_of_a_text_is_exported(made, tmp_path):
    """As T5 and BART, which want that token in each row, and as often in all."""
    config = transformers.T5Config(vocab_size=24, d_model=16, d_kv=8, d_ff=32, num_layers=1,
                                   num_heads=2, eos_token_id=3, num_labels=3,
                                   decoder_start_token_id=0)  # fmt: skip
    config.architectures = ["T5ForSequenceClassification"]
    config.save_pretrained(tmp_path / "small")
    softlabels.fit(model=f"hf:{tmp_path / 'small'}", tokenizer=str(made / "net"), epochs=1,
                   data=str(made / "d.csv"), input_column="text",
                   out=str(tmp_path / "t.pt"))  # fmt: skip
    done = softlabels.export(checkpoint=str(tmp_path / "t.pt"), to="hf")
    assert done.inputs == "texts, by its tokenizer"
    with pytest.raises(ExportError, match=r"by torch.export: .*\. --to hf writes it as transf"):
        softlabels.export(checkpoint=str(tmp_path / "t.pt"), to="pt2", out=str(tmp_path / "p"))


def test_names_of_classes_that_are_not_the_datas(made, tmp_path):
    """A module keeps those of its configuration, which a warning says; an export has none of it."""
    config = CONFIGS["absolute"]()
    config.id2label = {0: "good", 1: "bad", 2: "fair"}
    module = transformers.BertForSequenceClassification(config)
    lines = Lines()
    softlabels.train(dump=str(made / "dump"), student=module, tokenizer=str(made / "net"),
                     out=str(tmp_path / "s.pt"), progress=lines, **FAST)  # fmt: skip
    assert "calls the classes good, bad, fair; they are numbered as in the data, bad" in str(lines)
    numbers = [["bad", "fair", "good"].index(label) for label in labels_of(sentences(ROWS))]
    write(tmp_path / "n.csv", text=sentences(ROWS), label=numbers)
    module.save_pretrained(tmp_path / "net")
    softlabels.fit(model=f"hf:{tmp_path / 'net'}", tokenizer=str(made / "net"), epochs=1,
                   data=str(tmp_path / "n.csv"), out=str(tmp_path / "t.pt"))  # fmt: skip
    softlabels.export(checkpoint=str(tmp_path / "t.pt"), to="hf", out=str(tmp_path / "hf"))
    saved = transformers.AutoConfig.from_pretrained(tmp_path / "hf")
    assert saved.id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}


def test_pairs_with_several_labels_in_fp16(tmp_path, cli):
    """Both texts in two columns; the measures are those of each pair alone, by hand."""
    save_classifier(tmp_path / "net", problem_type="multi_label_classification",
                    max_position_embeddings=64)  # fmt: skip
    config, columns = CONFIGS["absolute"](), [sentences(40), sentences(40, 7)]
    config.num_hidden_layers, config.max_position_embeddings = 1, 64
    config.architectures = ["BertForSequenceClassification"]
    config.save_pretrained(tmp_path / "small")
    some = [["good"], [], ["bad", "fair"], ["bad"]]
    write(tmp_path / "d.jsonl", a=columns[0], b=columns[1], labels=some * 10)
    pair = {"data": str(tmp_path / "d.jsonl"), "input_column": "a,b", "label_column": "labels"}
    dump, out = str(tmp_path / "dump"), str(tmp_path / "s.pt")
    teacher = f"hf:{tmp_path / 'net'}"
    softlabels.dump(teacher=teacher, **pair, task="multilabel", out=dump)
    shown = cli("show", "dump", "--rows", 1).out
    assert f"    a: {columns[0][0]}"[:60] in shown
    assert f"    b: {columns[1][0]}"[:60] in shown
    assert "label good *" in shown
    result = softlabels.train(dump=dump, student=f"hf:{tmp_path / 'small'}", T=2, epochs=2, lr=0.01,
                              batch_size=8, precision="fp16", out=out)  # fmt: skip
    checkpoint = result.checkpoint
    logits = torch.from_numpy(alone(tmp_path / "net", rebuilt(checkpoint), *columns))
    numbers = {name: place for place, name in enumerate(["bad", "fair", "good"])}
    expected = torch.zeros(40, 3)
    for row in range(40):
        for name in some[row % 4]:
            expected[row, numbers[name]] = 1
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, expected, reduction="sum")
    measured = softlabels.evaluate(checkpoint=out, **pair, split="train", against=dump)
    assert measured["nll"] == pytest.approx(float(loss) / 40, rel=1e-4)
    stored = every(DumpReader(Folder(str(tmp_path / "dump"))))
    theirs, ours = torch.from_numpy(stored).double().sigmoid(), logits.double().sigmoid()
    kl = theirs * (theirs / ours).log() + (1 - theirs) * ((1 - theirs) / (1 - ours)).log()
    assert measured["against"]["kl"] == pytest.approx(float(kl.sum()) / 40, rel=2e-3)


@pytest.mark.parametrize("kind", [Plain, Pooled])
def test_own_modules_that_take_tokens(made, tmp_path, kind):
    """A factory by its name, with a model of transformers inside and without."""
    factory = "tests.text_models:" + ("Plain" if kind is Plain else "make_pooled")
    out = str(tmp_path / "s.pt")
    softlabels.train(dump=str(made / "dump"), student=factory, T=2, epochs=1, batch_size=16,
                     tokenizer=str(made / "net"), out=out)  # fmt: skip
    checkpoint = Checkpoint.read(Path(out))
    module = Plain(3) if kind is Plain else make_pooled()
    module.load_state_dict(checkpoint.state_dict)
    tokenizer, texts = make_tokenizer(), sentences(ROWS)
    given = [tokenizer(text, return_tensors="pt") for text in texts]
    with torch.inference_mode():
        logits = torch.cat([module(t["input_ids"], t["attention_mask"]) for t in given])
    labels = torch.tensor([["bad", "fair", "good"].index(label) for label in labels_of(texts)])
    expected = torch.nn.functional.cross_entropy(logits, labels)
    measured = softlabels.evaluate(checkpoint=out, data=str(made / "d.csv"), split="train",
                                   input_column="text", model=factory)  # fmt: skip
    assert measured["nll"] == pytest.approx(float(expected), rel=1e-4)


def test_modules_that_do_not_take_tokens_or_no_mask_are_refused(made, tmp_path):
    options = {"dump": str(made / "dump"), "T": 2.0, "out": str(tmp_path / "s.pt")}
    with pytest.raises(UsageError, match="takes input_ids and attention_mask, with --tokenizer"):
        softlabels.train(student=torch.nn.Linear(3, 3), **options)
    with pytest.raises(UsageError, match="Unmasked takes no attention_mask, and rows have several"):
        softlabels.train(student=make_pooled(Unmasked), tokenizer=make_tokenizer(), **options)


def test_what_is_cut_is_counted_and_remembered(made, tmp_path):
    config = CONFIGS["absolute"]()
    config.max_position_embeddings = 12
    config.save_pretrained(tmp_path / "short")
    options = {"dump": str(made / "dump"), "student": f"hf:{tmp_path / 'short'}",
               "out": str(tmp_path / "s.pt")} | FAST  # fmt: skip
    with pytest.raises(SourceError, match=r"has \d+ tokens, and the model takes 12: --truncate"):
        softlabels.train(**options)
    lines = Lines()
    trained = softlabels.train(**options, truncate=True, progress=lines)
    longer = sum(len(text.split()) + 2 > 12 for text in sentences(ROWS))
    assert f"; {longer} of them are cut" in str(lines)
    assert trained.checkpoint.data["truncated"] == longer
    measured = softlabels.evaluate(checkpoint=str(tmp_path / "s.pt"), holdout=True)  # cut alike
    assert measured["nll"] == pytest.approx(trained.metrics["held_out"]["nll"], rel=1e-4)


def test_a_tokenizer_that_is_not_known_or_not_the_students_is_refused(made, tmp_path, monkeypatch):
    options = {"dump": str(made / "dump"), "out": str(tmp_path / "s.pt"), "T": 2.0}
    small = f"hf:{made / 'small'}"
    make_tokenizer(more=9).save_pretrained(tmp_path / "large")
    with pytest.raises(TeacherError, match=r"has 29 tokens, and the model Bert\w+ knows 24"):
        softlabels.train(student=small, tokenizer=str(tmp_path / "large"), **options)
    save_classifier(tmp_path / "decoder", "decoder", pad_token_id=None)
    with pytest.raises(TeacherError, match="names no pad token"):
        softlabels.train(student=f"hf:{tmp_path / 'decoder'}", **options)
    with pytest.raises(UsageError, match="--tokenizer is for models that read texts"):
        softlabels.train(dump=str(made / "dump"), tokenizer="x", student="linear", T=2.0,
                         preprocess=lambda text: np.float32([len(text)]), alpha=1.0,
                         out=str(tmp_path / "s.pt"))  # fmt: skip
    monkeypatch.setenv("SOFTLABELS_CACHE", str(tmp_path / "empty"))
    with pytest.raises(UsageError, match="is not known to this machine: name the folder of one"):
        softlabels.train(student=small, source=str(made / "d.csv"), **options)
    with pytest.raises(UsageError, match="has no tokenizer of its own: name the folder of one"):
        softlabels.fit(model=small, data=str(made / "d.csv"), input_column="text",
                       out=str(tmp_path / "t.pt"))  # fmt: skip
    assert not (tmp_path / "s.pt").exists()


def test_the_loop_of_the_docs_over_texts(made, tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "loops.md").read_text(encoding="utf-8")
    code = re.search(r"^## Texts\n.*?```python\n(.*?)```", page, re.DOTALL | re.MULTILINE)
    for name in ("net", "small"):
        shutil.copytree(made / name, tmp_path / name)
    shutil.copytree(made / "dump", tmp_path / "data" / "reviews-net")
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "loop"}
    exec(compile(code[1], "loops.md, Texts", "exec"), names)
    losses = np.array(names["losses"])
    assert losses[-10:].mean() < 0.8 * losses[:10].mean()


def test_a_training_that_stopped_goes_on_to_the_same_weights(made, tmp_path, monkeypatch):
    from softlabels.students import state_file, trainer

    monkeypatch.setattr(state_file, "SAVE_SECONDS", 0.0)
    options = {"dump": str(made / "dump"), "student": f"hf:{made / 'small'}"} | FAST
    whole = softlabels.train(**options, out=str(tmp_path / "a.pt"))
    step, taken = trainer.Optimization.step, []

    def stops(self, *given):
        taken.append(1)
        if len(taken) == 9:  # in the second epoch
            raise OSError("gone")
        return step(self, *given)

    with monkeypatch.context() as patched:
        patched.setattr(trainer.Optimization, "step", stops)
        with pytest.raises(OSError, match="gone"):
            softlabels.train(**options, out=str(tmp_path / "b.pt"))
    lines = Lines()
    resumed = softlabels.train(**options, out=str(tmp_path / "b.pt"), resume=True, progress=lines)
    assert "goes on after epoch 1 of 2, step " in str(lines)
    for name, weights in whole.checkpoint.state_dict.items():
        assert torch.equal(weights, resumed.checkpoint.state_dict[name]), name


@pytest.mark.slow
@pytest.mark.parametrize("how", ["compiled", "two processes"])
def test_other_ways_to_train_give_the_same_student(made, tmp_path, how):
    config = CONFIGS["absolute"]()
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    config.save_pretrained(tmp_path / "plain")
    words = ["train", made / "dump", "--student", f"hf:{tmp_path / 'plain'}", "--T", 2, "--epochs",
             2, "--batch-size", 16, "--lr", 0.01, "--holdout", 0, "--device", "cpu"]  # fmt: skip
    run = [sys.executable, "-m", "softlabels"]
    ranks = ["torch.distributed.run", "--nproc-per-node", "2", "--master-port", free_port(), "-m"]
    other = run if how == "compiled" else [*run[:2], *ranks, run[2]]
    for program, out, more in ((run, "a.pt", []), (other, "b.pt", ["--compile"] * (other is run))):
        command = [*program, *map(str, words), *more, "--out", out]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    first, second = (torch.load(tmp_path / name)["state_dict"] for name in ("a.pt", "b.pt"))
    for name, weights in first.items():
        torch.testing.assert_close(weights, second[name], atol=1e-4, rtol=1e-3, msg=name)
